"""`GET /v1/alerts`: what people were told, and whether it arrived. `POST /v1/alerts/test`: a sample, to see
whether it would."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from aiohttp import web

from gateway.core.alerts import AlertEntry
from gateway.core.errors import StoreUnavailable
from gateway.ports import Clock
from gateway.web.admin_api import AdminError, Operation, answer_json
from gateway.web.budget_view import instant, stated
from gateway.web.openapi import Answer, Description, Parameter

MOST = 500
FIRST = 50


class AlertHistory(Protocol):
    """What is asked of `Alerting`."""

    async def history(self, at_most: int) -> tuple[AlertEntry, ...]: ...

    async def test(self, alert_id: str, target: str = "") -> AlertEntry | None: ...


class DeliveryAnswer(Answer):
    """One alert to one target."""

    target: str
    state: str
    """`waiting`, `delivered` or `failed`."""
    attempts: int
    at: str | None
    """Of the last attempt."""
    said: str
    """How that went."""


class AlertAnswer(Answer):
    """What people were told."""

    id: str
    """The same on all replicas, and what receivers were told."""
    kind: str
    at: str
    headline: str
    facts: dict[str, str]
    amounts: dict[str, int]
    command: str
    organisation: str
    team: str
    workspace: str
    contact: str
    deliveries: list[DeliveryAnswer]
    next_attempt_at: str | None
    """Null where nothing is left to do."""


class AlertsAnswer(Answer):
    """The newest first; alerts are remembered for 62 days."""

    at: str
    alerts: list[AlertAnswer]


def alert_operations(alerts: AlertHistory, *, clock: Clock, new_id: Callable[[], str]) -> list[Operation]:
    """What the admin plane offers about alerts. `new_id` gives the ids of tests."""

    async def show(request: web.Request) -> web.Response:
        at_most = _count(request.query.get("limit", str(FIRST)))
        entries = await _reached(alerts, at_most)
        return answer_json(
            AlertsAnswer(at=stated(clock.now()), alerts=[alert_answer(entry) for entry in entries])
        )

    async def test(request: web.Request) -> web.Response:
        target = request.query.get("target", "")
        try:
            entry = await alerts.test(new_id(), target)
        except StoreUnavailable as error:
            raise AdminError(503, f"The alert log cannot be written: {error.message}") from None
        if entry is None:
            which = f"no target {target[:100]!r}" if target else "no target"
            raise AdminError(404, f"gateway.yaml has {which} under alerts.targets.")
        return answer_json(alert_answer(entry))

    return [
        Operation(method="GET", path="/v1/alerts", respond=show, description=_SHOW),
        Operation(method="POST", path="/v1/alerts/test", respond=test, description=_TEST),
    ]


def alert_answer(entry: AlertEntry) -> AlertAnswer:
    alert = entry.alert
    return AlertAnswer(
        id=alert.id,
        kind=alert.kind,
        at=stated(alert.at),
        headline=alert.headline,
        facts=dict(alert.facts),
        amounts=dict(alert.amounts),
        command=alert.command,
        organisation=alert.organisation,
        team=alert.team,
        workspace=alert.workspace,
        contact=alert.contact,
        deliveries=[
            DeliveryAnswer(
                target=each.target,
                state=each.state,
                attempts=each.attempts,
                at=instant(each.at),
                said=each.said,
            )
            for each in entry.deliveries
        ],
        next_attempt_at=instant(entry.due_at),
    )


_SHOW = Description(
    id="alerts",
    summary="What people were told, the newest first, and whether it arrived.",
    text="Of all replicas that share a store.",
    parameters=(Parameter(name="limit", description=f"How many, {MOST} at most; {FIRST} without it."),),
    answer=AlertsAnswer,
    errors={400: "The number cannot be understood.", 503: "The store does not answer."},
)
_TEST = Description(
    id="test_alerts",
    summary="Send a sample to all targets, or to one, at once; and say what came of it.",
    text="Whatever the targets' filters say, and without a second attempt.",
    parameters=(Parameter(name="target", description="Only this one."),),
    answer=AlertAnswer,
    errors={404: "There is no such target.", 503: "The store does not answer."},
)


async def _reached(alerts: AlertHistory, at_most: int) -> tuple[AlertEntry, ...]:
    try:
        return await alerts.history(at_most)
    except StoreUnavailable as error:
        raise AdminError(503, f"The alert log cannot be read: {error.message}") from None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= MOST:
        raise AdminError(400, f"?limit= is a number from 1 to {MOST}.")
    return int(text)
