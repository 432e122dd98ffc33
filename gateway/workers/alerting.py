"""Alerts on their way: each is written down once, over all replicas, and then sent until it arrived or has to
be given up. What deserves one is found by `alert_watch.py` and `spend_watch.py`.

Nothing waits in memory: what is due is in the log, so that another replica goes on where this one dies. A
replica that dies between sending and writing that down lets people be told twice.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

from gateway.core.alerts import (
    Alert,
    AlertEntry,
    AlertKind,
    Begun,
    Delivery,
    DeliveryState,
    Outcome,
    Target,
    addressed,
    attempted,
)
from gateway.core.errors import StoreUnavailable
from gateway.ports import AlertLog, Clock

log = logging.getLogger(__name__)

LEASE_SECONDS: Final = 180.0
"""How long who took an alert has to write down how it went; longer than all attempts of a turn take."""
TAKEN_AT_ONCE: Final = 20
SENT_AT_ONCE: Final = 5
REMEMBERED: Final = 10_000
"""Ids that a replica knows to be begun, so that it need not ask again; the oldest are forgotten first."""

Send = Callable[[Target, Alert], Awaitable[Outcome]]


class Alerting:
    """One replica's part. `random` gives numbers in [0, 1)."""

    def __init__(
        self,
        entries: AlertLog,
        *,
        targets: Callable[[], Sequence[Target]],
        send: Send,
        clock: Clock,
        random: Callable[[], float],
    ) -> None:
        self._log = entries
        self._targets = targets
        self._send = send
        self._clock = clock
        self._random = random
        self._known: dict[str, None] = {}
        self.counts: Counter[tuple[str, str]] = Counter()
        """Attempts, by target and outcome: delivered, retried, failed."""
        self.dropped = 0
        """Alerts that the log had no room for."""
        self.waiting = 0
        """Alerts with deliveries left to do, over all replicas, as of the last turn."""

    @property
    def active(self) -> bool:
        """Whether anybody is to be told anything."""
        return bool(self._targets())

    def is_news(self, alert_id: str) -> bool:
        """Whether this replica does not know yet that it was begun. Another one may have begun it."""
        return alert_id not in self._known

    async def begin(self, alert: Alert) -> None:
        """Write it down, to be sent at the next turn; nothing where it is there, or where no target wants it.
        Raises `StoreUnavailable`."""
        entry = addressed(alert, self._targets())
        if entry is None:
            return
        begun = await self._log.begin(entry)
        if begun is Begun.FULL:
            self.dropped += 1
            log.error("an alert is dropped, since too many wait to be sent: %s", alert.headline)
            return
        if begun is Begun.NEW:
            log.info("alert %s: %s", alert.id, alert.headline)
        if len(self._known) >= REMEMBERED:
            del self._known[next(iter(self._known))]
        self._known[alert.id] = None

    async def deliver(self) -> None:
        """Send what is due. Raises `StoreUnavailable`; what was sent and could not be written down is sent
        again when its lease is over."""
        taken = await self._log.take(self._clock.now(), LEASE_SECONDS, TAKEN_AT_ONCE)
        if taken:
            targets = {target.name: target for target in self._targets()}
            slots = asyncio.Semaphore(SENT_AT_ONCE)
            async with asyncio.TaskGroup() as group:
                for entry in taken:
                    group.create_task(self._attempt(entry, targets, slots))
        self.waiting = await self._log.waiting()

    async def test(self, alert_id: str, target: str = "") -> AlertEntry | None:
        """Send a sample at once, to all targets or to one, whatever their filters say. None where there is no
        such target. Raises `StoreUnavailable`."""
        at = self._clock.now()
        targets = {each.name: each for each in self._targets() if target in ("", each.name)}
        alert = Alert(
            id=f"{AlertKind.TEST}/{alert_id}",
            kind=AlertKind.TEST,
            at=at,
            headline="This is a test of the gateway's alerts; nothing is wrong",
            facts=(("sent by", "gateway alerts test"),),
        )
        if not targets:
            return None
        waiting = tuple(Delivery(target=name) for name in targets)
        entry = AlertEntry(alert=alert, deliveries=waiting, due_at=at + LEASE_SECONDS)  # nobody else's
        begun = await self._log.begin(entry)
        outcomes = await self._outcomes(entry, targets, asyncio.Semaphore(SENT_AT_ONCE))
        sent = attempted(entry, {name: _once(each) for name, each in outcomes.items()}, at, 0.0)
        if begun is Begun.NEW:
            await self._log.save(sent)
        return sent

    async def history(self, at_most: int) -> tuple[AlertEntry, ...]:
        """What was told, the newest first. Raises `StoreUnavailable`."""
        return await self._log.history(at_most)

    async def close(self) -> None:
        await self._log.close()

    async def _attempt(self, entry: AlertEntry, targets: dict[str, Target], slots: asyncio.Semaphore) -> None:
        outcomes = await self._outcomes(entry, targets, slots)
        after = attempted(entry, outcomes, self._clock.now(), self._random())
        try:
            await self._log.save(after)
        except StoreUnavailable as error:
            log.warning("alert %s was sent and may be sent again: %s", entry.alert.id, error.message)

    async def _outcomes(
        self, entry: AlertEntry, targets: dict[str, Target], slots: asyncio.Semaphore
    ) -> dict[str, Outcome]:
        found = await asyncio.gather(
            *(self._outcome(entry, targets.get(name), slots) for name in entry.waiting)
        )
        outcomes = dict(zip(entry.waiting, found, strict=True))
        before = {each.target: each for each in entry.deliveries}
        for name, outcome in outcomes.items():
            after = attempted(replace(entry, deliveries=(before[name],)), {name: outcome}, 0.0, 0.0)
            self._count(entry, name, after.deliveries[0].state, outcome)
        return outcomes

    async def _outcome(self, entry: AlertEntry, target: Target | None, slots: asyncio.Semaphore) -> Outcome:
        if target is None:
            return Outcome(delivered=False, final=True, said="the configuration has no such target any more")
        async with slots:
            return await self._send(target, entry.alert)

    def _count(self, entry: AlertEntry, name: str, state: DeliveryState, outcome: Outcome) -> None:
        self.counts[name, "retried" if state is DeliveryState.WAITING else state.value] += 1
        if state is not DeliveryState.DELIVERED:
            again = "it is tried again" if state is DeliveryState.WAITING else "it is given up"
            log.warning("alert %s did not arrive at %s, %s: %s", entry.alert.id, name, again, outcome.said)


def _once(outcome: Outcome) -> Outcome:
    """Of a test, which is not repeated: somebody waits for its answer."""
    return replace(outcome, final=True)
