"""Configured limits, and which of them bind a call. The state of a limit is a bucket: see `bucket.py`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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


@dataclass(frozen=True, slots=True, kw_only=True)
class BoundLimit:
    """A limit with the bucket that it has for one principal."""

    limit: Limit
    bucket_id: str
