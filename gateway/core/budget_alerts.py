"""When a budget deserves an alert, and what that says: a threshold was passed, or it will not last. Pure.

Judged from how a limit stands in the store, and not from single calls, so that it is the same on all
replicas, after a restart, and for what settled late. Only calendar windows are looked at: a rate passes its
half all the time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from shlex import quote
from typing import Final

from gateway.core.alerts import Alert, AlertKind, iso
from gateway.core.bucket import Verdict
from gateway.core.forecast import runs_out_at
from gateway.core.limits import Limit, Mode, Period, Scope, Unit
from gateway.core.refusal import show_amount
from gateway.core.windows import Window, windows_around

PACE_SHARE: Final = 0.15
"""How much of a week or month has to be over before its pace is worth telling people about."""
PACE_SPENT: Final = 0.25
"""How much of it has to be spent by then."""
GRANT_SHARE: Final = 0.2
"""How much more the command offers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """How one limit stands for one subject, and whose it is as far as that is known."""

    verdict: Verdict
    organisation: str = ""
    team: str = ""
    workspace: str = ""
    named: str = ""
    """A name for people, where the subject is none: that of a key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Notice:
    """An alert that is due and not yet written, since its cause has still to be looked up."""

    id: str
    kind: AlertKind
    standing: Standing
    share: float = 0.0
    """The threshold that was passed."""
    runs_out_at: float | None = None


def threshold_notice(standing: Standing, usual: Sequence[float]) -> Notice | None:
    """The highest threshold that what is spent has passed: the limit's own, else the `usual` ones for limits
    of dollars.

    By the amount at which it lies, so that a raised budget warns anew above what was told already, and not of
    the same dollars again.
    """
    verdict, limit = standing.verdict, standing.verdict.bound.limit
    shares = limit.warn_at or (tuple(usual) if limit.unit is Unit.NANOUSD else ())
    if not limit.period.is_calendar or verdict.reset_at is None or limit.amount <= 0:
        return None
    passed = [share for share in shares if verdict.spent >= _level(limit, share)]
    if not passed:
        return None
    share = max(passed)
    return Notice(
        id=f"{AlertKind.THRESHOLD}/{_window_id(verdict)}/{_level(limit, share)}",
        kind=AlertKind.THRESHOLD,
        standing=standing,
        share=share,
    )


def forecast_notice(standing: Standing, at: float) -> Notice | None:
    """A budget of dollars, for a week or month, that is spent before its window ends if it goes on as it has;
    once in a window, for each amount."""
    verdict, limit = standing.verdict, standing.verdict.bound.limit
    if limit.unit is not Unit.NANOUSD or limit.period not in _LONG or limit.amount <= 0:
        return None
    if not PACE_SPENT * limit.amount <= verdict.spent < limit.amount:
        return None
    window = _window(limit, at)
    if at - window.start_ms / 1000 < PACE_SHARE * (window.end_ms - window.start_ms) / 1000:
        return None
    empty_at = runs_out_at(verdict, at)
    if empty_at is None or empty_at <= at:  # what is set aside comes back, mostly
        return None
    return Notice(
        id=f"{AlertKind.FORECAST}/{_window_id(verdict)}/{limit.amount}",
        kind=AlertKind.FORECAST,
        standing=standing,
        runs_out_at=empty_at,
    )


def budget_alert(notice: Notice, at: float, cause: str = "") -> Alert:
    """The alert in words. `cause` is what costs the most in this window, if that could be told."""
    standing, verdict = notice.standing, notice.standing.verdict
    limit = verdict.bound.limit
    facts = [
        ("spent", f"{show_amount(verdict.spent, limit.unit)} of {show_amount(limit.amount, limit.unit)}"),
        ("limit", f"{limit.id}, {_PERIODS[limit.period]}, {limit.timezone}"),
        ("rate", _rate(verdict, at)),
        ("runs out", _runs_out(verdict, at)),
        ("resets", iso(verdict.reset_at or at)),
    ]
    if limit.mode is Mode.SHADOW:
        facts.append(("mode", "shadow: nothing is refused"))
    if cause:
        facts.append(("top cause", cause))
    if limit.contact:
        facts.append(("contact", limit.contact))
    unit = limit.unit.value
    return Alert(
        id=notice.id,
        kind=notice.kind,
        at=at,
        headline=_headline(notice),
        facts=tuple(facts),
        amounts=(
            (f"spent_{unit}", verdict.spent),
            (f"set_aside_{unit}", verdict.set_aside),
            (f"limit_{unit}", limit.amount),
        ),
        command=grant_command(limit, verdict.bound.subject),
        organisation=standing.organisation,
        team=standing.team,
        workspace=standing.workspace,
        contact=limit.contact,
    )


def grant_command(limit: Limit, subject: str) -> str:
    """What gives the subject a fifth more until the window ends; quoted for a shell."""
    extra = max(ceil(limit.amount * GRANT_SHARE), 1)
    amount = f"${max(ceil(extra / 10_000_000), 1) / 100:.2f}" if limit.unit is Unit.NANOUSD else str(extra)
    whose = "" if limit.shared else f" -s {quote(subject)}"
    return f"gateway budget grant {quote(limit.id)} {quote(amount)}{whose} -r 'why'"


_LONG = frozenset({Period.CALENDAR_WEEK, Period.CALENDAR_MONTH})
_PERIODS = {
    Period.CALENDAR_DAY: "a day",
    Period.CALENDAR_WEEK: "a week",
    Period.CALENDAR_MONTH: "a month",
}


def _level(limit: Limit, share: float) -> int:
    return ceil(Fraction(str(share)) * limit.amount)


def _window_id(verdict: Verdict) -> str:
    assert verdict.reset_at is not None
    return f"{verdict.bound.bucket_id}/{round(verdict.reset_at)}"


def _window(limit: Limit, at: float) -> Window:
    return windows_around(limit.period, limit.timezone, round(at * 1000))[1]


def _headline(notice: Notice) -> str:
    who, limit = _who(notice.standing), notice.standing.verdict.bound.limit
    amount = show_amount(limit.amount, limit.unit)
    if notice.kind is AlertKind.FORECAST:
        return (
            f"{who} will have spent its {amount} ({limit.id}) by {iso(notice.runs_out_at or 0.0)}, before "
            "the window ends"
        )
    if notice.share >= 1:
        return f"{who} has spent all of its {amount} ({limit.id})"
    return f"{who} has spent {notice.share:.0%} of its {amount} ({limit.id})"


def _who(standing: Standing) -> str:
    bound = standing.verdict.bound
    limit, subject = bound.limit, bound.subject
    if limit.shared:
        return "The pool"
    match limit.scope:
        case Scope.KEY:
            whose = f" of workspace {standing.workspace}" if standing.workspace else ""
            return f"Key {standing.named or subject}{whose}"
        case Scope.TAG:
            return f"{limit.tag} {subject}" if subject else f"What is sent without {limit.tag}"
        case _:
            return f"{limit.scope.value.capitalize()} {subject}"


def _rate(verdict: Verdict, at: float) -> str:
    limit = verdict.bound.limit
    seconds = max(at - _window(limit, at).start_ms / 1000, 60.0)
    per, name = (3_600, "an hour") if limit.period is Period.CALENDAR_DAY else (86_400, "a day")
    return f"{show_amount(round(verdict.spent * per / max(seconds, per)), limit.unit)} {name}"


def _runs_out(verdict: Verdict, at: float) -> str:
    empty_at = runs_out_at(verdict, at)
    if empty_at is None:
        return "not before the window ends, at the pace so far"
    return "now" if empty_at <= at else f"{iso(empty_at)}, at the pace so far"
