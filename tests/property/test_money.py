"""What must hold of streams and of money whatever is put in."""

from __future__ import annotations

from datetime import UTC, date, datetime
from fractions import Fraction
from math import ceil
from typing import Any

from hypothesis import assume, given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.answer import BodyReader, StreamReader, answer_reader
from gateway.core.pricing import Cost
from gateway.core.usage import Report, Usage, read_usage
from gateway.settings.prices import PriceSettings, UnknownModel
from gateway.sim.bill import BILLED_REFUSALS, FAST_FACTOR, PRICES, cost_nanousd, is_billed
from tests.support.prices import NOW, model_table, on, price_table, prices_file
from tests.support.streams import (
    cut,
    dump,
    error_event,
    event,
    message,
    message_delta,
    start,
    stop,
    text_delta,
    transcript,
    usage,
)

COUNT = st.integers(0, 2_000_000)
MODELS = st.sampled_from([facts.id for facts in model_table().known()] + ["claude-unknown"])
TIMES = st.floats(0, 4e9) | st.floats(on("2026-09-01"), on("2026-12-15"))
MARKS = [
    b"event: message_delta\n", b"event: content_block_delta\ndata: ", b"event: message_start\ndata: ", b"\n",
    b"\r", b"\r\n", b"\n\n", b"\xef\xbb\xbf", b"data: {", b"data", b'"', b"\\", b":",
]  # fmt: skip
TOKEN_KINDS = [
    "uncached_input_tokens", "output_tokens", "cache_read_tokens", "cache_write_5m_tokens",
    "cache_write_1h_tokens", "web_search_requests",
]  # fmt: skip


def usages(depth: int = 1) -> st.SearchStrategy[Usage]:
    return st.builds(
        Usage,
        uncached_input_tokens=COUNT,
        cache_read_tokens=COUNT,
        cache_write_5m_tokens=COUNT,
        cache_write_1h_tokens=COUNT,
        output_tokens=COUNT,
        web_search_requests=st.integers(0, 50),
        model=st.none() | MODELS,
        service_tier=st.sampled_from([None, "standard", "batch", "priority"]),
        inference_geo=st.sampled_from([None, "us", "global", "not_available"]),
        speed=st.sampled_from([None, "standard", "fast"]),
        iterations=st.lists(usages(0), max_size=3).map(tuple) if depth else st.just(()),
    )


def streams() -> st.SearchStrategy[bytes]:
    """Transcripts, some of them odd: other line ends, cut short, errors, several deltas."""
    pieces = st.one_of(
        st.builds(text_delta, st.text(max_size=20), padding=st.integers(0, 8)),
        st.builds(lambda output: message_delta({"output_tokens": output}), COUNT),
        st.just(transcript(usage(10, 25, read=5, write_1h=7))),
        st.just(error_event()),
        st.just(stop()),
        st.sampled_from(MARKS),
        st.binary(max_size=5),
    )
    return st.builds(
        lambda first, rest, end: b"".join([first, *rest]).replace(b"\n", end),
        st.sampled_from([start(usage(10, 1, write_1h=70)), b"", b"\xef\xbb\xbf"]),
        st.lists(pieces, max_size=8),
        st.sampled_from([b"\n", b"\r\n", b"\r"]),
    )


def report(pieces: Any) -> Report:
    reader = StreamReader()
    for piece in pieces:
        reader.feed(piece)
    return reader.report()


@given(streams(), st.lists(st.integers(0), max_size=20))
def test_any_split_of_a_stream_gives_the_same_report(data: bytes, places: list[int]) -> None:
    assert report([data]) == report(cut(data, places))


@given(streams())
def test_byte_by_byte_gives_the_same_report(data: bytes) -> None:
    assert report([data]) == report(data[at : at + 1] for at in range(len(data)))


@given(
    st.lists(st.one_of(st.binary(max_size=200), st.sampled_from(MARKS)), max_size=12),
    st.sampled_from([b"text/event-stream", b"application/json", b"", b"text/html"]),
    st.sampled_from([b"", b"gzip", b"deflate", b"br", b"\xff"]),
)
def test_no_bytes_make_a_reader_raise(pieces: list[bytes], kind: bytes, encoding: bytes) -> None:
    reader = answer_reader(kind, encoding)
    for piece in pieces:
        reader.feed(piece)
        reader.report()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
FIELDS = st.sampled_from([
    "input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens", "status",
    "cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "iterations", "type", "model",
    "server_tool_use", "web_search_requests", "speed", "inference_geo", "service_tier", "fallback_credit",
])  # fmt: skip


@given(st.dictionaries(FIELDS, JSON | st.lists(st.dictionaries(FIELDS, JSON, max_size=4), max_size=3)))
def test_no_usage_object_makes_reading_or_pricing_raise(raw: dict[str, object]) -> None:
    read = read_usage(raw)

    assert price_table().cost(read, model=None, at=NOW).total_nanousd >= 0


@given(st.dictionaries(st.sampled_from(["usage", "model", "id", "error", "type", "result", "message"]), JSON))
def test_no_json_makes_a_body_reader_raise(body: dict[str, object]) -> None:
    reader = BodyReader()
    try:
        reader.feed(dump(body))
    except UnicodeEncodeError:  # a lone surrogate cannot be sent
        return
    reader.report()


def kinds(cost: Cost) -> list[int]:
    return [
        cost.uncached_input_nanousd, cost.cache_read_nanousd, cost.cache_write_5m_nanousd,
        cost.cache_write_1h_nanousd, cost.output_nanousd, cost.server_tools_nanousd,
    ]  # fmt: skip


def naive(used: Usage, model: str, at: float, batch: bool) -> Fraction:
    """The exact cost in nano-dollars, worked out slowly and straight from the file."""
    file = prices_file()
    day = max(datetime.fromtimestamp(at, UTC).date(), date(2026, 2, 5))
    terms = max((terms for terms in file.terms if terms.from_day <= day), key=lambda terms: terms.from_day)
    cost = used.web_search_requests * Fraction(terms.web_search_per_thousand[1:]) * 10**6
    named = used.model or model
    by = named if named in file.models or model not in file.models else model
    for part in used.iterations or (used,):
        name = by if part.model in (None, named) else part.model
        settings = file.models.get(name)
        factor = terms.batch if batch or used.service_tier == "batch" else Fraction(1)
        if used.inference_geo == "us" and (settings is None or settings.priced_by_inference_geo):
            factor *= terms.inference_geo["us"]
        row: PriceSettings | UnknownModel = file.unknown_model
        if settings is not None:
            rows = [price for price in settings.prices if price.speed == (used.speed or "standard")]
            rows = rows or [price for price in settings.prices if price.speed == "standard"]
            begun = [price for price in rows if (price.from_day or date.min) <= day]
            first = min(price.from_day or date.min for price in rows)
            latest = max((price.from_day or date.min for price in begun), default=first)
            bands = [price for price in rows if (price.from_day or date.min) == latest]
            fits = [b for b in bands if part.prompt_tokens <= (b.up_to_prompt_tokens or 10**12)]
            row = min(fits, key=lambda band: band.up_to_prompt_tokens or 10**12)
        if used.speed == "fast" and getattr(row, "speed", "") != "fast":
            factor *= terms.unlisted_fast
        for tokens, price in (
            (part.uncached_input_tokens, row.input),
            (part.cache_read_tokens, row.cache_read),
            (part.cache_write_5m_tokens, row.cache_write_5m),
            (part.cache_write_1h_tokens, row.cache_write_1h),
            (part.output_tokens, row.output),
        ):
            cost += tokens * Fraction(price[1:]) * 1000 * factor
    return cost


@given(usages(), MODELS, TIMES, st.booleans())
def test_kinds_sum_to_the_exact_cost_rounded_up_once(used: Usage, model: str, at: float, batch: bool) -> None:
    cost = price_table().cost(used, model=model, at=at, batch=batch)

    assert sum(kinds(cost)) == cost.total_nanousd == ceil(naive(used, model, at, batch))
    assert min(kinds(cost)) >= 0


@given(usages(0), MODELS, TIMES, st.sampled_from(TOKEN_KINDS), st.integers(1, 10**6))
def test_more_of_anything_never_costs_less(used: Usage, model: str, at: float, kind: str, more: int) -> None:
    larger = replace(used, **{kind: getattr(used, kind) + more})
    table = price_table()

    less, greater = (table.cost(u, model=model, at=at).total_nanousd for u in (used, larger))
    assert less <= greater


@given(usages(), MODELS, TIMES)
def test_half_price_in_a_batch_but_for_searches(used: Usage, model: str, at: float) -> None:
    tokens = replace(used, web_search_requests=0, service_tier=None)
    full = price_table().cost(tokens, model=model, at=at).total_nanousd
    half = price_table().cost(tokens, model=model, at=at, batch=True).total_nanousd

    assert ceil(full / 2) - 1 <= half <= ceil(full / 2)


@given(usages(0), MODELS, TIMES)
def test_without_a_cache_the_counterfactual_is_the_cost(used: Usage, model: str, at: float) -> None:
    bare = replace(used, cache_read_tokens=0, cache_write_5m_tokens=0, cache_write_1h_tokens=0)
    cost = price_table().cost(bare, model=model, at=at)

    assert cost.counterfactual_nanousd == cost.total_nanousd


WIRE = st.builds(usage, COUNT, COUNT, read=COUNT, write_5m=COUNT, write_1h=COUNT)
GLOBAL_ONLY = {"claude-opus-4-5", "claude-sonnet-4-5", "claude-haiku-4-5"}
"""They cannot be asked for a geography, and the simulator does not think of it."""


@given(
    WIRE,
    st.lists(WIRE, max_size=3),
    st.sampled_from(sorted(PRICES)),
    st.sampled_from([{}, {"service_tier": "batch"}, {"speed": "fast"}, {"inference_geo": "us"}]),
    TIMES,
)
def test_the_simulators_own_bill_agrees_to_the_nanodollar(
    raw: dict[str, Any], iterations: list[dict[str, Any]], model: str, more: dict[str, Any], at: float
) -> None:
    """Written twice, from the pages of the API and apart from each other."""
    assume(more.get("inference_geo") is None or model not in GLOBAL_ONLY)
    assume(more.get("speed") is None or model in FAST_FACTOR)
    entries = [{"type": "message", "model": model, **part} for part in iterations]
    wire = {**raw, "iterations": entries, "server_tool_use": {"web_search_requests": 3}, **more}
    cost = price_table().cost(read_usage(wire, model=model), model=None, at=at)

    assert cost_nanousd(model, wire, at) == cost.total_nanousd


@given(
    st.sampled_from(["refusal", "end_turn"]),
    st.sampled_from([None, "cyber", "general_harms", *sorted(BILLED_REFUSALS)]),
    st.sampled_from([[], [{"type": "text", "text": ""}], [{"type": "text", "text": "So"}]]),
    st.integers(0, 3),
    st.floats(on("2026-09-22"), on("2026-09-26")),
    st.booleans(),
)
def test_trap_58_the_simulator_agrees_on_which_refusals_are_free(
    stop_reason: str,
    category: str | None,
    content: list[dict[str, str]],
    output: int,
    at: float,
    is_stream: bool,
) -> None:
    details = {"type": "refusal", "category": category}
    used = usage(1_000, output)
    if is_stream:
        block = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
        texts = [text_delta(part["text"]) for part in content if part["text"]]
        pieces = [event("content_block_start", block), *texts] if content else []
        last = message_delta({"output_tokens": output}, stop_reason, stop_details=details)
        data = b"".join([start(used), *pieces, last, stop()])
    else:
        data = dump(message(used, content=content, stop_reason=stop_reason, stop_details=details))
    reader = answer_reader(b"text/event-stream" if is_stream else b"application/json")
    reader.feed(data)
    report = reader.report()
    assert report.usage is not None
    cost = price_table().cost(report.usage, model="claude-opus-5-5", at=at, report=report)

    assert (cost.total_nanousd > 0) == is_billed(stop_reason, details, content, at)
