"""One call's placement: read the body, ask the policy, hold the call where the policy says so, and tell the
policy what became of it.

What is decided is the policy's, and what the other replicas do is told by `ports.Peers`; here is only when
they are asked and told, and the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable

from gateway.core.endpoints import Endpoint
from gateway.core.exchange import Basis, Exchange, Hold
from gateway.core.placement import Placement, PlacementPolicy
from gateway.core.plan import Plan, Reading, place_call, read_call, wants_placement
from gateway.core.rules import Rules, Workspace
from gateway.ports import Call, Clock, Peers

log = logging.getLogger(__name__)

OFFLOAD_BYTES = 1 << 20
"""Bodies above this are read in a thread, so that no stream waits for them."""
CLAIM_SECONDS = 15.0
"""How long a claim on a cold prefix stands: longer than anybody waits for it."""
LET_GO_SECONDS = 0.02
"""For the claim of a call that failed to be let go of, before somebody else tries."""
MAX_FLIGHTS = 1 << 16
MAX_ENDED = 4096
"""Calls of which it is remembered that they were answered: a claim outlives its call for a while."""


class Flights:
    """Which planned calls, here and on other replicas, have not been answered yet; who waits for them."""

    def __init__(self) -> None:
        self._unanswered: OrderedDict[str, asyncio.Future[bool]] = OrderedDict()
        self._ended: OrderedDict[str, bool] = OrderedDict()

    def began(self, call_id: str) -> None:
        """It is planned, and will be answered or fail."""
        if call_id in self._unanswered:
            return
        self._unanswered[call_id] = asyncio.get_running_loop().create_future()
        if len(self._unanswered) > MAX_FLIGHTS:  # news of another replica's call may have been lost
            self.ended(next(iter(self._unanswered)), good=False)

    def ended(self, call_id: str, *, good: bool) -> None:
        """The head of its answer came, or it failed: whoever waits goes on. Only the first time counts."""
        future = self._unanswered.pop(call_id, None)
        if call_id not in self._ended:
            self._ended[call_id] = good
            if len(self._ended) > MAX_ENDED:
                self._ended.popitem(last=False)
        if future is not None and not future.done():
            future.set_result(good)

    async def wait(self, call_id: str, seconds: float) -> bool:
        """Until it ended, but no longer than this; whether what it wrote can be read. One of which nothing
        was heard yet is waited for as well: another replica's news may be on its way."""
        if call_id in self._ended:
            if not self._ended[call_id]:
                await asyncio.sleep(LET_GO_SECONDS)
            return self._ended[call_id]
        self.began(call_id)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await asyncio.shield(self._unanswered[call_id])
        return False


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
        keep: Callable[[Call, Plan], None] | None = None,
    ) -> None:
        self._policy = policy
        self._clock = clock
        self._peers = peers
        self._flights = flights
        self._hold_seconds = hold_seconds
        self._keep = keep
        self._claimed: set[str] = set()

    async def plan(self, call: Call, body: bytes, rules: Rules, workspace: Workspace, hold: Hold) -> Plan:
        """Raises `BadRequest`. A call that is held waits here, before anything is reserved for it; what it
        waited goes into `hold`."""
        wanted = call.endpoint is Endpoint.MESSAGES and wants_placement(call.headers, rules, workspace)
        policy = self._policy

        def read() -> Reading:
            return read_call(
                body, rules=rules, workspace=workspace, policy=policy, headers=call.headers, wanted=wanted
            )

        reading = await asyncio.to_thread(read) if len(body) > OFFLOAD_BYTES else read()

        def place(*, final: bool) -> Plan:
            return place_call(
                reading,
                rules=rules,
                workspace=workspace,
                policy=policy,
                call_id=call.id,
                at=self._clock.now(),
                headers=call.headers,
                wanted=wanted,
                may_wait=not final,
                may_claim=not final,
                warm_up=call.principal is not None,
            )

        plan = await self._settled(call.id, place, hold)
        if wanted and policy.needs_keys:
            self._flights.began(call.id)
            if plan.placement.keep_upto is not None and self._keep is not None:
                self._keep(call, plan)
        return plan

    async def _settled(self, call_id: str, place: Callable[..., Plan], hold: Hold) -> Plan:
        """Ask until the answer is final: whoever is to wait for a call that fails asks anew, since one of
        those who waited has to go first."""
        started = self._clock.monotonic()
        while True:
            left = self._hold_seconds - (self._clock.monotonic() - started)
            plan = place(final=left <= 0)
            leader = await self._leader(call_id, plan.placement)
            if leader is None:
                return place(final=True) if plan.placement.claims else plan
            try:
                good = await self._flights.wait(leader, max(0.0, left))
            finally:
                hold.seconds = self._clock.monotonic() - started
            if good:
                hold.tokens = max(hold.tokens, plan.placement.wait_tokens)
                return place(final=True)

    async def _leader(self, call_id: str, placement: Placement) -> str | None:
        """Whom to wait for. With claims, whoever has them; nobody where they are this call's own now."""
        if not placement.claims:
            return placement.wait_for
        names = [key.to_bytes(8, "little") for key in placement.claims]
        owner = await self._peers.claim(names, call_id, CLAIM_SECONDS)
        if owner is None or owner == call_id:
            self._claimed.add(call_id)
            return None
        return owner

    def answered(self, call_id: str, *, good: bool) -> None:
        """The head of its answer came; whoever waited for it goes on."""
        if good:
            self._tell(lambda at: self._policy.answered(call_id, at))
        self._end(call_id, good=good)

    def ended(self, exchange: Exchange) -> None:
        """Tell the policy how its decision turned out; what was guessed teaches nothing. For each call
        once, whatever became of it."""
        usage = exchange.usage if exchange.basis is Basis.REPORTED else None
        if usage is not None:
            self._tell(lambda at: self._policy.billed(exchange.id, usage, at))
        else:
            self._tell(lambda at: self._policy.failed(exchange.id, at))
        self._end(exchange.id, good=usage is not None)

    def _end(self, call_id: str, *, good: bool) -> None:
        """A claim of a good call runs out by itself: it tells those who do not know of the entry yet."""
        claimed = call_id in self._claimed
        self._claimed.discard(call_id)
        if claimed and not good:
            self._peers.give_up(call_id)
        self._flights.ended(call_id, good=good)

    def _tell(self, told: Callable[[float], None]) -> None:
        """A policy that cannot learn must not cost anybody a call or an entry in the books."""
        try:
            told(self._clock.now())
        except Exception:
            log.exception("the placement policy failed to learn")
