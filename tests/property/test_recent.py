"""What a body shares with one that was read before changes nothing of what is found in it."""

from __future__ import annotations

import json
from copy import deepcopy
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from gateway.core.errors import BadRequest
from gateway.core.ids import WorkspaceId
from gateway.core.prefix import cache_scope, key_chain
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from tests.support.bodies import agent_body, spaced

MARK = {"type": "ephemeral"}
texts = st.text(st.sampled_from('ab"\\ é'), max_size=4)
marks = st.sampled_from([{}, {"cache_control": MARK}, {"cache_control": {"type": "odd"}}])
blocks = st.builds(lambda text, mark: {"type": "text", "text": text, **mark}, texts, marks)
results = st.builds(
    lambda text, mark: {"type": "tool_result", "tool_use_id": "t", "content": [text], **mark}, blocks, marks
)
messages = st.builds(
    lambda role, content, more: {"role": role, "content": content, **more},
    st.sampled_from(["user", "assistant", "system"]),
    st.one_of(texts, st.lists(st.one_of(blocks, results), max_size=3)),
    st.sampled_from([{}, {}, {"output_config": {"effort": "low"}}, {"other": 1}]),
)
odd: st.SearchStrategy[Any] = st.sampled_from(
    [5, None, [], {"role": "user"}, {"role": "user", "content": None}]
)
fields = st.fixed_dictionaries(
    {"messages": st.one_of(st.lists(messages, max_size=6), st.lists(st.one_of(messages, odd), max_size=3))},
    optional={
        "system": st.one_of(texts, st.none(), st.lists(blocks, max_size=2)),
        "tools": st.lists(st.fixed_dictionaries({"name": texts, "input_schema": st.just({})}), max_size=2),
        "tool_choice": st.just({"type": "auto"}),
        "cache_control": st.just(MARK),
    },
)


@st.composite
def turns(draw: st.DrawFn) -> tuple[bytes, bytes]:
    """Two bodies, of which the second mostly goes on with the first."""
    before: dict[str, Any] = draw(fields)
    after = deepcopy(before)
    kept = draw(st.integers(0, len(after["messages"])))
    after["messages"] = after["messages"][:kept] + draw(st.lists(st.one_of(messages, odd), max_size=3))
    after |= draw(st.sampled_from([{}, {}, {"system": "other"}, {"tools": []}, {"tool_choice": None}]))
    dropped = draw(st.sampled_from([None, None, "system", "tools"]))
    after.pop(dropped or "", None)
    return _written(draw, before), _written(draw, after)


def _written(draw: st.DrawFn, fields: dict[str, Any]) -> bytes:
    first = draw(st.sampled_from(["model", "messages"]))
    body = {"model": "m", "max_tokens": 9, **fields}
    ordered = {first: body.pop(first), **body}
    separators = draw(st.sampled_from([(",", ":"), (",", ":"), (", ", ": ")]))
    indent = draw(st.sampled_from([None, None, 1]))
    return json.dumps(
        ordered, separators=separators, indent=indent, ensure_ascii=draw(st.booleans())
    ).encode()


def found(body: bytes, like: Prompt | None = None) -> Prompt | str:
    try:
        return read_prompt(body, like)
    except BadRequest as error:
        return str(error)


def digested(prompt: Prompt, like: Prompt | None = None) -> object:
    def scope(of: Prompt) -> bytes:
        return cache_scope(secret=b"s" * 32, workspace=WorkspaceId("w"), prompt=of)

    known = None if like is None else key_chain(like, scope(like))
    return key_chain(prompt, scope(prompt), known).keys


def _two(first: dict[str, Any], second: dict[str, Any]) -> tuple[bytes, bytes]:
    said = {"model": "m", "messages": [{"role": "user", "content": "a" * 50}]}
    return json.dumps(said | first).encode(), json.dumps(said | second).encode()


@given(turns())
@example(_two({"tool_choice": {"type": "auto"}}, {"tool_choice": {"type": "any"}}))
@example(_two({"system": "one"}, {"system": "two"}))
@example(_two({"tools": [{"name": "a"}]}, {"tools": []}))
@example(_two({"system": "one"}, {}))
@example(_two({"system": "one"}, {"system": None}))
@example(_two({}, {"system": "one"}))
@example(_two({}, {"speed": "fast"}))
def test_a_body_reads_the_same_whatever_was_read_before(pair: tuple[bytes, bytes]) -> None:
    before, after = pair
    like = found(before)
    if isinstance(like, str):
        return
    plain, shared = found(after), found(after, like)
    if isinstance(plain, str) or isinstance(shared, str):
        assert shared == plain
        return
    assert replace(shared, shared_messages=0) == plain
    assert digested(shared, like) == digested(plain)
    again = found(after, shared)
    assert not isinstance(again, str)
    assert digested(again, shared) == digested(plain)


@given(st.binary(max_size=40), st.booleans())
@example(b'{"role":"user","content":"x"}', True)
@example(b'{"role":"user","role":"user"}', True)
@example(b"5", False)
def test_what_follows_is_read_as_strictly(piece: bytes, is_spaced: bool) -> None:
    body = agent_body(turns=3)
    text = spaced(body) if is_spaced else json.dumps(body, separators=(",", ":")).encode()
    at = (
        text.rindex(b"]", 0, text.index(b'"stream"'))
        if text.index(b'"stream"') > text.index(b'"messages"')
        else 0
    )
    after = text[:at] + b"," + piece + text[at:]
    like = read_prompt(text)
    plain, shared = found(after), found(after, like)
    if isinstance(shared, Prompt):
        shared = replace(shared, shared_messages=0)
    assert shared == plain
