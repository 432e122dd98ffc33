"""What alters the rendered prompt, and from which level on (prompt caching page, invalidation table)."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import pytest

from gateway.sim.cache import Position
from gateway.sim.catalogue import find_model
from gateway.sim.prompt import read_blocks, render
from gateway.sim.wire import JsonObject

TOOL = {"name": "look", "description": "Looks.", "input_schema": {"type": "object", "properties": {}}}


def call(**changes: Any) -> JsonObject:
    return {
        "model": "claude-opus-5",
        "tools": [TOOL],
        "system": [{"type": "text", "text": "You are terse."}],
        "messages": [{"role": "user", "content": "Hello."}],
    } | changes


def chain(body: JsonObject, betas: tuple[str, ...] = ()) -> tuple[Position, ...]:
    model = find_model(body["model"])
    assert model is not None
    return render(read_blocks(body, model), body, model, betas).positions


def keys(body: JsonObject, betas: tuple[str, ...] = ()) -> list[bytes]:
    return [position.key for position in chain(body, betas)]


def kept(change: Callable[[JsonObject], None]) -> str:
    """Which levels of the plain call survive a change: letters of t(ools), s(ystem), m(essages)."""
    before, after = call(), deepcopy(call())
    change(after)
    old, new = keys(before), set(keys(after))
    return "".join(letter for letter, key in zip("tsm", old, strict=True) if key in new)


@pytest.mark.parametrize(
    ("expected", "change"),
    [
        ("", lambda b: b["tools"][0].update(description="Looks hard.")),
        ("", lambda b: b["tools"].insert(0, {"name": "first", "input_schema": {"type": "object"}})),
        ("", lambda b: b.update(output_config={"format": {"type": "json_schema", "schema": {}}})),
        ("t", lambda b: b["tools"].append({"type": "web_search_20260318", "name": "web_search"})),
        ("t", lambda b: b["tools"].append({"type": "web_fetch_20260309", "name": "web_fetch"})),
        ("t", lambda b: b["system"][0].update(text="You are kind.")),
        ("t", lambda b: b["messages"].append(_cited_document())),
        ("ts", lambda b: b.update(tool_choice={"type": "any"})),
        ("ts", lambda b: b.update(tool_choice={"type": "auto", "disable_parallel_tool_use": True})),
        ("ts", lambda b: b["messages"].append(_image())),
        ("ts", lambda b: b.update(thinking={"type": "adaptive"})),
        ("ts", lambda b: b.update(output_config={"effort": "low"})),
        ("ts", lambda b: b["messages"][0].update(content="Hi.")),
        ("tsm", lambda b: b.update(output_config={"effort": "high"})),  # the model's default
        ("tsm", lambda b: b.update(thinking={"type": "disabled"})),  # the model's default
        ("tsm", lambda b: b.update(tool_choice={"type": "auto"})),
        ("tsm", lambda b: b.update(container="container_1")),
        ("tsm", lambda b: b.update(max_tokens=7, stream=True, metadata={"user_id": "u"})),
        ("tsm", lambda b: b["messages"].append({"role": "assistant", "content": "Yes?"})),
    ],
)
def test_changes_lose_the_levels_of_the_table(expected: str, change: Callable[[JsonObject], None]) -> None:
    assert kept(change) == expected


def _image() -> JsonObject:
    source = {"type": "base64", "media_type": "image/png", "data": "AAAA"}
    return {"role": "user", "content": [{"type": "image", "source": source}]}


def _cited_document() -> JsonObject:
    source = {"type": "text", "media_type": "text/plain", "data": "x"}
    block = {"type": "document", "source": source, "citations": {"enabled": True}}
    return {"role": "user", "content": [block]}


def test_a_string_equals_one_text_block() -> None:
    blocks = call(
        system="You are terse.",
        messages=[{"role": "user", "content": [{"type": "text", "text": "Hello."}]}],
    )

    assert keys(blocks) == keys(call())


def test_tool_result_text_equals_one_text_block() -> None:
    def body(content: Any) -> JsonObject:
        result = {"type": "tool_result", "tool_use_id": "t", "content": content}
        return call(messages=[{"role": "user", "content": [result]}])

    assert keys(body("Found.")) == keys(body([{"type": "text", "text": "Found."}]))


def test_consecutive_messages_of_one_role_are_one_turn() -> None:
    apart = call(messages=[{"role": "user", "content": "a"}, {"role": "user", "content": "b"}])
    together = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    other = call(messages=[{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])

    assert keys(apart) == keys(call(messages=[{"role": "user", "content": together}]))
    assert keys(apart) != keys(other)


def test_breakpoints_are_not_part_of_the_key() -> None:
    marked = call()
    marked["tools"] = [TOOL | {"cache_control": {"type": "ephemeral"}}]
    marked["system"][0]["cache_control"] = {"type": "ephemeral", "ttl": "1h"}

    assert keys(marked) == keys(call())


def test_key_order_counts_inside_inputs_and_schemas_only() -> None:
    def used(block: JsonObject) -> list[bytes]:
        return keys(
            call(messages=[{"role": "assistant", "content": [block]}, {"role": "user", "content": "x"}])
        )

    plain: JsonObject = {"type": "tool_use", "id": "t", "name": "look", "input": {"a": 1, "b": 2}}

    assert used(plain) == used(dict(reversed(plain.items())))
    assert used(plain) != used(plain | {"input": {"b": 2, "a": 1}})
    assert used(plain) != used(plain | {"input": {"a": 1.0, "b": 2}})


def test_deferred_tools_are_outside_the_prefix() -> None:
    deferred = TOOL | {"name": "rare", "defer_loading": True}

    assert keys(call(tools=[TOOL, deferred])) == keys(call())


def test_attribution_block_is_stripped_when_first_and_alone() -> None:
    """Claude Code's gateway protocol page, 2026-08-22."""
    line = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1.330.abc; cc_entrypoint=cli;"}
    text = {"type": "text", "text": "You are terse."}

    assert keys(call(system=[line, text])) == keys(call())
    assert keys(call(system=[text, line])) != keys(call())
    merged = {"type": "text", "text": line["text"] + "\nYou are terse."}
    assert len(keys(call(system=[merged]))) == 3


def test_betas_that_alter_the_prompt_lose_everything_and_neutral_ones_nothing() -> None:
    """Warm-ups must carry the same beta headers (cost guide, 2026-10-09)."""
    assert keys(call(), ("prompt-caching-2024-07-31",)) == keys(call())
    assert not set(keys(call(), ("context-management-2025-06-27",))) & set(keys(call()))


def test_older_models_strip_thinking_once_the_user_speaks_again() -> None:
    thought = {"type": "thinking", "thinking": "Hm.", "signature": "s"}
    answer = {"role": "assistant", "content": [thought, {"type": "text", "text": "Yes."}]}
    turn = [{"role": "user", "content": "a"}, answer]
    result = {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": "ok"}]}
    spoken = {"role": "user", "content": "b"}

    def ends(model: str, *messages: Any) -> int:
        return len(keys(call(model=model, tools=[], messages=[*turn, *messages])))

    assert ends("claude-sonnet-4-5", result) == ends("claude-opus-5", result) == 5
    assert ends("claude-opus-5", spoken) == 5
    assert ends("claude-sonnet-4-5", spoken) == 4


def test_prefix_sizes_grow_by_about_thirty_percent_with_the_new_tokenizer() -> None:
    """From Opus 4.7 on (token counting page)."""
    long = [{"type": "text", "text": "word " * 10_000}]
    old = chain(call(model="claude-opus-4-6", tools=[], system=long))[0].end_tokens
    new = chain(call(model="claude-opus-4-7", tools=[], system=long))[0].end_tokens

    assert 1.28 < new / old < 1.32


def test_tools_bring_a_hidden_prompt_and_forcing_one_a_longer_one() -> None:
    """Pricing page: Opus 5 adds 286 tokens, or 406 when a tool is forced."""
    sizes = [position.end_tokens for position in chain(call())]
    forced = [position.end_tokens for position in chain(call(tool_choice={"type": "any"}))]

    assert sizes[0] > 286
    assert [b - a for a, b in zip(sizes, forced, strict=True)] == [0, 0, 120]
