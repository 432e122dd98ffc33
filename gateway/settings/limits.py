"""`limits.yaml`: what finance and team leads decide. Defaults bind everybody; an override replaces one of
them for one subject, and says why.

The arithmetic of a limit is `core/bucket.py`; which limits bind a call is `core/limits.py`.
"""

from __future__ import annotations

from dataclasses import replace
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from gateway.core.limits import MAX_AMOUNT, Limit, Mode, OnStoreFailure, Period, Scope, Unit
from gateway.settings.shared import Name, Section
from gateway.settings.units import COUNT_PATTERN, DOLLARS_PATTERN, read_count, read_nanousd, time_zone


class LimitUnit(StrEnum):
    USD = "usd"
    REQUESTS = "requests"
    INPUT_TOKENS = "input_tokens"
    OUTPUT_TOKENS = "output_tokens"


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
}
_PERIODS = {
    Per.SECOND: Period.SECOND,
    Per.MINUTE: Period.MINUTE,
    Per.HOUR: Period.HOUR,
    Per.DAY: Period.CALENDAR_DAY,
    Per.WEEK: Period.CALENDAR_WEEK,
    Per.MONTH: Period.CALENDAR_MONTH,
}
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
Subject = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
Comment = Annotated[str, Field(min_length=3, max_length=500)]
ModelGlob = Annotated[str, Field(pattern=r"^[A-Za-z0-9*?\[\]!._-]{1,100}$")]


class DefaultLimit(Section):
    """A limit for all: each workspace, each key, or the organisation as a whole has a bucket of its own."""

    id: Name
    """Its name in refusals, metrics and reports."""
    scope: Scope
    """`organisation`, `workspace` or `key`: whose calls are counted together."""
    subject: Subject | None = None
    """The one workspace, key id or organisation that it is for; each of the scope where it is not said."""
    unit: LimitUnit
    """`usd`, `requests`, `input_tokens` (uncached input and cache writes) or `output_tokens`."""
    amount: Amount
    """`$250.00` for the unit `usd`, else a whole number as 600, 400k or 2M. 0 lets nothing through
    (day, week and month only)."""
    per: Per
    """`second`, `minute`, `hour` refill all the time; `day`, `week` (from Monday), `month` start anew at
    midnight in `timezone`."""
    burst: Amount | None = None
    """Capacity of a bucket that refills all the time, where it is not `amount`."""
    timezone: Timezone = "UTC"
    """Where midnight is, for `day`, `week` and `month`."""
    mode: Mode = Mode.ENFORCE
    """`enforce`; `shadow`: count and report what would have been refused."""
    on_store_failure: OnStoreFailure | None = None
    """`allow` or `refuse` while the store does not answer. Where it is not said, money refuses and rates
    allow."""
    models: tuple[ModelGlob, ...] = ()
    """Globs of the models it counts; all where empty."""
    comment: Comment
    """For whom it is and why."""

    @model_validator(mode="after")
    def _amounts_are_of_the_unit(self) -> Self:
        self.limit()
        return self

    def limit(self) -> Limit:
        """The value that the core works with."""
        return Limit(
            id=self.id,
            scope=self.scope,
            subject=self.subject,
            unit=_UNITS[self.unit],
            amount=read_amount(self.unit, self.per, self.amount),
            period=_PERIODS[self.per],
            burst=read_burst(self.unit, self.per, self.burst),
            timezone=self.timezone,
            mode=self.mode,
            on_store_failure=self.on_store_failure
            or (OnStoreFailure.REFUSE if self.unit is LimitUnit.USD else OnStoreFailure.ALLOW),
            models=self.models,
            comment=self.comment,
        )


class OverrideLimit(Section):
    """Another amount of one default, for one subject. It keeps the default's id, and so the bucket: raising
    a budget does not forget what was spent."""

    limit: Name
    """Id of the default that it replaces."""
    subject: Subject
    """The workspace, key id or organisation, as the default's scope has it."""
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

    def limit_over(self, default: DefaultLimit) -> Limit:
        """The value that the core works with. Raises `ValueError` where an amount is not of the unit."""
        return replace(
            default.limit(),
            subject=self.subject,
            amount=read_amount(default.unit, default.per, self.amount),
            burst=read_burst(default.unit, default.per, self.burst),
            mode=self.mode or default.mode,
            on_store_failure=self.on_store_failure or default.limit().on_store_failure,
            comment=self.comment,
        )


class LimitsFile(Section):
    """The whole of limits.yaml."""

    defaults: tuple[DefaultLimit, ...] = ()
    """Limits that bind everybody."""
    overrides: tuple[OverrideLimit, ...] = ()
    """Exceptions, one subject each."""


def read_amount(unit: LimitUnit, per: Per, amount: str | int) -> int:
    """`amount` in the core's unit. Raises `ValueError` for the wrong notation and for too much to count."""
    if unit is LimitUnit.USD:
        value = read_nanousd(amount)
    elif isinstance(amount, str) and amount.startswith("$"):
        raise ValueError(f"dollars need `unit: usd`; {unit} are a whole number, for example 600, 400k or 2M")
    else:
        value = read_count(amount)
    if value > MAX_AMOUNT:
        raise ValueError("more than can be counted exactly; the largest is below 2^53, or $9,007,199.25")
    if value == 0 and per not in _WINDOWS:
        raise ValueError(f"must be more than 0 for `per: {per}`; to let nothing through, use `per: day`")
    return value


def read_burst(unit: LimitUnit, per: Per, burst: str | int | None) -> int | None:
    """`burst` in the core's unit. Raises `ValueError` where it means nothing."""
    if burst is None:
        return None
    if per in _WINDOWS:
        raise ValueError(f"`burst` means nothing for `per: {per}`: a calendar window starts full")
    return read_amount(unit, per, burst)
