"""Inserting breakpoints into the client's bytes."""

from __future__ import annotations

import pytest

from gateway.core.edit import apply_placement
from gateway.core.placement import Breakpoint, Placement
from gateway.core.prompt import TTL
from gateway.core.prompt_reader import read_prompt


def placed(raw: bytes, *points: tuple[int, TTL]) -> bytes:
    placement = Placement(breakpoints=tuple(Breakpoint(block, ttl, "A test.") for block, ttl in points))
    return b"".join(apply_placement(read_prompt(raw), placement))


FIVE, HOUR = TTL.FIVE_MINUTES, TTL.ONE_HOUR


def test_an_empty_placement_gives_the_same_object_back() -> None:
    raw = b'{"model":"m","system":"s"}'
    (piece,) = apply_placement(read_prompt(raw), Placement())

    assert piece is raw


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"s"', '[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]'),
        (r'"\u00e9\n\"é"', r'[{"type":"text","text":"\u00e9\n\"é","cache_control":{"type":"ephemeral"}}]'),
        (
            '[{"type":"text","text":"s"}]',
            '[{"type":"text","text":"s","cache_control":{"type":"ephemeral"}}]',
        ),
        (
            '[ {"text" : "s" , "type":"text"\n} ]',
            '[ {"text" : "s" , "type":"text","cache_control":{"type":"ephemeral"}\n} ]',
        ),
        ("[{}]", '[{"cache_control":{"type":"ephemeral"}}]'),
        ("[{ \n}]", '[{"cache_control":{"type":"ephemeral"} \n}]'),
        ('[{"a":{}}]', '[{"a":{},"cache_control":{"type":"ephemeral"}}]'),
    ],
)
def test_a_breakpoint_is_the_blocks_last_member(before: str, after: str) -> None:
    raw = '{"system":%s , "model":"m" }\n'

    assert placed((raw % before).encode(), (0, FIVE)) == (raw % after).encode()


def test_trap_16_numbers_escapes_and_spaces_stay_as_the_client_wrote_them() -> None:
    data = rb'{"x":1.0,"y":1e3,"z":12345678901234567890,"\u0061":"\/"}'
    use = b'{"type":"tool_use","id":"t","name":"n","input":%b}' % data
    raw = b'{"model" : "m","messages":[{"role":"user","content":[%b]}],"temperature":1.0}' % use
    marked = use[:-1] + b',"cache_control":{"type":"ephemeral","ttl":"1h"}}'

    assert placed(raw, (0, HOUR)) == raw.replace(use, marked)


def test_trap_17_a_lone_surrogate_survives() -> None:
    raw = rb'{"model":"m","system":"\ud800"}'
    expected = (
        rb'{"model":"m","system":[{"type":"text","text":"\ud800","cache_control":{"type":"ephemeral"}}]}'
    )

    assert placed(raw, (0, FIVE)) == expected


def test_fields_may_stand_in_any_order() -> None:
    raw = b'{"messages":[{"role":"user","content":"q"}],"system":"s","tools":[{"name":"n"}],"model":"m"}'
    control = b',"cache_control":{"type":"ephemeral"}'
    expected = (
        b'{"messages":[{"role":"user","content":[{"type":"text","text":"q"%b}]}],'
        b'"system":[{"type":"text","text":"s"%b}],"tools":[{"name":"n","cache_control":'
        b'{"type":"ephemeral","ttl":"1h"}}],"model":"m"}' % (control, control)
    )

    assert placed(raw, (0, HOUR), (1, FIVE), (2, FIVE)) == expected


def test_a_breakpoint_without_a_block_is_an_error() -> None:
    with pytest.raises(IndexError):
        placed(b'{"model":"m"}', (0, FIVE))


def test_large_parts_are_not_copied() -> None:
    raw = b'{"model":"m","system":"%b"}' % (b"x" * 100_000)
    prompt = read_prompt(raw)
    pieces = apply_placement(prompt, Placement(breakpoints=(Breakpoint(0, FIVE, "A test."),)))

    assert all(isinstance(piece, memoryview) and piece.obj is raw for piece in pieces if len(piece) > 100)
