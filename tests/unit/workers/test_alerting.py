"""Alerts are begun once, sent until they arrive, and never wait in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from gateway.adapters.alert_log import MemoryAlertLog
from gateway.core.alerts import Alert, AlertEntry, AlertKind, DeliveryState, Format, Outcome, Target
from gateway.core.errors import StoreUnavailable
from gateway.workers import alerting as module
from gateway.workers.alerting import LEASE_SECONDS, SENT_AT_ONCE, Alerting
from tests.support.clock import FakeClock

GOOD = Outcome(delivered=True, final=True, said="status 200")
BAD = Outcome(delivered=False, final=False, said="status 500")


def an_alert(name: str = "a") -> Alert:
    return Alert(id=name, kind=AlertKind.THRESHOLD, at=1_800_000_000.0, headline=f"{name} is spent")


def a_target(name: str = "people", **of: object) -> Target:
    return Target(name=name, format=Format.SLACK, url=str, **of)  # type: ignore[arg-type]


@dataclass
class Ground:
    """A replica whose receivers answer as `outcomes` say, in their order, and then well."""

    log: MemoryAlertLog
    clock: FakeClock
    targets: Sequence[Target] = (a_target(),)
    outcomes: list[Outcome] = field(default_factory=list)
    sent: list[tuple[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0

    def __post_init__(self) -> None:
        self.alerting = Alerting(
            self.log, targets=lambda: self.targets, send=self.send, clock=self.clock, random=lambda: 0.5
        )

    async def send(self, target: Target, alert: Alert) -> Outcome:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        self.sent.append((target.name, alert.id))
        return self.outcomes.pop(0) if self.outcomes else GOOD

    async def entries(self) -> list[AlertEntry]:
        return [*await self.log.history(99)]


@pytest.fixture
def ground() -> Ground:
    return Ground(MemoryAlertLog(), FakeClock())


async def test_what_is_begun_is_sent_at_the_next_turn_and_once(ground: Ground) -> None:
    assert ground.alerting.is_news("a")
    await ground.alerting.begin(an_alert())
    await ground.alerting.begin(an_alert())
    assert not ground.alerting.is_news("a")
    for _ in range(3):
        await ground.alerting.deliver()

    assert ground.sent == [("people", "a")]
    assert ground.alerting.counts == {("people", "delivered"): 1}
    assert ground.alerting.waiting == 0


async def test_what_nobody_wants_is_begun_once_somebody_does(ground: Ground) -> None:
    ground.targets = [a_target(kinds=frozenset({"freeze"}))]
    await ground.alerting.begin(an_alert())
    assert ground.alerting.is_news("a")
    ground.targets = [a_target()]
    await ground.alerting.begin(an_alert())
    await ground.alerting.deliver()

    assert ground.sent == [("people", "a")]


async def test_only_targets_that_failed_are_sent_to_again_when_it_is_time(ground: Ground) -> None:
    ground.targets = [a_target("a"), a_target("b")]
    ground.outcomes = [GOOD, BAD]
    await ground.alerting.begin(an_alert("x"))
    await ground.alerting.deliver()
    failing = next(
        each.target for each in (await ground.entries())[0].deliveries if each.state is DeliveryState.WAITING
    )
    ground.clock.advance(4.9)
    await ground.alerting.deliver()
    assert len(ground.sent) == 2
    ground.clock.advance(0.1)
    await ground.alerting.deliver()

    assert ground.sent[2:] == [(failing, "x")]
    assert ground.alerting.counts[failing, "retried"] == 1
    assert ground.alerting.counts[failing, "delivered"] == 1


async def test_a_target_that_was_taken_out_is_given_up(ground: Ground) -> None:
    await ground.alerting.begin(an_alert())
    ground.targets = [a_target("another")]
    await ground.alerting.deliver()

    (entry,) = await ground.entries()
    assert ground.sent == []
    assert (entry.deliveries[0].state, entry.due_at) == (DeliveryState.FAILED, None)
    assert "no such target" in entry.deliveries[0].said


async def test_who_dies_before_writing_down_leaves_it_to_another(ground: Ground) -> None:
    class Dying(MemoryAlertLog):
        async def save(self, entry: AlertEntry) -> bool:
            raise StoreUnavailable("gone")

    log = Dying()
    one, two = Ground(log, ground.clock), Ground(log, ground.clock)
    await one.alerting.begin(an_alert())
    await one.alerting.deliver()
    await two.alerting.deliver()
    assert (one.sent, two.sent) == ([("people", "a")], [])
    ground.clock.advance(LEASE_SECONDS)
    await two.alerting.deliver()

    assert two.sent == [("people", "a")]


async def test_few_are_sent_at_the_same_time(ground: Ground) -> None:
    for number in range(30):
        await ground.alerting.begin(an_alert(f"a{number}"))
    await ground.alerting.deliver()
    await ground.alerting.deliver()

    assert len(ground.sent) == 30
    assert ground.most_at_once == SENT_AT_ONCE


async def test_what_finds_no_room_is_counted(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.adapters.alert_log.MOST_OPEN", 1)
    await ground.alerting.begin(an_alert("a"))
    await ground.alerting.begin(an_alert("b"))

    assert ground.alerting.dropped == 1
    assert ground.alerting.is_news("b")


async def test_ids_that_were_begun_long_ago_are_asked_for_again(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "REMEMBERED", 2)
    for name in "abc":
        await ground.alerting.begin(an_alert(name))

    assert [ground.alerting.is_news(name) for name in "abc"] == [True, False, False]
    await ground.alerting.begin(an_alert("a"))
    await ground.alerting.deliver()
    assert len(ground.sent) == 3


async def test_a_test_is_sent_at_once_whatever_filters_say_and_not_twice(ground: Ground) -> None:
    ground.targets = [a_target("a", kinds=frozenset({"freeze"})), a_target("b")]
    ground.outcomes = [BAD]
    entry = await ground.alerting.test("t1", "a")
    ground.clock.advance(1e6)
    await ground.alerting.deliver()

    assert entry is not None
    assert ground.sent == [("a", "test/t1")]
    assert [each.state for each in entry.deliveries] == [DeliveryState.FAILED]
    assert await ground.alerting.test("t2", "nobody") is None
    ground.targets = []
    assert await ground.alerting.test("t3") is None
    assert not ground.alerting.active
