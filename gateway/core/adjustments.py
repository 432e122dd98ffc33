"""What people change while the gateway runs: another amount of a limit, some more of it for a while, a stop
to all calls of somebody. Pure: what is in force follows from the adjustments and an instant.

Nothing is ever deleted. Who takes an adjustment back adds that to the log, with a reason; where the log is
kept is the business of the adjustment stores. Which limits there are is configured: see `limits.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from math import inf
from typing import Final

from gateway.core.errors import Frozen, StoreUnavailable
from gateway.core.limits import MAX_AMOUNT, Limit, Limits, Period, Scope, Unit, kind_of
from gateway.core.principal import Principal

MAX_IN_FORCE: Final = 500
"""How many adjustments may be in force at once. What is meant to last belongs into limits.yaml."""
EXPIRED_KEPT_SECONDS: Final = 86_400.0
"""How long after its end a grant still counts towards `MAX_IN_FORCE`: clocks of replicas differ."""


class FreezeScope(StrEnum):
    """Whose calls a freeze stops, the widest first."""

    ORGANISATION = "organisation"
    TEAM = "team"
    WORKSPACE = "workspace"
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Author:
    """Who did something: the name that they stated, and how it is known that they may."""

    name: str
    via: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One bucket's limit. Scope, unit and period are those of the limit when the adjustment was made: once
    the configuration gives the id another meaning, an adjustment of the old one does nothing."""

    limit: str
    subject: str
    """As in `BoundLimit`; empty for a pool. A team or value of a tag that several organisations have is
    adjusted for each of them."""
    scope: Scope
    unit: Unit
    period: Period

    def is_of(self, limit: Limit) -> bool:
        """Whether this limit is meant, whomever it is for."""
        return (self.limit, self.scope, self.unit, self.period) == (
            limit.id,
            limit.scope,
            limit.unit,
            limit.period,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Override:
    """Another amount in place of the configured one, until it is taken back. A burst of its own stays."""

    id: str
    target: Target
    amount: int
    reason: str
    by: Author
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """So much more, from `from_at` up to but not including `until_at`. Whoever makes one for a calendar limit
    lets it end with the window that it begins in, so that it is never given twice."""

    id: str
    target: Target
    extra: int
    from_at: float
    until_at: float
    reason: str
    by: Author
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Freeze:
    """No new call is taken. What runs already ends as it would."""

    id: str
    scope: FreezeScope
    subject: str
    """The organisation, team or workspace, or a key's id."""
    reason: str
    by: Author
    at: float


Adjustment = Override | Grant | Freeze


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenBack:
    """That an adjustment does not hold any longer."""

    reason: str
    by: Author
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class LogEntry:
    """One line of the audit trail: an adjustment as it was made or, with `taken_back`, as it was taken
    back."""

    number: int
    """From 1, in the order of the log, without gaps."""
    adjustment: Adjustment
    taken_back: TakenBack | None = None


def ends_at(adjustment: Adjustment) -> float:
    """When it ends by itself; infinity where it does not."""
    return adjustment.until_at if isinstance(adjustment, Grant) else inf


def in_force(adjustments: Iterable[Adjustment], at: float) -> tuple[Adjustment, ...]:
    """Those that hold at this instant, of some that were not taken back."""
    return tuple(
        each for each in adjustments if not isinstance(each, Grant) or (each.from_at <= at < each.until_at)
    )


def apply(limits: Limits, adjustments: Iterable[Adjustment], at: float) -> Limits:
    """The limits with what is in force at `at`.

    Buckets keep their ids, so that what was spent stays spent. Where several are for one bucket, the override
    that was made last counts and no other, of two made in the same instant the smaller; grants add to it,
    each once, and never beyond `MAX_AMOUNT`. What is for a limit that is not there, or that does not bind the
    subject, does nothing; so does a freeze, which is not about amounts.
    """
    overrides: dict[Target, Override] = {}
    extra: dict[Target, int] = {}
    for each in in_force(adjustments, at):
        if isinstance(each, Override):
            known = overrides.get(each.target)
            if known is None or (each.at, -each.amount) > (known.at, -known.amount):
                overrides[each.target] = each
        elif isinstance(each, Grant):
            extra[each.target] = extra.get(each.target, 0) + each.extra
    amounts: dict[tuple[int, str], int] = {}
    for target in dict.fromkeys((*overrides, *extra)):
        limit = limit_of(limits, target.limit, target.subject)
        if limit is not None and target.is_of(limit):
            override = overrides.get(target)
            amount = (limit.amount if override is None else override.amount) + extra.get(target, 0)
            least = 1 if limit.period.is_rate else 0
            amounts[id(limit), target.subject] = min(max(amount, least), MAX_AMOUNT)
    return Limits(tuple(_with_amounts(limits.all, amounts))) if amounts else limits


def limit_of(limits: Limits, limit_id: str, subject: str) -> Limit | None:
    """The limit of this id that binds this subject; None where there is none, or another one replaces it. A
    pool binds the subject ""."""
    default: Limit | None = None
    for limit in limits.all:
        if limit.id != limit_id:
            continue
        if limit.shared:
            if not subject:
                return limit
        elif subject in limit.subjects:
            return limit
        elif not limit.subjects:
            default = limit
    if default is None or any(
        subject in limit.subjects and kind_of(limit) == kind_of(default) for limit in limits.all
    ):
        return None
    return default


class Freezes:
    """Who is frozen. Where several freezes stop a caller, the widest is what they are told of, and of these
    the first: the others will show once it is taken back."""

    __slots__ = ("_by_subject", "complete")

    def __init__(self, adjustments: Iterable[Adjustment] = (), *, complete: bool = True) -> None:
        """Without `complete` the store could not be read yet: whoever is not here may be frozen all the
        same."""
        self.complete = complete
        frozen: dict[tuple[FreezeScope, str], Freeze] = {}
        for each in adjustments:
            if isinstance(each, Freeze):
                frozen.setdefault((each.scope, each.subject), each)
        self._by_subject = frozen

    def of(self, principal: Principal) -> Freeze | None:
        """What stops this caller; None where nothing does."""
        if not self._by_subject:
            return None
        subjects = (
            (FreezeScope.ORGANISATION, principal.organisation),
            (FreezeScope.TEAM, principal.team),
            (FreezeScope.WORKSPACE, str(principal.workspace)),
            (FreezeScope.KEY, str(principal.key_id)),
        )
        return next((self._by_subject[each] for each in subjects if each in self._by_subject), None)

    def permit(self, principal: Principal) -> None:
        """Raises `Frozen` where something stops this caller, and `StoreUnavailable` where nobody knows."""
        freeze = self.of(principal)
        if freeze is not None:
            raise Frozen(freeze_message(freeze))
        if not self.complete:
            raise StoreUnavailable("The gateway's freezes cannot be read at the moment; try again soon.")


NOTHING_FROZEN: Final = Freezes()


def freeze_message(freeze: Freeze) -> str:
    """One paragraph for the person whose call was refused."""
    since = datetime.fromtimestamp(freeze.at, UTC).strftime("%Y-%m-%d %H:%M UTC")
    whose = "This key" if freeze.scope is FreezeScope.KEY else f"{freeze.scope.capitalize()} {freeze.subject}"
    return (
        f"{whose} is frozen since {since}; nothing is sent until that is taken back. The reason given: "
        f"{freeze.reason.rstrip('.')}. Ask {freeze.by.name}, or whoever runs this gateway."
    )


def _with_amounts(limits: Sequence[Limit], amounts: Mapping[tuple[int, str], int]) -> Iterator[Limit]:
    """All limits, in their places, with other amounts by identity and subject."""
    own: dict[tuple[object, ...], dict[str, None]] = {}
    subjects: dict[int, list[str]] = {}
    for known, subject in amounts:
        subjects.setdefault(known, []).append(subject)
    for limit in limits:
        if id(limit) in subjects and not limit.subjects:
            own.setdefault(kind_of(limit), {}).update(dict.fromkeys(subjects[id(limit)]))
    for limit in limits:
        changed = subjects.get(id(limit), [])
        if limit.shared:
            yield replace(limit, amount=amounts[id(limit), ""]) if changed else limit
            continue
        kept = tuple(each for each in limit.subjects if each not in changed)
        if kept or not limit.subjects:
            yield limit if kept == limit.subjects else replace(limit, subjects=kept)
        if not limit.subjects and own:
            # What is for one subject replaces all defaults of its kind: those that were not adjusted have to
            # go on binding it.
            changed = list(own.get(kind_of(limit), ()))
        for subject in changed:
            amount = amounts.get((id(limit), subject), limit.amount)
            yield replace(limit, subjects=(subject,), amount=amount)
