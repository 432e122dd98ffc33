"""Two replicas' placing without sockets or real time: a policy that knows a single prefix, news that travel
over `support/peers.py`, and calls that a test answers, fails or cancels by hand."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from msgspec import structs

from gateway.core.exchange import Basis, Exchange, Hold
from gateway.core.ids import WorkspaceId
from gateway.core.placement import Breakpoint, Occasion, Placement
from gateway.core.plan import Plan
from gateway.core.prompt import TTL
from gateway.core.recent import RecentBodies
from gateway.core.rules import PlacementMode
from gateway.core.usage import Usage
from gateway.placing import Flights, Placing
from tests.support.clock import FakeClock
from tests.support.fakes import World
from tests.support.peers import Hub

HOLD = 8.0
MARK = (Breakpoint(0, TTL.FIVE_MINUTES, "test"),)


class OnePrefix:
    """`PlacementPolicy` for a single prefix: cold, being written, or readable."""

    needs_keys = True

    def __init__(self, tell: Callable[[str, str], None], all_written: list[str]) -> None:
        self._tell = tell
        self._all_written = all_written
        self.readable = False
        self.writing: list[str] = []
        self.written: list[str] = []
        self.fails_for: set[str] = set()
        self.nothing_for: set[str] = set()
        self.told: list[tuple[str, str]] = []

    def plan(
        self, prompt: object, keys: object, facts: object, workspace: object, occasion: Occasion
    ) -> Placement:
        if not self.readable:
            if self.writing and occasion.may_wait:
                return Placement(reason="waits", wait_for=self.writing[0], wait_tokens=1000)
            if occasion.may_claim:
                return Placement(reason="claims", claims=(7,), wait_tokens=1000)
            if occasion.call_id in self.fails_for:
                raise ValueError("no plan")
            if occasion.call_id in self.nothing_for:
                return Placement(reason="nothing")
            self.written.append(occasion.call_id)
            self._all_written.append(occasion.call_id)
            self.heard("sent", occasion.call_id)
        self._tell("sent", occasion.call_id)
        return Placement(breakpoints=MARK, reason="marks")

    def heard(self, what: str, call_id: str) -> None:
        """Of its own calls, and of those of others."""
        if what == "sent" and not self.readable:
            self.writing.append(call_id)
        elif (what == "answered" or what.startswith("failed")) and call_id in self.writing:
            self.writing.remove(call_id)
            self.readable |= what == "answered"

    def answered(self, call_id: str, at: float) -> None:
        self._learn("answered", call_id)

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        self._learn("billed", call_id)

    def failed(self, call_id: str, at: float, *, billed: bool = False) -> None:
        self._learn("failed, billed" if billed else "failed", call_id)

    def _learn(self, what: str, call_id: str) -> None:
        self.told.append((what, call_id))
        self.heard(what, call_id)
        self._tell(what, call_id)


class Replica:
    """A placing, its policy, and what the service does with news."""

    def __init__(self, ground: Ground, name: str) -> None:
        self.ground, self.name = ground, name
        self.peers = ground.hub.join(name)
        self.policy = OnePrefix(lambda what, call: self.peers.tell(f"{what} {call}".encode()), ground.written)
        self.flights = Flights()
        self.placing = Placing(
            self.policy,
            ground.clock,
            peers=self.peers,
            flights=self.flights,
            hold_seconds=ground.hold,
            recent=RecentBodies(1 << 20),
        )
        self.listening = asyncio.get_running_loop().create_task(self.peers.listen(self.heard, self.gone))
        self.calls_of: dict[str, set[str]] = {}
        self.deaf = False

    def heard(self, replica: str, news: bytes) -> None:
        if self.deaf:
            return
        what, call = news.decode().split()
        self.policy.heard(what, call)
        if what == "sent":
            self.calls_of.setdefault(replica, set()).add(call)
            self.flights.began(call)
        else:
            self.flights.ended(call, good=not what.startswith("failed"))

    def gone(self, replica: str) -> None:
        for call in self.calls_of.pop(replica, ()):
            self.policy.heard("failed", call)
            self.flights.ended(call, good=False)

    def call(self, call_id: str) -> Planned:
        hold, rules, body = Hold(), self.ground.world.rules, self.ground.body
        call = structs.replace(self.ground.world.make_call(body), id=call_id)
        workspace = replace(rules.workspaces[WorkspaceId("demo")], placement=self.ground.mode)
        work = self.placing.plan(call, body, rules, workspace, hold)
        planned = Planned(self, call_id, hold, asyncio.get_running_loop().create_task(work))
        self.ground.calls.append(planned)
        return planned

    def ends(self, call_id: str, *, good: bool, basis: Basis = Basis.REPORTED) -> None:
        exchange = Exchange(id=call_id, endpoint="messages", method="POST", received_at=0.0, started=0.0)
        if good:
            exchange.basis, exchange.usage = basis, Usage(output_tokens=1)
        self.placing.ended(exchange)


@dataclass
class Planned:
    replica: Replica
    id: str
    hold: Hold
    task: asyncio.Task[Plan]

    @property
    def going(self) -> bool:
        return self.task.done() and not self.task.cancelled()

    def answered(self) -> None:
        self.replica.placing.answered(self.id, good=True)

    def rejected(self) -> None:
        self.replica.placing.answered(self.id, good=False)

    def failed(self) -> None:
        self.replica.ends(self.id, good=False)

    async def leaves(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])
        self.failed()


@dataclass
class Ground:
    world: World
    body: bytes
    hold: float = HOLD
    mode: PlacementMode = PlacementMode.ON
    written: list[str] = field(default_factory=list)
    """By whom the prefix was written, on any replica."""
    replicas: list[Replica] = field(default_factory=list)
    calls: list[Planned] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock: FakeClock = self.world.clock
        self.hub = Hub(self.clock)

    def replica(self, name: str) -> Replica:
        self.replicas.append(Replica(self, name))
        return self.replicas[-1]

    async def rest(self) -> None:
        """Until everything that needs no time has happened."""
        for _ in range(50):
            await asyncio.sleep(0)

    async def passes(self, seconds: float) -> None:
        await self.rest()
        for _ in range(round(seconds / 0.25)):
            self.clock.advance(0.25)
            await self.rest()

    def going(self) -> list[str]:
        return [call.id for call in self.calls if call.going]

    def nothing_is_left(self) -> bool:
        return not any(
            replica.flights._unanswered or replica.placing._failed for replica in self.replicas
        ) and not any(until > self.clock.monotonic() for _, _, until in self.hub.claims.values())
