"""The bytes of a warm-up: a real request cut after the prefix that is to be warmed, and completed.

Tools, system and messages up to there keep their bytes, and so does every parameter that alters how they are
rendered, or the entry would be one that nobody reads. What can be warmed at all is `warmup.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from gateway.core.edit import apply_placement
from gateway.core.placement import Breakpoint, Placement, check_placement
from gateway.core.prompt import Level, Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.spans import (
    OBJECT,
    Span,
    member_spans,
    read_string,
    skip_space,
    without_lone_surrogates,
)
from gateway.core.warmup import kept_end, why_not_warmable


def warm_up_body(prompt: Prompt, upto: int, marks: Sequence[Breakpoint]) -> bytes:
    """The request that warms everything up to block `upto`: its breakpoints are exactly `marks`, all of them
    at `upto` or before. A mark of the client's that is among them stays as it is spelled.

    After it stands only what the API needs in a list of messages: the rest of an answer that was begun,
    results for tool calls that have none, a user's text.

    Raises `ValueError` where the API would refuse the result, or real traffic would not read what it warms.
    """
    why = why_not_warmable(prompt, upto)
    if why is not None:
        raise ValueError(why)
    return shaped_body(prompt, upto, marks)


def shaped_body(prompt: Prompt, upto: int, marks: Sequence[Breakpoint]) -> bytes:
    """`warm_up_body` of a prompt that is known to be warmable up to there."""
    if any(mark.block > upto for mark in marks):
        raise ValueError("a breakpoint lies behind what is to be warmed")
    shaper = _Shaper(prompt, upto, marks)
    body = shaper.body()
    added = tuple(mark for mark in marks if mark.block not in shaper.spelled)
    if not added:
        return body
    shaped, placement = read_prompt(body), Placement(breakpoints=added)
    if (problem := check_placement(shaped, placement)) is not None:
        raise ValueError(f"The API would refuse the warm-up: {problem}.")
    return b"".join(apply_placement(shaped, placement))


_DROPPED = frozenset(
    # `stream` is refused. The top-level mark would fall on the placeholder. The others act on answers, of
    # which there is none: a warm-up must not be answered by another model or use up a credit.
    {"stream", "cache_control", "diagnostics", "fallbacks", "fallback_credit_token"}
)
_TEXT = b'"warmup"'


class _Shaper:
    """One prompt, cut after what is to be warmed and completed, without breakpoints but for those in
    `spelled`: blocks that carry the wanted one already."""

    def __init__(self, prompt: Prompt, upto: int, marks: Sequence[Breakpoint]) -> None:
        self._prompt = prompt
        self._last = prompt.blocks[upto]
        self._kept = prompt.blocks[: kept_end(prompt, upto)]
        wanted = {mark.block: mark.ttl for mark in marks}
        self.spelled = frozenset(
            at for at, ttl in wanted.items() if prompt.blocks[at].marks and prompt.blocks[at].ttl is ttl
        )
        copied = max(len(self._kept), prompt.outline.head_end)  # of the tools all are
        self._cuts = sorted(
            [cut for at in range(copied) if at not in self.spelled for cut in prompt.blocks[at].cuts]
        )

    @cached_property
    def _text(self) -> bytes:
        """For readers that refuse lone surrogates. Looking for them takes a search through all of the body,
        and what is kept is mostly tools and system, of which nothing is read again."""
        return without_lone_surrogates(self._prompt.body) or self._prompt.body

    def body(self) -> bytes:
        """Top-level members in the client's order; what stands between them is not part of the prompt."""
        members: dict[str, bytes] = {}
        for name, (start, end) in self._prompt.fields.items():
            if name in _DROPPED or (name == "system" and self._last.level is Level.TOOLS):
                continue
            members[name] = self._copied(start, end)
        if self._last.level is Level.SYSTEM and not self._last.is_string:
            members["system"] = self._copied(self._prompt.fields["system"][0], self._last.end) + b"]"
        members["max_tokens"] = b"0"
        members["messages"] = self._messages()
        return b"{%b}" % b",".join(msgspec.json.encode(name) + b":" + raw for name, raw in members.items())

    def _messages(self) -> bytes:
        results = self._missing_results()
        if self._last.level is not Level.MESSAGES:
            return b"[%b]" % _user_message([], with_text=True)
        start = self._prompt.fields["messages"][0]
        place = self._place(start)
        if self._last.role == "user" and not self._last.is_string:
            members = OBJECT.decode(self._text[slice(*place)])
            content = member_spans(self._text, *place, members, "a message")["content"]
            cut = b"".join([self._copied(start, self._last.end), *(b"," + result for result in results)])
            written = cut + b"]" + self._copied(content[1], place[1])
            results = []
        else:
            written = self._copied(start, place[1])
        asked = any(
            block.role == "user" and block.type == "text" and (block.may_be_marked or block.marks)
            for block in self._kept
        )
        ends_well = self._last.role == "user" or results
        if results or not asked or not ends_well:
            written += b"," + _user_message(results, with_text=not asked or not ends_well)
        return written + b"]"

    def _place(self, messages: int) -> Span:
        """Where the last message that is kept stands; the array of messages begins at `messages`."""
        number, ends = self._last.message, self._prompt.message_ends
        before = skip_space(self._text, ends[number - 1]) if number else messages  # a comma, or the bracket
        return skip_space(self._text, before + 1), ends[number]

    def _missing_results(self) -> list[bytes]:
        """One for each tool call of the last answer that has none among what is kept (Messages API: results
        must follow their calls at once)."""
        calls: dict[str, bytes] = {}
        begins = len(self._kept)
        while begins and self._kept[begins - 1].role == "user":
            begins -= 1
        while begins and self._kept[begins - 1].role == "assistant":
            begins -= 1
        for block in self._kept[begins:]:
            if block.type in ("tool_use", "tool_result"):
                members = OBJECT.decode(self._text[block.start : block.end])
                if block.type == "tool_use" and (name := read_string(members.get("id"))):
                    calls[name] = bytes(members["id"])
                elif block.type == "tool_result":
                    calls.pop(read_string(members.get("tool_use_id")), None)
        template = b'{"type":"tool_result","tool_use_id":%b,"content":%b}'
        return [template % (name, _TEXT) for name in calls.values()]

    def _copied(self, start: int, end: int) -> bytes:
        """These bytes of the client's, without the marks that are not wanted."""
        pieces = []
        for cut_start, cut_end in self._cuts:
            if start <= cut_start and cut_end <= end:
                pieces.append(self._prompt.body[start:cut_start])
                start = cut_end
        pieces.append(self._prompt.body[start:end])
        return b"".join(pieces)


def _user_message(results: Sequence[bytes], *, with_text: bool) -> bytes:
    text = [b'{"type":"text","text":%b}' % _TEXT] if with_text else []
    content = b"[%b]" % b",".join([*results, *text]) if results else _TEXT
    return b'{"role":"user","content":%b}' % content
