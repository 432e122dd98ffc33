"""What is set aside: in strict mode never too little, in estimate mode what is typical."""

from __future__ import annotations

import base64
from fractions import Fraction
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.estimate import ASSUMED_SEARCHES, Estimate, estimate_spend, presumed_usage
from gateway.core.learned_estimates import LearnedEstimates, enough
from gateway.core.models import ModelFacts, ModelNames
from gateway.core.placement import Breakpoint, Placement
from gateway.core.pricing import PriceRow, PriceTable
from gateway.core.prompt import TTL
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import EstimateMode
from gateway.core.usage import Report, Usage
from tests.support.bodies import HOUR_MARK, MARK, dump, prose
from tests.support.prices import NOW, model_table, price_table

STRICT, TYPICAL = EstimateMode.STRICT, EstimateMode.ESTIMATE
MODEL = "claude-opus-5-5"
INPUT, OUTPUT = 4_000, 20_000
"""Nano-dollars per token of the model."""


def body(**more: Any) -> dict[str, Any]:
    text = [{"type": "text", "text": prose(2_000)}]
    return {"model": MODEL, "max_tokens": 1_000, "messages": [{"role": "user", "content": text}], **more}


def marked(mark: dict[str, str]) -> dict[str, Any]:
    text = [{"type": "text", "text": prose(2_000), "cache_control": mark}]
    return body(messages=[{"role": "user", "content": text}])


def estimate(
    request: dict[str, Any],
    mode: EstimateMode = STRICT,
    *ttls: TTL,
    geo: str | None = "global",
    cap: int = 8_192,
    expected: dict[str, int] | None = None,
) -> Estimate:
    """`expected`: what the placement says of tokens."""
    prompt = read_prompt(dump(request))
    return estimate_spend(
        prompt,
        Placement(breakpoints=tuple(Breakpoint(0, ttl, "test") for ttl in ttls), **(expected or {})),  # type: ignore[arg-type]
        model_table().facts(prompt.model),
        price_table(),
        mode=mode,
        at=NOW,
        output_cap_tokens=cap,
        default_geo=geo,
    )


def test_trap_60_strict_takes_every_byte_for_a_token_and_output_to_the_maximum() -> None:
    request = body()
    size = len(dump(request))

    found = estimate(request)

    assert (found.input_tokens, found.output_tokens, found.bounded) == (size, 1_000, True)
    assert found.nanousd == size * INPUT + 1_000 * OUTPUT
    assert found.amounts.requests == 1


@pytest.mark.parametrize(
    ("request_", "ttls", "percent"),
    [
        (body(), (), 100),
        (body(), (TTL.FIVE_MINUTES,), 125),
        (body(), (TTL.ONE_HOUR, TTL.FIVE_MINUTES), 200),
        (marked(MARK), (), 125),
        (marked(HOUR_MARK), (), 200),
        (body(cache_control=MARK), (), 125),
        (body(cache_control=HOUR_MARK), (TTL.FIVE_MINUTES,), 200),
        (marked({"type": "ephemeral", "ttl": "3h"}), (), 200),
        (body(cache_control={"type": "ephemeral", "ttl": "3h"}), (), 200),
        (body(thread={"type": "create"}), (), 200),
    ],
)
def test_trap_60_prices_the_prompt_at_the_dearest_class_that_its_breakpoints_allow(
    request_: dict[str, Any], ttls: tuple[TTL, ...], percent: int
) -> None:
    found = estimate(request_, STRICT, *ttls)

    assert found.nanousd == found.input_tokens * INPUT * percent // 100 + 1_000 * OUTPUT


@pytest.mark.parametrize(
    ("more", "geo", "percent"),
    [
        ({}, "us", 110),
        ({}, "global", 100),
        ({"inference_geo": "us"}, "global", 110),
        ({"inference_geo": "global"}, "us", 100),
        ({"inference_geo": None}, "us", 110),
        ({"speed": "fast"}, "global", 200),
        ({"speed": "standard"}, "global", 100),
        ({"speed": "fast", "inference_geo": "us"}, "global", 220),
    ],
)
def test_trap_60_multiplies_by_geography_and_speed(more: dict[str, Any], geo: str, percent: int) -> None:
    found = estimate(body(**more), geo=geo)

    assert found.nanousd == (found.input_tokens * INPUT + 1_000 * OUTPUT) * percent // 100


def test_sets_no_output_aside_for_a_pre_warm() -> None:
    assert estimate(body(max_tokens=0)).output_tokens == 0


def test_takes_the_most_that_the_model_can_write_where_no_maximum_is_given() -> None:
    request = body()
    del request["max_tokens"]

    assert estimate(request).output_tokens == 128_000
    assert estimate(request | {"model": "claude-haiku-4-5"}).output_tokens == 64_000
    assert estimate(request, TYPICAL, cap=500).output_tokens == 500


def test_trap_60_estimate_mode_takes_typical_tokens_and_says_that_it_bounds_nothing() -> None:
    """A reservation of `max_tokens` in full starves the budget."""
    request = body(max_tokens=128_000)
    found = estimate(request, TYPICAL)

    assert len(dump(request)) / 4 < found.input_tokens < len(dump(request)) / 2
    assert found.output_tokens == 8_192
    assert not found.bounded


def picture(size: int, media: str = "image/png", kind: str = "image") -> dict[str, Any]:
    data = base64.b64encode(bytes(size)).decode()
    return {"type": kind, "source": {"type": "base64", "media_type": media, "data": data}}


def with_block(block: dict[str, Any]) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": [block]}])


def test_a_picture_is_not_its_bytes_in_estimate_mode() -> None:
    found = estimate(with_block(picture(900_000)), TYPICAL)
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [picture(900_000), picture(900_000)]}

    assert 1_600 <= found.input_tokens < 2_000
    assert 3_200 <= estimate(with_block(nested), TYPICAL).input_tokens < 4_000
    pages = picture(900_000, "application/pdf", "document")
    assert 20_000 < estimate(with_block(pages), TYPICAL).input_tokens < 100_000


@pytest.mark.parametrize(("max_uses", "searches"), [(3, 3), (0, 0), (None, ASSUMED_SEARCHES)])
def test_trap_61_sets_searches_aside_and_admits_that_a_loop_has_no_bound(
    max_uses: int | None, searches: int
) -> None:
    search = {"type": "web_search_20260209", "name": "web_search"}
    if max_uses is not None:
        search["max_uses"] = max_uses  # type: ignore[assignment]
    found = estimate(body(tools=[search]))

    assert found.usage.web_search_requests == searches
    assert not found.bounded
    assert found.nanousd == found.input_tokens * INPUT + 1_000 * OUTPUT + searches * 10_000_000


def test_only_strict_estimates_ask_what_has_no_bound() -> None:
    assert not estimate(body(fallbacks="default"), TYPICAL).unbounded_by


COLD = {"prompt_tokens": 1_000, "write_5m_tokens": 900}
WARM = {"prompt_tokens": 1_000, "read_tokens": 800, "write_5m_tokens": 100}


def test_what_the_placement_expects_to_be_read_is_set_aside_as_read() -> None:
    """But for a margin, which is written; the rest is written as expected, or neither."""
    warm = estimate(body(max_tokens=0), TYPICAL, TTL.FIVE_MINUTES, expected=WARM)

    assert warm.usage == Usage(
        uncached_input_tokens=100,
        cache_read_tokens=760,
        cache_write_5m_tokens=100 + 40,
        inference_geo="global",
    )
    assert warm.nanousd == 100 * INPUT + 760 * INPUT // 20 + 140 * INPUT * 5 // 4
    assert (warm.input_tokens, warm.amounts.prompt_tokens) == (240, 1_000)


def test_reads_that_may_not_come_are_written_for_as_long_as_the_dearest_mark_says() -> None:
    long = {"prompt_tokens": 1_000, "read_tokens": 600, "write_1h_tokens": 300, "write_5m_tokens": 50}
    used = estimate(body(), TYPICAL, TTL.ONE_HOUR, TTL.FIVE_MINUTES, expected=long).usage

    assert (used.cache_read_tokens, used.cache_write_1h_tokens, used.cache_write_5m_tokens) == (570, 330, 50)
    assert used.uncached_input_tokens == 50


def test_a_warm_up_of_our_own_sets_aside_what_it_is_expected_to_read() -> None:
    """It reads all of its prompt but the question, and writes no answer."""
    begun = {"prompt_tokens": 50_000, "write_5m_tokens": 50_000}
    goes_on = {"prompt_tokens": 50_000, "read_tokens": 49_990}
    cold, kept = (
        estimate(body(max_tokens=0), TYPICAL, TTL.FIVE_MINUTES, expected=expected)
        for expected in (begun, goes_on)
    )

    assert kept.output_tokens == 0
    assert kept.nanousd < cold.nanousd / 10


def test_nothing_is_expected_to_be_read_where_the_placement_does_not_say() -> None:
    silent = estimate(body(), TYPICAL, TTL.FIVE_MINUTES)
    foreseen = estimate(body(), TYPICAL, TTL.FIVE_MINUTES, expected=COLD)

    assert silent.usage.cache_read_tokens == foreseen.usage.cache_read_tokens == 0
    assert silent.usage.cache_write_5m_tokens == silent.input_tokens


def test_what_a_placement_expects_moves_no_strict_estimate() -> None:
    assert estimate(body(), STRICT, TTL.FIVE_MINUTES, expected=WARM) == estimate(
        body(), STRICT, TTL.FIVE_MINUTES
    )


def test_what_bills_have_taught_is_applied_in_estimate_mode_only() -> None:
    learned, prompt = LearnedEstimates(), read_prompt(dump(body()))

    def once(mode: EstimateMode) -> Estimate:
        return estimate_spend(
            prompt,
            Placement(breakpoints=(Breakpoint(0, TTL.FIVE_MINUTES, "test"),), **WARM),  # type: ignore[arg-type]
            model_table().facts(MODEL),
            price_table(),
            mode=mode,
            at=NOW,
            output_cap_tokens=8_192,
            learned=learned,
            default_geo="global",
        )

    before, strict = once(TYPICAL), once(STRICT)
    billed = Usage(cache_read_tokens=1_600, uncached_input_tokens=400, output_tokens=60)
    assert before.guess is not None
    for _ in range(enough(0.9)):
        learned.billed(before.guess, billed)
    after = once(TYPICAL)

    assert after.amounts.prompt_tokens == pytest.approx(2_000, rel=0.04)
    assert after.output_tokens == pytest.approx(60, rel=0.13)
    assert after.usage.cache_read_tokens == pytest.approx(1_600, rel=0.04)
    assert after.nanousd == price_table().cost(after.usage, model=MODEL, at=NOW).total_nanousd
    assert once(STRICT) == strict
    assert strict.guess is None


def test_an_answer_is_never_expected_to_be_longer_than_it_may_be() -> None:
    learned = LearnedEstimates()
    guess = estimate(body(), TYPICAL).guess
    assert guess is not None
    for _ in range(100):
        learned.billed(guess, Usage(uncached_input_tokens=10, output_tokens=1_000))
    prompt = read_prompt(dump(body(max_tokens=700)))
    found = estimate_spend(
        prompt, Placement(), model_table().facts(MODEL), price_table(), mode=TYPICAL, at=NOW,
        output_cap_tokens=1, learned=learned,
    )  # fmt: skip

    assert found.output_tokens == 700


@pytest.mark.parametrize("mode", [STRICT, TYPICAL])
def test_a_request_that_names_no_place_is_taken_to_run_in_the_dearest(mode: EstimateMode) -> None:
    assert estimate(body(), mode, geo=None).usage.inference_geo == "us"


@pytest.mark.parametrize("mode", [STRICT, TYPICAL])
def test_a_batch_is_half_price_in_either_mode(mode: EstimateMode) -> None:
    prompt = read_prompt(dump(body()))
    facts = model_table().facts(MODEL)
    costs = [
        estimate_spend(
            prompt, Placement(), facts, price_table(), mode=mode, at=NOW, output_cap_tokens=9, batch=batch
        ).nanousd
        for batch in (False, True)
    ]

    assert costs[0] == 2 * costs[1] > 0


def test_a_strict_estimate_tries_the_smaller_price_bands_as_well() -> None:
    """No list is bound to be dearer for larger prompts."""
    row = {"input": Fraction(1), "output": Fraction(1), "cache_read": Fraction(1)}
    row |= {"cache_write_5m": Fraction(1), "cache_write_1h": Fraction(1)}
    dear = {name: price * 10 for name, price in row.items()}
    facts = ModelFacts(id="m", minimum_cacheable_tokens=1, bytes_per_token=3.0)
    table = PriceTable(
        [
            PriceRow(id="small", model="m", up_to_prompt_tokens=1_000, **dear),  # type: ignore[arg-type]
            PriceRow(id="large", model="m", **row),  # type: ignore[arg-type]
        ],
        terms=(),
        fallback=PriceRow(id="any", model="", **row),  # type: ignore[arg-type]
        names=ModelNames({"m": ()}),
    )
    prompt = read_prompt(dump(body(model="m")))
    found = estimate_spend(
        prompt, Placement(), facts, table, mode=STRICT, at=NOW, output_cap_tokens=9, default_geo="global"
    )

    assert len(prompt.body) > 1_000
    assert found.nanousd == 10 * (1_000 + 1_000)
    assert found.input_tokens == len(prompt.body)


def test_clearing_the_context_is_no_compaction() -> None:
    """Claude Code always asks for it."""
    assert estimate(body(context_management={"edits": [{"type": "clear_thinking_20251015"}]})).bounded


def test_trap_41_settles_on_what_was_reported_with_the_output_that_was_seen() -> None:
    """Who hangs up pays for what was generated."""
    facts = model_table().facts(MODEL)
    guess = estimate(body(), TYPICAL)
    report = Report(usage=Usage(uncached_input_tokens=50, output_tokens=1), output_text_bytes=1_399)

    used = presumed_usage(report, guess, facts, 60.0)

    assert (used.uncached_input_tokens, used.output_tokens) == (50, 500)


SEEN = {"output_text_bytes": 28}
THOUGHT = {"has_thinking": True, **SEEN}


@pytest.mark.parametrize(
    ("mode", "seen", "seconds", "expected"),
    [
        (TYPICAL, SEEN, 9.0, 10),  # all of it was seen
        (TYPICAL, THOUGHT, 9.0, 900),
        (TYPICAL, {}, 9.0, 900),  # nothing came but the beginning
        (TYPICAL, THOUGHT, 0.01, 10),
        (TYPICAL, THOUGHT, 900.0, 2_000),
        (TYPICAL, {**THOUGHT, "output_is_final": True}, 9.0, 3),
        (STRICT, SEEN, 0.01, 2_000),
        (STRICT, {**SEEN, "output_is_final": True}, 9.0, 3),
    ],
)
def test_trap_41_leaving_while_more_is_written_than_shown_gets_nobody_past_a_limit(
    mode: EstimateMode, seen: dict[str, Any], seconds: float, expected: int
) -> None:
    guess = estimate(body(max_tokens=2_000), mode)
    report = Report(usage=Usage(uncached_input_tokens=50, output_tokens=3), **seen)

    used = presumed_usage(report, guess, model_table().facts(MODEL), seconds)

    assert (used.uncached_input_tokens, used.output_tokens) == (50, expected)


@pytest.mark.parametrize(("seconds", "expected"), [(2.0, 500), (60.0, 6_000), (900.0, 64_000)])
def test_a_call_of_which_nothing_came_wrote_for_as_long_as_it_ran(seconds: float, expected: int) -> None:
    """Those that are given up are the long ones; what others like it were billed says little of them."""
    guess = estimate(body(max_tokens=64_000), TYPICAL)
    guess = replace(guess, usage=replace(guess.usage, output_tokens=500))

    assert presumed_usage(None, guess, model_table().facts(MODEL), seconds).output_tokens == expected


def test_never_presumes_less_output_than_was_reported() -> None:
    report = Report(usage=Usage(output_tokens=900), output_text_bytes=10)

    guess = estimate(body(), TYPICAL)

    assert presumed_usage(report, guess, model_table().facts(MODEL), 0.0).output_tokens == 900


def test_adds_seen_output_to_iterations_as_one_more() -> None:
    usage = Usage(output_tokens=1, model=MODEL, iterations=(Usage(output_tokens=30, model=MODEL),))
    report = Report(usage=usage, output_text_bytes=280)
    used = presumed_usage(report, estimate(body(), TYPICAL), model_table().facts(MODEL), 0.0)

    assert [part.output_tokens for part in used.iterations] == [30, 70]


@pytest.mark.parametrize("report", [None, Report(), Report(output_text_bytes=99)])
def test_settles_on_all_that_was_set_aside_where_nothing_was_reported(report: Report | None) -> None:
    guess = estimate(body(), STRICT, TTL.ONE_HOUR)
    used = presumed_usage(report, guess, model_table().facts(MODEL), 9.0)

    assert price_table().cost(used, model=MODEL, at=NOW).total_nanousd == guess.nanousd
