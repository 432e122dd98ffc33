"""Configured limits, and which of them bind a call. The state of a limit is a bucket: see `bucket.py`.

Nothing here knows a store or a clock. What people write is read and checked in `settings/`; the checks that
arithmetic relies on are repeated here, so that no other way of building `Limits` gets round them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from urllib.parse import quote
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from gateway.core.principal import Principal

MAX_AMOUNT = 2**53 - 2
"""The largest limit: about nine million dollars in nano-dollars. Scripts in Redis count in doubles, which are
exact for integers up to 2^53 - 1; the one value above every limit stands for "more than any limit"."""


class Unit(StrEnum):
    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    """Uncached input and cache writes; cache reads do not count, as in the API's own limits."""
    OUTPUT_TOKENS = "output_tokens"
    NANOUSD = "nanousd"


class Scope(StrEnum):
    ORGANISATION = "organisation"
    WORKSPACE = "workspace"
    KEY = "key"


class Period(StrEnum):
    """How a bucket is replenished: continuously over a period, or at the edge of a calendar window."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    CALENDAR_DAY = "calendar_day"
    CALENDAR_WEEK = "calendar_week"
    CALENDAR_MONTH = "calendar_month"

    @property
    def is_calendar(self) -> bool:
        return self in _CALENDAR


_CALENDAR = frozenset({Period.CALENDAR_DAY, Period.CALENDAR_WEEK, Period.CALENDAR_MONTH})


class Mode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


class OnStoreFailure(StrEnum):
    ALLOW = "allow"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One configured rule. `amount` is per `period`, in units of `unit`; `burst` is the capacity of a
    continuously refilled bucket (default: `amount`) and means nothing for a calendar window."""

    id: str
    scope: Scope
    unit: Unit
    amount: int
    period: Period
    burst: int | None = None
    timezone: str = "UTC"
    mode: Mode = Mode.ENFORCE
    on_store_failure: OnStoreFailure = OnStoreFailure.ALLOW
    subject: str | None = None
    """The one workspace or key it is for; None: each of the scope has a bucket of its own."""
    models: tuple[str, ...] = ()
    """Model ids or globs it counts; empty: all."""
    comment: str = ""

    @property
    def capacity(self) -> int:
        """The most that a bucket can hold at once."""
        return self.amount if self.burst is None or self.period.is_calendar else self.burst


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundLimit:
    """A limit with the bucket that it has for one principal."""

    limit: Limit
    bucket_id: str


class Limits:
    """All limits of one configuration. Raises ValueError, naming every fault, for a set that cannot work.

    A limit with a `subject` replaces, for that subject, the limits without one of the same scope, unit,
    period and models. Models count: an override for all models never lifts a limit for some, nor the other
    way round.
    """

    def __init__(self, limits: tuple[Limit, ...] = ()) -> None:
        if faults := _faults(limits):
            raise ValueError("; ".join(faults))
        self.all = limits
        self._bound: dict[tuple[str, str, str, str], tuple[BoundLimit, ...]] = {}

    def binding(self, principal: Principal, model: str) -> tuple[BoundLimit, ...]:
        """The limits that a call counts against, in configured order.

        Bucket ids are stable: they change only with the limit's id, unit or period, or the subject, and so
        survive reloads, raised amounts and changed time zones.
        """
        known = (principal.organisation, principal.workspace, principal.key_id, model)
        bound = self._bound.get(known)
        if bound is None:
            if len(self._bound) >= _CACHE_ENTRIES:  # model names come from clients
                self._bound.clear()
            bound = self._bound[known] = self._bind(principal, model)
        return bound

    def _bind(self, principal: Principal, model: str) -> tuple[BoundLimit, ...]:
        subjects: dict[Scope, str] = {
            Scope.ORGANISATION: principal.organisation,
            Scope.WORKSPACE: principal.workspace,
            Scope.KEY: principal.key_id,
        }
        mine = [limit for limit in self.all if limit.subject in (None, subjects[limit.scope])]
        replaced = {_kind(limit) for limit in mine if limit.subject is not None}
        return tuple(
            BoundLimit(
                limit=limit, bucket_id=_bucket_id(principal.organisation, limit, subjects[limit.scope])
            )
            for limit in mine
            if (limit.subject is not None or _kind(limit) not in replaced) and _counts(limit, model)
        )


_CACHE_ENTRIES = 4096


def _kind(limit: Limit) -> tuple[Scope, Unit, Period, tuple[str, ...]]:
    return (limit.scope, limit.unit, limit.period, tuple(sorted(limit.models)))


def _counts(limit: Limit, model: str) -> bool:
    return not limit.models or any(fnmatchcase(model, pattern) for pattern in limit.models)


def _bucket_id(organisation: str, limit: Limit, subject: str) -> str:
    # Quoted, so that no name can be written to collide with another's bucket.
    parts = (organisation, limit.id, limit.unit, limit.period, subject)
    return "/".join(quote(part, safe="") for part in parts)


def _faults(limits: tuple[Limit, ...]) -> list[str]:
    faults = []
    seen: set[tuple[str, str | None]] = set()
    for limit in limits:
        # An override carries its default's id: the bucket stays, and with it what was spent.
        if (limit.id, limit.subject) in seen:
            faults.append(f"limit {limit.id!r} is there twice")
        seen.add((limit.id, limit.subject))
        least = 0 if limit.period.is_calendar else 1
        for name, value in (("amount", limit.amount), ("burst", limit.burst)):
            if value is not None and not least <= value <= MAX_AMOUNT:
                faults.append(f"limit {limit.id!r}: {name} must be between {least} and {MAX_AMOUNT}")
        try:
            ZoneInfo(limit.timezone)
        except (ZoneInfoNotFoundError, ValueError, OSError):
            faults.append(f"limit {limit.id!r}: there is no time zone {limit.timezone!r}")
    return faults
