"""Properties of `Changes` over generated bodies: it never cries wolf, never grows, and keeps no text."""

from __future__ import annotations

import gc
from array import array
from copy import deepcopy
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.changes import Changes
from gateway.core.comparison import compare
from gateway.core.misses import MissCause
from gateway.core.prompt_reader import read_prompt
from gateway.core.typical import block_tokens
from tests.support.bodies import WRITERS, bodies, desk_body, dump, words
from tests.support.changing import Looker
from tests.support.prices import model_table

CANARY = "Zanzibar7Canary"


def kept_by(changes: Changes) -> bytes:
    """Everything that can be reached from it, as bytes."""
    seen: set[int] = set()
    found: list[bytes] = []
    pending: list[Any] = [changes]
    while pending:
        one = pending.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType | BuiltinFunctionType):
            continue
        seen.add(id(one))
        if isinstance(one, str):
            found.append(one.encode())
        elif isinstance(one, bytes | bytearray | memoryview):
            found.append(bytes(one))
        elif isinstance(one, array):
            found.append(one.tobytes())
        elif isinstance(one, msgspec.Struct):  # the collector looks into some of them only
            pending.extend(getattr(one, name) for name in one.__struct_fields__)
        else:
            pending.extend(gc.get_referents(one))
    return b"\n".join(found)


@given(body=bodies(), again=st.integers(1, 3), write=st.sampled_from(WRITERS))
@settings(max_examples=60, deadline=None)
def test_a_prompt_that_comes_again_never_changed(body: dict[str, Any], again: int, write: Any) -> None:
    looker = Looker()
    for _ in range(again):
        looker.ask(write(body))

    assert looker.ask(write(body)) is None


@given(one=bodies(), other=bodies(), write=st.sampled_from(WRITERS))
@settings(max_examples=60, deadline=None)
def test_equal_tools_and_system_are_never_told_as_changed(
    one: dict[str, Any], other: dict[str, Any], write: Any
) -> None:
    looker, both = Looker(), dict(other)
    for key in ("tools", "system"):
        both.pop(key, None)
        if key in one:
            both[key] = one[key]
    looker.ask(write(one))
    miss = looker.ask(write(both))

    assert miss is None or miss.cause is not MissCause.CHANGED or miss.where.startswith("messages")


@given(one=bodies(), other=bodies(), write=st.sampled_from(WRITERS))
@settings(max_examples=60, deadline=None)
def test_any_two_bodies_can_be_compared(one: dict[str, Any], other: dict[str, Any], write: Any) -> None:
    """Exactly and by digests; and what is found lies within the prompt and has a sentence."""
    looker, prompt = Looker(), read_prompt(write(other))
    looker.ask(write(one))
    ends = block_tokens(prompt, model_table().facts(prompt.model))
    found = [*compare(read_prompt(write(one)), prompt, ends), looker.ask(write(other))]

    for miss in found:
        assert miss is None or (0 <= miss.block <= len(prompt.blocks) and miss.tokens >= 0 and miss.reason)


@given(seeds=st.lists(st.tuples(st.integers(0, 40), st.integers(0, 9), st.integers(0, 6)), max_size=60))
@settings(max_examples=8, deadline=None)
def test_memory_stays_bounded(seeds: list[tuple[int, int, int]]) -> None:
    looker = Looker(capacity_bytes=1 << 17)
    for app, chat, turns in seeds:
        looker.ask(desk_body(app=app, chat=chat, turns=turns), workspace=f"w{app % 7}")

        assert looker.changes.size_bytes <= 1 << 17


def test_nothing_of_a_prompts_text_is_kept() -> None:
    looker = Looker()
    for number in range(6):
        body = deepcopy(desk_body(turns=number, slot=f"{CANARY} 10:04:{number:02}", speed=CANARY))
        body["tools"][0]["description"] += CANARY
        body["tools"][0]["name"] = CANARY
        body["messages"][0]["content"] = f"{CANARY} {number} " + words(900, 1)
        body["messages"][-1]["content"] = CANARY
        looker.ask(dump(body), beta=CANARY)
    kept = kept_by(looker.changes)

    assert len(kept) > 2_000
    assert CANARY.encode() not in kept
    for phrase in (b"10:04", b"tool_1", words(60, 101).encode(), words(60, 1_001).encode()):
        assert phrase not in kept


def test_the_search_for_text_would_find_it() -> None:
    looker = Looker()
    looker.ask(desk_body(turns=3), workspace=CANARY)

    assert CANARY.encode() in kept_by(looker.changes)
