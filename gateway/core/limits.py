"""Configured limits, and which of them bind a call. The state of a limit is a bucket: see `bucket.py`.

Nothing here knows a store or a clock. What people write is read and checked in `settings/`; the checks that
arithmetic relies on are repeated here, so that no other way of building `Limits` gets round them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
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
    PROMPT_TOKENS = "prompt_tokens"
    """All input, cache reads included."""
    CONCURRENT = "concurrent"
    """Requests that are open at the same time: taken at the reservation, given back at its close."""


class Scope(StrEnum):
    ORGANISATION = "organisation"
    TEAM = "team"
    """The team of the caller's workspace; workspaces without one are not bound."""
    WORKSPACE = "workspace"
    KEY = "key"
    TAG = "tag"
    """The value of one tag header, as the client sent it."""


class Period(StrEnum):
    """How a bucket is replenished: continuously over a period, at the edge of a calendar window, or by the
    close of what was taken from it."""

    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    CALENDAR_DAY = "calendar_day"
    CALENDAR_WEEK = "calendar_week"
    CALENDAR_MONTH = "calendar_month"
    OPEN = "open"
    """Not with time: of concurrent requests."""

    @property
    def is_calendar(self) -> bool:
        return self in _CALENDAR

    @property
    def is_rate(self) -> bool:
        """Whether its buckets are refilled continuously."""
        return self in _RATES


_CALENDAR = frozenset({Period.CALENDAR_DAY, Period.CALENDAR_WEEK, Period.CALENDAR_MONTH})
_RATES = frozenset({Period.SECOND, Period.MINUTE, Period.HOUR})


class Mode(StrEnum):
    ENFORCE = "enforce"
    SHADOW = "shadow"


class OnStoreFailure(StrEnum):
    ALLOW = "allow"
    REFUSE = "refuse"
    ALLOWANCE = "allowance"
    """So much as `Limit.allowance` says, on each replica in each outage; then as `refuse`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """One configured rule. `amount` is per `period`, in units of `unit`; `burst` is the capacity of a
    continuously refilled bucket (default: `amount`) and means nothing elsewhere."""

    id: str
    scope: Scope
    unit: Unit
    amount: int
    period: Period
    burst: int | None = None
    timezone: str = "UTC"
    mode: Mode = Mode.ENFORCE
    on_store_failure: OnStoreFailure = OnStoreFailure.ALLOW
    allowance: int = 0
    """What one replica may admit of it in one outage of the store (and one window), in its unit."""
    subjects: tuple[str, ...] = ()
    """The members of the scope that it is for; empty: all."""
    shared: bool = False
    """One bucket for all that it binds (a pool); otherwise each member has a bucket of its own."""
    tag: str = ""
    """Of the scope `tag`: the header (lower case) whose value names the member."""
    require: bool = False
    """Of the scope `tag`: calls without the header count together, as the value ""; otherwise they are not
    bound."""
    models: tuple[str, ...] = ()
    """Model ids or globs it counts; empty: all."""
    warn_at: tuple[float, ...] = ()
    """Shares of the amount whose crossing is reported, of a calendar window; see `thresholds.py`."""
    contact: str = ""
    """Whom to ask for more, for the refusal."""
    comment: str = ""

    @property
    def capacity(self) -> int:
        """The most that a bucket can hold at once."""
        return self.burst if self.burst is not None and self.period.is_rate else self.amount


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundLimit:
    """A limit with the bucket that it has for one principal."""

    limit: Limit
    bucket_id: str
    subject: str = ""
    """Whose bucket it is, for people; empty for a pool, and for calls without a tag."""


Tags = Iterable[tuple[str, str]]
"""Names (lower case) and values of tag headers, in the order of their lines."""


class Limits:
    """All limits of one configuration. Raises ValueError, naming every fault, for a set that cannot work.

    A limit with `subjects` replaces, for these, the limits without any of the same scope, tag, unit, period
    and models, pools and others apart. Models count: an override for all models never lifts a limit for
    some, nor the other way round.
    """

    def __init__(self, limits: tuple[Limit, ...] = ()) -> None:
        if faults := _faults(limits):
            raise ValueError("; ".join(faults))
        self.all = limits
        self._untagged = _BySubject(limit for limit in limits if not limit.tag)
        self._tagged = _BySubject(limit for limit in limits if limit.tag)
        self._bound: dict[tuple[str, ...], tuple[BoundLimit, ...]] = {}

    def binding(self, principal: Principal, model: str, tags: Tags = ()) -> tuple[BoundLimit, ...]:
        """The limits that a call counts against, in configured order, those of tags last.

        Bucket ids are stable: they change only with the limit's id, unit or period, or the subject, and so
        survive reloads, raised amounts and changed time zones. Of a tag that came twice, the first counts.
        """
        known = (principal.organisation, principal.team, principal.workspace, principal.key_id, model)
        bound = self._bound.get(known)
        if bound is None:
            if len(self._bound) >= _CACHE_ENTRIES:  # model names come from clients
                self._bound.clear()
            bound = self._bound[known] = _bind(self._untagged, principal, model, {})
        if not self._tagged:
            return bound
        # Not remembered: their values come from clients, and each may come once.
        return bound + _bind(self._tagged, principal, model, dict(reversed(tuple(tags))))

    def binding_any(
        self, principal: Principal, models: Iterable[str], tags: Tags = ()
    ) -> tuple[BoundLimit, ...]:
        """Those of what may come to several models, each once."""
        tags = tuple(tags)
        bound = (each for model in dict.fromkeys(models) for each in self.binding(principal, model, tags))
        return tuple({each.bucket_id: each for each in bound}.values())


_CACHE_ENTRIES = 4096


class _BySubject:
    """Limits, found by whom they are for: with thousands of workspaces that have limits of their own, looking
    through all of them would cost a call more than everything else."""

    def __init__(self, limits: Iterable[Limit]) -> None:
        self._for_all: list[tuple[int, Limit]] = []
        self._named: dict[tuple[Scope, str, str], list[tuple[int, Limit]]] = {}
        """By scope, tag and subject."""
        self._named_tags: set[str] = set()
        for place in enumerate(limits):
            limit = place[1]
            if not limit.subjects:
                self._for_all.append(place)
            for subject in dict.fromkeys(limit.subjects):
                self._named.setdefault((limit.scope, limit.tag, subject), []).append(place)
                self._named_tags.add(limit.tag)

    def __bool__(self) -> bool:
        return bool(self._for_all or self._named)

    def of(self, principal: Principal, tags: Mapping[str, str]) -> Iterator[Limit]:
        """Those without subjects, and those that name the caller, in configured order."""
        subjects = [
            (Scope.ORGANISATION, "", principal.organisation),
            (Scope.TEAM, "", principal.team),
            (Scope.WORKSPACE, "", principal.workspace),
            (Scope.KEY, "", principal.key_id),
            *((Scope.TAG, tag, tags.get(tag, "")) for tag in self._named_tags if tag),
        ]
        mine = [place for subject in subjects for place in self._named.get(subject, ())]
        return (limit for _, limit in sorted((*self._for_all, *mine), key=_place))


def _place(placed: tuple[int, Limit]) -> int:
    return placed[0]


def _bind(
    limits: _BySubject, principal: Principal, model: str, tags: Mapping[str, str]
) -> tuple[BoundLimit, ...]:
    mine = []
    for limit in limits.of(principal, tags):
        subject = _subject(limit, principal, tags)
        if subject is not None:
            mine.append((limit, subject))
    replaced = {kind_of(limit) for limit, _ in mine if limit.subjects}
    return tuple(
        BoundLimit(
            limit=limit,
            bucket_id=_bucket_id(principal.organisation, limit, subject),
            subject="" if limit.shared else subject,
        )
        for limit, subject in mine
        if (limit.subjects or kind_of(limit) not in replaced) and _counts(limit, model)
    )


def _subject(limit: Limit, principal: Principal, tags: Mapping[str, str]) -> str | None:
    """Which member of the limit's scope the caller is; None where it is none."""
    match limit.scope:
        case Scope.ORGANISATION:
            return principal.organisation
        case Scope.TEAM:
            return principal.team or None
        case Scope.WORKSPACE:
            return principal.workspace
        case Scope.KEY:
            return principal.key_id
        case Scope.TAG:
            return tags.get(limit.tag) or ("" if limit.require else None)


def kind_of(limit: Limit) -> tuple[object, ...]:
    """What two limits have in common of which one replaces the other."""
    return (limit.scope, limit.tag, limit.unit, limit.period, limit.shared, tuple(sorted(limit.models)))


def _counts(limit: Limit, model: str) -> bool:
    return not limit.models or any(fnmatchcase(model, pattern) for pattern in limit.models)


def _bucket_id(organisation: str, limit: Limit, subject: str) -> str:
    # Quoted, so that no name can be written to collide with another's bucket.
    whose, member = ("", "") if limit.shared else (organisation, subject)
    parts = (whose, limit.id, limit.unit, limit.period, member)
    return "/".join(quote(part, safe="") for part in parts)


def _faults(limits: tuple[Limit, ...]) -> list[str]:
    faults = []
    seen: set[tuple[str, str | None]] = set()
    for limit in limits:
        # An override carries its default's id: the bucket stays, and with it what was spent.
        for subject in limit.subjects or (None,):
            if (limit.id, subject) in seen:
                faults.append(f"limit {limit.id!r} is there twice")
            seen.add((limit.id, subject))
        faults += [f"limit {limit.id!r}: {fault}" for fault in _faults_of(limit)]
    return faults


def _faults_of(limit: Limit) -> Iterator[str]:
    least = 1 if limit.period.is_rate else 0
    for name, value in (("amount", limit.amount), ("burst", limit.burst)):
        if value is not None and not least <= value <= MAX_AMOUNT:
            yield f"{name} must be between {least} and {MAX_AMOUNT}"
    if (limit.unit is Unit.CONCURRENT) != (limit.period is Period.OPEN):
        yield "concurrent requests have no period, and all else has one"
    if (limit.scope is Scope.TAG) != bool(limit.tag):
        yield "the scope `tag` names a tag, and no other does"
    if limit.warn_at and not limit.period.is_calendar:
        yield "only a day, week or month can warn"
    if not all(0 < share <= 1 for share in limit.warn_at):
        yield "a warning comes at a share above 0 and at most 1"
    if (limit.on_store_failure is OnStoreFailure.ALLOWANCE) != (0 < limit.allowance <= MAX_AMOUNT):
        yield f"`on_store_failure: allowance` goes with an allowance, from 1 to {MAX_AMOUNT}"
    try:
        ZoneInfo(limit.timezone)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        yield f"there is no time zone {limit.timezone!r}"
