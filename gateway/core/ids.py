"""Names that must not be mixed up. Only types live here."""

from typing import NewType

WorkspaceId = NewType("WorkspaceId", str)
KeyId = NewType("KeyId", str)
"""Public part of a virtual key; safe to log."""
PrefixKey = NewType("PrefixKey", bytes)
"""16 bytes: keyed digest of a prefix within a cache scope. The only trace of content kept anywhere."""
ReservationId = NewType("ReservationId", str)
