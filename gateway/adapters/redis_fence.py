"""The fence around the dollar windows in Redis: whether its counters are those that were last known to be
right, and how they become right again after they were lost.

The counters live under a generation, a key that is written together with them. FLUSHALL and a failover to an
empty server leave none. A server that went back in time (an old snapshot, a failover that lost writes) still
has one; but what was acknowledged to this replica is then missing there, and that is looked for after every
new connection, once a second, and at each close. Where the generation is gone, replicas bring what their
ledgers say, and one of them sets the counters and writes another generation, in one step. The scripts are in
`lua/`; who does what when is `workers/rebuild.py`'s.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final
from urllib.parse import quote

from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_scripts import AT_ONCE, Script
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import ReservationId
from gateway.core.limits import Unit
from gateway.core.rebuild import SHARED, Span, Turn
from gateway.core.reservations import CLOSED_KEPT_MS, LATE_KEPT_MS, SWEEP_BATCH
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
GATHERED_ANEW_MS: Final = 60_000
"""After so long parts are read again: an outage came in between. Below `SURELY_READ_SECONDS`, which is
counted from the opening."""
RESET_BATCH: Final = 200
SCAN_BATCH: Final = 5_000
"""Keys among which counters are looked for in one go: milliseconds of Redis, which serves calls meanwhile."""
KNOWN_BATCH: Final = 500
LAST_WRITE_SECONDS: Final = 200.0
"""For so long after it was acknowledged a write must be found; records of closed reservations live longer."""
LAST_BEAT_SECONDS: Final = 1_800.0
"""For so long after a beat it must be found; Redis forgets those of replicas that were silent for an hour, as
one that was frozen, or cut off, may have been."""

LOOKED_FOR: Final = AT_ONCE + SWEEP_BATCH
"""How many of the last writes are looked for, all of one sweep counted. Answers come in another order than
that in which Redis acted, but no more of them can overtake one than are under way at once."""

assert LAST_WRITE_SECONDS * 1000 < CLOSED_KEPT_MS

BROUGHT: Final = 1
BROUGHT_BEFORE: Final = 2
"""What `rebuild_has` answers; nothing is 0."""

_REACHED: Final = "reached "

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
        """The last one that this replica wrote under."""
        self._left: set[str] = set()
        """Generations that were there and are gone: one that is there again is of an old snapshot, or of a
        failover that lost what ended it, and perhaps what was written under it."""
        self._asked = self._heard = 0
        self._begun = ""
        """When the gathering began that was last looked at."""
        self._number = 0
        self._beaten = (0.0, 0.0)
        """When the last beat was acknowledged, by both clocks."""
        self._living: tuple[str, ...] = ()
        self._connects = -1
        self._checked: deque[_Write] = deque(maxlen=LOOKED_FOR)
        """The last writes that Redis said it had, and that were there at the last beat."""
        self._since: deque[_Write] = deque()
        """Those since. All of them where a connection was made since, as they may be another server's."""
        self._brought = ""
        """The ledger that was in the counters of the generation when this was last asked."""
        tag = budgets.tag
        self._generation_key = f"{tag}:generation"
        self._gathering = [self._generation_key, f"{tag}:rebuild", f"{tag}:rebuild:spent"]
        self._after, self._staying = f"{tag}:rebuild:after", f"{tag}:rebuild:staying"
        self._ledgers, self._beats = f"{tag}:rebuild:ledgers", f"{tag}:budgets:beats"
        self._announced = f"{tag}:rebuild:announced"
        self._leases = [f"{tag}:leases", f"{tag}:leases:lost"]
        before = budgets.clock_source + (_LUA / "common.lua").read_text()
        names = (
            "fence_beat",
            "rebuild_look",
            "rebuild_add",
            "rebuild_known",
            "rebuild_has",
            "rebuild_raise",
            "rebuild_reached",
        )
        self._lua = {name: Script(before + (_LUA / f"{name}.lua").read_text()) for name in names}

    def disturbed(self) -> bool:
        """Whether a connection was made since the last beat: another server may answer now."""
        return self._connects != self._scripts.connects

    def acknowledged(self, reservation_id: ReservationId, *, closed: bool) -> None:
        """A Redis says that it has this write: it must be found from now on, wherever the next beat goes."""
        self._note(reservation_id, "closed" if closed else "open")

    def swept(self, reservation_id: ReservationId, before_by: str = "") -> None:
        """The same of a sweep, of which a ledger is about to be told: it must not be undone unnoticed. With
        `before_by` it was told by an earlier process: that ledger must still be the one, as long as anything
        is remembered of the reservation."""
        self._note(reservation_id, f"swept {before_by}" if before_by else "swept")

    def gone(self, generation: str) -> None:
        """A script found that this generation is not there. It is not trusted again, unless another one has
        been learned of meanwhile: then it was an old answer."""
        if generation == self.found:
            self._learn("")
        self.lost.set()

    async def beat(self) -> None:
        """Say that this replica lives, and learn the generation; it is taken away where the data went back in
        time. Raises `StoreUnavailable`."""
        connects, number, since = self._scripts.connects, self._number, tuple(self._since)
        instant = self._instant()
        looked = [
            write
            for write in (*self._checked, *since)
            if _between(write.instant, instant) <= LAST_WRITE_SECONDS
        ]
        if _between(self._beaten, instant) > LAST_BEAT_SECONDS:
            number = 0  # nothing is said of it
        ledger, known = self._brought if self.generation else "", self.found
        self._asked = turn = self._asked + 1
        reply: list[bytes] = await self._scripts.run(
            self._lua["fence_beat"],
            [
                *(*self._gathering, self._beats, self._ledgers),
                *(f"{self._budgets.tag}:r:{write.reservation_id}" for write in looked),
            ],
            [self._replica, number, LIVING_MS, known, ledger, *(write.state for write in looked)],
        )
        self._number, self._beaten = max(self._number, number + 1), instant
        looked_for = frozenset(since)
        while self._since and self._since[0] in looked_for:  # another beat may have come first
            self._checked.append(self._since.popleft())
        living = tuple(name.decode() for name in reply[1:])
        if turn < self._heard or known != self.found:
            return  # something later was answered before
        self._heard = turn
        if (found := reply[0].decode()) in self._left:
            self.generation = ""
            await self.take_away(found)
            return
        if reply[0]:
            self._living = living
            self._connects = connects
        self._learn(found)

    async def look(self, ledger: str, spans: Sequence[Span], *, shared: bool) -> Turn:
        """One turn of the rebuilding; which ledger this replica is to read now, to `add` what it says of
        `spans`. `shared`: there is one that all share, and that is read first. Raises `StoreUnavailable`."""
        tag, windows = self._budgets.tag, {f"{span.period} {span.window.label}" for span in spans}
        reply: list[bytes | int] = await self._scripts.run(
            self._lua["rebuild_look"],
            [*self._gathering, self._ledgers, *self._leases, self._after, self._staying],
            [
                *(self._replica, ledger, int(shared), int(self._alone or len(self._living) > 0)),
                *(CLAIM_MS, GATHER_LEAST_MS, self._gather_most_ms),
                *(f"{tag}:r:", RESET_BATCH, secrets.token_hex(8), GATHERED_ANEW_MS),
                *(late_id(ReservationId("")), f"{tag}:b:*/{Unit.NANOUSD}/calendar_*", SCAN_BATCH),
                self._joined,
                len(windows),
                *windows,
                *self._living,
            ],
        )
        assert isinstance(reply[0], bytes)
        generation = reply[0].decode()
        if not self.found and generation not in self._left:
            self._learn(generation)
        self._begun = reply[2].decode() if isinstance(reply[2], bytes) else str(reply[2])
        return (Turn.WAIT, Turn.READ_OWN, Turn.READ_SHARED, Turn.LOOK_AGAIN)[int(reply[1])]

    async def add(
        self,
        ledger: str,
        windows: Mapping[str, int],
        known: Sequence[str],
        reached: Mapping[str, int] = MappingProxyType({}),
    ) -> bool:
        """Bring what a ledger says, once for each generation, whoever and however often: nano-dollars by the
        windows' keys, and exchanges among them whose settlement may still come. While the counters are
        gathered it is part of them; else it is added to them. Of the shared ledger, `reached` says how far
        chains go in it. False where the rebuilding has moved on. Raises `StoreUnavailable`."""
        tag, generation, announced = self._budgets.tag, self.found, secrets.token_hex(8)
        for start in range(0, max(len(known), 1), KNOWN_BATCH):
            records = [f"{tag}:r:{late_id(ReservationId(id))}" for id in known[start : start + KNOWN_BATCH]]
            keys = [self._generation_key, self._leases[0], self._ledgers, self._announced, *records]
            if not await self._scripts.run(
                self._lua["rebuild_known"], keys, [generation, LATE_KEPT_MS, f"{tag}:r:", ledger, announced]
            ):
                return False
        sums = [part for key, nanousd in windows.items() for part in (f"{tag}:b:{key}", nanousd)]
        keys = [*self._gathering, self._ledgers, self._announced]
        chains = [f"{_REACHED}{chain} {position}" for chain, position in reached.items()]
        args: list[str | int] = [
            *(self._replica if ledger != SHARED else "", ledger, generation, self._begun, announced),
            *(len(chains), *chains, *sums),
        ]
        return bool(await self._scripts.run(self._lua["rebuild_add"], keys, args))

    async def reached(self) -> Mapping[str, int]:
        """How far chains go in the part of the shared ledger that is in, by what is known of the generation.
        Raises `StoreUnavailable`."""
        keys = [self._generation_key, self._ledgers]
        members: list[bytes] = await self._scripts.run(self._lua["rebuild_reached"], keys, [self.found])
        texts = [text for text in map(bytes.decode, members) if text.startswith(_REACHED)]
        pairs = (text.removeprefix(_REACHED).rsplit(" ", 1) for text in texts)
        return {chain: int(position) for chain, position in pairs}

    async def has(self, ledger: str) -> bool:
        """Whether the counters that were found have this ledger in them. Where they have it as it was before
        this replica wrote to others, they are taken away. Raises `StoreUnavailable`."""
        keys, generation = [self._generation_key, self._ledgers, self._after], self.found
        self._brought = ledger
        args = [generation, ledger, self._joined]
        answer: int = await self._scripts.run(self._lua["rebuild_has"], keys, args)
        if answer == BROUGHT_BEFORE:
            await self.take_away(generation)
        return answer == BROUGHT

    def join(self) -> None:
        """This replica's ledger is in the counters that were found: from now on it reserves there."""
        self._joined = self.generation = self.found

    async def take_away(self, generation: str = "", staying: Iterable[str] = ()) -> None:
        """Have the counters rebuilt, whatever they say; with a generation, only its own. Those of the limits
        `staying` get to say no less than they do. Raises `StoreUnavailable`."""
        limits = [quote(limit, safe="") for limit in staying]  # as in their buckets' ids
        keys = [*self._gathering, self._staying]
        await self._scripts.run(self._lua["rebuild_raise"], keys, [generation, *limits])
        self.gone(generation or self.found)

    def _note(self, reservation_id: ReservationId, state: str) -> None:
        self._since.append(_Write(reservation_id, state, self._instant()))
        if len(self._since) > LOOKED_FOR and not self.disturbed():
            self._since.popleft()

    def _instant(self) -> tuple[float, float]:
        return self._clock.monotonic(), self._clock.now()

    def _learn(self, generation: str) -> None:
        if generation != self.found:
            if self.found:
                self._left.add(self.found)
            # What was acknowledged under another one may be among what was lost.
            self._checked.clear()
            self._since.clear()
            self._number = 0
            self.found = generation
            self.opened_at = int(generation.partition("-")[0]) / 1000 if generation else 0.0
        self.generation = generation if generation == self._joined else ""


@dataclass(frozen=True, slots=True, eq=False)
class _Write:
    reservation_id: ReservationId
    state: str
    """That the record must be in, or a later one."""
    instant: tuple[float, float]


def _between(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Seconds, by the clock that counts more: one stands still while the machine is suspended, the other may
    be set."""
    return max(after - before for before, after in zip(one, other, strict=True))


FENCED: Final = "GWFENCE"


def is_fenced(error: StoreUnavailable) -> bool:
    """Whether a script refused because the counters are not those of the known generation."""
    return FENCED in error.message
