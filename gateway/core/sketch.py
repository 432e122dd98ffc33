"""What is kept of a run of blocks so that a later one can be told to be nearly the same: digests and lengths.

Every digest is keyed; no text is kept. Of each block there is a digest of its content, one that does not
change when members of objects come in another order or white space does, its length, and digests of the
pieces it can be cut into, by which the place of a change is found.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import msgspec

from gateway.core.prompt import Block, Level, Prompt
from gateway.core.spans import OBJECT, OPEN_OBJECT, Members

MAX_BYTES = 256 * 1024
"""Of a run of blocks, what is looked at; what follows is not."""
MAX_LOOSE_BYTES = 16 * 1024
"""A longer block is not looked at for white space and order."""
MAX_CHUNKS = 384
MIN_CHUNK_BYTES = 64
_SPACES = b" \t\r\n"
_KEY_BYTES = 64
_CHUNK_DIGEST = 4
_OVERHEAD_BYTES = 560
"""Of the objects that hold a sketch together, beyond what is in their arrays."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Where a block differs from the one it is compared with."""

    start: int
    """Offset in the new content from which it may differ; before it, nothing does."""
    end: int
    """Where the first difference has ended; the content's end, where nothing after it is equal."""
    equal: int
    """Bytes that both have."""
    exact: bool


class Run(Protocol):
    """A run of blocks as far as it is remembered: by digests, or with its text (`comparison.py`)."""

    @property
    def levels(self) -> Sequence[Level]: ...

    @property
    def contents(self) -> Sequence[object]:
        """Equal for equal contents."""
        ...

    @property
    def looses(self) -> Sequence[object]:
        """Equal also where only white space and the order of members differ."""
        ...

    @property
    def sizes(self) -> Sequence[int]: ...

    def spread(self, index: int, content: memoryview, of: Run | None = None) -> Spread:
        """Where `content`, which was found in the place of this block, differs from it; `of` is the run that
        it was found in, where there is one."""
        ...


class Keyed:
    """SHA-256 with the secret in front, one block of it; callers keep a part (see `prefix.py`)."""

    __slots__ = ("_begun",)

    def __init__(self, secret: bytes) -> None:
        self._begun = hashlib.sha256(hashlib.sha256(secret).digest().ljust(_KEY_BYTES, b"\0"))

    def __call__(self, data: bytes | memoryview) -> bytes:
        one = self._begun.copy()
        one.update(data)
        return one.digest()

    def number(self, data: bytes | memoryview) -> int:
        """64 bits of it."""
        return int.from_bytes(self(data)[:8], "little")


class Sketch:
    """A run of blocks by digests. Never changed once made."""

    __slots__ = ("_counts", "_digest", "chunk", "chunks", "content", "contents", "levels", "looses", "sizes")

    def __init__(self, prompt: Prompt, blocks: Sequence[Block], digest: Keyed) -> None:
        contents, looses, sizes, counts = array("Q"), array("Q"), array("Q"), array("H")
        levels: list[Level] = []
        pieces: list[bytes] = []
        left = MAX_BYTES
        seen = min(MAX_BYTES, sum(block.end - block.start for block in blocks))
        self.chunk = MIN_CHUNK_BYTES
        while seen > self.chunk * MAX_CHUNKS:
            self.chunk *= 2
        for block in blocks:
            if left <= 0:
                break
            whole = content_of(prompt, block)
            content = whole[:left]
            left -= len(content)
            levels.append(block.level)
            contents.append(digest.number(content))
            is_short = len(content) <= MAX_LOOSE_BYTES
            looses.append(digest.number(loose_of(content, block)) if is_short else contents[-1])
            sizes.append(len(whole))
            starts = range(0, len(content), self.chunk)
            counts.append(len(starts))
            pieces.extend([digest(content[at : at + self.chunk])[:_CHUNK_DIGEST] for at in starts])
        self.levels: Sequence[Level] = tuple(levels)
        self.contents: Sequence[int] = contents
        self.looses: Sequence[int] = looses
        self.sizes: Sequence[int] = sizes
        self.chunks = b"".join(pieces)
        self.content = digest.number(contents.tobytes() + sizes.tobytes())
        """Equal where all of it is."""
        self._counts = counts
        self._digest = digest

    @property
    def size_bytes(self) -> int:
        """Memory that it takes."""
        return _OVERHEAD_BYTES + len(self.sizes) * (3 * 8 + 2 + 8) + len(self.chunks)

    def spread(self, index: int, content: memoryview, of: Run | None = None) -> Spread:
        """As `Run.spread`: to within a piece, by digests of the new content's pieces."""
        count, size, pieces = self._counts[index], self.chunk, self._pieces(index)
        there = of._pieces(index) if isinstance(of, Sketch) and of.chunk == size else None
        grew = len(content) - self.sizes[index]
        start = resumed = -1
        equal = 0
        shifts = [0]
        for number in range(count):
            at, place = number * size, number * _CHUNK_DIGEST
            known, length = pieces[place : place + _CHUNK_DIGEST], min(size, self.sizes[index] - at)
            for shift in shifts:
                if shift == 0 and there is not None:
                    if there[place : place + _CHUNK_DIGEST] == known:
                        break
                elif at + shift >= 0 and self._is(known, content[at + shift : at + shift + length]):
                    break
            else:
                if start < 0:
                    start, shifts = at, [0, grew] if grew else [0]
                continue
            equal += length
            if shift != shifts[0]:
                shifts.reverse()  # where one piece was found, the next one will be, too
            if start >= 0 and resumed < 0:
                resumed = at + shift
        start = start if start >= 0 else min(count * size, self.sizes[index], len(content))
        return Spread(start, resumed if resumed > start else len(content), equal, exact=False)

    def _pieces(self, index: int) -> bytes:
        first = sum(self._counts[:index])
        return self.chunks[first * _CHUNK_DIGEST : (first + self._counts[index]) * _CHUNK_DIGEST]

    def _is(self, known: bytes, content: memoryview) -> bool:
        return self._digest(content)[:_CHUNK_DIGEST] == known


def content_of(prompt: Prompt, block: Block) -> memoryview:
    """What counts of a block for the cache: its JSON without marks; of a text, what stands in its quotes."""
    view = memoryview(prompt.body)
    if block.text is not None:
        start, end = block.text
        return view[start + 1 : end - 1]
    if not block.cuts:
        return view[block.start : block.end]
    at, pieces = block.start, []
    for start, end in sorted(block.cuts):
        pieces.append(view[at:start])
        at = end
    return memoryview(b"".join([*pieces, view[at : block.end]]))


def size_of(block: Block) -> int:
    """The length of `content_of`, without making it."""
    if block.text is not None:
        return block.text[1] - block.text[0] - 2
    if not block.cuts:
        return block.end - block.start
    return block.end - block.start - sum(end - start for start, end in block.cuts)


def loose_of(content: memoryview, block: Block) -> bytes:
    """The content without white space; of an object, its members sorted, as those of a tool's schema are."""
    if block.text is not None or not content or content[0] != OPEN_OBJECT:
        return bytes(content).translate(None, _SPACES).replace(b"\\n", b"").replace(b"\\t", b"")
    try:
        return _sorted(OBJECT.decode(content), depth=2).translate(None, _SPACES)
    except (msgspec.DecodeError, UnicodeError):  # cut short, or lone surrogates
        return bytes(content)


def _sorted(members: Members, depth: int) -> bytes:
    parts = []
    for key, raw in members.items():
        value = bytes(raw)
        if depth and value[0] == OPEN_OBJECT:
            value = _sorted(OBJECT.decode(raw), depth - 1)
        parts.append(b"%b:%b" % (key.encode(), value))
    parts.sort()
    return b"{%b}" % b",".join(parts)
