"""The chain that ties ledger entries together, so that a change to the books does not go unseen.

Each writer (one ledger file of one replica) has a chain of its own, so replicas append without asking each
other. Each entry carries its position in it, and a keyed digest (HMAC-SHA-256) over its values, its place and
the digest before it. What that shows, and to whom:

- An entry that is changed, removed, moved or put in by someone who can write the table but cannot read the
  key is found, and so is who stands where it stood. Without a key (`ChainKey(b"")`) only whoever does not
  compute digests anew is found.
- Entries taken off the end leave a chain that is whole. Only a head that was noted elsewhere shows it.
- Whoever reads the key can write another history: keep it where the table's administrators do not reach.

Walking a chain is `chain_walk.py`'s, storing it `adapters/ledger_file.py`'s.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import msgspec

from gateway.core.entry import Entry

GENESIS = "begun"
"""Why there is an anchor at the start of each chain."""
FIRST_FIELDS = Entry._fields.index("held_saved_nanousd") + 1
"""Fields of an entry when chains began. Those that came later are part of the digest only where they are not
at their default: an entry of before keeps its digest when a new schema adds columns."""
Value = str | int | float | None

_encode = msgspec.json.Encoder().encode
_BLOCK = 64  # of SHA-256, in bytes


class Head(NamedTuple):
    """How far a chain goes. Noted elsewhere, it shows later that nothing was taken off the end."""

    chain: str
    position: int
    digest: bytes

    def __str__(self) -> str:
        return f"head {self.chain} {self.position} {self.digest.hex()}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """Where a chain goes on without the entries before: at its beginning, and where old ones were pruned."""

    chain: str
    first: int
    """Position of the first entry that may be missing; 0 at the beginning."""
    last: int
    """Of the last one; the entry after it continues from `digest`."""
    digest: bytes
    key_id: str
    """Of the key that this chain is written with; says nothing about the key."""
    uncovered: int = 0
    """Entries that the ledger held when the chain began: written before there were chains."""
    why: str = GENESIS
    seal: bytes = b""
    """Digest over all of the above."""


class ChainKey:
    """Makes digests with one secret. HMAC by hand, with both of its states computed once: 1.1 µs an entry,
    where `hmac.digest` takes 2.6."""

    __slots__ = ("_inner", "_outer", "id")

    def __init__(self, secret: bytes) -> None:
        key = secret if len(secret) <= _BLOCK else hashlib.sha256(secret).digest()
        padded = key.ljust(_BLOCK, b"\0")
        self._inner = hashlib.sha256(bytes(byte ^ 0x36 for byte in padded))
        self._outer = hashlib.sha256(bytes(byte ^ 0x5C for byte in padded))
        self.id = self.digest(b"key", b"")[:8].hex()

    def digest(self, before: bytes, message: bytes) -> bytes:
        """HMAC-SHA-256 over both, one after the other."""
        inner, outer = self._inner.copy(), self._outer.copy()
        inner.update(before + message)
        outer.update(inner.digest())
        return outer.digest()

    def link(self, before: bytes, chain: str, position: int, values: Sequence[Value]) -> bytes:
        """The digest of an entry. Raises ValueError for text that is no Unicode."""
        if len(values) > FIRST_FIELDS:
            first, added = values[:FIRST_FIELDS], _added(values)
            return self.digest(
                before, _encode((chain, position, first, added) if added else (chain, position, first))
            )
        return self.digest(before, _encode((chain, position, values)))

    def begin(self, chain: str, uncovered: int) -> Anchor:
        """The anchor that begins a chain."""
        return self.sealed(
            Anchor(
                chain=chain,
                first=0,
                last=0,
                digest=self.digest(b"chain", chain.encode()),
                key_id=self.id,
                uncovered=uncovered,
            )
        )

    def sealed(self, anchor: Anchor) -> Anchor:
        """The same with its seal."""
        return Anchor(
            chain=anchor.chain,
            first=anchor.first,
            last=anchor.last,
            digest=anchor.digest,
            key_id=anchor.key_id,
            uncovered=anchor.uncovered,
            why=anchor.why,
            seal=self._seal(anchor),
        )

    def made(self, anchor: Anchor) -> bool:
        """Whether the anchor was sealed with this key and is as it was then."""
        return self.id == anchor.key_id and self._seal(anchor) == anchor.seal

    def _seal(self, anchor: Anchor) -> bytes:
        values = (anchor.chain, anchor.first, anchor.last, anchor.digest.hex())
        return self.digest(b"anchor", _encode((*values, anchor.key_id, anchor.uncovered, anchor.why)))


def link_all(
    key: ChainKey, head: Head, entries: Sequence[Sequence[Value]]
) -> tuple[list[tuple[Value | bytes, ...]], Head]:
    """Entries as rows that go on from `head`, with their links behind their values; and the head after them.
    Raises as `ChainKey.link`."""
    chain, position, digest = head
    rows: list[tuple[Value | bytes, ...]] = []
    link = key.link
    for entry in entries:
        position += 1
        digest = link(digest, chain, position, entry)
        rows.append((*entry, chain, position, digest))
    return rows, Head(chain, position, digest)


def read_head(line: str) -> Head | None:
    """The head that a line shows, as `str` writes it; None for any other line. Raises ValueError for one that
    was cut or altered."""
    words = line.split()
    if not words or words[0] != "head":
        return None
    try:
        _, chain, position, digest = words
        head = Head(chain, int(position), bytes.fromhex(digest))
    except ValueError:
        raise ValueError(f"{line.strip()!r} is no head of a chain; write it as it was printed") from None
    if len(head.digest) != hashlib.sha256().digest_size:
        raise ValueError(f"the digest of {line.strip()!r} was cut")
    return head


def _added(values: Sequence[Value]) -> dict[str, Value]:
    later = zip(Entry._fields[FIRST_FIELDS:], values[FIRST_FIELDS:], strict=True)
    return {name: value for name, value in later if value != Entry._field_defaults[name]}
