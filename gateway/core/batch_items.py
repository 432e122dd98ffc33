"""Where the items of a message batch stand in its body, found piece by piece. Pure.

A batch is up to 256 MB. Asking a parser for all of it at once would hold the interpreter for as long as that
takes, and every stream of the replica with it; here nothing larger than one item is handed to a parser. What
an item means is `batch.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Union

import msgspec

from gateway.core.errors import BadRequest
from gateway.core.spans import OBJECT, OPEN_ARRAY, OPEN_OBJECT, QUOTE, STRING, Members, Span, member_spans
from gateway.core.spans import without_lone_surrogates as readable

if TYPE_CHECKING:
    from mmap import mmap

Body = Union["bytes", "bytearray", "mmap"]
"""However it is held: by all of them bytes are found and cut out alike."""
REQUESTS = "requests"


def batch_items(body: Body) -> Generator[Span, None, None]:
    """The span of each element of `requests`, in order, as it is found.

    Elements are told apart by their brackets alone: whoever reads one checks its syntax. Around them all is
    checked here. Raises `BadRequest` where the body is not a JSON object, names a member twice, or has no
    list of `requests`.
    """
    at = _expect(body, 0, b"{")
    seen: set[str] = set()
    if body[at : at + 1] == b"}":
        at += 1
    else:
        while True:
            name, at = _name(body, at)
            if name in seen:
                raise BadRequest("The request body names a member twice. Send each member once.")
            seen.add(name)
            if name == REQUESTS:
                at = yield from _elements(body, at)
            else:
                end = _value_end(body, at)
                _check(body[at:end])
                at = end
            at = _space(body, at)
            if body[at : at + 1] != b",":
                break
            at = _space(body, at + 1)
        at = _expect(body, at, b"}")
    if at != len(body):
        raise _broken(at)
    if REQUESTS not in seen:
        raise BadRequest("The request body has no `requests`: send the batch's items as a list.")


def item_members(item: bytes, where: str) -> tuple[Members, dict[str, Span]]:
    """The members of one item and where their values stand in it. Raises `BadRequest` where it is no JSON
    object in UTF-8, or names a member twice."""
    text = item
    try:
        members = _decoded(text)
    except BadRequest:
        scratch = readable(item)  # an escaped half of a pair, which upstream may well accept
        if scratch is None:
            raise
        text, members = scratch, _decoded(scratch)
    return members, member_spans(text, 0, len(item), members, where)


def _decoded(text: bytes) -> Members:
    try:
        return OBJECT.decode(text)
    except msgspec.ValidationError:
        raise BadRequest("It must be a JSON object.") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadRequest(f"It is not valid JSON: {error}.") from None
    except RecursionError:
        raise BadRequest("It is nested too deeply.") from None


# Brackets, and whole strings, since brackets inside them do not count; of a long string, or one with escapes,
# its first quote only: its end is found faster without a pattern.
_TOKEN = re.compile(rb'"[^"\\]{0,2048}"|[{\[}\]"]')
_BACKSLASH = 0x5C
_SCALAR = re.compile(rb"[^\s,\]}]+")
_SPACES = re.compile(rb"[ \t\n\r]*")
_OPENING = frozenset((OPEN_ARRAY, OPEN_OBJECT))


def _elements(body: Body, at: int) -> Generator[Span, None, int]:
    """The elements of the array at `at`; returns the offset after it."""
    if body[at : at + 1] != b"[":
        raise BadRequest("`requests` must be a list.")
    at = _space(body, at + 1)
    if body[at : at + 1] == b"]":
        return at + 1
    while True:
        end = _value_end(body, at)
        yield at, end
        at = _space(body, end)
        mark = body[at : at + 1]
        if mark == b"]":
            return at + 1
        if mark != b",":
            raise _broken(at)
        at = _space(body, at + 1)


def _name(body: Body, at: int) -> tuple[str, int]:
    if body[at : at + 1] != b'"':
        raise _broken(at)
    end = _string_end(body, at)
    try:
        name = STRING.decode(body[at:end])
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise _broken(at) from None
    return name, _expect(body, end, b":")


def _value_end(body: Body, at: int) -> int:
    """The offset after the value at `at`."""
    if at >= len(body):
        raise _broken(at)
    first = body[at]
    if first == QUOTE:
        return _string_end(body, at)
    if first in _OPENING:
        return _bracket_end(body, at)
    found = _SCALAR.match(body, at)
    if found is None:
        raise _broken(at)
    return found.end()


def _bracket_end(body: Body, at: int) -> int:
    depth, resume = 0, at
    while resume >= 0:
        tokens, resume = _TOKEN.finditer(body, resume), -1
        for token in tokens:
            start, end = token.span()
            kind = body[start]
            if kind == QUOTE:
                if end == start + 1:
                    resume = _string_end(body, start)
                    break
                continue
            depth += 1 if kind in _OPENING else -1
            if not depth:
                return end
    raise _broken(at)


def _string_end(body: Body, at: int) -> int:
    """The offset after the string that begins at `at`."""
    end = at
    while (end := body.find(b'"', end + 1)) >= 0:
        back = end - 1
        while body[back] == _BACKSLASH:
            back -= 1
        if (end - back) % 2:  # an even number of them: none escapes the quote
            return end + 1
    raise _broken(at)


def _check(value: bytes | bytearray) -> None:
    try:
        msgspec.json.decode(value, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        raise BadRequest("The request body is not valid JSON.") from None


def _expect(body: Body, at: int, mark: bytes) -> int:
    """The offset of what follows `mark`, white space around it skipped."""
    at = _space(body, at)
    if body[at : at + 1] != mark:
        raise _broken(at)
    return _space(body, at + 1)


def _space(body: Body, at: int) -> int:
    found = _SPACES.match(body, at)
    assert found is not None
    return found.end()


def _broken(at: int) -> BadRequest:
    return BadRequest(f"The request body is not a JSON object (byte {at}).")
