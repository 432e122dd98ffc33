"""Keeps cache entries alive: asks the policy which are worth another lifetime, and has them renewed in time.

What pays is the policy's to judge. Here it is seen to that one replica renews a prefix, once in a lifetime,
that renewals do not come all at once, and that the policy hears what became of each.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

from gateway.core.api_facts import TTL_SECONDS
from gateway.core.learned import WarmUp
from gateway.core.news import News, Warmed
from gateway.core.planner.warming import MARGIN_SECONDS
from gateway.core.prompt import TTL
from gateway.core.usage import Usage
from gateway.ports import Clock, Peers
from gateway.tasks import TaskSet
from gateway.workers.prewarmer import Prewarmer

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
JITTER_SECONDS = 6.0
"""Renewals begin up to so much later than they are due; what is left of the margin is for sending them."""
MAX_AT_ONCE = 8
"""Renewals on their way. More of them, and warming is not what upstream has room for."""


class Renewing(Protocol):
    """What is asked of a policy here; see `core/learned.py`."""

    def due(self, at: float) -> Sequence[WarmUp]: ...

    def warmed(self, warm_up: WarmUp, usage: Usage, at: float) -> None: ...

    def not_warmed(self, warm_up: WarmUp, at: float) -> None: ...

    def hear(self, replica: str, news: News, at: float) -> None: ...


class KeepAlive:
    """The loop of one replica. `replica` names it to its peers; `random` gives numbers in [0, 1)."""

    def __init__(
        self,
        prewarmer: Prewarmer,
        policy: Renewing,
        *,
        peers: Peers,
        clock: Clock,
        tasks: TaskSet,
        random: Callable[[], float],
        replica: str,
    ) -> None:
        self._prewarmer = prewarmer
        self._policy = policy
        self._peers = peers
        self._clock = clock
        self._tasks = tasks
        self._random = random
        self._replica = replica
        self._on_their_way = 0
        self._waiting: list[tuple[float, float, WarmUp]] = []
        """What is due: when it begins, and since when it is."""

    async def run(self) -> None:
        """Until cancelled. Nothing that a policy, a peer or upstream does ends it."""
        try:
            while True:
                await self._clock.sleep(LOOK_SECONDS)
                try:
                    self.look()
                except Exception:
                    log.exception("keeping entries alive failed; it is looked again in %g s", LOOK_SECONDS)
        finally:
            for _, _, warm_up in self._waiting:
                self._policy.not_warmed(warm_up, self._clock.now())
            self._waiting.clear()

    def look(self) -> None:
        """Note what is due, and begin what has waited long enough since."""
        now = self._clock.now()
        for warm_up in self._policy.due(now):
            self._waiting.append((now + JITTER_SECONDS * self._random(), now, warm_up))
        waiting, self._waiting = self._waiting, []
        for begins_at, due_at, warm_up in waiting:
            if now < begins_at:
                self._waiting.append((begins_at, due_at, warm_up))
            elif self._on_their_way < MAX_AT_ONCE and self._prewarmer.pace.take():
                self._on_their_way += 1
                self._tasks.spawn(self._renew(warm_up, MARGIN_SECONDS - (now - due_at)), "keep alive")
            else:
                self._policy.not_warmed(warm_up, now)

    async def _renew(self, warm_up: WarmUp, lives_seconds: float) -> None:
        """Tells the policy exactly once, also where it is cancelled."""
        usage, sent_at, elsewhere = None, 0.0, None
        try:
            kept = self._prewarmer.kept.take(warm_up.call_id, self._clock.now())
            if kept is None or not self._prewarmer.may_renew(kept.caller):
                return
            elsewhere = await self._who_else(warm_up)
            if elsewhere is not None:
                return
            warmed = await self._prewarmer.renew(
                kept, upto=warm_up.upto, marks=warm_up.marks, lives_seconds=lives_seconds
            )
            usage, sent_at = warmed.usage, warmed.sent_at
        finally:
            self._on_their_way -= 1
            if usage is not None:
                self._policy.warmed(warm_up, usage, sent_at)
            else:
                self._not_renewed(warm_up, elsewhere)

    async def _who_else(self, warm_up: WarmUp) -> str | None:
        """Which other replica renews it; None where it is this one's to do."""
        name = b"warm" + warm_up.key.to_bytes(8, "little")
        holder = self._holder(warm_up)
        owner = await self._peers.claim([name], holder, _lifetime(warm_up) - 2 * MARGIN_SECONDS)
        return None if owner == holder else owner

    def _not_renewed(self, warm_up: WarmUp, elsewhere: str | None) -> None:
        now = self._clock.now()
        self._policy.not_warmed(warm_up, now)
        if elsewhere is None:
            self._peers.give_up(self._holder(warm_up))
            return
        # Its entry lives on by the other's warm-up, of which the news may have come before.
        hour = warm_up.marks[-1].ttl is TTL.ONE_HOUR
        self._policy.hear(elsewhere, Warmed(warm_up.key, hour, now + _lifetime(warm_up)), now)

    def _holder(self, warm_up: WarmUp) -> str:
        return f"{self._replica}:{warm_up.key:016x}"


def _lifetime(warm_up: WarmUp) -> float:
    return float(TTL_SECONDS.value[warm_up.marks[-1].ttl])
