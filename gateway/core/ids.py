"""Names that must not be mixed up, and how the gateway makes those of exchanges."""

from typing import NewType

WorkspaceId = NewType("WorkspaceId", str)
KeyId = NewType("KeyId", str)
"""Public part of a virtual key; safe to log."""
PrefixKey = NewType("PrefixKey", bytes)
"""16 bytes: keyed digest of a prefix within a cache scope. The only trace of content kept anywhere."""
ReservationId = NewType("ReservationId", str)


def exchange_id(at: float, randomness: int) -> str:
    """Unique, not secret. `at` is in epoch seconds, `randomness` 64 random bits.

    It begins with the millisecond, so that rows of one moment stand side by side in the index of every store:
    by random ids each of them would be on a page of its own, and a commit writes whole pages. It has no
    hyphen: those of its reservations may add something behind one."""
    return f"gw_{int(at * 1000):011x}{randomness:016x}"


def exchange_of(reservation_id: ReservationId) -> str:
    """The exchange that a reservation was made for."""
    return reservation_id.partition("-")[0]
