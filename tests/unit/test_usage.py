"""A usage object means what the API's docs say, also where they contradict each other."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.usage import MAX_TOKENS, Usage, read_usage, unread_counts
from tests.support.streams import usage


def test_reads_every_count_under_our_names() -> None:
    raw = usage(
        100, 50, read=2000, write_5m=300, write_1h=400, speed="fast",
        server_tool_use={"web_search_requests": 3, "web_fetch_requests": 2, "code_execution_requests": 1},
    )  # fmt: skip
    expected = Usage(
        uncached_input_tokens=100,
        cache_read_tokens=2000,
        cache_write_5m_tokens=300,
        cache_write_1h_tokens=400,
        output_tokens=50,
        web_search_requests=3,
        web_fetch_requests=2,
        code_execution_requests=1,
        model="m",
        service_tier="standard",
        inference_geo="global",
        speed="fast",
    )

    assert expected == read_usage(raw, model="m")
    assert expected.prompt_tokens == 2800


def test_trap_56_adds_neither_thinking_to_output_nor_the_split_to_the_total_of_writes() -> None:
    """Both are breakdowns of what is counted already."""
    raw = usage(1, 500, write_5m=30, write_1h=70, output_tokens_details={"thinking_tokens": 400})

    read = read_usage(raw)

    assert read.output_tokens == 500
    assert read.prompt_tokens == 101


def test_trap_57_takes_writes_without_a_split_for_five_minutes() -> None:
    raw = {"input_tokens": 1, "cache_creation_input_tokens": 500, "output_tokens": 1}

    assert read_usage(raw).cache_write_5m_tokens == 500


@pytest.mark.parametrize(
    ("total", "five", "hour", "expected"),
    [
        (100, 30, 70, (30, 70)),
        (150, 30, 70, (80, 70)),  # a loop wrote 50 more since the split was stated
        (50, 30, 70, (0, 50)),
        (None, 30, 70, (30, 70)),
        ("?", 30, 70, (30, 70)),
        (0, 0, 0, (0, 0)),
    ],
)
def test_lets_the_total_of_writes_rule_and_the_split_say_how_much_is_one_hour(
    total: Any, five: int, hour: int, expected: tuple[int, int]
) -> None:
    raw = {
        "cache_creation_input_tokens": total,
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
    }
    read = read_usage(raw)

    assert expected == (read.cache_write_5m_tokens, read.cache_write_1h_tokens)


def test_trap_55_reads_each_iteration_with_the_model_that_it_names() -> None:
    """Compaction, advisors and fallbacks are entries of their own, some of other models."""
    raw = usage(30, 3, iterations=[
        {"type": "compaction", **usage(1000, 100)},
        {"type": "message", **usage(30, 3)},
        {"type": "advisor_message", "model": "claude-fable-5-2", **usage(7, 70)},
    ])  # fmt: skip
    read = read_usage(raw, model="claude-opus-5-5")

    assert [part.uncached_input_tokens for part in read.iterations] == [1000, 30, 7]
    assert [part.model for part in read.iterations] == ["claude-opus-5-5"] * 2 + ["claude-fable-5-2"]
    assert read.uncached_input_tokens == 30


def test_adds_the_totals_where_only_iterations_outside_them_are_listed() -> None:
    raw = usage(30, 3, iterations=[{"type": "compaction", **usage(1000, 100)}])

    assert [part.uncached_input_tokens for part in read_usage(raw).iterations] == [30, 1000]


@pytest.mark.parametrize("within", ["message", "fallback_message"])
def test_the_totals_stand_in_for_iterations_that_cannot_be_read(within: str) -> None:
    odd = {"type": within, "input_tokens": -1, "output_tokens": 3}
    raw = usage(
        30, 3, iterations=[odd, {"type": within, **usage(9, 1)}, {"type": "compaction", **usage(7, 1)}]
    )

    assert [part.uncached_input_tokens for part in read_usage(raw).iterations] == [30, 7]
    assert unread_counts(raw) == 1
    assert read_usage(usage(30, 3, iterations=[odd])) == read_usage(usage(30, 3))


@pytest.mark.parametrize(
    "nonsense", [None, -1, 1.5, "7", True, [], {}, MAX_TOKENS + 1, float("inf")], ids=repr
)
def test_reads_nonsense_as_absent(nonsense: Any) -> None:
    raw = dict.fromkeys(
        ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens",
         "cache_creation", "server_tool_use", "service_tier", "iterations", "speed", "fallback_credit"),
        nonsense,
    )  # fmt: skip
    read = read_usage(raw)

    assert read.prompt_tokens == read.output_tokens == 0
    assert read.iterations == ()
