"""Which breakpoints the API refuses, and with which words (prompt caching page, 2026-08-21)."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.sim.cache import Ttl
from gateway.sim.catalogue import CATALOGUE
from gateway.sim.marks import set_marks
from gateway.sim.prompt import read_blocks
from gateway.sim.wire import ApiError, JsonObject

M5: JsonObject = {"type": "ephemeral"}
H1: JsonObject = {"type": "ephemeral", "ttl": "1h"}


def text(value: str, mark: JsonObject | None = None) -> JsonObject:
    return {"type": "text", "text": value} | ({"cache_control": mark} if mark else {})


def marks(
    *content: JsonObject, automatic: JsonObject | None = None, betas: tuple[str, ...] = (), **more: Any
) -> list[tuple[str, str]]:
    """Path and TTL of each breakpoint of a one-message body."""
    body = {"messages": [{"role": "user", "content": list(content)}], **more}
    blocks = read_blocks(body, CATALOGUE[0])
    set_marks(blocks, automatic, betas)
    return [(block.path, block.mark.value) for block in blocks if block.mark is not None]


def refusal(*content: JsonObject, **more: Any) -> str:
    with pytest.raises(ApiError) as caught:
        marks(*content, **more)
    assert caught.value.status == 400
    assert caught.value.kind == "invalid_request_error"
    return caught.value.message


def test_takes_four_and_refuses_five() -> None:
    assert len(marks(*[text("a", M5)] * 4)) == 4
    assert refusal(*[text("a", M5)] * 5) == (
        "A maximum of 4 blocks with cache_control may be provided. Found 5."
    )


def test_default_ttl_is_five_minutes() -> None:
    assert marks(text("a", M5)) == [("messages.0.content.0", Ttl.FIVE_MINUTES.value)]


def test_one_hour_must_not_come_after_five_minutes() -> None:
    assert "must not come after" in refusal(text("a", M5), text("b", H1))
    assert "must not come after" in refusal(text("b", H1), system=[text("s", M5)])
    assert len(marks(text("b", M5), system=[text("s", H1)])) == 2


def test_empty_text_cannot_be_marked() -> None:
    assert "cache_control cannot be set for empty text blocks" in refusal(text("", M5))


def test_thinking_cannot_be_marked() -> None:
    block = {"type": "thinking", "thinking": "h", "signature": "s", "cache_control": M5}

    assert refusal(block) == "messages.0.content.0.thinking.cache_control: Extra inputs are not permitted"


def test_deferred_tools_cannot_be_marked() -> None:
    tool = {"name": "t", "input_schema": {}, "defer_loading": True, "cache_control": M5}

    assert "defer_loading" in refusal(text("a"), tools=[tool])


def test_a_mark_inside_a_tool_result_is_the_results_own_and_a_second_is_refused() -> None:
    inner = {"type": "tool_result", "tool_use_id": "t", "content": [text("x", M5)]}
    both = inner | {"cache_control": M5}
    twice = {"type": "tool_result", "tool_use_id": "t", "content": [text("x", M5), text("y", M5)]}

    assert marks(inner) == [("messages.0.content.0", "5m")]
    assert "cache_control may not be specified within `tool_result.content`" in refusal(both)
    assert "cache_control may not be specified within `tool_result.content`" in refusal(twice)


@pytest.mark.parametrize(
    ("control", "message"),
    [
        ({"type": "permanent"}, "cache_control.type: Input should be 'ephemeral'"),
        ({"type": "ephemeral", "ttl": "2h"}, "cache_control.ttl: Input should be '5m' or '1h'"),
        ({"type": "ephemeral", "scope": "global"}, "cache_control.scope: Extra inputs are not permitted"),
        ({"ttl": "5m"}, "cache_control.type: Field required"),
    ],
)
def test_strange_marks_are_refused(control: JsonObject, message: str) -> None:
    assert refusal(text("a", control)).endswith(message)


def test_scope_needs_its_beta() -> None:
    control = {"type": "ephemeral", "scope": "global"}

    assert marks(text("a", control), betas=("prompt-caching-scope-2026-01-05",))


def test_null_is_no_mark() -> None:
    assert marks({"type": "text", "text": "a", "cache_control": None}) == []


def test_automatic_marks_the_last_block() -> None:
    assert marks(text("a"), text("b"), automatic=H1) == [("messages.0.content.1", "1h")]


def test_automatic_walks_back_over_what_cannot_be_cached() -> None:
    thinking = {"type": "thinking", "thinking": "h", "signature": "s"}

    assert marks(text("a"), thinking, text(" "), automatic=M5) == [("messages.0.content.0", "5m")]
    assert marks(thinking, automatic=M5) == []


def test_automatic_on_a_block_marked_alike_is_nothing_new() -> None:
    four = [text("a", M5)] * 4

    assert len(marks(*four, automatic=M5)) == 4


def test_automatic_with_another_ttl_on_the_last_block_is_refused() -> None:
    message = refusal(text("a", M5), automatic=H1)

    assert "When both are specified on the same block, they must have matching TTLs" in message


def test_automatic_takes_one_of_the_four() -> None:
    assert "Found 5" in refusal(*[text("a", M5)] * 4, text("b"), automatic=M5)


def test_automatic_obeys_the_order_of_ttls() -> None:
    assert "must not come after" in refusal(text("a", M5), text("b"), automatic=H1)
