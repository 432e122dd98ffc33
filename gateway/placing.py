"""One call's placement: read the body, ask the policy, hold the call where the policy says so, and tell the
policy what became of it.

What is decided is the policy's; here is only when it is asked and told, and the waiting.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable

from gateway.core.endpoints import Endpoint
from gateway.core.exchange import Basis, Exchange
from gateway.core.placement import PlacementPolicy
from gateway.core.plan import Plan, Reading, place_call, read_call, wants_placement
from gateway.core.rules import Rules, Workspace
from gateway.ports import Call, Clock

log = logging.getLogger(__name__)

OFFLOAD_BYTES = 1 << 20
"""Bodies above this are read in a thread, so that no stream waits for them."""
HOLD_SECONDS = 10.0
"""The longest that a call is held for another that writes its prefix; policies ask for less."""


class Placing:
    """Asks `policy` and remembers which planned calls have not been answered yet."""

    def __init__(self, policy: PlacementPolicy, clock: Clock) -> None:
        self._policy = policy
        self._clock = clock
        self._unanswered: dict[str, asyncio.Event] = {}

    async def plan(self, call: Call, body: bytes, rules: Rules, workspace: Workspace) -> Plan:
        """Raises `BadRequest`. A call that is held waits here, before anything is reserved for it."""
        wanted = call.endpoint is Endpoint.MESSAGES and wants_placement(call.headers, rules, workspace)
        policy = self._policy

        def read() -> Reading:
            return read_call(
                body, rules=rules, workspace=workspace, policy=policy, headers=call.headers, wanted=wanted
            )

        def place(*, may_wait: bool) -> Plan:
            return place_call(
                reading,
                rules=rules,
                workspace=workspace,
                policy=policy,
                call_id=call.id,
                at=self._clock.now(),
                wanted=wanted,
                may_wait=may_wait,
            )

        reading = await asyncio.to_thread(read) if len(body) > OFFLOAD_BYTES else read()
        plan = place(may_wait=True)
        if plan.placement.wait_for is not None:
            await self._hold(plan.placement.wait_for)
            plan = place(may_wait=False)
        if wanted and policy.needs_keys:
            self._unanswered[call.id] = asyncio.Event()
        return plan

    def answered(self, call_id: str, *, good: bool) -> None:
        """The head of its answer came; whoever waited for it goes on."""
        if good:
            self._tell(lambda at: self._policy.answered(call_id, at))
        self._release(call_id)

    def ended(self, exchange: Exchange) -> None:
        """Tell the policy how its decision turned out; what was guessed teaches nothing. For each call
        once, whatever became of it."""
        self._release(exchange.id)
        usage = exchange.usage if exchange.basis is Basis.REPORTED else None
        if usage is not None:
            self._tell(lambda at: self._policy.billed(exchange.id, usage, at))
        else:
            self._tell(lambda at: self._policy.failed(exchange.id, at))

    def _tell(self, told: Callable[[float], None]) -> None:
        """A policy that cannot learn must not cost anybody a call or an entry in the books."""
        try:
            told(self._clock.now())
        except Exception:
            log.exception("the placement policy failed to learn")

    async def _hold(self, leader: str) -> None:
        """Until the leader's answer begins, or it ends without one, or the bound is reached."""
        began = self._unanswered.get(leader)
        if began is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HOLD_SECONDS):
                    await began.wait()

    def _release(self, call_id: str) -> None:
        if (began := self._unanswered.pop(call_id, None)) is not None:
            began.set()
