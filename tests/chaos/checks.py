"""What must hold after a chaos run: counters, ledgers and the bill beside each other."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis

from tests.chaos.gateway import LEASE_SECONDS, SWEEP_SECONDS
from tests.chaos.world import REPLICAS, TAG, World, until

_ENTRIES = """
SELECT state, basis, tags, uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd
    + cache_write_1h_nanousd + output_nanousd + server_tools_nanousd
FROM entries
"""
SLACK_SECONDS = 5.0
"""Beyond lease and sweep: so long may a loaded machine take for what should take none."""
SETTLES_SECONDS = 2.0
"""After the counters are there: every replica finds out, and settles what it has kept or found."""


@dataclass
class Finding:
    name: str
    good: bool
    says: str


@dataclass
class Call:
    """All that the books and the bill have of one client's call."""

    billed: int = 0
    booked: int = 0
    bases: list[str] = field(default_factory=list)
    lost: bool = False
    """Its replica was killed, and booked it when it was back."""

    @property
    def guessed(self) -> bool:
        return any(basis != "reported" for basis in self.bases)


class Store:
    """What lies in Redis, read beside the gateways."""

    def __init__(self, port: int) -> None:
        self._redis: Any = redis.Redis(port=port, decode_responses=True)

    def open(self) -> int:
        return int(self._redis.zcard(f"{TAG}:leases"))

    def is_rebuilt(self) -> bool:
        """Whether the counters are there, and have every ledger's part."""
        ledgers = int(self._redis.scard(f"{TAG}:rebuild:ledgers"))
        return bool(self._redis.exists(f"{TAG}:generation")) and ledgers == REPLICAS

    def waiting(self) -> int:
        """Changes that no ledger has yet."""
        return sum(int(self._redis.hlen(key)) for key in self._redis.scan_iter(f"{TAG}:presumed:*"))

    def owed(self) -> int:
        """What they come to: a replica that settles while it stops leaves them to whoever sweeps next."""
        generation, nanousd = self._redis.get(f"{TAG}:generation"), 0
        for key in self._redis.scan_iter(f"{TAG}:presumed:*"):
            for name, said in self._redis.hgetall(key).items():
                made_in, _, text = said.partition(" ")
                if made_in == generation:
                    nanousd += json.loads(text)[0] * (-1 if name.endswith(":corrected") else 1)
        return nanousd

    def spent(self) -> int:
        return sum(self._sums("spent"))

    def set_aside(self) -> int:
        return sum(self._sums("set_aside"))

    def close(self) -> None:
        self._redis.close()

    def _sums(self, name: str) -> Iterator[int]:
        for key in self._redis.scan_iter(f"{TAG}:b:*"):
            yield int(self._redis.hget(key, name) or 0)


async def settled(world: World) -> Finding:
    """Wait until nothing is open any more; (d): no longer than a lease and a sweep, once counters are there:
    while they are rebuilt nothing is swept."""
    store, loop = Store(world.master.port), asyncio.get_running_loop()
    rebuilt = await until(store.is_rebuilt, 20)
    await asyncio.sleep(SETTLES_SECONDS)
    started = loop.time()
    seconds = 0.0
    while store.open() and seconds < LEASE_SECONDS + SWEEP_SECONDS + SLACK_SECONDS:
        if not store.is_rebuilt():
            rebuilt = await until(store.is_rebuilt, 20)
            started = loop.time()
        await asyncio.sleep(0.05)
        seconds = loop.time() - started
    closed = not store.open()
    booked = await until(lambda: not store.waiting(), SLACK_SECONDS)
    says = "" if rebuilt else "the counters are not rebuilt, "
    says += (
        f"{store.open()} open {seconds:.1f} s after the last call, {store.waiting()} changes without an entry"
    )
    store.close()
    return Finding("(d) nothing stays open", rebuilt and closed and booked, says)


def check(world: World, ends: dict[str, int], hung: list[str], *, lost: bool) -> list[Finding]:
    """All but (d), after the replicas have stopped. `lost`: the store lost data, and with it what dead
    replicas had set aside; until these are back nobody knows of it, and the limit may be passed by the bill
    of those calls, and by no more."""
    store = Store(world.master.port)
    spent, set_aside, owed = store.spent(), store.set_aside(), store.owed()
    store.close()
    calls = _calls(world)
    booked = sum(call.booked for call in calls.values())
    forgotten = [name for name, call in calls.items() if not call.bases and call.billed]
    exact = [name for name, call in calls.items() if not call.guessed and call.booked != call.billed]
    under = [n for n, call in calls.items() if call.booked < call.billed and "partial" not in call.bases]
    # An answer that was cut: what upstream generated until it noticed, nobody was told.
    cut = sum(call.billed - call.booked for call in calls.values() if call.booked < call.billed)
    guessed = {name: call for name, call in calls.items() if call.guessed and call.booked != call.billed}
    difference = sum(call.booked - call.billed for call in guessed.values())
    away = sum(call.billed for call in calls.values() if call.lost)
    over = max(world.over, default=0)
    return [
        Finding(
            "(a) the bill stays within the limit",
            over <= (away + cut if lost else 0),
            f"billed {_usd(world.billed)} of {_usd(world.limit_nanousd)}, "
            f"{world.billed / world.limit_nanousd:.0%}; "
            f"above it by at most {_usd(over)}"
            + (f", where replicas that were killed had {_usd(away)} under way" if over else ""),
        ),
        Finding(
            "(b) ledgers and counters have one sum",
            booked + owed == spent and set_aside == 0,
            f"ledgers {_usd(booked)}, counters {_usd(spent)}, apart by {booked + owed - spent} nano-dollars, "
            f"with {owed} that wait in the store to be booked, "
            f"set aside {set_aside}",
        ),
        Finding(
            "(c) ledgers and bill agree",
            not exact and not under and not forgotten,
            f"{len(calls)} calls; {len(guessed)} presumed or estimated, "
            f"together {_usd(difference)} above the bill "
            f"({_usd(cut)} below it in answers that were cut); "
            f"forgotten: {_named(forgotten, calls)}; "
            f"reported and unlike the bill: {_named(exact, calls)}; below the bill: {_named(under, calls)}",
        ),
        Finding(
            "(e) every call ends",
            not hung,
            ", ".join(f"{count} {end}" for end, count in sorted(ends.items())) + f"; hung: {hung or 'none'}",
        ),
    ]


def guesses(world: World) -> list[str]:
    """Each call whose cost was not reported, beside its bill."""
    return [
        f"  {name}: {'+'.join(call.bases)} booked {call.booked}, billed {call.billed}, "
        f"{call.booked - call.billed:+}"
        for name, call in _calls(world).items()
        if call.guessed and (call.booked or call.billed)
    ]


def _calls(world: World) -> dict[str, Call]:
    calls: dict[str, Call] = defaultdict(Call)
    for path in world.ledgers:
        for state, basis, tags, nanousd in _rows(path):
            call = calls[json.loads(tags).get("x-call", "unknown")]
            call.lost |= state == "lost"
            if basis != "none":
                call.booked += nanousd
                call.bases.append(basis)
    of = world.calls_by_request()
    for line in world.simulator.bill.lines:
        calls[of[line.request_id]].billed += line.cost_nanousd
    return calls


def _rows(path: Path) -> list[tuple[str, str, str, int]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(_ENTRIES).fetchall()


def _usd(nanousd: int) -> str:
    return f"${nanousd / 1e9:.6f}"


def _named(names: list[str], calls: dict[str, Call]) -> str:
    some = ", ".join(f"{n} ({calls[n].booked} for {calls[n].billed} {calls[n].bases})" for n in names[:5])
    return f"{len(names)} {some}".strip() if names else "none"
