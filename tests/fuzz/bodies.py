"""Bodies of calls: what the gateway reads of one is what any reader of JSON would read of it, whichever of
two members of one name that reader keeps; or it is refused. And what is put in changes nothing around it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import msgspec
from msgspec.structs import replace

from gateway.core.batch_items import batch_items, item_members
from gateway.core.edit import apply_placement
from gateway.core.errors import BadRequest
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.placement import check_placement
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Workspace
from gateway.core.spans import without_lone_surrogates
from tests.fuzz.target import Target, pure
from tests.support.bodies import MODEL, corpus, dump, spaced

FACTS = ModelFacts(id=MODEL, minimum_cacheable_tokens=1, bytes_per_token=0.01)
HOUSE = Workspace(id=WorkspaceId("w"), organisation="o", upstream="u")
BETWEEN = b"\x00\x00"
"""Between two bodies in one input; no body can hold it."""
_DEEP = 60
"""Nesting up to which a body must not be refused for its depth."""


class Pairs(list[tuple[str, Any]]):
    """An object as it is written, with what it says twice."""

    def one(self, name: str) -> Any:
        return next((value for key, value in self if key == name), None)

    @property
    def repeats(self) -> bool:
        return len({key for key, _ in self}) < len(self)


class Number(str):
    """A number as it is spelled."""

    __slots__ = ()


def strict(text: bytes) -> Any:
    """The standard library's reading, nothing made into anything. Raises ValueError."""

    def refuse(constant: str) -> Any:
        raise ValueError(constant)

    return json.loads(
        text.decode(), object_pairs_hook=Pairs, parse_int=Number, parse_float=Number, parse_constant=refuse
    )


def read_levels(body: Pairs) -> Iterator[Pairs]:
    """The objects whose members the gateway reads, each."""
    yield body
    contents: list[Any] = [body.one("system")]
    objects = list(_objects(body.one("tools")))
    for message in _objects(body.one("messages")):
        objects.append(message)
        contents.append(message.one("content"))
    for content in contents:
        objects += _objects(content)
    for one in (body, *objects):
        yield one
        if isinstance(control := one.one("cache_control"), Pairs):
            yield control


def _objects(value: Any) -> list[Pairs]:
    """As the reader takes an array: all of it are objects, or none is looked at."""
    if isinstance(value, list) and not isinstance(value, Pairs):
        return value if all(isinstance(item, Pairs) for item in value) else []
    return []


def block_count(body: Pairs) -> int:
    count = len(_objects(body.one("tools"))) + _blocks_in(body.one("system"), known=False)
    for message in _objects(body.one("messages")):
        named = any(key == "content" for key, _ in message)
        count += _blocks_in(message.one("content"), known=named)
    return count


def _blocks_in(content: Any, *, known: bool) -> int:
    if content is None:
        return int(known)
    is_array = isinstance(content, list) and not isinstance(content, Pairs)
    return len(_objects(content)) or int(not is_array or bool(content))


def deep(value: Any) -> int:
    """How deep a value nests, as far as it matters here."""
    deepest, pending = 0, [(value, 1)]
    while pending and deepest <= _DEEP:
        one, depth = pending.pop()
        if isinstance(one, Pairs):
            pending += [(inner, depth + 1) for _, inner in one]
        elif isinstance(one, list):
            pending += [(inner, depth + 1) for inner in one]
        deepest = max(deepest, depth)
    return deepest


def check_refusal(body: bytes) -> None:
    """Whether there is a reason to refuse it."""
    try:
        value = strict(body)
    except (ValueError, RecursionError):
        return
    if not isinstance(value, Pairs) or not isinstance(model := value.one("model"), str):
        return
    if isinstance(model, Number) or not model or deep(value) > _DEEP:
        return
    if without_lone_surrogates(body) is not None:  # a name may be read as another that is there, too
        return
    repeated = any(one.repeats for one in _everything(value))
    assert repeated or len(value.one("messages")) > 100_000, "refused without a reason"


def _everything(value: Any) -> Iterator[Pairs]:
    pending = [value]
    while pending:
        one = pending.pop()
        if isinstance(one, Pairs):
            yield one
            pending += [inner for _, inner in one]
        elif isinstance(one, list):
            pending += one


def check_meaning(prompt: Prompt, body: bytes) -> None:
    value = strict(body)
    scratch = without_lone_surrogates(body)
    said = value if scratch is None else strict(scratch)

    assert isinstance(said, Pairs)
    assert not any(one.repeats for one in read_levels(value))
    assert prompt.model == said.one("model")
    assert prompt.stream == (said.one("stream") is True)
    assert prompt.max_tokens == _integer(said.one("max_tokens"))
    assert list(prompt.fields) == [key for key, _ in said]
    assert len(prompt.blocks) == block_count(said)
    for name, span in prompt.fields.items():
        assert strict(body[slice(*span)]) == value[list(prompt.fields).index(name)][1]
    roles = [message.one("role") for message in _objects(said.one("messages"))]
    for block in prompt.blocks:
        strict(body[block.start : block.end])
        if block.message >= 0:
            role = roles[block.message]
            assert block.role == (role if isinstance(role, str) and not isinstance(role, Number) else "")
    # Everything below reads parts of a body with msgspec: whole, it sees what the standard library sees.
    assert msgspec.json.decode(scratch or body, type=dict[str, msgspec.Raw]).keys() == prompt.fields.keys()


def _integer(spelled: Any) -> int | None:
    if not isinstance(spelled, Number) or len(spelled) > 20:
        return None
    try:
        value = Decimal(spelled)
    except InvalidOperation:
        return None
    rounded = float(spelled)
    return int(rounded) if rounded.is_integer() and 0 <= value < 2**53 and rounded < 2**53 else None


def keys_of(prompt: Prompt) -> tuple[PrefixKey, ...]:
    return prefix_keys(prompt, cache_scope(secret=b"s", workspace=HOUSE.id, prompt=prompt))


def check_placing(prompt: Prompt) -> None:
    keys = keys_of(prompt)
    placement = RulePolicy().plan(prompt, keys, FACTS, HOUSE)
    assert check_placement(prompt, placement) is None
    pieces = apply_placement(prompt, placement)
    placed = b"".join(pieces)

    if not placement.breakpoints:
        assert pieces[0] is prompt.body
        return
    assert b"".join(piece for piece in pieces if isinstance(piece, memoryview)) == prompt.body
    again = read_prompt(placed)
    assert keys_of(again) == keys
    assert again.client_marks == prompt.client_marks + len(placement.breakpoints)
    assert (again.model, again.max_tokens, again.stream) == (prompt.model, prompt.max_tokens, prompt.stream)


def check_body(body: bytes) -> None:
    try:
        prompt = read_prompt(body)
    except BadRequest:
        check_refusal(body)
        return
    check_meaning(prompt, body)
    check_placing(prompt)


def check_alike(data: bytes) -> None:
    """Reading a body beside one that was read before says what reading it alone says."""
    first, _, second = data.partition(BETWEEN)
    try:
        like = read_prompt(first)
    except BadRequest:
        return
    try:
        alone: Prompt | None = read_prompt(second)
    except BadRequest:
        alone = None
    try:
        beside: Prompt | None = read_prompt(second, like)
    except BadRequest:
        beside = None

    assert (alone is None) == (beside is None)
    if alone is not None and beside is not None:
        assert replace(beside, shared_messages=0) == alone
        keys_of(beside)


def check_batch(data: bytes) -> None:
    """The items of a batch, found by their brackets, are those that a parser of the whole finds."""
    try:
        spans = list(batch_items(data))
        items = [item_members(data[slice(*span)], "an item")[0] for span in spans]
    except BadRequest:
        return
    try:
        value = strict(data)
    except UnicodeDecodeError:
        return  # somewhere else than in an item; upstream's to refuse
    assert isinstance(value, Pairs)
    assert not value.repeats
    assert all(not item.repeats for item in value.one("requests"))
    scratch = without_lone_surrogates(data)
    said = value if scratch is None else strict(scratch)
    assert [list(item) for item in items] == [[key for key, _ in item] for item in said.one("requests")]


def short_bodies() -> Sequence[bytes]:
    """The corpus of bodies with its long texts cut: each shape in some hundred bytes."""
    return [write(_short(body)) for body in corpus().values() for write in (dump, spaced)]


def _short(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _short(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_short(inner) for inner in value[:3]]
    return value[:24] if isinstance(value, str) and len(value) > 80 else value


def pairs_of_bodies() -> Sequence[bytes]:
    bodies = short_bodies()
    pairs = [body + BETWEEN + body for body in bodies[::3]]
    for one, other in zip(bodies[::4], bodies[1::4], strict=False):
        pairs.append(one + BETWEEN + other)
    return pairs


def batches() -> Sequence[bytes]:
    bodies = short_bodies()
    lists = (bodies[:1], bodies[1:4], bodies[30:34])
    return [
        b'{"requests":['
        + b",".join(b'{"custom_id":"%d","params":%b}' % (n, body) for n, body in enumerate(each))
        + b"]}"
        for each in lists
    ]


WORDS = (
    b'"model"', b'"max_tokens"', b'"stream"', b'"messages"', b'"system"', b'"tools"', b'"role"',
    b'"content"', b'"type"', b'"text"', b'"cache_control"', b'{"type":"ephemeral"}',
    b'{"type":"ephemeral","ttl":"1h"}', b'"tool_result"', b'"defer_loading"', b'"requests"', b'"params"',
    b'"custom_id"', b'"m\\u006fdel"', b'"model":"x",', b'"stream":true,', b'"max_tokens":1,', b",",
    b'{"role":"user","content":"hi"}', b"\\\\\"",
)  # fmt: skip

TARGETS = (
    Target(name="body", open=pure(check_body), seeds=short_bodies, words=WORDS, rounds=1_500),
    Target(name="alike", open=pure(check_alike), seeds=pairs_of_bodies, words=WORDS, rounds=1_500),
    Target(name="batch", open=pure(check_batch), seeds=batches, words=WORDS, rounds=500),
)
