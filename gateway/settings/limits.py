"""`limits.yaml`: what finance and team leads decide. Defaults bind everybody; an override replaces one of
them for one subject, and says why.

The arithmetic of a limit is `core/bucket.py`; which limits bind a call is `core/limits.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from gateway.core.limits import MAX_AMOUNT, Limit, Mode, OnStoreFailure, Period, Scope, Unit
from gateway.settings.shared import Name, OwnHeader, Section
from gateway.settings.units import COUNT_PATTERN, DOLLARS_PATTERN, read_count, read_nanousd, time_zone


class LimitUnit(StrEnum):
    USD = "usd"
    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"
    CONCURRENT = "concurrent"


class CacheReads(StrEnum):
    FREE = "free"
    COUNTED = "counted"


class Per(StrEnum):
    SECOND = "second"
    MINUTE = "minute"
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


_UNITS = {
    LimitUnit.USD: Unit.NANOUSD,
    LimitUnit.REQUESTS: Unit.REQUESTS,
    LimitUnit.INPUT_TOKENS: Unit.INPUT_TOKENS,
    LimitUnit.OUTPUT_TOKENS: Unit.OUTPUT_TOKENS,
    LimitUnit.CONCURRENT: Unit.CONCURRENT,
}
_PERIODS = {
    Per.SECOND: Period.SECOND,
    Per.MINUTE: Period.MINUTE,
    Per.HOUR: Period.HOUR,
    Per.DAY: Period.CALENDAR_DAY,
    Per.WEEK: Period.CALENDAR_WEEK,
    Per.MONTH: Period.CALENDAR_MONTH,
}
_RATES = (Per.SECOND, Per.MINUTE, Per.HOUR)
_WINDOWS = (Per.DAY, Per.WEEK, Per.MONTH)


Amount = Annotated[
    str | int,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": DOLLARS_PATTERN},
                {"type": "string", "pattern": COUNT_PATTERN},
            ]
        }
    ),
]
"""`$250.00` for the unit `usd`, else a whole number as 600, 400k or 2M."""
Timezone = Annotated[str, AfterValidator(time_zone)]
Subject = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,198}[!-~])?$")]
"""A name, or a value of a tag header."""
Comment = Annotated[str, Field(min_length=3, max_length=500)]
Contact = Annotated[str, Field(pattern=r"^[!-~]([ -~]{0,198}[!-~])?$")]
Share = Annotated[float, Field(gt=0, le=1)]
ModelGlob = Annotated[str, Field(pattern=r"^[A-Za-z0-9*?\[\]!._-]{1,100}$")]


class DefaultLimit(Section):
    """A limit for all: each member of the scope has a bucket of its own, unless it is `shared`."""

    id: Name
    """Its name in refusals, metrics and reports."""
    scope: Scope
    """`organisation`, `team`, `workspace`, `key` or `tag`: whose calls are counted together. Limits of teams
    do not bind workspaces without one."""
    tag: OwnHeader | None = None
    """Of the scope `tag`: one of `tags.headers` of gateway.yaml, as x-user. Each value (by its first 200
    characters) has a bucket of its own, in each organisation."""
    require: bool = False
    """Of the scope `tag`: whether calls without the header count together, as one more value. Otherwise the
    limit does not bind them."""
    subject: Subject | None = None
    """The one member of the scope that it is for: an organisation, team, workspace, key id or value of the
    tag; each where it is not said."""
    subjects: tuple[Subject, ...] = ()
    """The same for several."""
    shared: bool = False
    """`true`: a pool, one bucket for all that it binds."""
    unit: LimitUnit
    """`usd`, `requests` (those that upstream rejects, too), `input_tokens` (uncached input and cache writes),
    `output_tokens`, or `concurrent`: requests that are open at the same time."""
    cache_reads: CacheReads = CacheReads.FREE
    """Of `input_tokens`: `free`, as in the API's own limits; or `counted`: tokens read from the cache too."""
    amount: Amount
    """`$250.00` for the unit `usd`, else a whole number as 600, 400k or 2M. 0 lets nothing through
    (day, week, month and `concurrent` only)."""
    per: Per | None = None
    """`second`, `minute`, `hour` refill all the time; `day`, `week` (from Monday), `month` start anew at
    midnight in `timezone`. Not for `concurrent`, required for all else."""
    burst: Amount | None = None
    """Capacity of a bucket that refills all the time, where it is not `amount`."""
    timezone: Timezone = "UTC"
    """Where midnight is, for `day`, `week` and `month`."""
    mode: Mode = Mode.ENFORCE
    """`enforce`; `shadow`: count and report what would have been refused."""
    on_store_failure: OnStoreFailure | None = None
    """`allow`, `refuse` or `allowance` while the store does not answer. Where it is not said, money refuses
    and rates allow."""
    allowance: Amount | None = None
    """What each replica may let through of it in one outage of the store, as the amount is written: `$5.00`.
    N replicas together go over the amount by N times that at most, beyond what calls cost more than
    estimated. It is settled once the store is back."""
    models: tuple[ModelGlob, ...] = ()
    """Globs of the models it counts, or names of `classes`; all where empty. A call that names one of them as
    a fallback or an advisor counts as a whole."""
    warn_at: tuple[Share, ...] = ()
    """Shares of the amount, as [0.5, 0.8], of `day`, `week` and `month`: when so much is spent, the log and a
    metric say so."""
    contact: Contact | None = None
    """Whom a refused caller is told to ask, where it is not the `contact` of all."""
    comment: Comment
    """For whom it is and why."""

    @model_validator(mode="after")
    def _says_what_its_unit_and_scope_need(self) -> Self:
        if (self.unit is LimitUnit.CONCURRENT) != (self.per is None):
            raise ValueError(
                "`per` means nothing for `unit: concurrent`"
                if self.per
                else f"say how often {self.unit} are given anew, for example `per: month`"
            )
        if (self.scope is Scope.TAG) != (self.tag is not None):
            raise ValueError("`scope: tag` needs a `tag`, and no other scope has one")
        if self.require and self.scope is not Scope.TAG:
            raise ValueError("`require` means something for `scope: tag` only")
        if self.subject is not None and self.subjects:
            raise ValueError("write `subject` or `subjects`")
        if self.cache_reads is CacheReads.COUNTED and self.unit is not LimitUnit.INPUT_TOKENS:
            raise ValueError("`cache_reads` means something for `unit: input_tokens` only")
        if self.warn_at and self.per not in _WINDOWS:
            raise ValueError("`warn_at` is for day, week and month: a rate passes its half all the time")
        if self.allowance is None and self.on_store_failure is OnStoreFailure.ALLOWANCE:
            raise ValueError("`on_store_failure: allowance` needs an `allowance`")
        if self.allowance is not None and self.on_store_failure not in (None, OnStoreFailure.ALLOWANCE):
            raise ValueError("an `allowance` goes with `on_store_failure: allowance`, which may be left out")
        self.limit()
        return self

    @property
    def members(self) -> tuple[str, ...]:
        """Whom it is for; empty: each."""
        return self.subjects if self.subject is None else (self.subject,)

    def limit(self, classes: Mapping[str, tuple[str, ...]] | None = None, contact: str = "") -> Limit:
        """The value that the core works with."""
        unit = _UNITS[self.unit]
        unsaid = OnStoreFailure.REFUSE if self.unit is LimitUnit.USD else OnStoreFailure.ALLOW
        if self.allowance is not None:
            unsaid = OnStoreFailure.ALLOWANCE
        return Limit(
            id=self.id,
            scope=self.scope,
            subjects=self.members,
            shared=self.shared,
            tag=self.tag or "",
            require=self.require,
            unit=Unit.PROMPT_TOKENS if self.cache_reads is CacheReads.COUNTED else unit,
            amount=_named("amount", self.unit, self.per, self.amount),
            period=Period.OPEN if self.per is None else _PERIODS[self.per],
            burst=read_burst(self.unit, self.per, self.burst),
            timezone=self.timezone,
            mode=self.mode,
            on_store_failure=self.on_store_failure or unsaid,
            allowance=0
            if self.allowance is None
            else _named("allowance", self.unit, Per.DAY, self.allowance),
            models=tuple(glob for name in self.models for glob in (classes or {}).get(name, (name,))),
            warn_at=self.warn_at,
            contact=self.contact or contact,
            comment=self.comment,
        )


class OverrideLimit(Section):
    """Another amount of one default, for one subject. It keeps the default's id, and so the bucket: raising
    a budget does not forget what was spent."""

    limit: Name
    """Id of the default that it replaces."""
    subject: Subject
    """The organisation, team, workspace, key id or value of the tag, as the default's scope has it."""
    amount: Amount
    """As in the default."""
    burst: Amount | None = None
    """As in the default."""
    mode: Mode | None = None
    """As in the default, where it is not said."""
    on_store_failure: OnStoreFailure | None = None
    """As in the default, where it is not said."""
    comment: Comment
    """Why this subject has its own amount, and who decided so."""

    def limit_over(self, default: DefaultLimit, limit: Limit) -> Limit:
        """The value that the core works with; `limit` is that of the default. Raises `ValueError` where an
        amount is not of the unit, or the default is one bucket for many."""
        if default.shared:
            raise ValueError(f"{default.id} is shared, so nobody has an amount of it; write another limit")
        on_store_failure = self.on_store_failure or limit.on_store_failure
        if on_store_failure is OnStoreFailure.ALLOWANCE and not limit.allowance:
            raise ValueError(f"{default.id} has no `allowance`")
        return replace(
            limit,
            subjects=(self.subject,),
            amount=read_amount(default.unit, default.per, self.amount),
            burst=read_burst(default.unit, default.per, self.burst),
            mode=self.mode or limit.mode,
            on_store_failure=on_store_failure,
            allowance=limit.allowance if on_store_failure is OnStoreFailure.ALLOWANCE else 0,
            comment=self.comment,
        )


class LimitsFile(Section):
    """The whole of limits.yaml."""

    contact: Contact | None = None
    """Whom a refused caller is told to ask, as a name, an address or a channel."""
    classes: dict[Name, Annotated[tuple[ModelGlob, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Names for groups of models, each a list of globs, for `models` of limits."""
    defaults: tuple[DefaultLimit, ...] = ()
    """Limits that bind everybody."""
    overrides: tuple[OverrideLimit, ...] = ()
    """Exceptions, one subject each."""

    def limit(self, default: DefaultLimit) -> Limit:
        """The value that the core works with."""
        return default.limit(self.classes, self.contact or "")

    def limits(self) -> tuple[Limit, ...]:
        """All, in configured order. Raises `ValueError`, and `KeyError` for an override of nothing."""
        by_id = {default.id: (default, self.limit(default)) for default in self.defaults}
        overrides = (override.limit_over(*by_id[override.limit]) for override in self.overrides)
        return (*(limit for _, limit in by_id.values()), *overrides)


def read_amount(unit: LimitUnit, per: Per | None, amount: str | int) -> int:
    """`amount` in the core's unit. Raises `ValueError` for the wrong notation and for too much to count."""
    if unit is LimitUnit.USD:
        value = read_nanousd(amount)
    elif isinstance(amount, str) and amount.startswith("$"):
        raise ValueError(f"dollars need `unit: usd`; {unit} are a whole number, for example 600, 400k or 2M")
    else:
        value = read_count(amount)
    if value > MAX_AMOUNT:
        raise ValueError("more than can be counted exactly; the largest is below 2^53, or $9,007,199.25")
    if value == 0 and per in _RATES:
        raise ValueError(f"must be more than 0 for `per: {per}`; to let nothing through, use `per: day`")
    return value


def _named(name: str, unit: LimitUnit, per: Per | None, amount: str | int) -> int:
    """The same; the error names the setting, since it is told of the limit as a whole."""
    try:
        return read_amount(unit, per, amount)
    except ValueError as error:
        raise ValueError(f"`{name}`: {error}") from None


def read_burst(unit: LimitUnit, per: Per | None, burst: str | int | None) -> int | None:
    """`burst` in the core's unit. Raises `ValueError` where it means nothing."""
    if burst is None:
        return None
    if per in _WINDOWS:
        raise ValueError(f"`burst` means nothing for `per: {per}`: a calendar window starts full")
    if per is None:
        raise ValueError("`burst` means nothing for `unit: concurrent`")
    return read_amount(unit, per, burst)
