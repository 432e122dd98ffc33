"""What is set aside: in strict mode never too little, in estimate mode what is typical."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.core.estimate import ASSUMED_SEARCHES, Estimate, estimate_spend, presumed_usage
from gateway.core.placement import Breakpoint, Placement
from gateway.core.prompt import TTL, read_prompt
from gateway.core.rules import EstimateMode
from gateway.core.usage import Report, Usage
from tests.support.bodies import HOUR_MARK, MARK, dump, prose, tool
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
    request: dict[str, Any], mode: EstimateMode = STRICT, *ttls: TTL, geo: str = "global", cap: int = 8_192
) -> Estimate:
    prompt = read_prompt(dump(request))
    return estimate_spend(
        prompt,
        Placement(breakpoints=tuple(Breakpoint(0, ttl, "test") for ttl in ttls)),
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
    assert 30_000 < estimate(with_block(pages), TYPICAL).input_tokens < 100_000


def test_a_small_picture_may_be_more_tokens_than_bytes_in_strict_mode() -> None:
    assert estimate(with_block(picture(30))).input_tokens > 5_000


@pytest.mark.parametrize("spelling", [b"application/pdf", rb"application\/pdf", rb"application\u002fpdf"])
def test_pages_of_a_pdf_may_fill_the_context_in_strict_mode(spelling: bytes) -> None:
    """They are compressed: a few kilobytes of base64 may be hundreds of pages."""
    raw = dump(with_block(picture(6_000, "application/pdf", "document")))
    prompt = read_prompt(raw.replace(b"application/pdf", spelling))
    facts = model_table().facts(prompt.model)
    found = estimate_spend(
        prompt, Placement(), facts, price_table(), mode=STRICT, at=NOW, output_cap_tokens=1
    )

    assert (found.input_tokens, found.bounded) == (1_000_000, True)


def test_text_about_a_pdf_is_no_pdf() -> None:
    said = {"type": "text", "text": '{"media_type":"application/pdf"}'}
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}
    request = body(messages=[{"role": "user", "content": [picture(30), said, plain]}])

    assert estimate(request).input_tokens < 10_000


@pytest.mark.parametrize(
    "request_",
    [
        with_block({"type": "image", "source": {"type": "url", "url": "https://pictures.example/1.png"}}),
        with_block({"type": "document", "source": {"type": "file", "file_id": "file_1"}}),
        with_block({"type": "tool_result", "tool_use_id": "t", "content": [
            {"type": "document", "source": {"type" : "url", "url": "https://papers.example/1.pdf"}}]}),
        with_block({"type": "container_upload", "file_id": "file_1"}),
        body(thread={"type": "continue", "previous_message_id": "msg_1"}),
        body(container={"id": "c", "skills": []}),
    ],
)  # fmt: skip
def test_trap_14_what_is_fetched_from_elsewhere_may_fill_the_context(request_: dict[str, Any]) -> None:
    assert estimate(request_).input_tokens == 1_000_000


def test_an_escaped_name_cannot_hide_that_something_is_fetched() -> None:
    raw = dump(
        with_block({"type": "image", "source": {"type": "url", "url": "https://pictures.example/1.png"}})
    )
    prompt = read_prompt(raw.replace(b'"type":"url"', b'"type":"u\\u0072l"'))
    facts = model_table().facts(prompt.model)
    found = estimate_spend(
        prompt, Placement(), facts, price_table(), mode=STRICT, at=NOW, output_cap_tokens=1
    )

    assert found.input_tokens == 1_000_000


def test_leaves_room_for_what_the_api_adds_for_tools() -> None:
    plain, one = estimate(body()), estimate(body(tools=[tool(1)]))
    typed = estimate(body(tools=[{"type": "bash_20250124", "name": "bash"}]))

    assert one.input_tokens - len(dump(body(tools=[tool(1)]))) == 1_000
    assert typed.input_tokens - plain.input_tokens > 8_000
    assert one.bounded


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


@pytest.mark.parametrize(
    "more",
    [
        {"fallbacks": "default"},
        {"context_management": {"edits": [{"type": "compact_20260112"}]}},
        {"compaction": {"type": "summarize"}},
        {"mcp_servers": []},
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-fable-5-2"}]},
        {"tools": [{"type": "never_heard_of_20270101", "name": "n"}]},
        {"model": "claude-opus-latest"},
    ],
)
def test_trap_61_admits_what_has_no_bound(more: dict[str, Any]) -> None:
    assert not estimate(body(**more)).bounded


def test_clearing_the_context_is_no_compaction() -> None:
    """Claude Code always asks for it."""
    assert estimate(body(context_management={"edits": [{"type": "clear_thinking_20251015"}]})).bounded


def test_trap_41_settles_on_what_was_reported_with_the_output_that_was_seen() -> None:
    """Who hangs up pays for what was generated."""
    facts = model_table().facts(MODEL)
    guess = estimate(body())
    report = Report(usage=Usage(uncached_input_tokens=50, output_tokens=1), output_text_bytes=1_399)

    used = presumed_usage(report, guess, facts)

    assert (used.uncached_input_tokens, used.output_tokens) == (50, 500)


def test_never_presumes_less_output_than_was_reported() -> None:
    report = Report(usage=Usage(output_tokens=900), output_text_bytes=10)

    assert presumed_usage(report, estimate(body()), model_table().facts(MODEL)).output_tokens == 900


def test_adds_seen_output_to_iterations_as_one_more() -> None:
    usage = Usage(output_tokens=1, model=MODEL, iterations=(Usage(output_tokens=30, model=MODEL),))
    used = presumed_usage(
        Report(usage=usage, output_text_bytes=280), estimate(body()), model_table().facts(MODEL)
    )

    assert [part.output_tokens for part in used.iterations] == [30, 70]


@pytest.mark.parametrize("report", [None, Report(), Report(output_text_bytes=99)])
def test_settles_on_all_that_was_set_aside_where_nothing_was_reported(report: Report | None) -> None:
    guess = estimate(body(), STRICT, TTL.ONE_HOUR)
    used = presumed_usage(report, guess, model_table().facts(MODEL))

    assert price_table().cost(used, model=MODEL, at=NOW).total_nanousd == guess.nanousd
