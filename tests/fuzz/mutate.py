"""Inputs that are nearly right: made from good ones by a few cuts, repeats, swaps and splices, at the level
of bytes and of tokens. The same random numbers make the same inputs. Knows nothing of what it mutates."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from random import Random

MOST_BYTES = 64 << 10
"""Mutants do not grow beyond this."""
_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[A-Za-z0-9_.+-]+|[ \t]+|\r\n|[^A-Za-z0-9]', re.DOTALL)
_LETTER = re.compile(rb"[A-Za-z_]")
_ODD_BYTES = (
    b'\x00\x01\t\n\r\x0b\x0c\x1b "\\/:,;{}[]()<>=+-.%#&*!|\x7f\x80\x85\xa0\xc0\xc3\xed\xef\xbf\xfe\xff'
)
_ODD_TEXTS = (
    b"\xef\xbb\xbf", b"\r\n", b"\n\n", b"\\u0000", b"\\ud800", b"\\udc00", b"\\ud83d\\ude00",
    b"\xed\xa0\x80", b"\xe2\x80\xa8", b"NaN", b"Infinity", b"-0", b"1e400", b"1e1", b"1.0", b"0x10",
    b"9007199254740993", b"123456789012345678901234567890", b"-1", b"null", b"true", b"false", b'""', b"{}",
    b"[]", b"\x1b[31m", b"%00", b"%2e%2e/", b"=cmd()", b"../", b"'",
)  # fmt: skip


def mutant(random: Random, seed: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """One input out of `seed`. Pieces of `others` and `words` are put in now and then."""
    data = seed
    for _ in range(random.choice((1, 1, 1, 2, 2, 3, 5, 8))):
        data = random.choice(_STEPS)(random, data, others, words)
    return data[:MOST_BYTES]


async def smaller(data: bytes, fails: Callable[[bytes], Awaitable[bool]], tries: int = 600) -> bytes:
    """A shorter input that still `fails`, found by leaving pieces out."""
    size = max(len(data) // 2, 1)
    while size and tries:
        at = 0
        while at < len(data) and tries:
            tries -= 1
            shorter = data[:at] + data[at + size :]
            if await fails(shorter):
                data = shorter
            else:
                at += size
        size //= 2
    return data


_Step = Callable[[Random, bytes, Sequence[bytes], Sequence[bytes]], bytes]


def _span(random: Random, data: bytes, longest: int) -> tuple[int, int]:
    start = random.randrange(len(data) + 1)
    return start, min(len(data), start + random.randrange(longest + 1))


def _change_byte(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    if not data:
        return b"\x00"
    at = random.randrange(len(data))
    byte = random.choice(_ODD_BYTES) if random.random() < 0.7 else random.randrange(256)
    return data[:at] + bytes([byte]) + data[at + 1 :]


def _put_in(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice([*words, *_ODD_TEXTS]) + data[at:]


def _leave_out(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    start, end = _span(random, data, random.choice((1, 4, 16, 64)))
    return data[:start] + data[end:]


def _repeat(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    start, end = _span(random, data, random.choice((2, 16, 64)))
    times = random.choice((2, 2, 3, 40 if end - start > 4 else 2_000))
    return data[:start] + data[start:end] * times + data[end:]


def _splice(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    if not others:
        return data
    other = random.choice(others)
    start, end = _span(random, other, 96)
    at, until = _span(random, data, 32)
    return data[:at] + other[start:end] + data[until:]


def _tokens(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """Move, repeat, replace or leave out whole tokens, so that what comes out often still is of the form."""
    tokens = _TOKEN.findall(data[:MOST_BYTES])
    if len(tokens) < 2:
        return data
    start = random.randrange(len(tokens))
    end = min(len(tokens), start + random.choice((1, 1, 2, 3, 4, 8)))
    piece, kind = tokens[start:end], random.randrange(5)
    if kind == 0:
        at = random.randrange(len(tokens))
        tokens[at:at] = piece
    elif kind == 1:
        del tokens[start:end]
    elif kind == 2:
        tokens[start] = random.choice([*words, *_ODD_TEXTS])
    elif kind == 3:
        tokens[start] = random.choice(tokens)
    else:
        tokens[end:end] = [b",", *piece] if random.random() < 0.5 else piece
    return b"".join(tokens)


def _escape_letter(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    """A letter as JSON may also write it: two names that look different, and are not."""
    letters = list(_LETTER.finditer(data[:MOST_BYTES]))
    if not letters:
        return data
    at = random.choice(letters).start()
    return data[:at] + b"\\u%04x" % data[at] + data[at + 1 :]


def _cut_off(random: Random, data: bytes, others: Sequence[bytes], words: Sequence[bytes]) -> bytes:
    return data[: random.randrange(len(data) + 1)]


_STEPS: tuple[_Step, ...] = (
    _change_byte, _put_in, _leave_out, _repeat, _splice, _tokens, _tokens, _tokens, _escape_letter, _cut_off,
)  # fmt: skip
