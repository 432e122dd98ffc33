"""What is set aside against what the simulator bills, which knows nothing of how it was estimated."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.core.estimate import Estimate, estimate_spend
from gateway.core.placement import Placement
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import EstimateMode
from gateway.sim.answers import Script, Scripted
from gateway.sim.catalogue import CATALOGUE
from gateway.sim.engine import Engine
from gateway.sim.validate import Caller
from gateway.sim.wire import ApiError, JsonObject
from tests.bench.estimates import simulate
from tests.support.bodies import BLOCKS, HOUR_MARK, MARK, TOOLS, WRITERS, bodies, dump, single
from tests.support.prices import NOW, model_table, price_table

PLACED = {row.id for row in CATALOGUE if row.inference_geo}
BETAS = (
    "fast-mode-2026-02-01", "compact-2026-01-12", "compact-2026-09-04", "server-side-fallback-2026-07-01",
    "mcp-client-2026-09-15", "message-threads-2026-08-12", "context-management-2025-06-27",
)  # fmt: skip
CALLER = Caller(workspace="w", version="2023-06-01", betas=BETAS)

_texts = st.text(min_size=1, max_size=40) | st.sampled_from(["word " * 3_000, "é" * 900, "\U0001f600" * 300])
_marks = st.sampled_from([None, None, None, MARK, HOUR_MARK])
_image = {"type": "base64", "media_type": "image/png", "data": "aGk="}
_files = st.sampled_from([
    {"type": "image", "source": _image},
    {"type": "image", "source": {**_image, "data": "aGk=" * 9_000}},
    {"type": "image", "source": {"type": "url", "url": "https://pictures.example/1.png"}},
    {"type": "image", "source": {"type": "file", "file_id": "file_1"}},
    {"type": "document", "source": {"type": "base64", "media_type": "application/pdf", "data": "aGk="}},
    {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
    {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A. B. C."},
     "citations": {"enabled": True}},
    {"type": "document", "source": {"type": "content", "content": [{"type": "image", "source": _image}]}},
])  # fmt: skip
_texts_alone = st.builds(lambda text: {"type": "text", "text": text}, _texts)
_results = st.builds(
    lambda parts: {"type": "tool_result", "tool_use_id": "t", "content": parts},
    st.lists(_texts_alone | _files, max_size=3),
)
_blocks = _texts_alone | _files | _results | st.sampled_from(list(BLOCKS.values()))
_models = st.sampled_from([row.id for row in CATALOGUE])


@st.composite
def requests(draw: st.DrawFn) -> JsonObject:
    """Bodies that the API mostly takes: any model, block, tool, mark and multiplier."""

    def marked(block: JsonObject) -> JsonObject:
        mark = draw(_marks)
        return block if mark is None else {**block, "cache_control": mark}

    content = [marked(block) for block in draw(st.lists(_blocks, min_size=1, max_size=4))]
    body: JsonObject = {
        "model": draw(_models),
        "max_tokens": draw(st.sampled_from([0, 1, 700, 64_000])),
        "messages": [{"role": "user", "content": draw(st.sampled_from(["hi", content, content, content]))}],
    }
    rare: dict[str, st.SearchStrategy[Any]] = {
        "system": _texts,
        "tools": st.lists(st.sampled_from(list(TOOLS.values())), max_size=3),
        "cache_control": st.sampled_from([MARK, HOUR_MARK]),
        "speed": st.sampled_from(["standard", "fast"]),
        "inference_geo": st.sampled_from(["global", "us"]),
        "service_tier": st.sampled_from(["auto", "standard_only"]),
        "output_config": st.sampled_from([{"effort": "low"}, {"format": {"type": "json_schema"}}]),
        "tool_choice": st.just({"type": "any"}),
        "fallbacks": st.just("default"),
        "compaction": st.just({"type": "summarize"}),
        "context_management": st.sampled_from([
            {"edits": [{"type": "compact_20260112"}]}, {"edits": [{"type": "clear_thinking_20251015"}]}]),
        "mcp_servers": st.just([{"type": "url", "url": "https://tools.example", "name": "t"}]),
        "thread": st.just({"type": "create"}),
        "container": st.just({"id": "c"}),
    }  # fmt: skip
    for name in draw(st.lists(st.sampled_from(sorted(rare)), max_size=3, unique=True)):
        body[name] = draw(rare[name])
    return body


def strict(raw: bytes) -> Estimate:
    prompt = read_prompt(raw)
    return estimate_spend(
        prompt,
        Placement(),
        model_table().facts(prompt.model),
        price_table(),
        mode=EstimateMode.STRICT,
        at=NOW,
        output_cap_tokens=1,
    )


def at_its_worst(body: JsonObject) -> Scripted:
    """A token for every byte, all of `max_tokens`, in the dearest place, and written for as long as any mark
    says; and whatever may happen more than once happens often."""
    known = ("custom", "bash", "text_editor", "memory", "computer_toolset")
    typed = [str(tool.get("type", "custom")) for tool in body.get("tools") or []]
    loops = not all(kind.startswith(known) for kind in typed)
    edits = str(body.get("context_management"))
    often = loops or "compact_" in edits or any(body.get(name) for name in ("fallbacks", "compaction"))
    usage: JsonObject = {"output_tokens": body["max_tokens"]}
    if "inference_geo" not in body and body["model"] in PLACED:
        usage["inference_geo"] = "us"
    raw = dump(body)
    if (
        b'"image"' not in raw and b'"tools"' not in raw
    ):  # of what is compressed, or not sent, bytes say nothing
        long = '"ttl": "1h"' in (marks := json.dumps(_marks_of(body)))
        kind = "ephemeral_1h_input_tokens" if long else "ephemeral_5m_input_tokens"
        written = len(raw) if "ephemeral" in marks else 0
        usage |= {"input_tokens": len(raw) - written, "cache_read_input_tokens": 0}
        usage |= {"cache_creation_input_tokens": written, "cache_creation": {kind: written}}
    if often or body.get("mcp_servers"):
        once = {"type": "message", "model": "claude-fable-5", "input_tokens": 300_000, "output_tokens": 9_000}
        usage["iterations"] = [once] * 40
        usage["server_tool_use"] = {"web_search_requests": 500}
    return Scripted(content="x", usage=usage)


def _marks_of(body: JsonObject) -> list[object]:
    contents = [body.get("system"), *(message["content"] for message in body["messages"])]
    blocks = [block for content in contents if isinstance(content, list) for block in content]
    return [block.get("cache_control") for block in [body, *blocks]]


def bills(body: JsonObject) -> list[int]:
    """For the call, and for the same once more, when it may read what the first one wrote."""
    engine = Engine(seed=1, script=Script(at_its_worst))
    costs = []
    for number in range(2):
        run = engine.accept(body, CALLER, request_id=f"req_{number}", at=NOW + number)
        engine.begin(run)
        costs.append(engine.finish(run, at=NOW + number + 0.5).cost_nanousd)
    return costs


def check(body: JsonObject, raw: bytes) -> bool:
    """Whether it was billed at all."""
    try:
        costs = bills(body)
        found = strict(raw)
    except (ApiError, BadRequest):
        return False
    assert found.unbounded_by or found.nanousd >= max(costs)
    assert found.bounded == (not found.unbounded_by)
    return True


@given(requests(), st.sampled_from(WRITERS))
@example({**single("hi"), "model": "claude-opus-5-5", "speed": "fast"}, dump)
@settings(max_examples=250)
def test_a_strict_estimate_is_never_below_the_bill_or_says_what_has_no_bound(
    body: JsonObject, write: Any
) -> None:
    assume(check(body, write(body)))


@given(bodies(), st.sampled_from(WRITERS))
def test_nor_is_it_for_bodies_of_an_odd_shape(body: JsonObject, write: Any) -> None:
    check(body, write(body))


@given(st.integers(0, 250_000), _models)
@example(100_000, "claude-haiku-5-5")
@example(100_001, "claude-haiku-5-5")
def test_an_estimate_has_the_price_steps_of_a_bill(tokens: int, model: str) -> None:
    """Above a size of the prompt all of it may have another price."""
    prompt = read_prompt(b'{"model":"%s","max_tokens":50,"messages":[]}' % model.encode())
    found = estimate_spend(
        prompt,
        Placement(prompt_tokens=max(1, tokens)),
        model_table().facts(model),
        price_table(),
        mode=EstimateMode.ESTIMATE,
        at=NOW,
        output_cap_tokens=50,
        default_geo="global",
    )

    assert found.nanousd == price_table().cost(found.usage, model=model, at=NOW).total_nanousd
    assert found.usage.prompt_tokens == max(1, tokens)


@pytest.mark.parametrize("quantile", [0.8, 0.9, 0.95])
def test_the_share_of_calls_that_overrun_is_what_the_quantile_leaves(quantile: float) -> None:
    """And what is set aside is a small part of what `max_tokens` would take."""
    for name, tally in simulate(quantile, calls=1_000, seed=3).items():
        assert tally.share <= (1 - quantile) * 1.5 + 0.01, name
        assert tally.set_aside < tally.by_max_tokens / 2.5, name


def test_without_what_was_learned_long_answers_overrun_far_more_often() -> None:
    taught, untaught = (simulate(0.95, calls=700, seed=3, learn=learn) for learn in (True, False))

    assert untaught["texts"].share > 2 * taught["texts"].share
    assert untaught["labels"].set_aside > 3 * taught["labels"].set_aside
