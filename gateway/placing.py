"""One call's placement: read the body, ask the policy, hold the call where the policy says so, and tell the
policy what became of it.

What is decided is the policy's, and what the other replicas do is told by `ports.Peers`; here is only when
they are asked and told, and the waiting.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.core.alike import bytes_begun
from gateway.core.endpoints import Endpoint
from gateway.core.exchange import Basis, Exchange, Hold
from gateway.core.placement import PlacementPolicy
from gateway.core.plan import Plan, Reading, in_utf8, place_call, read_call, wants_placement
from gateway.core.principal import Principal
from gateway.core.recent import RecentBodies
from gateway.core.rules import PlacementMode, Rules, Workspace
from gateway.ports import Call, Clock, Peers

log = logging.getLogger(__name__)

OFFLOAD_BYTES = 1 << 20
"""Bodies of which more than this is new are read in a thread, so that no stream waits for them."""
CLAIM_SECONDS = 15.0
"""How long a claim on a cold prefix stands at most: longer than anybody waits for it."""
UNHEARD_SECONDS = 2.0
"""How long a call of which no news came is waited for at a time: its replica may have died before it could
tell of it, and then its claims are void by now."""
MAX_FAILED_LEADERS = 2
"""After so many a call goes without waiting for anybody."""
MAX_FLIGHTS = 1 << 16
MAX_ENDED = 4096
"""Calls of which it is remembered that they ended: the news may come before the answer to a claim does."""


@dataclass(slots=True, eq=False)
class _Flight:
    ended: asyncio.Future[bool]
    known: bool
    """Whether it is planned for sure, and not only the holder of a claim."""
    waiting: int = 0


class Flights:
    """Which planned calls, here and on other replicas, have not been answered yet; who waits for them."""

    def __init__(self) -> None:
        self._unanswered: OrderedDict[str, _Flight] = OrderedDict()
        self._ended: OrderedDict[str, bool] = OrderedDict()

    def began(self, call_id: str) -> None:
        """It is planned, and will be answered or fail."""
        if call_id not in self._ended:
            self._flight(call_id).known = True

    def ended(self, call_id: str, *, good: bool) -> None:
        """The head of its answer came, or it failed: whoever waits goes on. Only the first time counts."""
        flight = self._unanswered.pop(call_id, None)
        if call_id not in self._ended:
            self._ended[call_id] = good
            if len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)
        if flight is not None:
            flight.ended.set_result(good)

    async def wait(self, call_id: str, seconds: float, clock: Clock) -> bool | None:
        """Until it ended: True where what it wrote can be read, False where it failed. None after so many
        seconds, or earlier for a call of which nothing was heard yet: ask again then who is to be waited
        for."""
        if call_id in self._ended:
            return self._ended[call_id]
        if seconds <= 0.0:
            return None
        flight = self._flight(call_id)
        flight.waiting += 1
        timer = asyncio.get_running_loop().create_task(
            clock.sleep(seconds if flight.known else min(seconds, UNHEARD_SECONDS))
        )
        try:
            await asyncio.wait((flight.ended, timer), return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            flight.waiting -= 1
            if not (flight.known or flight.waiting or flight.ended.done()):
                del self._unanswered[call_id]
        return flight.ended.result() if flight.ended.done() else None

    def _flight(self, call_id: str) -> _Flight:
        flight = self._unanswered.get(call_id)
        if flight is None:
            ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
            flight = self._unanswered[call_id] = _Flight(ended, known=False)
            if len(self._unanswered) > MAX_FLIGHTS:  # news of another replica's call may have been lost
                self.ended(next(iter(self._unanswered)), good=False)
        return flight


class Placing:
    """Asks `policy`, and lets calls wait for each other. `keep` is told of each call whose prompt may be
    asked for again."""

    def __init__(
        self,
        policy: PlacementPolicy,
        clock: Clock,
        *,
        peers: Peers,
        flights: Flights,
        hold_seconds: float,
        recent: RecentBodies,
        keep: Callable[[Call, Plan, Principal], None] | None = None,
        pauses: Callable[[], Callable[[], None]] | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._peers = peers
        self._flights = flights
        self._hold_seconds = hold_seconds
        self._recent = recent
        self._keep = keep
        self._pauses = pauses
        self._large = asyncio.Lock()
        self._failed: set[str] = set()
        """Calls that upstream rejected and that have not ended: the policy was told already."""

    async def plan(
        self,
        call: Call,
        body: bytes,
        rules: Rules,
        workspace: Workspace,
        hold: Hold,
        caller: Principal | None = None,
    ) -> Plan:
        """Raises `BadRequest`. A call that is held waits here, before anything is reserved for it; what it
        waited goes into `hold`."""
        sent, body = body, in_utf8(body, call.headers)
        wanted = call.endpoint is Endpoint.MESSAGES and wants_placement(call.headers, rules, workspace)
        wanted = wanted and body is sent
        policy = self._policy
        like = self._recent.find(workspace.id, body, self._clock.now())

        def read(pause: Callable[[], None] | None = None) -> Reading:
            return read_call(
                body,
                rules=rules,
                workspace=workspace,
                policy=policy,
                headers=call.headers,
                wanted=wanted,
                like=like,
                pause=pause,
            )

        reading = await self._read_large(read, body, like) if len(body) > OFFLOAD_BYTES else read()
        self._recent.keep(workspace.id, reading, self._clock.now())

        def place(*, may_wait: bool, may_claim: bool) -> Plan:
            return place_call(
                reading,
                rules=rules,
                workspace=workspace,
                policy=policy,
                call_id=call.id,
                at=self._clock.now(),
                headers=call.headers,
                wanted=wanted,
                may_wait=may_wait,
                may_claim=may_claim,
                warm_up=call.principal is not None,
            )

        # In shadow mode nothing is applied, and nobody is held.
        longest = self._hold_seconds if workspace.placement is PlacementMode.ON else 0.0
        plan = await self._settled(call.id, place, hold, longest)
        if wanted and policy.needs_keys:
            self._flights.began(call.id)
            if plan.placement.keep_upto is not None and self._keep is not None and caller is not None:
                self._keep(call, plan, caller)
        return plan if body is sent else replace(plan, pieces=(sent,))

    async def _read_large(self, read: Callable[..., Reading], body: bytes, like: Reading | None) -> Reading:
        """One body after the other, and no two in one round of the loop: several threads would take the
        interpreter from it for as long as all of them read together."""
        async with self._large:
            if like is None or len(body) - bytes_begun(like.prompt, body) > OFFLOAD_BYTES:
                return await asyncio.to_thread(read, self._pauses and self._pauses())
            await asyncio.sleep(0.0)
            return read()

    async def _settled(self, call_id: str, place: Callable[..., Plan], hold: Hold, longest: float) -> Plan:
        """Ask until the answer is final. Those who waited for a call that failed ask anew, since one of them
        has to go first; nobody waits for the same failed call twice, nor longer than `longest` in all.

        Who has its claims asks again too, for meanwhile another may have become the one to wait for: where
        the peers cannot be reached, all calls of a herd get theirs."""
        started = self._clock.monotonic()
        failed: set[str] = set()
        claimed = False
        while True:
            may_wait = self._clock.monotonic() - started < longest
            plan = place(may_wait=may_wait, may_claim=may_wait and not claimed)
            leader = plan.placement.wait_for
            if plan.placement.claims and not claimed:
                leader = await self._peers.claim(_names(plan), call_id, CLAIM_SECONDS)
                if leader is None or leader in failed:  # failed, and could not let go
                    claimed = True
                    continue
            elif leader in failed:
                leader, plan = None, place(may_wait=False, may_claim=False)
            if leader is None:
                break
            left = longest - (self._clock.monotonic() - started)
            try:
                good = await self._flights.wait(leader, left, self._clock)
            finally:
                hold.seconds = self._clock.monotonic() - started
            if good:
                hold.tokens = max(hold.tokens, plan.placement.wait_tokens)
                plan = place(may_wait=False, may_claim=False)
                break
            if good is not None:
                failed.add(leader)
            if len(failed) == MAX_FAILED_LEADERS:  # it is upstream that fails, and nobody need wait for that
                plan = place(may_wait=False, may_claim=False)
                break
        if claimed and not plan.placement.breakpoints:  # it writes nothing: nobody is to wait for it
            self._end(call_id, good=False)
        return plan

    def answered(self, call_id: str, *, good: bool) -> None:
        """The head of its answer came; whoever waited for it goes on."""
        if good:
            self._tell(lambda at: self._policy.answered(call_id, at))
        else:  # now, and not when its books are closed: those who waited ask the policy at once
            self._failed.add(call_id)
            self._tell(lambda at: self._policy.failed(call_id, at))
        self._end(call_id, good=good)

    def ended(self, exchange: Exchange) -> None:
        """Tell the policy how its decision turned out; what was guessed teaches nothing. For each call
        once, whatever became of it. Of a call that was cut, what its prompt read and wrote was reported when
        its answer began; the policy looks at nothing else."""
        usage = exchange.usage if exchange.basis in (Basis.REPORTED, Basis.PARTIAL) else None
        if usage is not None:
            self._tell(lambda at: self._policy.billed(exchange.id, usage, at))
        elif exchange.id not in self._failed:
            # One that nobody answered in time is billed by upstream all the same, as the books presume too.
            billed = exchange.basis is Basis.ESTIMATED
            self._tell(lambda at: self._policy.failed(exchange.id, at, billed=billed))
        self._failed.discard(exchange.id)
        self._end(exchange.id, good=usage is not None)

    def _end(self, call_id: str, *, good: bool) -> None:
        """What a good call wrote is read by whoever marks it, so its claims are of no use either."""
        self._peers.give_up(call_id)
        self._flights.ended(call_id, good=good)

    def _tell(self, told: Callable[[float], None]) -> None:
        """A policy that cannot learn must not cost anybody a call or an entry in the books."""
        try:
            told(self._clock.now())
        except Exception:
            log.exception("the placement policy failed to learn")


def _names(plan: Plan) -> list[bytes]:
    return [key.to_bytes(8, "little") for key in plan.placement.claims]
