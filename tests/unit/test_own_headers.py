"""The gateway's own lines on an answer: words from closed sets and numbers, only where they are wanted."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.exchange import Exchange, Hold
from gateway.core.misses import Miss, MissCause
from gateway.core.own_headers import own_headers
from gateway.core.placement import Breakpoint, Placement
from gateway.core.prompt import TTL
from gateway.core.savings import Cohort
from tests.support.fakes import make_rules

ROOT = Path(__file__).parents[2]
PLACED = Placement(
    breakpoints=(Breakpoint(0, TTL.FIVE_MINUTES, "a reason"), Breakpoint(3, TTL.FIVE_MINUTES, "another")),
    read_tokens=12_000,
    write_5m_tokens=700,
    write_1h_tokens=100,
    miss=Miss(5, MissCause.CHANGED, 400, looks_like="a timestamp"),
)


def an_exchange(placement: Placement | None, **changes: object) -> Exchange:
    return Exchange(
        id="gw_1",
        endpoint="messages",
        method="POST",
        received_at=0.0,
        started=0.0,
        placement=placement,
        **changes,  # type: ignore[arg-type]
    )


def test_they_say_what_was_placed_expected_and_set_aside(tmp_path: Path) -> None:
    exchange = an_exchange(PLACED, hold=Hold(seconds=0.3504), estimated_nanousd=1_234_567_890)

    assert own_headers(exchange, make_rules(tmp_path, {})) == [
        (b"x-gateway-exchange-id", b"gw_1"),
        (b"x-gateway-breakpoints", b"2"),
        (b"x-gateway-cache", b"placed; read=12000; write=800; miss=changed; held=350"),
        (b"x-gateway-reserved-usd", b"1.234567890"),
    ]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"placement": Placement(reason="too short")}, b"none"),
        ({"placement": Placement(holdout=True, miss=PLACED.miss)}, b"holdout"),
        ({"placement_applied": False}, b"shadow; read=12000; write=800; miss=changed"),
        (
            {"placement": Placement(miss=Miss(5, MissCause.OTHER_WORKSPACE, 400))},
            b"none",  # another workspace's prompts are nobody's business
        ),
        ({"placement": None}, None),
        ({"endpoint": "count_tokens"}, None),
    ],
)
def test_what_there_is_not_to_say_is_left_out(
    changes: dict[str, object], said: bytes | None, tmp_path: Path
) -> None:
    exchange = an_exchange(PLACED)
    for name, value in changes.items():
        setattr(exchange, name, value)

    assert dict(own_headers(exchange, make_rules(tmp_path, {}))).get(b"x-gateway-cache") == said


def test_in_shadow_mode_no_breakpoint_was_added(tmp_path: Path) -> None:
    headers = dict(own_headers(an_exchange(PLACED, placement_applied=False), make_rules(tmp_path, {})))

    assert headers[b"x-gateway-breakpoints"] == b"0"


def test_without_the_switch_only_the_id_is_said(tmp_path: Path) -> None:
    rules = replace(make_rules(tmp_path, {}), cost_headers=False)

    assert own_headers(an_exchange(PLACED, estimated_nanousd=5), rules) == [
        (b"x-gateway-exchange-id", b"gw_1")
    ]


def test_every_word_is_in_the_document() -> None:
    text = (ROOT / "config" / "README.md").read_text(encoding="utf-8")
    section = text.partition("\n## Response headers\n")[2].partition("\n## ")[0]
    words = set(re.findall(r"`([a-z_-]+)`", section))

    assert {word.value for word in (*Cohort, *MissCause)} <= words
    assert {"x-gateway-exchange-id", "x-gateway-breakpoints", "x-gateway-cache"} <= words
