"""The most that a prompt can have, and what leaves a request without a bound."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from gateway.core.bounds import dearest_ttl, most_input, unbounded_by
from gateway.core.models import ModelFacts
from gateway.core.placement import Placement
from gateway.core.prompt import TTL, Prompt
from gateway.core.prompt_reader import read_prompt
from tests.support.bodies import BLOCKS, TOOLS, agent_body, claude_code_body, dump, prose, single, tool
from tests.support.prices import model_table

MODEL = "claude-opus-5-5"
FACTS = model_table().facts(MODEL)


def body(**more: Any) -> dict[str, Any]:
    text = [{"type": "text", "text": prose(2_000)}]
    return {"model": MODEL, "max_tokens": 1_000, "messages": [{"role": "user", "content": text}], **more}


def with_block(*blocks: dict[str, Any]) -> dict[str, Any]:
    return body(messages=[{"role": "user", "content": list(blocks)}])


def most(request: dict[str, Any], facts: ModelFacts = FACTS) -> int:
    return most_input(read_prompt(dump(request)), facts)


def reasons(request: dict[str, Any] | Prompt, *, priced: bool = True) -> str:
    prompt = request if isinstance(request, Prompt) else read_prompt(dump(request))
    return "; ".join(unbounded_by(prompt, model_table().facts(prompt.model), priced=priced))


def picture(size: int, media: str = "image/png", kind: str = "image") -> dict[str, Any]:
    data = base64.b64encode(bytes(size)).decode()
    return {"type": kind, "source": {"type": "base64", "media_type": media, "data": data}}


def test_a_small_picture_may_be_more_tokens_than_bytes() -> None:
    assert most(with_block(picture(30))) > 5_000


def test_a_large_picture_is_not_its_bytes() -> None:
    """The API refuses whatever else may be in its source."""
    nested = {"type": "tool_result", "tool_use_id": "t", "content": [picture(300_000), picture(300_000)]}

    assert 5_000 < most(with_block(picture(300_000))) < 6_000
    assert 10_000 < most(with_block(nested)) < 11_000


def test_data_that_only_looks_like_a_picture_is_its_bytes() -> None:
    """A tool's input is the client's own, and text may say anything."""
    request = with_block({"type": "tool_use", "id": "t", "name": "n", "input": picture(90_000)})
    quoted = with_block(
        {"type": "tool_result", "tool_use_id": "t", "content": dump(picture(90_000)).decode()}
    )

    assert most(request) == len(dump(request))
    assert most(quoted) >= len(dump(quoted))


@pytest.mark.parametrize("spelling", [b"application/pdf", rb"application\/pdf", rb"application\u002fpdf"])
def test_pages_of_a_pdf_may_fill_the_context(spelling: bytes) -> None:
    """They are compressed: a few kilobytes of base64 may be hundreds of pages."""
    raw = dump(with_block(picture(6_000, "application/pdf", "document")))
    prompt = read_prompt(raw.replace(b"application/pdf", spelling))

    assert most_input(prompt, FACTS) == 1_000_000
    assert not list(unbounded_by(prompt, FACTS, priced=True))


def test_text_about_a_pdf_is_no_pdf() -> None:
    said = {"type": "text", "text": '{"media_type":"application/pdf"}'}
    plain = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hi"}}

    assert most(with_block(picture(30), said, plain)) < 10_000


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
    assert most(request_) == 1_000_000


def test_an_escaped_name_cannot_hide_that_something_is_fetched() -> None:
    raw = dump(
        with_block({"type": "image", "source": {"type": "url", "url": "https://pictures.example/1.png"}})
    )
    prompt = read_prompt(raw.replace(b'"type":"url"', b'"type":"u\\u0072l"'))

    assert most_input(prompt, FACTS) == 1_000_000


def test_no_prompt_is_larger_than_the_context() -> None:
    """The API refuses it, and bills nothing."""
    small = ModelFacts(id="m", minimum_cacheable_tokens=1, bytes_per_token=3.0, context_tokens=1_500)

    assert most(body(), small) == 1_500


def test_leaves_room_for_what_the_api_adds() -> None:
    plain, with_tool = body(), body(tools=[tool(1)])
    typed = body(tools=[{"type": "bash_20250124", "name": "bash"}])
    shaped = body(output_config={"format": {"type": "json_schema", "schema": {}}})
    paper = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "A. B. C."}}
    cited = {**paper, "citations": {"enabled": True}}

    assert most(plain) == len(dump(plain))
    assert most(with_tool) == len(dump(with_tool)) + 1_000
    assert most(typed) == len(dump(typed)) + 8_000
    assert most(shaped) == len(dump(shaped)) + 1_000
    assert most(with_block(paper)) == len(dump(with_block(paper)))
    assert most(with_block(cited)) == len(dump(with_block(cited))) + 1_000 + len(dump(cited))


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"fallbacks": "default"}, "it has `fallbacks`"),
        ({"context_management": {"edits": [{"type": "compact_20260112"}]}}, "compact"),
        ({"compaction": {"type": "summarize"}}, "it has `compaction`"),
        ({"mcp_servers": []}, "it has `mcp_servers`"),
        ({"thread": {"type": "create"}}, "it has `thread`"),
        ({"container": "c"}, "it has `container`"),
        ({"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-fable-5-2"}]}, "tools"),
        ({"tools": [{"type": "web_search_20260209", "name": "web_search", "max_uses": 1}]}, "tools"),
        ({"tools": [{"type": "code_execution_20260521", "name": "code_execution"}]}, "tools"),
        ({"tools": [{"type": "never_heard_of_20270101", "name": "n"}]}, "tools"),
        ({"model": "claude-opus-latest"}, "no price"),
        ({"research": {"depth": 3}}, "a field `research`, which is not known"),
        ({"service_tier": "priority"}, "`service_tier`"),
    ],
)
def test_trap_61_names_what_has_no_bound(more: dict[str, Any], reason: str) -> None:
    assert reason in reasons(body(**more))


@pytest.mark.parametrize("kind", ["tool_addition", "hologram"])
def test_names_a_block_that_may_add_what_is_not_in_it(kind: str) -> None:
    """A web search can be added in the middle of the messages."""
    assert f"`{kind}`" in reasons(with_block({"type": kind, "tool": TOOLS["web_search"]}))


def test_names_a_price_that_the_table_had_to_assume() -> None:
    assert "no price is known" in reasons(body(), priced=False)


def test_repeats_no_name_that_could_not_be_the_apis() -> None:
    """Refusals are shown and logged, and a key may be anything."""
    said = reasons(body(**{"Dear Sir or Madam": 1}))

    assert "not known" in said
    assert "Sir" not in said


@pytest.mark.parametrize(
    "request_",
    [
        agent_body(turns=2, thinking={"type": "adaptive"}, metadata={"user_id": "u"}),
        claude_code_body(),
        single("hi", tools=[TOOLS[name] for name in ("client", "bash", "text_editor", "memory")]),
        single("hi", service_tier="auto", speed="standard", inference_geo="us", diagnostics={}),
        single(
            [
                BLOCKS[name]
                for name in (
                    "text",
                    "image",
                    "document",
                    "search_result",
                    "thinking",
                    "tool_use",
                    "tool_result",
                )
            ]
        ),
    ],
)
def test_what_clients_commonly_send_has_a_bound(request_: dict[str, Any]) -> None:
    assert reasons(request_) == ""


def test_a_mark_of_unknown_lifetime_may_be_the_dearest() -> None:
    odd = single([{"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": "3h"}}])

    assert dearest_ttl(read_prompt(dump(odd)), Placement()) is TTL.ONE_HOUR
    assert dearest_ttl(read_prompt(dump(body())), Placement()) is None
