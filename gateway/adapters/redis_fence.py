"""The fence around the dollar windows in Redis: whether its counters are those that were last known to be
right, and how they become right again after they were lost.

The counters live under a generation, a key that is written together with them. FLUSHALL and a failover to an
empty server leave none. A server that went back in time (an old snapshot, a failover that lost writes) still
has one; but what was acknowledged to this replica is then missing there, and that is looked for after every
new connection and once a second. Where the generation is gone, replicas bring what their ledgers say, and
one of them sets the counters and writes another generation, in one step. The scripts are in `lua/`; who does
what when is `workers/rebuild.py`'s.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_scripts import Script
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.rebuild import KNOWN_MS
from gateway.core.reservations import CLOSED_KEPT_MS
from gateway.core.settlement import late_id
from gateway.ports import Clock

LIVING_MS: Final = 5_000
"""A replica whose last beat is older is not waited for."""
CLAIM_MS: Final = 10_000
"""For how long one replica may read a shared ledger before another one tries."""
GATHER_MOST_MS: Final = 10_000
"""After so long the fence is opened without replicas that live and have not brought their part."""
GATHER_LEAST_MS: Final = 1_500
"""How long is waited for others by a replica that knows of none because it has just started."""
RESET_BATCH: Final = 200
KNOWN_BATCH: Final = 500
LAST_WRITE_SECONDS: Final = 200.0
"""For so long after it was acknowledged a write must be found; records of closed reservations live longer."""

assert LAST_WRITE_SECONDS * 1000 < CLOSED_KEPT_MS

_LUA: Final = Path(__file__).parent / "lua"


class RedisFence:
    """The fence as one replica sees it. `replica` is unique to this start of the process; `alone` says that
    it is the only one, so that a new database need not be watched for others."""

    def __init__(
        self,
        budgets: RedisBudgets,
        clock: Clock,
        *,
        replica: str,
        alone: bool = False,
        gather_most_seconds: float = GATHER_MOST_MS / 1000,
    ) -> None:
        self.found = ""
        """The generation that Redis has; empty while the counters are being rebuilt, or nothing is known."""
        self.generation = ""
        """The same, once this replica's ledger is known to be in its counters; empty before."""
        self.lost = asyncio.Event()
        """Set when the generation turns out to be gone: somebody has to look."""
        self.opened_at = 0.0
        """When the counters of `found` were set, by Redis; epoch seconds."""
        self._budgets = budgets
        self._scripts = budgets.scripts
        self._clock = clock
        self._replica = replica
        self._alone = alone
        self._gather_most_ms = round(gather_most_seconds * 1000)
        self._joined = ""
        self._number = 0
        self._living: tuple[str, ...] = ()
        self._connects = -1
        self._last: tuple[ReservationId, bool, float] | None = None
        """The last write that Redis said it had: of what, whether closed, when."""
        tag = budgets.tag
        self._generation_key = f"{tag}:generation"
        self._gathering = [self._generation_key, f"{tag}:rebuild", f"{tag}:rebuild:spent"]
        self._ledgers, self._beats = f"{tag}:rebuild:ledgers", f"{tag}:budgets:beats"
        self._leases = [f"{tag}:leases", f"{tag}:leases:lost"]
        before = budgets.clock_source + (_LUA / "common.lua").read_text()
        names = ("fence_beat", "rebuild_look", "rebuild_add", "rebuild_known", "rebuild_has", "rebuild_raise")
        self._lua = {name: Script(before + (_LUA / f"{name}.lua").read_text()) for name in names}

    def disturbed(self) -> bool:
        """Whether a connection was made since the last beat: another server may answer now."""
        return self._connects != self._scripts.connects

    def acknowledged(self, reservation_id: ReservationId, *, closed: bool) -> None:
        """The Redis that was looked into says that it has this write: it must be found from now on."""
        self._last = (reservation_id, closed, self._clock.monotonic())

    def gone(self) -> None:
        """A script found another generation than the known one."""
        self.generation = ""
        self._learn("")
        self.lost.set()

    async def beat(self) -> None:
        """Say that this replica lives, and learn the generation; it is taken away where the data went back in
        time. Raises `StoreUnavailable`."""
        connects, number, last = self._scripts.connects, self._number, self._last
        if last is not None and self._clock.monotonic() - last[2] > LAST_WRITE_SECONDS:
            last = None
        record = f"{self._budgets.tag}:r:{last[0]}" if last else self._generation_key
        state = "" if last is None else "closed" if last[1] else "open"
        reply: list[bytes] = await self._scripts.run(
            self._lua["fence_beat"],
            [*self._gathering, self._beats, record],
            [self._replica, number, state, LIVING_MS, self.found],
        )
        self._number = max(self._number, number + 1)
        living = tuple(name.decode() for name in reply[1:])
        if reply[0]:
            self._living = living
            self._connects = connects
        self._learn(reply[0].decode())

    async def look(self, ledger: str, *, shared: bool) -> bool:
        """One turn of the rebuilding; whether this replica is to read its ledger and `add` what it says.
        Raises `StoreUnavailable`."""
        reply: list[bytes | int] = await self._scripts.run(
            self._lua["rebuild_look"],
            [*self._gathering, self._ledgers, *self._leases],
            [
                *(self._replica, ledger, int(shared), int(self._alone or len(self._living) > 0)),
                *(CLAIM_MS, GATHER_LEAST_MS, self._gather_most_ms),
                *(f"{self._budgets.tag}:r:", RESET_BATCH, secrets.token_hex(8)),
                *self._living,
            ],
        )
        generation = reply[0]
        assert isinstance(generation, bytes)
        if generation:
            self._learn(generation.decode())
        return reply[1] == 1

    async def add(self, ledger: str, windows: Mapping[str, int], known: Sequence[str]) -> bool:
        """Bring what a ledger says, once for each generation, whoever and however often: nano-dollars by the
        windows' keys, and exchanges among them whose settlement may still come. While the counters are
        gathered it is part of them; else it is added to them. False where the rebuilding has moved on.
        Raises `StoreUnavailable`."""
        tag, generation = self._budgets.tag, self.found
        for start in range(0, len(known), KNOWN_BATCH):
            records = [f"{tag}:r:{late_id(ReservationId(id))}" for id in known[start : start + KNOWN_BATCH]]
            keys = [self._generation_key, *records]
            if not await self._scripts.run(self._lua["rebuild_known"], keys, [generation, KNOWN_MS * 5]):
                return False
        sums = [part for key, nanousd in windows.items() for part in (f"{tag}:b:{key}", nanousd)]
        keys = [*self._gathering, self._ledgers]
        args: list[str | int] = [self._replica, ledger, generation, *sums]
        return bool(await self._scripts.run(self._lua["rebuild_add"], keys, args))

    async def has(self, ledger: str) -> bool:
        """Whether the counters that were found have this ledger in them. Raises `StoreUnavailable`."""
        keys = [self._generation_key, self._ledgers]
        return bool(await self._scripts.run(self._lua["rebuild_has"], keys, [self.found, ledger]))

    def join(self) -> None:
        """This replica's ledger is in the counters that were found: from now on it reserves there."""
        self._joined = self.generation = self.found

    async def take_away(self) -> None:
        """Have the counters rebuilt, whatever they say. Raises `StoreUnavailable`."""
        await self._scripts.run(self._lua["rebuild_raise"], self._gathering, [])
        self.gone()

    def _learn(self, generation: str) -> None:
        if generation != self.found:
            # What was acknowledged under another one may be among what was lost.
            self._last, self._number = None, 0
            self.found = generation
            self.opened_at = int(generation.partition("-")[0]) / 1000 if generation else 0.0
        self.generation = generation if generation == self._joined else ""


FENCED: Final = "GWFENCE"


def is_fenced(error: StoreUnavailable) -> bool:
    """Whether a script refused because the counters are not those of the known generation."""
    return FENCED in error.message
