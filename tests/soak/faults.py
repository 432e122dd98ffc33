"""What goes wrong in a soak run: upstream's faults, drawn for each request, and what befalls the store and
the configuration, one after the other."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import suppress
from pathlib import Path

from gateway.sim.faults import Fault, FaultKind, Match
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_server import RedisServer

MESSAGES = Match(path="/v1/messages")
STREAMS = Match(path="/v1/messages", stream=True)
_UPSTREAM: tuple[tuple[float, Fault], ...] = (
    (0.010, Fault(kind=FaultKind.STATUS, status=529)),
    (0.005, Fault(kind=FaultKind.STATUS, status=429, retry_after=1)),
    (0.005, Fault(kind=FaultKind.STATUS, status=500)),
    (0.003, Fault(kind=FaultKind.STATUS, status=413, html="<html>too large</html>")),
    (0.005, Fault(kind=FaultKind.CUT, at_event=None)),
    (0.005, Fault(kind=FaultKind.CUT, at_event=None, processed=True)),
    (0.004, Fault(kind=FaultKind.CUT, at_event=0)),
    (0.004, Fault(kind=FaultKind.CUT, at_event=1, reset=False)),
    (0.008, Fault(kind=FaultKind.CUT, at_event=5, mid_event=True)),
    (0.008, Fault(kind=FaultKind.CUT, at_event=9, reset=False)),
    (0.010, Fault(kind=FaultKind.ERROR_EVENT, at_event=4, status=529)),
    (0.010, Fault(kind=FaultKind.GARBAGE, at_event=3)),
    (0.010, Fault(kind=FaultKind.MALFORMED_EVENT, at_event=3)),
    (0.005, Fault(kind=FaultKind.STALL, seconds=1.0)),
    (0.005, Fault(kind=FaultKind.STALL_STREAM, at_event=3, seconds=1.0)),
    (0.002, Fault(kind=FaultKind.STALL_STREAM, at_event=3, seconds=8.0)),
    (0.010, Fault(kind=FaultKind.SLOW, seconds=0.05)),
)


def upstream_faults() -> list[Fault]:
    """All of them, for as long as the simulator runs."""
    streams = (FaultKind.GARBAGE, FaultKind.MALFORMED_EVENT, FaultKind.ERROR_EVENT)
    return [
        Fault(
            kind=fault.kind,
            match=STREAMS if fault.kind in streams else MESSAGES,
            times=None,
            probability=probability,
            status=fault.status,
            retry_after=fault.retry_after,
            html=fault.html,
            at_event=fault.at_event,
            mid_event=fault.mid_event,
            reset=fault.reset,
            seconds=fault.seconds,
            processed=fault.processed,
        )
        for probability, fault in _UPSTREAM
    ]


class Faults:
    """Of the store and the configuration. `seen` counts them; all is mended when `run` returns."""

    def __init__(self, redis: RedisServer, proxy: LossyProxy, limits: Path, seed: int) -> None:
        self._redis = redis
        self._proxy = proxy
        self._limits = limits
        self._text = limits.read_text()
        self._chance = random.Random(f"faults {seed}")
        self.seen: Counter[str] = Counter()

    async def run(self, until: float, *, every_seconds: float) -> None:
        """Until an instant of the loop's clock."""
        turns = [
            self._lost_reply,
            self._frozen,
            self._scripts,
            self._connections,
            self._changed,
            self._broken,
        ]
        loop = asyncio.get_running_loop()
        turn = 0
        while loop.time() + every_seconds < until:
            await asyncio.sleep(self._chance.uniform(0.5, 1.5) * every_seconds)
            work = turns[turn % len(turns)]
            self.seen[work.__name__.strip("_")] += 1
            await work()
            turn += 1
        self._proxy.lose_replies = 0
        self._limits.write_text(self._text)

    async def _lost_reply(self) -> None:
        self._proxy.lose_replies += self._chance.randint(1, 2)

    async def _frozen(self) -> None:
        self._redis.freeze()
        try:
            await asyncio.sleep(self._chance.uniform(0.2, 1.0))
        finally:
            self._redis.thaw()

    async def _scripts(self) -> None:
        with suppress(OSError):
            await asyncio.to_thread(self._redis.command, "SCRIPT", "FLUSH")

    async def _connections(self) -> None:
        with suppress(OSError):
            await asyncio.to_thread(self._redis.command, "CLIENT", "KILL", "TYPE", "normal")

    async def _changed(self) -> None:
        self._limits.write_text(self._text + f"# changed {self._chance.random()}\n")

    async def _broken(self) -> None:
        self._limits.write_text(self._text + "defaults: [\n")
