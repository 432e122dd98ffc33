"""What is remembered of each known prefix: a fixed table of parallel arrays, open addressing, no objects.

Keys are digests, so that their low bits are as good as any hash: they name a window of `WINDOW`
neighbouring slots. A new one takes an empty slot of its window, or
the one whose prefix was accessed longest ago: eviction looks at one window and no further. Nothing here
decides anything.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence

WINDOW = 8
NEAR = 40
"""How many prefixes before the deepest known one are looked at: the cost of a request does not grow with the
length of its conversation."""
BYTES_PER_SLOT = 8 + 8 + 8 + 1 + 1
"""Key, last access, expiry, flags, accesses. A table is best kept three quarters full at most."""

NOT_LOOKED_AT = -2
"""No slot either, and nothing is said of whether the prefix is known."""

NEVER = -1.0
"""When an empty slot was last accessed: before any instant, so that it is taken before one that is used."""

HAS_CHILD = 1
"""A longer prompt went through this prefix."""
BRANCH = 2
"""Two different prompts went on from it, or one came twice."""
WRITTEN = 4
"""It was written once; `expires` says until when it could be read."""
HOUR = 8
"""Its entry's TTL is an hour."""
LAYERED = 16
"""Its entry is a 1h one behind a prefix that was only kept for 5 min."""
GONE = 32
"""Upstream did not read its entry although it should still have lived."""


class PrefixTable:
    """Slots are integers; -1 is no slot. A slot may be given to another prefix by any later `add`, so none
    is kept across requests."""

    __slots__ = ("_mask", "accesses", "expires", "flags", "keys", "last", "used")

    def __init__(self, capacity: int) -> None:
        size = _size(capacity)
        self._mask = size - 1
        room = size + WINDOW
        self.keys = array("Q", bytes(8 * room))
        self.last = array("d", [NEVER]) * room
        self.expires = array("d", bytes(8 * room))
        self.flags = bytearray(room)
        self.accesses = bytearray(room)
        self.used = 0

    def find(self, key: int) -> int:
        """The slot of `key`, or -1."""
        at = key & self._mask
        window = self.keys[at : at + WINDOW]
        return at + window.index(key) if key in window else -1

    def find_path(self, prefixes: Sequence[int], head: int) -> list[int]:
        """The slots of a prompt's prefixes up to the deepest known one: of the first `head`, and of the last
        `NEAR` of them. All others have -1, as those have that were forgotten."""
        keys, mask, find = self.keys, self._mask, self.find
        known = self._deepest(prefixes)
        if known < 0:
            return []
        near = max(head, known - NEAR)
        looked_at = (
            (*prefixes[:head], *prefixes[near : known + 1]) if near <= known else prefixes[: known + 1]
        )
        slots = [slot if keys[slot := key & mask] == key else find(key) for key in looked_at]
        if near > head and near <= known:
            slots[head:head] = [-1] * (near - head)
        return slots

    def find_known(self, prefixes: Sequence[int], blocks: Sequence[int]) -> list[int]:
        """As `find_path`, of these blocks only; the others have `NOT_LOOKED_AT`. None at all where the last
        of them is not the deepest known here."""
        known = self._deepest(prefixes)
        if known != blocks[-1]:
            return []
        slots = [NOT_LOOKED_AT] * (known + 1)
        for block in blocks:
            slots[block] = self.find(prefixes[block])
        return slots

    def _deepest(self, prefixes: Sequence[int]) -> int:
        """The last of them that is known, or -1."""
        keys, mask = self.keys, self._mask
        for block in range(len(prefixes) - 1, -1, -1):
            key = prefixes[block]
            at = key & mask
            # No slot is ever emptied: where the first of its window is empty, a prefix is not known.
            if keys[at] and key in keys[at : at + WINDOW]:
                return block
        return -1

    def add_new(self, prefixes: Sequence[int], now: float) -> list[int]:
        """Slots taken for prefixes that are not known, each but the last with a child; accessed `now`.
        Neighbours may be the same prefix."""
        keys, last, flags, mask = self.keys, self.last, self.flags, self._mask
        slots: list[int] = []
        before, slot, fresh = 0, -1, 0
        for key in prefixes:
            if key != before:
                slot = key & mask
                if keys[slot]:
                    ages = last[slot : slot + WINDOW]
                    slot += ages.index(min(ages))
                    if keys[slot]:
                        self.expires[slot] = 0.0
                        self.accesses[slot] = 0
                        fresh -= 1
                fresh += 1
                keys[slot] = before = key
                last[slot] = now
                flags[slot] = HAS_CHILD
            slots.append(slot)
        self.used += fresh
        if slots:
            flags[slot] = 0
        return slots

    def remember(self, prefixes: Sequence[int], slots: list[int], now: float) -> None:
        """A prompt's prefixes, found in these slots, were accessed; those that are new become known, and get
        theirs. What was looked at and was forgotten is taken in again."""
        known = len(slots) - 1
        near = max(0, known - NEAR)
        if -1 in slots[near:known]:
            for block in range(near, known):
                if slots[block] == -1:
                    slots[block] = self.add(prefixes[block], now)
        if known >= 0:
            slots[known] = self.add(prefixes[known], now)
        if known + 1 < len(prefixes):
            if known >= 0:
                self.flags[slots[known]] |= HAS_CHILD
            slots.extend(self.add_new(prefixes[known + 1 :], now))

    def add(self, key: int, now: float) -> int:
        """The slot of `key`, taken for it where it was not known; accessed `now`."""
        at = key & self._mask
        window = self.keys[at : at + WINDOW]
        if key in window:
            slot = at + window.index(key)
            self.last[slot] = now
            return slot
        return self.add_new((key,), now)[0]


def table_bytes(capacity: int) -> int:
    """Memory of a table for so many prefixes."""
    return (_size(capacity) + WINDOW) * BYTES_PER_SLOT


def _size(capacity: int) -> int:
    return 1 << max(4, (capacity - 1).bit_length())
