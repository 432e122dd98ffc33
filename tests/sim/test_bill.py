"""The simulator's invoice against figures worked out by hand from the price page."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from gateway.sim.bill import PRICES, cost_nanousd, is_billed
from gateway.sim.catalogue import CATALOGUE
from gateway.sim.wire import JsonObject


def day(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


NOVEMBER = day("2026-11-20")


def usage(
    plain: int = 0, w5: int = 0, w1h: int = 0, read: int = 0, out: int = 0, **more: object
) -> JsonObject:
    return {
        "input_tokens": plain,
        "cache_creation_input_tokens": w5 + w1h,
        "cache_creation": {"ephemeral_5m_input_tokens": w5, "ephemeral_1h_input_tokens": w1h},
        "cache_read_input_tokens": read,
        "output_tokens": out,
        **more,
    }


OPUS = usage(100, w5=50_000, read=150_000, out=1_000)


@pytest.mark.parametrize(
    ("model", "used", "dollars"),
    [
        ("claude-opus-5-5", OPUS, "0.3004"),
        ("claude-opus-5-5", OPUS | {"service_tier": "batch"}, "0.1502"),
        ("claude-opus-5-5", OPUS | {"inference_geo": "us"}, "0.33044"),
        ("claude-opus-5-5", OPUS | {"inference_geo": "us", "service_tier": "batch"}, "0.16522"),
        ("claude-opus-5-5", OPUS | {"speed": "fast"}, "0.6008"),
        ("claude-haiku-5-5", usage(1_000, read=99_000, out=500), "0.00134"),
        ("claude-haiku-5-5", usage(1_001, read=99_000, out=500), "0.0067005"),
        ("claude-sonnet-5-5", usage(200, read=10_000, w1h=20_000, w5=15_000, out=300), "0.1219"),
        ("claude-fable-5-2", usage(8, read=100_000), "0.020064"),
        ("claude-fable-5-2", usage(8, w5=100_000), "1.000064"),
        ("claude-haiku-4-5-20251001", usage(1_000_000, out=1_000_000), "6"),
        ("claude-opus-5-5", usage(server_tool_use={"web_search_requests": 3}), "0.03"),
    ],
)
def test_prices_the_published_vectors(model: str, used: JsonObject, dollars: str) -> None:
    whole, _, part = dollars.partition(".")
    expected = int(whole) * 10**9 + int(part.ljust(9, "0") or "0")

    assert cost_nanousd(model, used, NOVEMBER) == expected


def test_a_hundred_requests_read_a_prefix_written_once() -> None:
    first = cost_nanousd("claude-opus-4-7", usage(w5=100_000), NOVEMBER)
    later = cost_nanousd("claude-opus-4-7", usage(read=100_000), NOVEMBER)

    assert first + 99 * later == 5_575_000_000


def test_price_of_the_day_of_the_request_counts() -> None:
    """Sonnet 5.5 reads cost half from 2026-10-07 on."""
    used = usage(read=1_000_000)

    assert cost_nanousd("claude-sonnet-5-5", used, day("2026-10-06T23:59:59")) == 200_000_000
    assert cost_nanousd("claude-sonnet-5-5", used, day("2026-10-07")) == 100_000_000


def test_a_fraction_of_a_nanodollar_is_rounded_up_once() -> None:
    # One haiku read in a batch in the US: 0.01 x 0.5 x 1.1 dollars per million = 5.5 nano-dollars.
    used = usage(read=1, inference_geo="us", service_tier="batch")

    assert cost_nanousd("claude-haiku-5-5", used, NOVEMBER) == 6
    assert cost_nanousd("claude-haiku-5-5", used | {"cache_read_input_tokens": 2}, NOVEMBER) == 11


def test_iterations_are_billed_each_by_its_own_model_instead_of_the_totals() -> None:
    """Compaction, advisor and fallback iterations are outside the totals."""
    iterations = [
        {"type": "message", "input_tokens": 1_000_000, "output_tokens": 0},
        {
            "type": "advisor_message",
            "model": "claude-opus-5-5",
            "input_tokens": 1_000_000,
            "output_tokens": 0,
        },
    ]
    used = usage(5, out=5, iterations=iterations)

    assert cost_nanousd("claude-sonnet-5", used, NOVEMBER) == 2_000_000_000 + 4_000_000_000


def test_writes_without_a_split_are_five_minute_ones() -> None:
    used: JsonObject = {"input_tokens": 0, "cache_creation_input_tokens": 1_000_000, "output_tokens": 0}

    assert cost_nanousd("claude-opus-5-5", used, NOVEMBER) == 5_000_000_000


def test_refusals_before_output_are_free_but_for_three_categories() -> None:
    def billed(category: str, at: float, content: object = ()) -> bool:
        return is_billed("refusal", {"category": category}, content, at)

    assert not billed("cyber", NOVEMBER)
    assert billed("bio", NOVEMBER)
    assert not billed("bio", day("2026-09-23"))
    assert billed("cyber", NOVEMBER, [{"type": "text", "text": "So"}])


def test_every_model_of_the_catalogue_has_a_price() -> None:
    for row in CATALOGUE:
        assert any(row.id == name or row.id.startswith(f"{name}-20") for name in PRICES), row.id
