"""Budgets in Redis or Valkey: one count for all replicas, by the server's clock.

Each operation is one script and one round trip. What the scripts do is said in `core/reservations.py` and
done in `lua/`; here values become arguments, and replies become decisions. Connections and deadlines are in
`redis_scripts.py`.

Needs Redis 6.2 or Valkey 7.2 with `maxmemory-policy noeviction`: evicted budgets are budgets forgotten. What
Redis loses (restart without persistence, failover to a replica that lags) is forgotten too; an emptied
database is noticed and logged. Every key bears the hash tag `{prefix}`, so that all buckets of one request
lie in one slot: settlement knows an id only, not whose it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import Any, ClassVar, Final

import msgspec

from gateway.adapters.late_settling import CLOCKS_DIFFER_SECONDS
from gateway.adapters.redis_scripts import RedisScripts, Script
from gateway.core.bucket import (
    CLOSED_BEFORE,
    PERIOD_MS,
    Amounts,
    Decision,
    Level,
    Payer,
    Presumed,
    Reservation,
    Standing,
    Verdict,
    decide,
    standing_windows,
)
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit, Mode, Unit
from gateway.core.reservations import REFUSED_KEPT_MS, SWEEP_BATCH, SWEPT_KEPT_MS, closed_kept_ms
from gateway.ports import Clock

log = logging.getLogger(__name__)

SCHEMA_VERSION: Final = 1

_LUA: Final = Path(__file__).parent / "lua"

NEW_MS: Final = 60_000
"""A call that came in so long after counters were made, or later, is surely none that was reserved before."""

assert NEW_MS > CLOCKS_DIFFER_SECONDS * 1000

LOST_MS: Final = 86_400_000
"""A ledger that did not ask for so long is taken for lost: what it was given goes to another."""

_UNITS: Final = (
    Unit.REQUESTS,
    Unit.INPUT_TOKENS,
    Unit.OUTPUT_TOKENS,
    Unit.NANOUSD,
    Unit.PROMPT_TOKENS,
    Unit.CONCURRENT,
)
"""Their order in the scripts' arguments; part of the schema."""

_INDEX: Final = {unit: index for index, unit in enumerate(_UNITS, start=1)}


_NO_PERIOD: Final = (-1, 0, 0, 0, 0)


class RedisBudgets:
    """`ports.BudgetStore` in Redis. `clock` is used for durations, and to tell the scripts which calendar
    windows are near; which of them is current, the server's clock says."""

    clock_source: ClassVar[str] = (_LUA / "clock.lua").read_text()
    """Where the scripts get the time from; tests that need to move it put their own in a subclass."""

    def __init__(self, url: str, clock: Clock, prefix: str = "gw") -> None:
        assert prefix and not set("{}") & set(prefix), prefix
        self._clock = clock
        self._scripts = RedisScripts(url, clock, prefix)
        self._tag = f"{{{prefix}}}"
        self._leases = f"{self._tag}:leases"
        self._asked = f"{self._tag}:ledgers:asked"
        self._schema = f"{self._tag}:schema"
        before = self.clock_source + (_LUA / "common.lua").read_text()
        names = ("reserve", "close", "renew", "sweep", "booked", "peek", "ping", "memory")
        self._lua = {name: Script(before + (_LUA / f"{name}.lua").read_text()) for name in names}
        before += (_LUA / "fence.lua").read_text()
        self._fenced_lua = {}
        for name in ("reserve", "close", "sweep"):
            self._fenced_lua[name] = Script(before + (_LUA / f"{name}.lua").read_text())
        self._generation: Callable[[], str] | None = None
        self._generation_key = f"{self._tag}:generation"

    async def open(self) -> RedisBudgets:
        """Check the server where it can be reached; where it cannot, log and go on, as at any other time.
        Raises ConfigError where another version's budgets are there; warns of a server that may evict."""
        try:
            await self.ping()
            memory: bytes = await self._scripts.run(self._lua["memory"], [], [])
            said = dict(line.split(":", 1) for line in memory.decode().split("\r\n") if ":" in line)
            if said.get("maxmemory", "0") != "0" and said.get("maxmemory_policy") != "noeviction":
                log.warning(
                    "Redis may evict budgets when its memory is full (maxmemory-policy %s): set noeviction",
                    said.get("maxmemory_policy"),
                )
        except StoreUnavailable as error:
            if "GWSCHEMA" in error.message:
                raise ConfigError(
                    f"{error.message} Use another prefix, or the version that wrote them."
                ) from error
            log.warning("the budgets in Redis cannot be used at start: %s", error.message)
        return self

    async def reserve(self, reservation: Reservation) -> Decision:
        limits, amounts = reservation.limits, reservation.amounts
        keys = [self._record(reservation.id), self._leases, self._schema]
        args: list[str | int] = [
            reservation.id,
            round(reservation.lease_seconds * 1000),
            REFUSED_KEPT_MS,
            SCHEMA_VERSION,
            _said(reservation),
            reservation.at_ms,
        ]
        self._add_limits(keys, args, limits, amounts, reservation.at_ms)
        reply: list[int] = await self._run("reserve", keys, args)
        if not reply:
            return CLOSED_BEFORE
        if reply[0]:
            log.warning("the budgets in Redis are new, or were lost: everything counts from zero")
        return decide(limits, amounts, _standings(limits, reply, reservation.at_ms), reply[1])

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None:
        await self.settle_known(reservation_id, actual)

    async def settle_known(self, reservation_id: ReservationId, actual: Amounts) -> bool | None:
        """`settle`; whether the counters have it under this id now, by this or by an earlier call, as long as
        that is remembered. None where nothing was known of the id."""
        keys = [self._record(reservation_id), self._leases, self._presumed(""), self._generation_key]
        args: list[str | int] = [
            *(reservation_id, closed_kept_ms(reservation_id), NEW_MS, SWEPT_KEPT_MS),
            *(actual.of(unit) for unit in _UNITS),
        ]
        reply: int = await self._run("close", keys, args)
        return None if reply < 0 else reply > 0

    async def release(self, reservation_id: ReservationId) -> None:
        await self.settle(reservation_id, Amounts())

    async def renew(self, reservation_id: ReservationId, lease_seconds: float) -> None:
        keys = [self._record(reservation_id), self._leases]
        await self._scripts.run(self._lua["renew"], keys, [reservation_id, round(lease_seconds * 1000)])

    async def sweep(self, ledger: str) -> tuple[Presumed, ...]:
        keys = [self._leases, self._presumed(""), self._presumed(ledger), self._generation_key, self._asked]
        args: list[str | int] = [
            *(self._record(ReservationId("")), SWEEP_BATCH, SWEPT_KEPT_MS),
            *(ledger, self._presumed(""), LOST_MS),
        ]
        reply: list[bytes] = await self._run("sweep", keys, args)
        return tuple(map(_read, reply[::2], reply[1::2]))

    async def booked(self, ledger: str, entry_ids: Sequence[str]) -> None:
        await self._scripts.run(self._lua["booked"], [self._presumed(ledger)], [*entry_ids])

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        keys: list[str] = []
        args: list[str | int] = []
        self._add_limits(keys, args, limits, Amounts(), 0)
        reply: list[int] = await self._scripts.run(self._lua["peek"], keys, args)
        return decide(limits, Amounts(), _standings(limits, reply), reply[1]).verdicts

    async def ping(self) -> None:
        keys = [f"{self._tag}:heartbeat", self._schema]
        await self._scripts.run(self._lua["ping"], keys, [SCHEMA_VERSION])

    async def close(self) -> None:
        await self._scripts.close()

    def under(self, generation: Callable[[], str]) -> RedisBudgets:
        """The same store; it reserves, closes and sweeps only while the counters are of this generation, and
        raises `StoreUnavailable` that says `FENCED` where they are not. See `redis_fence.py`."""
        fenced = copy(self)
        fenced._generation = generation
        return fenced

    @property
    def scripts(self) -> RedisScripts:
        """The connections that the budgets use."""
        return self._scripts

    @property
    def tag(self) -> str:
        """What every key begins with."""
        return self._tag

    async def _run(self, name: str, keys: list[str], args: list[str | int]) -> Any:
        if self._generation is None:
            return await self._scripts.run(self._lua[name], keys, args)
        keys.append(self._generation_key)
        args.append(self._generation())
        return await self._scripts.run(self._fenced_lua[name], keys, args)

    def _record(self, reservation_id: ReservationId) -> str:
        return f"{self._tag}:r:{reservation_id}"

    def _presumed(self, ledger: str) -> str:
        """What a ledger is to book; what no ledger was given yet has an empty name."""
        return f"{self._tag}:presumed:{ledger}"

    def _add_limits(
        self,
        keys: list[str],
        args: list[str | int],
        limits: Sequence[BoundLimit],
        amounts: Amounts,
        at_ms: int,
    ) -> None:
        """Keys and the nine arguments of each limit, as `lua/common.lua` reads them."""
        now_ms = at_ms or round(self._clock.now() * 1000)
        for bound in limits:
            limit, key = bound.limit, f"{self._tag}:b:{bound.bucket_id}"
            unit, enforced = _INDEX[limit.unit], int(limit.mode is Mode.ENFORCE)
            args += (unit, enforced, amounts.of(limit.unit), limit.capacity)
            if windows := standing_windows(limit, now_ms):
                before, current, after = windows
                args += (0, before.start_ms, current.start_ms, after.start_ms, after.end_ms)
                keys += (f"{key}/{before.label}", f"{key}/{current.label}", f"{key}/{after.label}")
            elif limit.unit is Unit.CONCURRENT:
                args += _NO_PERIOD
                keys.append(key)
            else:
                period_ms = PERIOD_MS[limit.period]
                args += (period_ms, limit.amount, *divmod(limit.amount, period_ms), 0)
                keys.append(key)


def _said(reservation: Reservation) -> str:
    """What is kept of a reservation for the ledger; the scripts pass it on as it is."""
    payer, nanousd = reservation.payer, reservation.amounts.of(Unit.NANOUSD)
    return msgspec.json.encode((nanousd, payer)).decode()


def _read(entry_id: bytes, said: bytes) -> Presumed:
    reservation_id, _, what = entry_id.decode().rpartition(":")
    nanousd, payer = msgspec.json.decode(said, type=tuple[int, Payer])
    back = what == "corrected"
    return Presumed(
        reservation_id=ReservationId(reservation_id),
        payer=payer,
        nanousd=-nanousd if back else nanousd,
        taken_back=back,
    )


def _standings(limits: Sequence[BoundLimit], reply: Sequence[int], at_ms: int = 0) -> list[Standing]:
    """A reply is: whether the database is new, the server's instant, and per limit what was spent, set aside
    and fractional before. Which window was current then follows from the instant, or is that of `at_ms`."""
    standings = []
    for i, bound in enumerate(limits):
        spent, set_aside, fraction = reply[2 + 3 * i : 5 + 3 * i]
        windows = standing_windows(bound.limit, at_ms or reply[1])
        standings.append(Standing(Level(spent, set_aside, fraction), windows[1] if windows else None))
    return standings
