"""Finds where the blocks of a Messages body begin and end, in the client's own bytes.

Refused is only what upstream certainly refuses too. Fields, block types and roles that the reader does not
know pass through and are never marked; a part of the wrong shape has no blocks. What a body has in common
with one that was read before is `alike.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from math import inf

import msgspec
from msgspec import Raw

from gateway.core.alike import alike_beginning, alike_field, alike_messages, first_messages
from gateway.core.api_facts import (
    ATTRIBUTION_PREFIX,
    CLIENT_TOOLS,
    MARKABLE_BLOCKS,
    MAX_MESSAGES,
    SERVER_TOOLS,
)
from gateway.core.errors import BadRequest
from gateway.core.outline import outline_of
from gateway.core.prompt import PAUSE_EVERY, TTL, Block, Level, Prompt
from gateway.core.spans import (
    ARRAY,
    COMMA,
    OBJECT,
    OBJECTS,
    OPEN_ARRAY,
    OPEN_OBJECT,
    QUOTE,
    Members,
    Span,
    check_text,
    compact_span,
    cut_span,
    element_spans,
    has_text,
    member_spans,
    outer_span,
    present,
    read_integer,
    read_string,
    skip_space,
    without_lone_surrogates,
)


class NoModel(BadRequest):
    """A body that is right as far as it was read, and names no model."""


def read_prompt(body: bytes, like: Prompt | None = None, pause: Callable[[], None] | None = None) -> Prompt:
    """Find the blocks of a `/v1/messages` or `count_tokens` body. What `like`, read before, has in the same
    bytes is taken from there; the result is the same without it, but for `shared_messages`. `pause` is called
    again and again meanwhile.

    Raises `BadRequest` where the body is not a JSON object in UTF-8 without byte order mark, names no model
    (`NoModel`), repeats a member at a level that we read, has more messages than the API takes, or nests
    deeper than the interpreter allows (a thousand levels with Python 3.11, ten thousand and more with newer
    ones; upstream's own parser stops at about a thousand).
    """
    reader = _Reader(body, like, pause)
    try:
        prompt = reader.read()
    except Exception as error:
        check_text(body, ())  # what is no text is refused as such, whatever else came of it
        if isinstance(error, RecursionError):
            raise BadRequest("The request body is nested too deeply.") from None
        raise
    check_text(body, reader.known_text)
    return prompt


_MARK = b'"cache_control"'
_ESCAPED_MARK = re.compile(rb"\\u00(?:6[1358cefCEF]|5[fF]|7[24])")
_FLAT = frozenset(
    {"text", "thinking", "redacted_thinking", "tool_use", "server_tool_use", "mcp_tool_use", "custom"}
)
"""Types inside which the API takes no mark; a tool's schema and a call's input are the client's own data."""
_NOT_MARKS = ("input", "input_schema", "cache_control")
_OPENING = b"[{"
_HEAD = ("tools", "system")
_NESTED_DEPTH = 8
_MARKABLE = MARKABLE_BLOCKS.value
_TYPES = {b'"%s"' % name.encode(): name for name in (*MARKABLE_BLOCKS.value, "thinking", "redacted_thinking")}
_ROLES = {b'"%s"' % name.encode(): name for name in ("user", "assistant", "system")}

_Element = tuple[Members, Span, dict[str, Span] | None]
"""An object in an array: members, its own span, and its members' spans where they had to be found."""


class _Reader:
    """One reading of one body. `text` is the body, or an equally long copy that msgspec accepts."""

    def __init__(self, body: bytes, like: Prompt | None, pause: Callable[[], None] | None) -> None:
        self.body = body
        self.text = body
        self.like = like if like is not None and not like.unread_marks else None
        self.pause = pause
        self.begun = 0
        """How many messages lie in a beginning that is the same as that of `like`."""
        self.others: list[_Element] = []
        """Those that follow them."""
        self.blocks: list[Block] = []
        self.extras: dict[int, tuple[tuple[str, Span], ...]] = {}
        self.message_ends: list[int] = []
        self.shared_messages = 0
        self.shared_blocks = 0
        self.fields: dict[str, Span] = {}
        self.shared_fields: set[str] = set()
        self.unread_marks = False
        self.known_text: list[Span] = []
        """What was taken from `like`, and so is UTF-8."""

    def read(self) -> Prompt:
        members = self._begun()
        if members is None:
            members = self._top()
            self.fields = member_spans(self.text, *outer_span(self.text), members, "the body")
        fields = self.fields
        model = read_string(members.get("model"))
        if not model:
            raise NoModel("The request body names no model: `model` must be a string.")
        if self.text is not self.body:
            self.like = None
        if "tools" in fields and not self._shared("tools", Level.TOOLS):
            self._tools(members["tools"], fields["tools"])
        if "system" in fields and not self._shared("system", Level.SYSTEM) and present(members["system"]):
            self._content(members["system"], fields["system"], Level.SYSTEM, "", -1)
        if (messages := members.get("messages")) is not None:
            self._messages(messages, fields["messages"])
        automatic = members.get("cache_control")
        blocks = tuple(self.blocks)
        outline = None if self.like is None else self.like.outline
        return Prompt(
            body=self.body,
            model=model,
            max_tokens=read_integer(members.get("max_tokens")),
            stream=bytes(members.get("stream", b"")) == b"true",
            blocks=blocks,
            outline=outline_of(blocks, outline, self.shared_blocks),
            fields=fields,
            automatic_ttl=(self._ttl(automatic) or TTL.FIVE_MINUTES) if present(automatic) else None,
            unread_marks=self.unread_marks,
            message_extras=self.extras,
            message_ends=tuple(self.message_ends),
            shared_messages=self.shared_messages,
        )

    def _begun(self) -> Members | None:
        """The body's members, where it begins as `like` does: `messages` without those of its beginning, and
        without tools and system that stand there. None where all of it has to be read."""
        begun = None if self.like is None else alike_beginning(self.like, self.body)
        if begun is None:
            return None
        try:
            others = self._behind(begun.at, begun.fields["messages"][1], begun.messages)
        except BadRequest:  # which is said when all of it is read, in the order of the body
            return None
        if others is None:
            return None
        self.begun, self.others, self.fields = begun.messages, others, begun.fields
        self.known_text.append((0, begun.at))
        return begun.members

    def _top(self) -> Members:
        try:
            return OBJECT.decode(self.body)
        except msgspec.ValidationError:
            raise BadRequest("The request body must be a JSON object.") from None
        except msgspec.DecodeError as error:
            scratch = without_lone_surrogates(self.body)
            if scratch is None:
                raise BadRequest(f"The request body is not valid JSON: {error}.") from None
        self.text = scratch
        try:
            return OBJECT.decode(scratch)
        except msgspec.DecodeError as error:
            raise BadRequest(f"The request body is not valid JSON: {error}.") from None

    def _objects(self, raw: Raw, span: Span, where: str, most: float = inf) -> list[_Element]:
        """The objects of an array; none where it is not an array of objects. Refuses repeated members."""
        try:
            objects = OBJECTS.decode(raw)
        except msgspec.ValidationError:
            return []
        if len(objects) > most:
            raise BadRequest(f"The request body has {len(objects)} messages; the API takes {most}.")
        start, end = span
        elements: list[_Element] = []
        at = start + 1
        for members in objects:
            # `compact_length`, written out, as this runs for every block; an empty object fails it, unharmed.
            stop = at + 1 + 4 * len(members) + sum(map(len, members)) + sum(map(len, members.values()))
            elements.append((members, (at, stop), None))
            at = stop + 1
        if at == end:
            return elements
        places = element_spans(self.text, start, end, list(map(len, ARRAY.decode(raw))))
        return [
            (members, place, member_spans(self.text, *place, members, where))
            for members, place in zip(objects, places, strict=True)
        ]

    def _tools(self, raw: Raw, span: Span) -> None:
        for members, place, spans in self._objects(raw, span, "a tool"):
            deferred = bytes(members.get("defer_loading", b"false"))
            kind = read_string(type_) if present(type_ := members.get("type")) else "custom"
            known = bool(CLIENT_TOOLS.value.fullmatch(kind) or SERVER_TOOLS.value.fullmatch(kind))
            may_be_marked = known and deferred in (b"false", b"null") and not _defers_members(members)
            in_prefix = deferred != b"true"
            self._block(Level.TOOLS, "", -1, kind, members, place, spans, may_be_marked, in_prefix)

    def _messages(self, raw: Raw, span: Span) -> None:
        known, messages = self._new_messages(span)
        if not known:
            messages = self._objects(raw, span, "a message", MAX_MESSAGES.value)
        for index, (members, place, spans) in enumerate(messages, known):
            if self.pause is not None and not index % PAUSE_EVERY:
                self.pause()
            self.message_ends.append(place[1])
            role = members.get("role")
            name = "" if role is None else _ROLES.get(bytes(role)) or read_string(role)
            if (content := members.get("content")) is not None:
                where = spans["content"] if spans else compact_span(place[0], members, "content")
                self._content(content, where, Level.MESSAGES, name, index)
            if len(members) > 2:
                where_all = spans or member_spans(self.text, *place, members, "a message")
                extras = [item for item in where_all.items() if item[0] not in ("role", "content")]
                self.extras[index] = tuple(extras)

    def _new_messages(self, span: Span) -> tuple[int, Iterable[_Element]]:
        """How many messages were taken from what was read before, and those that follow; none where all of
        them have to be read."""
        like, known, others = self.like, self.begun, self.others
        if like is None:
            return 0, ()
        if not known:  # something before the messages is another
            known = alike_messages(like, self.text, span)
            end = like.message_ends[known - 1] + span[0] - like.fields["messages"][0] if known else 0
            behind = self._behind(skip_space(self.text, end), span[1], known) if known else None
            if behind is None:
                return 0, ()
            others = behind
        blocks, extras, ends = first_messages(like, known, span)
        self.blocks += blocks
        self.extras, self.message_ends = extras, ends
        self.known_text.append((span[0], ends[-1]))
        heads = (name in self.shared_fields or name not in self.fields.keys() | like.fields for name in _HEAD)
        if all(heads):
            self.shared_messages, self.shared_blocks = known, len(self.blocks)
        return known, others

    def _behind(self, at: int, end: int, known: int) -> list[_Element] | None:
        """The messages behind so many known ones, which end before `at`; None where all have to be read."""
        if self.text[at] != COMMA:
            return []
        # The comma stands for the bracket of an array of the others.
        others = self._objects(Raw(b"[" + self.text[at + 1 : end]), (at, end), "a message")
        return others if others and known + len(others) <= MAX_MESSAGES.value else None

    def _shared(self, name: str, level: Level) -> bool:
        """Whether a whole field is taken from what was read before."""
        like, span = self.like, self.fields[name]
        blocks = alike_field(like, self.text, span, name, level) if like is not None else None
        if blocks is None:
            return False
        self.blocks += blocks
        self.shared_fields.add(name)
        self.known_text.append(span)
        return True

    def _content(self, raw: Raw, span: Span, level: Level, role: str, message: int) -> None:
        """The blocks of a `system` or of a message's `content`: a string, or an array of blocks."""
        start, end = span
        first = self.text[start]
        if first == QUOTE:
            self.blocks.append(
                Block(level, role, message, "text", start, end, True, has_text(raw), text=span)
            )
            return
        count = len(self.blocks)
        if first == OPEN_ARRAY:
            for members, place, spans in self._objects(raw, span, "a block"):
                raw_type = members.get("type")
                kind = "" if raw_type is None else _TYPES.get(bytes(raw_type)) or read_string(raw_type)
                in_prefix = True
                if kind != "text":
                    may_be_marked = kind in _MARKABLE and level is Level.MESSAGES
                else:
                    if level is Level.SYSTEM and len(self.blocks) == count:
                        in_prefix = not _is_attribution(members)
                    may_be_marked = in_prefix and has_text(members.get("text"))
                self._block(level, role, message, kind, members, place, spans, may_be_marked, in_prefix)
        is_empty = first == OPEN_ARRAY and skip_space(self.text, start + 1) == end - 1
        if len(self.blocks) == count and not is_empty:
            # Upstream refuses this shape, or knows more than we do: an opaque block keeps it in the digest.
            self.blocks.append(Block(level, role, message, "", start, end, False, False))

    def _block(
        self,
        level: Level,
        role: str,
        message: int,
        kind: str,
        members: Members,
        place: Span,
        spans: dict[str, Span] | None,
        may_be_marked: bool,
        in_prefix: bool,
    ) -> None:
        if self.pause is not None and not len(self.blocks) % PAUSE_EVERY:
            self.pause()
        start, end = place
        marked = "cache_control" in members
        text: Span | None = None
        if kind == "text" and "text" in members and len(members) == 2 + marked:
            text = spans["text"] if spans else compact_span(start, members, "text")
            text = text if self.text[text[0]] == QUOTE else None
        if not marked and (kind in _FLAT or not self._names_marks(kind, place, members, 0)):
            self.blocks.append(
                Block(
                    level, role, message, kind, start, end, False, may_be_marked, 0, None, text, (), in_prefix
                )
            )
            return
        spans = spans or member_spans(self.text, start, end, members, "a block")
        marks, ttl, cuts = 0, None, []
        if marked:
            cuts.append(cut_span(self.text, start, spans, "cache_control"))
            if present(control := members["cache_control"]):
                marks, ttl = 1, self._ttl(control)
        if kind not in _FLAT and self._names_marks(kind, place, members, marked):
            nested, nested_ttl = self._nested(members, spans, cuts)
            marks, ttl = marks + nested, ttl or nested_ttl
        may_be_marked = may_be_marked and not marked and not marks
        where = (level, role, message, kind, start, end)
        self.blocks.append(Block(*where, False, may_be_marked, marks, ttl, text, tuple(cuts), in_prefix))

    def _names_marks(self, kind: str, place: Span, members: Members, known: int) -> bool:
        """Whether an object names more marks than the `known` ones anywhere, be it with escapes."""
        for key in ("content",) if kind == "tool_result" else members:
            if key in members and key not in _NOT_MARKS and memoryview(members[key])[0] in _OPENING:
                return self.text.count(_MARK, *place) > known or bool(_ESCAPED_MARK.search(self.text, *place))
        return False

    def _nested(self, members: Members, spans: dict[str, Span], cuts: list[Span]) -> tuple[int, TTL | None]:
        """How many marks lie deeper inside a block, outside what a tool takes in; and the first one's TTL.
        Those of a tool_result's own children are cut from the digest, too."""
        if "content" in members and self.text[spans["content"][0]] == OPEN_ARRAY:
            for child, (start, end), found in self._objects(members["content"], spans["content"], "a block"):
                if "cache_control" in child:
                    inner = found or member_spans(self.text, start, end, child, "a block")
                    cuts.append(cut_span(self.text, start, inner, "cache_control"))
        marks, ttl = 0, None
        pending = [(raw, 1) for key, raw in members.items() if key not in _NOT_MARKS]
        while pending:
            raw, depth = pending.pop()
            first = memoryview(raw)[0]
            if depth > _NESTED_DEPTH:
                continue
            if first == OPEN_ARRAY:
                pending.extend((element, depth + 1) for element in ARRAY.decode(raw))
            elif first == OPEN_OBJECT:
                inside = OBJECT.decode(raw)
                if present(control := inside.get("cache_control")):
                    marks, ttl = marks + 1, ttl or self._ttl(control)
                pending.extend((value, depth + 1) for value in inside.values())
        return marks, ttl

    def _ttl(self, control: Raw) -> TTL | None:
        """The TTL of a `cache_control`; None, and noted, where it is of no form that we know."""
        if memoryview(control)[0] == OPEN_OBJECT:
            members = OBJECT.decode(control)
            member_spans(bytes(control), 0, len(control), members, "a cache_control")
            value = read_string(ttl) if present(ttl := members.get("ttl")) else "5m"
            if read_string(members.get("type")) == "ephemeral" and value in ("5m", "1h"):
                return TTL(value)
        self.unread_marks = True
        return None


def _is_attribution(members: Members) -> bool:
    raw = members.get("text")
    if raw is None or len(raw) > 4096 or not members.keys() <= {"type", "text", "cache_control"}:
        return False
    text = read_string(raw).encode()
    return text.startswith(ATTRIBUTION_PREFIX.value) and b"\n" not in text


def _defers_members(members: Members) -> bool:
    """Whether a toolset may defer tools of its own: what a breakpoint does then is not documented, and on a
    single deferred tool it is a 400."""
    named = (bytes(members[name]) for name in ("default_config", "configs") if name in members)
    return any(b"defer_loading" in raw or b"\\u" in raw for raw in named)
