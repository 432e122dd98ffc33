"""What `gateway top` says of live calls: rates of a minute, or of as much of it as is known; the tightest
limit first."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from gateway.cli.top_figures import figures

NOW = 1_800_000_000


def instant(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")


def a_call(ended_seconds_ago: float = 0.0, **changes: Any) -> dict[str, Any]:
    return {
        "received_at": instant(NOW - ended_seconds_ago - 2),
        "duration_seconds": 2.0,
        "streaming": False,
        "state": "answered",
        "status": 200,
        "prompt_tokens": 100,
        "read_tokens": 75,
        "output_tokens": 10,
        "cost_nanousd": 1_000,
        "set_aside_nanousd": 0,
        **changes,
    }


def live(
    ended: list[dict[str, Any]], opened: list[dict[str, Any]] | None = None, **changes: Any
) -> dict[str, Any]:
    return {
        "at": instant(NOW),
        "open": opened or [],
        "ended": ended,
        "whole_since": instant(NOW - 600),
        "left_out": 0,
        "replicas": ["a"],
        "silent": [],
        "trouble": None,
        **changes,
    }


def test_rates_are_of_what_ended_within_the_last_minute() -> None:
    nothing = {"prompt_tokens": None, "read_tokens": 0, "output_tokens": None, "cost_nanousd": None}
    failed = a_call(10, state="failed", status=502, **nothing)
    last = figures(live([a_call(0), failed, a_call(59), a_call(61)]), None).last_minute

    assert (last.seconds, last.requests, last.failed) == (60, 3, 1)
    assert (last.prompt_tokens, last.output_tokens, last.cost_nanousd) == (200, 20, 2_000)
    assert last.read_share == 0.75
    assert last.per_minute(last.requests) == 3


def test_where_more_ended_than_is_kept_rates_are_of_the_time_that_is_known_whole() -> None:
    ended = [a_call(number / 50) for number in range(700)]
    last = figures(live(ended, whole_since=instant(NOW - 10)), None).last_minute

    assert last.seconds == pytest.approx(10, abs=0.1)
    assert last.per_minute(last.requests) == pytest.approx(3_000, rel=0.02)


def test_nothing_ended_is_no_rate_and_no_share() -> None:
    last = figures(live([]), None).last_minute

    assert (last.requests, last.read_share) == (0, None)


def test_what_is_open_is_counted_and_what_it_may_cost() -> None:
    opened = [a_call(streaming=True, set_aside_nanousd=5), a_call(set_aside_nanousd=6)]
    found = figures(live([], opened), None)

    assert (found.open, found.streaming, found.set_aside_nanousd) == (2, 1, 11)


def test_the_tightest_limit_comes_first_and_one_of_nothing_is_used_up() -> None:
    def budget(name: str, left: int, amount: int) -> dict[str, Any]:
        quantity = [{"value": value, "text": f"{value}"} for value in (left, amount)]
        return {
            "limit": name,
            "subject": "",
            "scope": "workspace",
            "left": quantity[0],
            "amount": quantity[1],
        }

    found = figures(live([]), {"budgets": [budget("a", 9, 10), budget("b", -1, 10), budget("c", 0, 0)]})

    assert [(limit.id, limit.used_share) for limit in found.limits] == [
        ("b", 1.1),
        ("c", 1.0),
        ("a", pytest.approx(0.1)),
    ]


def test_what_is_missing_is_said() -> None:
    found = figures(live([], replicas=["a", "b"], silent=["c"], left_out=3, trouble="It is away."), None)

    assert found.replicas == ["a", "b"]
    assert found.missing == [
        "c does not answer: its calls are missing.",
        "Other replicas are missing. It is away.",
        "3 more calls are open on other replicas.",
    ]
