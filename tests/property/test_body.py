"""Properties of reading, digesting, placing and editing, over the corpus and over generated bodies."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gateway.core.edit import apply_placement
from gateway.core.errors import BadRequest
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.placement import Breakpoint, Placement, check_placement
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.prompt import TTL, Level, Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import ClientMarks, Workspace
from tests.support.bodies import MODEL, WRITERS, bodies, corpus, dump

FACTS = ModelFacts(id=MODEL, minimum_cacheable_tokens=64, bytes_per_token=3.5)
writers = st.sampled_from(WRITERS)
workspaces = st.builds(
    lambda ttl, marks: Workspace(
        id=WorkspaceId("w"), organisation="o", upstream="u", ttl=ttl, client_marks=marks
    ),
    st.sampled_from(["5m", "1h"]),
    st.sampled_from(ClientMarks),
)
CORPUS = corpus()


def blocks_of(body: Any) -> list[tuple[Level, int, Any]]:
    """The blocks as the standard library sees them: level, message, and the value, string or object."""
    found: list[tuple[Level, int, Any]] = []
    found += [(Level.TOOLS, -1, tool) for tool in body.get("tools") or ()]
    parts = [(Level.SYSTEM, -1, body.get("system"))]
    parts += [(Level.MESSAGES, at, message["content"]) for at, message in enumerate(body["messages"])]
    for level, message, content in parts:
        if isinstance(content, str):
            found.append((level, message, content))
        else:
            found += [(level, message, block) for block in content or ()]
    return found


def keys_of(prompt: Prompt) -> tuple[PrefixKey, ...]:
    return prefix_keys(prompt, cache_scope(secret=b"s", workspace=WorkspaceId("w"), prompt=prompt))


def without_marks(value: Any) -> Any:
    """A body without the marks of its blocks and of what stands in a tool_result."""
    body = json.loads(json.dumps(value))
    body.pop("cache_control", None)
    for _, _, block in blocks_of(body):
        if isinstance(block, dict):
            block.pop("cache_control", None)
            if block.get("type") == "tool_result" and isinstance(block.get("content"), list):
                for child in block["content"]:
                    child.pop("cache_control", None)
    return body


def with_breakpoints(value: Any, points: tuple[Breakpoint, ...]) -> Any:
    """The placement as the standard library would apply it."""
    body = json.loads(json.dumps(value))
    controls = {
        point.block: {"type": "ephemeral"} | ({"ttl": "1h"} if point.ttl is TTL.ONE_HOUR else {})
        for point in points
    }
    for index, (level, message, block) in enumerate(blocks_of(body)):
        if index not in controls:
            continue
        if isinstance(block, dict):
            block["cache_control"] = controls[index]
        else:
            home, key = (body, "system") if level is Level.SYSTEM else (body["messages"][message], "content")
            home[key] = [{"type": "text", "text": block, "cache_control": controls[index]}]
    return body


def assert_reads_well(body: Any, raw: bytes) -> None:
    prompt = read_prompt(raw)
    expected = blocks_of(body)

    assert len(expected) == len(prompt.blocks)
    for (level, message, value), block in zip(expected, prompt.blocks, strict=True):
        assert (level, message) == (block.level, block.message)
        assert value == json.loads(raw[block.start : block.end])
        assert isinstance(value, str) is block.is_string
        if isinstance(value, dict) and level is not Level.TOOLS:
            assert value.get("type", "") == block.type
        if block.text is not None:
            assert (value if block.is_string else value["text"]) == json.loads(raw[slice(*block.text)])
    for name, (start, end) in prompt.fields.items():
        assert body[name] == json.loads(raw[start:end])
    assert prompt.fields.keys() == body.keys()


def assert_places_well(body: Any, raw: bytes, workspace: Workspace) -> Placement:
    prompt = read_prompt(raw)
    placement = RulePolicy().plan(prompt, keys_of(prompt), FACTS, workspace)
    pieces = apply_placement(prompt, placement)
    placed = b"".join(pieces)

    assert check_placement(prompt, placement) is None
    assert len(placement.breakpoints) + prompt.client_marks <= 4 or not placement.breakpoints
    assert with_breakpoints(body, placement.breakpoints) == json.loads(placed)
    assert raw == b"".join(piece for piece in pieces if isinstance(piece, memoryview)) or pieces == (raw,)
    assert all(point.reason.endswith(".") for point in placement.breakpoints)
    assert placement.reason.endswith(".")
    if not placement.breakpoints:
        assert pieces[0] is raw
    again = read_prompt(placed)
    assert prompt.client_marks + len(placement.breakpoints) == again.client_marks
    assert keys_of(prompt) == keys_of(again)
    ttls = [block.ttl for block in again.blocks if block.marks]
    if placement.breakpoints:
        assert ttls == sorted(ttls, key=[TTL.ONE_HOUR, TTL.FIVE_MINUTES, None].index)
    return placement


@pytest.mark.parametrize("name", CORPUS)
@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_corpus_is_read_and_placed(name: str, write: Any) -> None:
    raw = write(CORPUS[name])
    assert_reads_well(CORPUS[name], raw)
    for ttl in ("5m", "1h"):
        for marks in ClientMarks:
            workspace = Workspace(
                id=WorkspaceId("w"), organisation="o", upstream="u", ttl=ttl, client_marks=marks
            )
            assert_places_well(CORPUS[name], raw, workspace)


@settings(max_examples=120, deadline=None)
@given(bodies(), writers)
def test_every_block_is_where_the_standard_library_finds_it(body: Any, write: Any) -> None:
    assert_reads_well(body, write(body))


@settings(max_examples=120, deadline=None)
@given(bodies(), writers, workspaces)
def test_placements_are_legal_and_removable(body: Any, write: Any, workspace: Workspace) -> None:
    assert_places_well(body, write(body), workspace)


@settings(max_examples=80, deadline=None)
@given(bodies(), writers, st.data())
def test_any_markable_block_may_be_marked(body: Any, write: Any, data: st.DataObject) -> None:
    raw = write(body)
    prompt = read_prompt(raw)
    markable = [index for index, block in enumerate(prompt.blocks) if block.may_be_marked]
    assume(markable)
    chosen = sorted(data.draw(st.sets(st.sampled_from(markable), max_size=4)))
    points = tuple(Breakpoint(index, TTL.ONE_HOUR, "A test.") for index in chosen)

    placed = b"".join(apply_placement(prompt, Placement(breakpoints=points)))

    assert with_breakpoints(body, points) == json.loads(placed)
    for point in points:
        assert read_prompt(placed).blocks[point.block].ttl is TTL.ONE_HOUR


@settings(max_examples=80, deadline=None)
@given(bodies(), writers)
def test_marks_never_change_keys(body: Any, write: Any) -> None:
    assert keys_of(read_prompt(write(without_marks(body)))) == keys_of(read_prompt(write(body)))


@settings(max_examples=80, deadline=None)
@given(bodies(), writers, st.data())
def test_extending_a_prompt_keeps_the_keys_of_its_prefixes(
    body: Any, write: Any, data: st.DataObject
) -> None:
    more = data.draw(bodies())["messages"]
    before = keys_of(read_prompt(write(body)))
    longer = keys_of(read_prompt(write({**body, "messages": body["messages"] + more})))

    assert before == longer[: len(before)]


@settings(max_examples=80, deadline=None)
@given(bodies(marks=False), writers)
def test_a_string_and_its_one_block_array_have_the_same_keys(body: Any, write: Any) -> None:
    arrays = json.loads(json.dumps(body))
    for home, key in [(arrays, "system"), *((message, "content") for message in arrays["messages"])]:
        if isinstance(home.get(key), str):
            home[key] = [{"type": "text", "text": home[key]}]

    assert keys_of(read_prompt(write(body))) == keys_of(read_prompt(write(arrays)))


@settings(max_examples=80, deadline=None)
@given(bodies(marks=False), st.data())
def test_changing_a_block_changes_its_key_and_all_later_ones(body: Any, data: st.DataObject) -> None:
    prompt = read_prompt(dump(body))
    assume(prompt.blocks)
    index = data.draw(st.integers(0, len(prompt.blocks) - 1))
    block = prompt.blocks[index]
    assume(block.in_prefix and not block.is_string)
    longer = bytearray(prompt.body)
    longer[block.end - 1 : block.end] = b"}" if longer[block.end - 2] == 0x7B else b',"new":1}'
    assume(len(longer) > len(prompt.body))
    changed = read_prompt(bytes(longer))
    # A block that the API leaves out shares the key of what stands before it.
    assume(all(block.in_prefix for block in changed.blocks))

    assert keys_of(prompt)[:index] == keys_of(changed)[:index]
    assert not set(keys_of(prompt)[index:]) & set(keys_of(changed))


@settings(max_examples=100, deadline=None)
@given(bodies(), writers, st.data())
def test_broken_bodies_are_refused_and_nothing_else_escapes(
    body: Any, write: Any, data: st.DataObject
) -> None:
    raw = bytearray(write(body))
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    text = bytes(raw)
    try:
        prompt = read_prompt(text)
    except BadRequest:
        return

    seen: Any = json.loads(text)  # whatever is accepted must be JSON, and read alike
    assert prompt.model == seen["model"]
    assert prompt.fields.keys() == seen.keys()
    keys_of(prompt)
    for block in prompt.blocks:
        json.loads(text[block.start : block.end])
