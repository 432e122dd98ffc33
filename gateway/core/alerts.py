"""Alerts to people: what one says, whom it is for, and what becomes of its deliveries. Pure values.

When a budget deserves one is `budget_alerts.py`'s to say, when spend is unusual `anomaly.py`'s. Sending is
`adapters/webhooks.py`, remembering `adapters/alert_log.py`. No prompt text and no credential is ever in an
alert: it is made of names of the configuration, of numbers, and of sentences that the ledger keeps as well.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final


class AlertKind(StrEnum):
    THRESHOLD = "threshold"
    """So much of a budget is spent."""
    FORECAST = "forecast"
    """A budget will not last until its window ends."""
    ANOMALY = "anomaly"
    """A workspace spends far more than at other times like this."""
    CACHE = "cache"
    """A workspace reads far less from the cache than it did."""
    FREEZE = "freeze"
    UNFREEZE = "unfreeze"
    TEST = "test"
    """Somebody wanted to see whether alerts arrive."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alert:
    """One thing that people are told, once."""

    id: str
    """The same on all replicas for the same thing: by it an alert is sent once, and a receiver that was told
    twice knows. Printable ASCII."""
    kind: AlertKind
    at: float
    """When it was noticed, epoch seconds."""
    headline: str
    """One sentence: who, what, how much."""
    facts: tuple[tuple[str, str], ...] = ()
    """Names and texts, in the order in which people should read them."""
    amounts: tuple[tuple[str, int], ...] = ()
    """The same numbers exactly, for machines; the unit is part of the name, as spent_nanousd."""
    command: str = ""
    """What somebody could do about it, ready for a shell."""
    organisation: str = ""
    team: str = ""
    workspace: str = ""
    contact: str = ""
    """Whom limits.yaml names for the limit."""


class Format(StrEnum):
    """What a target understands."""

    SLACK = "slack"
    """Incoming webhooks of Slack, and of what is compatible with them."""
    WEBHOOK = "webhook"
    """JSON of our own, signed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """Somewhere that alerts go. An empty filter lets all through; all filters have to."""

    name: str
    format: Format
    url: Callable[[], str] = field(repr=False)
    """The whole URL, which is a credential. Raises OSError or ValueError, without a word of it."""
    secret: Callable[[], str] | None = field(default=None, repr=False)
    """What bodies are signed with. Raises as `url`."""
    private: bool = False
    """Whether it may be in a private network."""
    kinds: frozenset[str] = frozenset()
    organisations: frozenset[str] = frozenset()
    teams: frozenset[str] = frozenset()
    workspaces: frozenset[str] = frozenset()
    contacts: frozenset[str] = frozenset()

    def wants(self, alert: Alert) -> bool:
        return all(
            not wanted or value in wanted
            for wanted, value in (
                (self.kinds, alert.kind.value),
                (self.organisations, alert.organisation),
                (self.teams, alert.team),
                (self.workspaces, alert.workspace),
                (self.contacts, alert.contact),
            )
        )


class DeliveryState(StrEnum):
    WAITING = "waiting"
    DELIVERED = "delivered"
    FAILED = "failed"
    """Given up: refused for good, or tried `MOST_ATTEMPTS` times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One alert to one target."""

    target: str
    state: DeliveryState = DeliveryState.WAITING
    attempts: int = 0
    at: float | None = None
    """Of the last attempt."""
    said: str = ""
    """How that went, as "status 200". Never any of the URL but its host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertEntry:
    """A line of the alert log. `due_at` is when somebody has to try again; None: nothing is left to do."""

    alert: Alert
    deliveries: tuple[Delivery, ...]
    due_at: float | None
    revision: int = 0
    """Of the log: who took the entry last has the highest."""

    @property
    def waiting(self) -> tuple[str, ...]:
        return tuple(each.target for each in self.deliveries if each.state is DeliveryState.WAITING)


class Begun(StrEnum):
    """What became of an alert that was to be begun."""

    NEW = "new"
    KNOWN = "known"
    """It was begun before, here or by another replica."""
    FULL = "full"
    """Too many wait: it was not written down."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one attempt."""

    delivered: bool
    final: bool
    """Whether trying again cannot help; always so where it was delivered."""
    said: str


RETRY_SECONDS: Final = (5.0, 30.0, 120.0, 600.0, 1_800.0, 3_600.0)
"""After each attempt that failed; each is spread by a half of it to either side."""
MOST_ATTEMPTS: Final = len(RETRY_SECONDS) + 1
KEPT_SECONDS: Final = 62 * 86_400.0
"""How long the log remembers: longer than any window lasts, or an alert would be sent again in it."""
MOST_OPEN: Final = 1_000
"""Alerts that wait for delivery at a time; what comes then is dropped and counted."""


def addressed(alert: Alert, targets: Iterable[Target]) -> AlertEntry | None:
    """The entry to begin with, due at once; None where nobody wants to know."""
    wanted = tuple(Delivery(target=target.name) for target in targets if target.wants(alert))
    return AlertEntry(alert=alert, deliveries=wanted, due_at=alert.at) if wanted else None


def attempted(entry: AlertEntry, outcomes: Mapping[str, Outcome], at: float, randomness: float) -> AlertEntry:
    """The entry after an attempt at the targets in `outcomes`. `randomness` is in [0, 1)."""
    deliveries = tuple(
        _after(each, outcomes[each.target], at) if each.target in outcomes else each
        for each in entry.deliveries
    )
    tries = [each.attempts for each in deliveries if each.state is DeliveryState.WAITING]
    delay = RETRY_SECONDS[max(min(tries), 1) - 1] * (0.5 + randomness) if tries else None
    return replace(entry, deliveries=deliveries, due_at=None if delay is None else at + delay)


def _after(delivery: Delivery, outcome: Outcome, at: float) -> Delivery:
    attempts = delivery.attempts + 1
    state = DeliveryState.WAITING
    if outcome.delivered:
        state = DeliveryState.DELIVERED
    elif outcome.final or attempts >= MOST_ATTEMPTS:
        state = DeliveryState.FAILED
    return replace(delivery, state=state, attempts=attempts, at=at, said=outcome.said)


def alert_json(alert: Alert) -> dict[str, Any]:
    """As a webhook is sent it, and the log keeps it."""
    return {
        "id": alert.id,
        "kind": alert.kind.value,
        "at": iso(alert.at),
        "headline": alert.headline,
        "facts": dict(alert.facts),
        "amounts": dict(alert.amounts),
        "command": alert.command,
        "organisation": alert.organisation,
        "team": alert.team,
        "workspace": alert.workspace,
        "contact": alert.contact,
    }


def slack_text(alert: Alert) -> str:
    """For an incoming webhook. What Slack would take for a mention or a link is escaped, so that no name of a
    key and no value of a tag can call a channel (Slack's formatting rules: &, < and > alone)."""
    lines = [f"*{_escaped(alert.headline)}*"]
    lines += [f"{_escaped(name)}: {_escaped(text)}" for name, text in alert.facts]
    if alert.command:
        lines.append(f"`{_escaped(alert.command).replace('`', chr(0x2019))}`")
    return "\n".join(lines)


def _escaped(text: str) -> str:
    shown = "".join(character if character.isprintable() else " " for character in text)
    return shown.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def entry_text(entry: AlertEntry) -> str:
    """The entry as the log keeps it, without its revision and when it is due."""
    alert = entry.alert
    return json.dumps(
        {
            "alert": {**alert_json(alert), "at": alert.at},
            "deliveries": [
                {
                    "target": each.target,
                    "state": each.state.value,
                    "attempts": each.attempts,
                    "at": each.at,
                    "said": each.said,
                }
                for each in entry.deliveries
            ],
        },
        separators=(",", ":"),
    )


def read_entry(text: str | bytes, *, revision: int, due_at: float | None) -> AlertEntry:
    """What `entry_text` wrote. Raises ValueError, KeyError or TypeError for anything else."""
    found = json.loads(text)
    alert = found["alert"]
    return AlertEntry(
        alert=Alert(
            **{
                **alert,
                "kind": AlertKind(alert["kind"]),
                "facts": tuple(alert["facts"].items()),
                "amounts": tuple(alert["amounts"].items()),
            }
        ),
        deliveries=tuple(
            Delivery(**{**each, "state": DeliveryState(each["state"])}) for each in found["deliveries"]
        ),
        due_at=due_at,
        revision=revision,
    )


def iso(at: float) -> str:
    """As 2026-11-18T14:05:00Z."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
