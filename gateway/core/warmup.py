"""What a warm-up is: which prompts can be warmed, up to where, and how one may end.

A warm-up is the real request with `max_tokens: 0`, cut after the prefix that it is for: the API writes or
reads the entry and generates nothing (prompt caching docs, pre-warming, 2026-08-21; cost guide, 2026-10-09).
Its bytes are `warm_body.py`'s; when to send one is decided in `planner/warming.py`, or by a person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from gateway.core.headers import Headers
from gateway.core.ids import WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.outline import Shown
from gateway.core.placement import (
    MINIMUM_MARGIN,
    Breakpoint,
    type_of,
)
from gateway.core.prompt import Block, Level, Prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Workspace
from gateway.core.spans import OBJECT, OBJECTS, OPEN_ARRAY, Members, present, read_string
from gateway.core.typical import block_tokens


class WarmCause(StrEnum):
    """Why a warm-up is sent."""

    KEEP_ALIVE = "keep_alive"
    SCHEDULE = "schedule"
    ASKED = "asked"


class WarmState(StrEnum):
    """What became of a warm-up."""

    WARMED = "warmed"
    ALREADY_WARM = "already_warm"
    """All of it was read: its lifetime was prolonged, and nothing had to be written."""
    NOT_WARMABLE = "not_warmable"
    """The API would refuse it, or real traffic would not read it. Nothing was sent."""
    REFUSED = "refused"
    """The gateway's rules or upstream refused it."""
    OVER_BUDGET = "over_budget"
    FAILED = "failed"
    SKIPPED = "skipped"
    """Not now: warming is off, pausing or somebody else's. Nothing was sent."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmRequest:
    """A prompt to be warmed. `body` is a whole Messages body as the app would send it; of `headers` only
    `anthropic-version` and `anthropic-beta` count."""

    workspace: WorkspaceId
    body: bytes = field(repr=False)
    cause: WarmCause
    headers: Headers = ()
    name: str = ""
    """Of the schedule or the prompt; shown in reports."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmOutcome:
    """What one warm-up came to. `reason` is a sentence a person understands."""

    state: WarmState
    reason: str
    read_tokens: int = 0
    written_tokens: int = 0
    cost_nanousd: int = 0
    exchange_id: str | None = None
    """None where nothing was handed to the pipeline."""
    model: str = ""
    retry_after_seconds: float | None = None
    """With REFUSED and FAILED: how long upstream asked to be left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmPlan:
    """Up to which block to warm and with which breakpoints; or why not."""

    upto: int = -1
    marks: tuple[Breakpoint, ...] = ()
    why_not: str | None = None


def why_not_warmable(prompt: Prompt, upto: int | None = None) -> str | None:
    """A sentence where the API would refuse this prompt with `max_tokens: 0`, where it would do more than
    cache, or where what is warmed up to block `upto` (None: to the end) would not be what real calls read."""
    if not _LOOKED_AT.isdisjoint(prompt.fields) and (why := _why_not_by_fields(prompt)) is not None:
        return why
    if "mcp_toolset" in prompt.outline.tool_types:
        return _NEVER_WITH["mcp_servers"]
    if prompt.unread_marks or any(block.marks > len(block.cuts) for block in prompt.marked_blocks):
        return "The prompt carries a cache_control of a kind or in a place that the gateway does not know."
    return None if upto is None else _why_not_cut(prompt, upto)


def plan_warm_up(prompt: Prompt, facts: ModelFacts, workspace: Workspace) -> WarmPlan:
    """Where to mark a prompt that is to be warm before its first real call.

    The last text of a closing user message is taken as the question, which differs from call to call: what
    stands before it is warmed. So a prompt that is shared as a whole ends in a placeholder, as in the API's
    own samples. Marked is what a real call of this shape carries, the client's own breakpoints or those
    placed by rule; one beyond the boundary moves to it, where later calls find the entry by looking back.
    """
    boundary = _shared_end(prompt)
    if boundary is None:
        return WarmPlan(why_not="The whole prompt is one question: nothing in it is shared with other calls.")
    if (why := why_not_warmable(prompt, boundary)) is not None:
        return WarmPlan(why_not=why)
    wanted = {at: block.ttl for at, block in enumerate(prompt.blocks) if block.marks and block.ttl}
    if prompt.automatic_ttl is not None:
        wanted.setdefault(len(prompt.blocks), prompt.automatic_ttl)
    as_called = replace(prompt, max_tokens=1, fields={"max_tokens": (0, 0), **prompt.fields})
    by_rule = RulePolicy().plan(as_called, (), facts, workspace)
    wanted |= {point.block: point.ttl for point in by_rule.breakpoints}
    beyond = [ttl for at, ttl in sorted(wanted.items()) if at > boundary]
    if beyond:
        wanted.setdefault(boundary, beyond[0])
    tokens = block_tokens(prompt, facts)
    least = facts.minimum_cacheable_tokens * MINIMUM_MARGIN
    marks = tuple(
        Breakpoint(at, ttl, "where a real call reads")
        for at, ttl in sorted(wanted.items())
        if at <= boundary and tokens[at] >= least
    )
    if marks:
        return WarmPlan(upto=marks[-1].block, marks=marks)
    if tokens[boundary] < least:
        return WarmPlan(
            why_not=f"What is shared has about {tokens[boundary]} tokens, and this model caches from "
            f"{facts.minimum_cacheable_tokens} on."
        )
    return WarmPlan(why_not=by_rule.reason)


def kept_end(prompt: Prompt, upto: int) -> int:
    """How many blocks a warm-up keeps. A message that is not the user's stays whole: thinking may not be
    parted from what follows it, nor a server tool's call from its result."""
    last = prompt.blocks[upto]
    end = upto + 1
    if last.level is Level.MESSAGES and last.role != "user":
        while end < len(prompt.blocks) and prompt.blocks[end].message == last.message:
            end += 1
    return end


_NEVER_WITH = {
    "thread": "The prompt of a message thread is not all in the body, and warming one is not documented.",
    "compaction": "The API refuses a warm-up that asks for compaction.",
    "mcp_servers": "The prompt has tools of MCP servers, and a warm-up would call on them.",
    "container": "The prompt runs in a container, and a warm-up would take one.",
    "output_format": "The API refuses a warm-up with an output format.",
}
_LOOKED_AT = frozenset(
    {*_NEVER_WITH, "thinking", "tool_choice", "output_config", "context_management"},
)
"""Fields that may keep a prompt from being warmed."""
_NOTHING = (b"", b"null", b"[]", b"{}")
_HARMLESS_EDIT = "clear_thinking_20251015"
_ESCAPED = b"\\u00"
"""Where it stands, a word may be spelled otherwise."""
_PLAIN = frozenset({"text", "tool_use", "thinking", "redacted_thinking"})
"""Blocks that hold no image and switch no citations on."""


def _why_not_by_fields(prompt: Prompt) -> str | None:
    for name, why in _NEVER_WITH.items():
        if _field(prompt, name) not in _NOTHING:
            return why
    if type_of(prompt, "thinking") == "enabled":
        return "The API refuses a warm-up with thinking of type enabled; a TTL of 1h bridges pauses instead."
    if type_of(prompt, "tool_choice") in ("any", "tool"):
        return "The API refuses a warm-up that forces a tool."
    if _has_format(prompt):
        return "The API refuses a warm-up with an output format, and without it nobody reads what is warmed."
    if not _clears_only_thinking(prompt):
        return "Context editing goes by the length of the whole prompt, so that a shorter one may differ."
    return None


def _why_not_cut(prompt: Prompt, upto: int) -> str | None:
    """Images and citations anywhere in a prompt alter how it is cached from messages, or system, on (prompt
    caching docs, 2026-08-21): cut off, they would leave another prefix than real calls have."""
    level, end = prompt.blocks[upto].level, kept_end(prompt, upto)
    if level is Level.TOOLS:
        return None
    shown = _shown(prompt)
    if level is Level.MESSAGES and _only_behind(end, shown.images):
        return "An image stands behind what would be warmed, and changes how all messages are cached."
    if _only_behind(end, shown.citations):
        return "A document with citations stands behind what would be warmed, and changes how it is cached."
    return None


def _only_behind(end: int, blocks: Sequence[int]) -> bool:
    return bool(blocks) and blocks[0] >= end


def _shown(prompt: Prompt) -> Shown:
    """What is known of the first blocks holds; the others are looked at."""
    known = prompt.outline.shown
    images, citations = list(known.images), list(known.citations)
    for at in range(max(known.blocks, prompt.outline.head_end), len(prompt.blocks)):
        block = prompt.blocks[at]
        if any(read_string(part.get("type")) == "image" for part in _parts(prompt, block, b'"image"')):
            images.append(at)
        if any(_enabled(part.get("citations")) for part in _parts(prompt, block, b'"citations"')):
            citations.append(at)
    found = prompt.outline.shown = Shown(len(prompt.blocks), tuple(images), tuple(citations))
    return found


def _parts(prompt: Prompt, block: Block, sign: bytes) -> list[Members]:
    """A content block and the blocks that it holds itself, as a tool's result does; none where the sign that
    is looked for stands nowhere in it."""
    if block.is_string or block.level is not Level.MESSAGES or block.type in _PLAIN:
        return []
    find, place = prompt.body.find, (block.start, block.end)
    if find(sign, *place) < 0 and find(_ESCAPED, *place) < 0:
        return []
    try:
        own = OBJECT.decode(prompt.body[block.start : block.end])
        content = own.get("content")
        is_list = content is not None and memoryview(content)[0] == OPEN_ARRAY
        return [own, *(OBJECTS.decode(content) if content is not None and is_list else [])]
    except msgspec.DecodeError:
        return []


def _enabled(raw: msgspec.Raw | None) -> bool:
    try:
        return present(raw) and bytes(OBJECT.decode(raw).get("enabled", b"")) == b"true"
    except msgspec.DecodeError:
        return False


def _shared_end(prompt: Prompt) -> int | None:
    """The last block that can be marked before the question."""
    end = len(prompt.blocks)
    if end and prompt.blocks[-1].role == "user" and prompt.blocks[-1].type == "text":
        end -= 1
    return next(
        (at for at in range(end)[::-1] if prompt.blocks[at].may_be_marked or prompt.blocks[at].marks), None
    )


def _has_format(prompt: Prompt) -> bool:
    try:
        return present(OBJECT.decode(_field(prompt, "output_config") or b"{}").get("format"))
    except msgspec.DecodeError:
        return False


def _clears_only_thinking(prompt: Prompt) -> bool:
    """Whether context editing, where it is asked for, does nothing but keep or drop thinking by turns."""
    raw = _field(prompt, "context_management")
    if raw in _NOTHING:
        return True
    try:
        edits = OBJECTS.decode(OBJECT.decode(raw).get("edits", msgspec.Raw(b"[]")))
    except msgspec.DecodeError:
        return False
    return all(read_string(edit.get("type")) == _HARMLESS_EDIT for edit in edits)


def _field(prompt: Prompt, name: str) -> bytes:
    start, end = prompt.fields.get(name, (0, 0))
    return prompt.body[start:end]
