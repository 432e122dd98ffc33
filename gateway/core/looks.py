"""What stands at a place of a text where it changed: a timestamp, an id, a path, or just words.

It is judged from the new text alone, around the place; nothing of the text is kept.
"""

from __future__ import annotations

import re
from itertools import pairwise

from gateway.core.misses import Looks

CONTEXT_BYTES = 64
"""How far beyond the place something may begin or end that overlaps it."""
NEAR_BYTES = 1024
"""A place that is less well known than this tells nothing by what stands in it."""

_MONTH = rb"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DAY = (
    rb"(?:\d{4}[-/.]\d{1,2}[-/.]\d{1,2}|\d{1,2}[-/.]\d{1,2}[-/.]\d{2,4}|\d{1,2}(?:st|nd|rd|th)?,? "
    + _MONTH
    + rb",? \d{4}|"
    + _MONTH
    + rb" \d{1,2}(?:st|nd|rd|th)?,? \d{4})"
)
_HOUR = rb"\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d{1,9})?)?(?: ?[ap]m\b)?(?: ?(?:z|utc|gmt|[+-]\d{2}:?\d{2})\b)?"
_PATTERNS = tuple(
    (looks, re.compile(pattern, re.IGNORECASE), slack)
    for looks, pattern, slack in (
        (Looks.UUID, rb"\b[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}\b", 12),
        # A day with a time, a time alone, seconds or milliseconds since 1970 (2001 to 2033).
        (Looks.TIMESTAMP, rb"(?<!\d)(?:" + _DAY + rb"(?:t|,? (?:at )?))?" + _HOUR, 16),
        (Looks.TIMESTAMP, rb"(?<![\w.])1\d{9}(?:\d{3}|\d{6})?(?:\.\d{1,9})?(?!\w)", 16),
        (Looks.DATE, rb"(?<!\d)" + _DAY + rb"(?!\d)", 16),
        (Looks.RANDOM_ID, rb"(?<![0-9a-z])[0-9a-z]{12,64}(?![0-9a-z])", 24),
        (Looks.PATH, rb"(?:(?<![\w:/])~?(?:/[\w.@+-]+){2,}|\b[a-z]:(?:\\\\?[\w.@+ -]+){1,})/?", 256),
        (Looks.COUNTER, rb"\d+", 3),
    )
)
"""What is looked for, in this order, and by how much the block's length may differ because of it."""
_TURNS = 3
"""Changes between letters and digits that make a word look random; `gpt4turbo128k` has fewer than its length
would let a random one have."""


def looks_at(
    text: bytes, start: int, end: int, *, within: tuple[int, int], grew: int
) -> tuple[Looks, int | None]:
    """What stands at `start`..`end`, where the text changed, and where that begins; for an edited text the
    latter is None. `within` bounds the block; `grew` is by how many bytes it is longer than it was."""
    if end - start <= NEAR_BYTES:
        first, last = max(within[0], start - CONTEXT_BYTES), min(within[1], end + CONTEXT_BYTES)
        for looks, pattern, slack in _PATTERNS:
            if abs(grew) > slack:
                continue
            for found in pattern.finditer(text, first, last):
                if found.end() >= start and found.start() <= end and _holds(looks, found[0]):
                    return looks, found.start()
    return Looks.EDITED, None


def _holds(looks: Looks, word: bytes) -> bool:
    if looks is not Looks.RANDOM_ID:
        return True
    kinds = [48 <= byte <= 57 for byte in word]
    turns = sum(one != other for one, other in pairwise(kinds))
    return turns >= _TURNS * max(1, len(word) // 16) or (sum(kinds) == len(word) and len(word) >= 12)
