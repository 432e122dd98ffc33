"""Which models a call may come to besides the one that it asks for: fallbacks, and advisors among its tools.

Only what names one is decoded, and most calls have no such thing. What is malformed is upstream's to refuse;
what readers could read in two ways is refused here. Sources: the types of the SDK, 2026-11.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from gateway.core.api_facts import CLIENT_TOOLS
from gateway.core.errors import BadRequest
from gateway.core.prompt import Prompt
from gateway.core.spans import (
    ARRAY,
    OBJECT,
    Members,
    member_spans,
    read_string,
    without_lone_surrogates,
)

MOST_NAMED = 64
"""Far more than the API takes: three fallbacks."""


def other_models(prompt: Prompt) -> tuple[str, ...]:
    """Each once. Raises `BadRequest` where there are more than anybody needs, or where a member is repeated
    in what names them."""
    names: dict[str, None] = {}
    for name in _named(prompt):
        if name:
            names[name] = None
        if len(names) > MOST_NAMED:
            raise BadRequest(f"The request names more than {MOST_NAMED} models.")
    return tuple(names)


def falls_back_by_default(prompt: Prompt) -> bool:
    """Whether the API chooses the models to fall back on."""
    start, end = prompt.fields.get("fallbacks", (0, 0))
    text = prompt.body[start:end]
    return text.startswith(b'"') and msgspec.json.decode(_readable(text)) == "default"


def _named(prompt: Prompt) -> Iterator[str]:
    if "fallbacks" in prompt.fields:
        start, end = prompt.fields["fallbacks"]
        yield from _of_fallbacks(prompt.body[start:end])
    outline = prompt.outline
    if outline.typed_tools:
        for tool in prompt.blocks[: outline.tools_end]:
            yield from _of_tool(tool.type, prompt.body[tool.start : tool.end])
    # Tools that are defined within the conversation take no breakpoint.
    for at in outline.unmarkable:
        block = prompt.blocks[at]
        if block.type == "tool_addition":
            members = _members(prompt.body[block.start : block.end])
            inner = _members(bytes(members.get("tool", b"")))
            definition = bytes(inner.get("definition", b""))
            yield from _of_tool(read_string(_members(definition).get("type")), definition)


def _of_fallbacks(text: bytes) -> Iterator[str]:
    try:
        entries = ARRAY.decode(_readable(text))
    except msgspec.DecodeError:
        return
    for entry in entries:
        yield read_string(_members(bytes(entry)).get("model"))


def _of_tool(kind: str, text: bytes) -> Iterator[str]:
    if kind and CLIENT_TOOLS.value.fullmatch(kind) is None:
        yield read_string(_members(text).get("model"))


def _members(text: bytes) -> Members:
    """Those of an object; none where it is none."""
    text = _readable(text)
    try:
        members = OBJECT.decode(text)
    except msgspec.DecodeError:
        return {}
    member_spans(text, 0, len(text), members, "what names a model")
    return members


def _readable(text: bytes) -> bytes:
    return without_lone_surrogates(text) or text
