"""The `ledger` section of `gateway.yaml`: where the books are kept, who may not change them, and how long."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from gateway.settings.shared import SecretRef, Section
from gateway.settings.units import Seconds


class LedgerKind(StrEnum):
    SQLITE = "sqlite"
    POSTGRES = "postgres"


class Ledger(Section):
    """Where the books are kept. Each replica always writes the ledger of its state directory first."""

    kind: LedgerKind = LedgerKind.SQLITE
    """`sqlite`: that is all. `postgres`: entries are then shipped to a database that all replicas share, and
    reports are read from there."""
    url: SecretRef = SecretRef(env="LEDGER_URL")
    """Where the URL of `postgres` is found, as postgresql://user:password@host/name?sslmode=verify-full."""
    key: SecretRef | None = None
    """Where the key of the entries' digests is found, 32 bytes or more. Where it is not said, it is made
    once, in the state directory. Replicas that share a ledger should share it: one place can then verify."""
    keep: Annotated[Seconds, Field(ge=31 * 86_400)] | None = None
    """How long `gateway ledger prune` leaves entries, as `400d`: whole months, by arrival in UTC; `null`: for
    ever."""
