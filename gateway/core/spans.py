"""Where the members of a JSON object and the elements of an array stand in the client's bytes.

msgspec checks the syntax and hands out values as raw slices without building them; a slice knows its
length, not its place. The places follow from the lengths:

- Elements of an array are apart by one comma and white space only.
- An object in the compact form is as long as its keys, values and punctuation together. White space, an
  escape in a key, a key outside ASCII or a repeated key would each make it *longer* than that sum, so an
  exact match rules out all of them. Any other object is walked member by member.

Nothing here knows what a Messages body is.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeGuard

import msgspec
from msgspec import Raw

from gateway.core.errors import BadRequest

Span = tuple[int, int]
"""Offsets of a value: of its first byte, and of the one after its last."""
Members = dict[str, Raw]

OBJECT = msgspec.json.Decoder(dict[str, Raw])
ARRAY = msgspec.json.Decoder(list[Raw])
OBJECTS = msgspec.json.Decoder(list[dict[str, Raw]])
STRING = msgspec.json.Decoder(str)
QUOTE, OPEN_ARRAY, CLOSE_ARRAY, OPEN_OBJECT, COMMA = b'"[]{,'

_SPACE = b" \t\n\r"
_SPACES = re.compile(rb"[ \t\n\r]+")
_LITERAL = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_ESCAPE = re.compile(rb"\\(?:u([0-9a-fA-F]{4})|.)", re.DOTALL)
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def compact_length(members: Members) -> int:
    """Bytes that the object takes in the compact form, with every key once, in ASCII and unescaped."""
    if not members:
        return 2
    return 1 + 4 * len(members) + sum(map(len, members)) + sum(map(len, members.values()))


def compact_span(start: int, members: Members, key: str) -> Span:
    """The span of one member's value, in an object at `start` that is known to have the compact form."""
    at = start + 1
    for name, raw in members.items():
        at += len(name) + 3
        if name == key:
            break
        at += len(raw) + 1
    return at, at + len(members[key])


def member_spans(text: bytes, start: int, end: int, members: Members, where: str) -> dict[str, Span]:
    """The span of each member's value, in the object at `start`..`end` that `members` was read from.

    Raises `BadRequest` where the object repeats a key: readers disagree about which one counts.
    """
    if compact_length(members) != end - start:
        return _walk(text, start, end, members, where)
    spans = {}
    at = start + 1
    for key, raw in members.items():
        at += len(key) + 3
        spans[key] = (at, at + len(raw))
        at += len(raw) + 1
    return spans


def element_spans(text: bytes, start: int, end: int, lengths: Sequence[int]) -> list[Span]:
    """The span of each element of the array at `start`..`end`, whose elements have these lengths."""
    spans = []
    at = start + 1
    for length in lengths:
        at = skip_space(text, at)
        spans.append((at, at + length))
        at = skip_space(text, at + length) + 1
    return spans


def _walk(text: bytes, start: int, end: int, members: Members, where: str) -> dict[str, Span]:
    # The reader keeps a repeated key at its first place with its last value. So if key, value and
    # punctuation agree with the text member by member, up to the closing brace, nothing was repeated.
    spans = {}
    at = skip_space(text, start + 1)
    for key, raw in members.items():
        plain = b'"%b"' % key.encode()
        if text.startswith(plain, at):
            at += len(plain)
        else:
            literal = _LITERAL.match(text, at)
            if literal is None or STRING.decode(literal[0]) != key:
                raise _repeated(where)
            at = literal.end()
        at = skip_space(text, skip_space(text, at) + 1)
        if not text.startswith(bytes(raw), at):
            raise _repeated(where)
        spans[key] = (at, at + len(raw))
        at = skip_space(text, at + len(raw))
        if text[at] == COMMA:
            at = skip_space(text, at + 1)
    if at != end - 1:
        raise _repeated(where)
    return spans


def skip_space(text: bytes, at: int) -> int:
    """The offset of the first byte at or after `at` that is not JSON's white space."""
    if text[at] not in _SPACE:
        return at
    found = _SPACES.match(text, at)
    return found.end() if found is not None else at


def outer_span(text: bytes) -> Span:
    """The span of the one value of a text, without the white space around it."""
    return skip_space(text, 0), len(text.rstrip(_SPACE))


def cut_span(text: bytes, start: int, spans: dict[str, Span], key: str) -> Span:
    """The span of one member of the object at `start`, with the comma that goes with it, so that what is left
    reads as if the member had never been there."""
    keys = list(spans)
    index = keys.index(key)
    end = spans[key][1]
    if index > 0:
        return spans[keys[index - 1]][1], end
    if len(keys) > 1:
        end = skip_space(text, skip_space(text, end) + 1)
    return skip_space(text, start + 1), end


def present(raw: Raw | None) -> TypeGuard[Raw]:
    """Whether a member is there and not null."""
    return raw is not None and not (len(raw) == 4 and bytes(raw) == b"null")


def read_string(raw: Raw | None) -> str:
    """A string's value; empty for anything else."""
    return STRING.decode(raw) if raw is not None and memoryview(raw)[0] == QUOTE else ""


def read_integer(raw: Raw | None) -> int | None:
    """A number's value, however it is spelled; None for anything that is no integer, or absurd."""
    if raw is None or len(raw) > 20:
        return None
    try:
        value = float(bytes(raw))
    except ValueError:
        return None
    return int(value) if value.is_integer() and 0 <= value < 2**53 else None


def has_text(raw: Raw | None) -> bool:
    """Whether a value is a string of more than white space."""
    if raw is None:
        return False
    view = memoryview(raw)
    if view[0] != QUOTE:
        return False
    first = view[1]
    if 0x20 < first < 0x80 and first not in b'"\\':
        return True
    return bool(STRING.decode(raw).strip())


def without_lone_surrogates(text: bytes) -> bytes | None:
    """The text with `\\ufffd` for every escaped surrogate that has no partner, at equal length; None where
    it has none. For reading only: some readers refuse what others, and perhaps upstream, accept."""
    if _SURROGATE.search(text) is None:
        return None
    pieces = bytearray(text)
    high: tuple[int, int] | None = None
    lone: list[int] = []
    for escape in _ESCAPE.finditer(text):
        unit = int(escape[1], 16) if escape[1] else 0
        if 0xDC00 <= unit <= 0xDFFF and high is not None and high[1] == escape.start():
            high = None
            continue
        if high is not None:
            lone.append(high[0])
        high = (escape.start(), escape.end()) if 0xD800 <= unit <= 0xDBFF else None
        if 0xDC00 <= unit <= 0xDFFF:
            lone.append(escape.start())
    if high is not None:
        lone.append(high[0])
    _overwrite(pieces, lone)
    return bytes(pieces) if lone else None


def check_text(body: bytes, known: Iterable[Span]) -> None:
    """Refuse what is not UTF-8: `BadRequest`. What is `known` to be is not looked at."""
    at = 0
    for start, end in (*sorted(known), (len(body), len(body))):
        if at < start and not (piece := body[at:start]).isascii():
            try:
                piece.decode()
            except UnicodeDecodeError as error:
                raise BadRequest(f"The request body is not valid UTF-8 (byte {at + error.start}).") from None
        at = max(at, end)


def _overwrite(pieces: bytearray, places: Iterable[int]) -> None:
    for at in places:
        pieces[at : at + 6] = b"\\ufffd"


def _repeated(where: str) -> BadRequest:
    return BadRequest(f"The request body names a member twice in {where}. Send each member once.")
