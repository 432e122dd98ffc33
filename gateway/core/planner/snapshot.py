"""The planner's memory as plain bytes, to be kept over a restart, and taken up again.

What is kept: known prefixes with their entries, what was learned of reuse, the accounts, the belief in
layered entries. What is not: requests in flight, warm-ups to come, promises of the last five minutes
(so that less is risked until new ones are made). Instants are kept as they are: time after the restart goes
on from `Planner.resumed_at` (`instants.py`).
"""

from __future__ import annotations

import math
import struct
from array import array
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from gateway.core.planner.ledger import Account
from gateway.core.planner.planner import Planner
from gateway.core.planner.reuse import context

MADE_BY = struct.pack("<3q", context(1, 2, 3), context(5, 1 << 63), 4)
"""Changes where contexts are hashed differently, or the layout changes: then nothing is taken up."""

_ACCOUNT = struct.Struct("<Qdd")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One planner's memory. Integers and floats are in the machine's own order."""

    made_by: bytes
    taken_at: float
    """No instant in it is later than this, but for when entries expire."""
    keys: bytes
    last: bytes
    expires: bytes
    flags: bytes
    accesses: bytes
    reached: bytes
    ended: bytes
    observing: bytes
    accounts: bytes
    kept_accounts: bytes
    trust: tuple[float, float]


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Snapshot)
_MAP = 0x80


def dump(planner: Planner, now: float) -> Iterator[bytes | memoryview]:
    """What the planner knows at `now`, in pieces, which another thread may take while the planner goes on:
    nothing is copied, and to pack the observations takes tens of milliseconds. What changes meanwhile is
    there as it was or as it is, so that a prefix may have something of another's; that can cost a little."""
    table = planner.table
    reached, ended, observing = planner.reuse.export()
    return _in_msgpack(
        {
            "made_by": MADE_BY,
            "taken_at": now,
            "keys": memoryview(table.keys).cast("B"),
            "last": memoryview(table.last).cast("B"),
            "expires": memoryview(table.expires).cast("B"),
            "flags": memoryview(table.flags),
            "accesses": memoryview(table.accesses),
            "reached": reached,
            "ended": ended,
            "observing": observing,
            "accounts": _pack(planner.accounts),
            "kept_accounts": _pack(planner.stakes.kept_accounts),
            "trust": (planner.layered_read, planner.layered_tried),
        }
    )


def begin_bytes(size: int) -> bytes:
    """How msgpack begins a string of so many bytes."""
    return b"\xc6" + size.to_bytes(4, "big")


def _in_msgpack(members: dict[str, object]) -> Iterator[bytes | memoryview]:
    """What can be called is called when its turn comes."""
    yield bytes([_MAP + len(members)])
    for name, value in members.items():
        yield _ENCODER.encode(name)
        if isinstance(value, memoryview):
            yield begin_bytes(len(value))
            yield value
        else:
            yield _ENCODER.encode(value() if callable(value) else value)


def load(planner: Planner, data: bytes) -> bool:
    """As `restore`, from `dump`'s string; False for any other."""
    try:
        return restore(planner, read(data))
    except msgspec.DecodeError:
        return False


def read(data: bytes) -> Snapshot:
    """What `dump` has written. Raises `msgspec.DecodeError`."""
    return _DECODER.decode(data)


def restore(planner: Planner, snapshot: Snapshot) -> bool:
    """Give a new planner that memory. False, and nothing is changed, where it does not fit this version;
    a table of another size is filled prefix by prefix. Premiums in flight when it was taken count as not
    spent. Raises nothing."""
    if snapshot.made_by != MADE_BY:
        return False
    rooms = len(snapshot.flags)
    if any(len(column) != 8 * rooms for column in (snapshot.keys, snapshot.last, snapshot.expires)):
        return False
    read, tried = snapshot.trust
    if len(snapshot.accesses) != rooms or len(snapshot.accounts) % _ACCOUNT.size:
        return False
    if len(snapshot.kept_accounts) % _ACCOUNT.size or not math.isfinite(snapshot.taken_at):
        return False
    if not (math.isfinite(tried) and 0.0 <= read <= tried and tried > 0.0):
        return False
    try:
        planner.reuse.restore((snapshot.reached, snapshot.ended, snapshot.observing))
    except ValueError:
        return False
    _restore_table(planner, snapshot)
    planner.accounts.update(_unpack(snapshot.accounts))
    planner.stakes.kept_accounts.update(_unpack(snapshot.kept_accounts))
    planner.layered_read, planner.layered_tried = snapshot.trust
    planner.resumed_at = snapshot.taken_at
    return True


def _pack(accounts: dict[int, Account]) -> bytes:
    return b"".join(_ACCOUNT.pack(name, account.plain, account.saved) for name, account in accounts.items())


def _unpack(packed: bytes) -> dict[int, Account]:
    return {name: Account(plain=plain, saved=saved) for name, plain, saved in _ACCOUNT.iter_unpack(packed)}


def _restore_table(planner: Planner, snapshot: Snapshot) -> None:
    table = planner.table
    keys, last = array("Q", snapshot.keys), array("d", snapshot.last)
    expires = array("d", snapshot.expires)
    if len(keys) == len(table.keys):
        table.keys, table.last, table.expires = keys, last, expires
        table.flags, table.accesses = bytearray(snapshot.flags), bytearray(snapshot.accesses)
        table.used = len(keys) - keys.count(0)
        return
    for room, key in enumerate(keys):
        if key:
            slot = table.add(key, last[room])
            table.expires[slot] = expires[room]
            table.flags[slot] = snapshot.flags[room]
            table.accesses[slot] = snapshot.accesses[room]
