"""`GET /v1/counters` and `POST /v1/counters/repair`: the counters of money beside the ledger, and having them
computed anew from it. What a difference means is the reader's: see `core/drift.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from aiohttp import web

from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.rebuild import Drift
from gateway.ports import Clock
from gateway.web.admin_api import AdminError, Operation, answer_json
from gateway.web.budget_view import stated
from gateway.web.openapi import Answer, Description, Money


class Counters(Protocol):
    """What is asked of `Auditing`."""

    ledger: str
    can_repair: bool

    @property
    def is_rebuilding(self) -> bool: ...

    async def audit(self) -> tuple[Drift, ...]: ...

    async def repair(self) -> None: ...


class CounterAnswer(Answer):
    """One counter of one window."""

    key: str
    """The same on all replicas."""
    limit: str
    scope: str
    subject: str
    """The member of the scope; empty for a pool."""
    window: str
    counted: Money
    set_aside: Money
    """By calls that are under way: what the ledger has and the counter has not may be among it."""
    ledger: Money
    """The sum of this replica's ledger."""


class CountersAnswer(Answer):
    """One reading of all counters that this replica's ledger knows."""

    at: str
    ledger: str
    """Which ledger this is: replicas that share one say the same."""
    can_repair: bool
    """Whether they can be computed anew while the gateway runs."""
    rebuilding: bool
    """Whether they are being computed anew; what is `counted` says nothing meanwhile."""
    counters: list[CounterAnswer]


class RepairAnswer(Answer):
    """That it has begun."""

    at: str
    rebuilding: bool


def counter_operations(counters: Counters, clock: Clock) -> list[Operation]:
    """What the admin plane offers about the counters of money."""

    async def show(request: web.Request) -> web.Response:
        try:
            drifts = await counters.audit()
        except StoreUnavailable as error:
            raise AdminError(503, f"The budgets cannot be read: {error.message}") from None
        except (ConfigError, OSError) as error:
            raise AdminError(503, f"The ledger cannot be read: {error}") from None
        return answer_json(
            CountersAnswer(
                at=stated(clock.now()),
                ledger=counters.ledger,
                can_repair=counters.can_repair,
                rebuilding=counters.is_rebuilding,
                # There may be one for each key and user of a month.
                counters=await asyncio.to_thread(_answers, drifts),
            )
        )

    async def repair(request: web.Request) -> web.Response:
        if not counters.can_repair:
            raise AdminError(
                409,
                "Counters are computed anew in Redis only: this store keeps its own on the same disk as the "
                "ledger.",
            )
        try:
            await counters.repair()
        except StoreUnavailable as error:
            raise AdminError(503, f"The budgets cannot be changed: {error.message}") from None
        return answer_json(RepairAnswer(at=stated(clock.now()), rebuilding=counters.is_rebuilding))

    return [
        Operation(method="GET", path="/v1/counters", respond=show, description=_SHOW),
        Operation(method="POST", path="/v1/counters/repair", respond=repair, description=_REPAIR),
    ]


def _answers(drifts: Sequence[Drift]) -> list[CounterAnswer]:
    return [
        CounterAnswer(
            key=drift.spend.key,
            limit=drift.spend.bound.limit.id,
            scope=drift.spend.bound.limit.scope,
            subject=drift.spend.bound.subject,
            window=drift.spend.window.label,
            counted=Money.of(drift.counted),
            set_aside=Money.of(drift.set_aside),
            ledger=Money.of(drift.spend.nanousd),
        )
        for drift in drifts
    ]


_SHOW = Description(
    id="counters",
    summary="The counters of money of the current days, weeks and months, beside the ledger's sums.",
    text="One reading, of this replica's ledger; where each has its own, the sums of all are what the "
    "counters should have. Calls that end meanwhile make small differences: ask twice.",
    answer=CountersAnswer,
    errors={503: "The store of budgets does not answer, or the ledger cannot be read."},
)
_REPAIR = Description(
    id="repair_counters",
    summary="Have all counters of money computed anew from the ledgers of all replicas.",
    text="For the seconds that it takes, each limit of money does what its on_store_failure says. What was "
    "presumed spent of calls that no ledger knows is forgotten.",
    answer=RepairAnswer,
    errors={
        409: "The store is one that cannot do so while the gateway runs.",
        503: "The store of budgets does not answer.",
    },
)
