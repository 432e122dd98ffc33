"""What requests about adjustments have to say, read and checked: each error is a sentence on what to
write."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, TypeVar
from zoneinfo import ZoneInfo

from aiohttp import web
from pydantic import ConfigDict, Field, ValidationError

from gateway.core.adjustments import FreezeScope
from gateway.core.limits import Limit
from gateway.core.windows import windows_around
from gateway.web.admin_api import AdminError
from gateway.web.admin_body import MAX_JSON_BYTES, body_of
from gateway.web.openapi import Answer

MAX_AHEAD_SECONDS = 400 * 86_400.0
"""How far ahead a grant may begin or end."""
PAGE, MAX_PAGE = 50, 200

_SENTENCE = r"^[^\x00-\x1f\x7f-\x9f]+$"
Words = Annotated[str, Field(min_length=3, max_length=500, pattern=_SENTENCE)]
Person = Annotated[str, Field(min_length=1, max_length=200, pattern=_SENTENCE)]
Subject = Annotated[str, Field(max_length=200)]
Id = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{8,64}$")]


class Body(Answer):
    """The body of a change."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    reason: Words
    """Why, for the audit trail; of a freeze, for those that are refused too."""
    by: Person
    """Who does this, for the audit trail; of a freeze, whom to ask."""
    id: Id | None = None
    """Of the adjustment, where the caller wants to be able to send this again; made up without it."""


class OverrideBody(Body):
    """Another amount of a limit."""

    limit: str
    """Id of the limit."""
    subject: Subject = ""
    """The organisation, team, workspace, key id or value of the tag; nothing for a pool."""
    amount: str | int
    """As in limits.yaml: `$250.00` for dollars, else 600, 400k or 2M."""


class GrantBody(Body):
    """More of a limit, for a while."""

    limit: str
    """Id of the limit."""
    subject: Subject = ""
    """The organisation, team, workspace, key id or value of the tag; nothing for a pool."""
    amount: str | int
    """How much more, as in limits.yaml: `$250.00` for dollars, else 600, 400k or 2M."""
    until: str | None = None
    """An instant, as 2026-11-30T18:00:00Z, or a day, as 2026-11-30, to whose end it lasts in the limit's time
    zone. Without it, to the end of the limit's window, where it has one."""
    begins: str | None = None
    """An instant, or a day, with whose beginning it begins; now without it."""


class FreezeBody(Body):
    """A stop to all new calls."""

    scope: FreezeScope
    subject: Subject
    """The organisation, team or workspace, or a key's id."""


B = TypeVar("B", bound=Body)


async def said_in(request: web.Request, kind: type[B]) -> B:
    """The request's body. Raises `AdminError`."""
    body = await body_of(request, most_bytes=MAX_JSON_BYTES)
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        raise _refusal(kind, error) from None


def said_as(kind: type[B], fields: Mapping[str, str]) -> B:
    """The same from the fields of a form. Raises `AdminError`."""
    try:
        return kind.model_validate(dict(fields))
    except ValidationError as error:
        raise _refusal(kind, error) from None


def _refusal(kind: type[Body], error: ValidationError) -> AdminError:
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    known = ", ".join(kind.model_fields)
    if first["type"] == "extra_forbidden":
        return AdminError(400, f"There is no field `{place[:100]}`; there are: {known}.")
    if not place:
        return AdminError(400, f"Send an object of JSON with the fields {known}.")
    return AdminError(400, f"`{place[:100]}`: {_sentence(place, first['msg'])}")


def taken_back_in(query: Mapping[str, str]) -> tuple[str, str]:
    """By whom, and why. Raises `AdminError`."""
    try:
        body = Body(by=query.get("by", ""), reason=query.get("reason", ""))
    except ValidationError as error:
        place = str(error.errors()[0]["loc"][0])
        raise AdminError(400, f"?{place}=: {_sentence(place, '')}") from None
    return body.by, body.reason


def page_in(query: Mapping[str, str]) -> tuple[int | None, int]:
    """Before which entry, and how many of them. Raises `AdminError`."""
    numbers = {"before": 0, "limit": PAGE}
    for name in query:
        if name not in numbers:
            raise AdminError(400, f"There is no parameter {name[:100]!r}; there are: {', '.join(numbers)}.")
        if not query[name].isascii() or not query[name].isdigit() or not 0 < len(query[name]) <= 15:
            raise AdminError(400, f"?{name}= is a whole number.")
        numbers[name] = int(query[name])
    if not 1 <= numbers["limit"] <= MAX_PAGE:
        raise AdminError(400, f"?limit= is from 1 to {MAX_PAGE}.")
    return numbers["before"] or None, numbers["limit"]


def begins_and_ends(body: GrantBody, limit: Limit, now: float) -> tuple[float, float]:
    """From when until when a grant lasts; within one window of a calendar limit. Raises `AdminError`."""
    begins = now if body.begins is None else max(_instant("begins", body.begins, limit, days=0), now)
    if body.until is None and not limit.period.is_calendar:
        raise AdminError(
            400, f"Limit {limit.id!r} has no window with which this could end; say `until` when."
        )
    ends = begins + MAX_AHEAD_SECONDS
    if body.until is not None:
        ends = _instant("until", body.until, limit, days=1)
    if limit.period.is_calendar:
        _, window, _ = windows_around(limit.period, limit.timezone, round(begins * 1000))
        ends = min(ends, window.end_ms / 1000)
    if ends <= begins:
        raise AdminError(400, "It would end before it begins; `until` is to be later.")
    if ends > now + MAX_AHEAD_SECONDS:
        raise AdminError(
            400, "It may begin and end 400 days from now at most; write what lasts into limits.yaml."
        )
    return begins, ends


def _instant(field: str, text: str, limit: Limit, *, days: int) -> float:
    """Of a text as 2026-11-30T18:00:00Z; of a day as 2026-11-30 its beginning, some days later."""
    try:
        if len(text) == len("2026-11-30"):
            day = date.fromisoformat(text) + timedelta(days=days)
            return datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(limit.timezone)).timestamp()
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise AdminError(400, f"`{field}` has no time zone; write for example {text[:40]}Z.")
        return at.astimezone(UTC).timestamp()
    except (ValueError, OverflowError):
        raise AdminError(
            400, f"`{field}` is an instant, as 2026-11-30T18:00:00Z, or a day, as 2026-11-30."
        ) from None


_HOW = {
    "reason": "say why, in 3 to 500 characters on one line.",
    "by": "say who does this, in up to 200 characters on one line.",
    "id": "8 to 64 letters, digits, - and _.",
    "scope": f"one of {', '.join(FreezeScope)}.",
    "amount": "write $250.00 for dollars, else a whole number as 600, 400k or 2M.",
}


def _sentence(place: str, otherwise: str) -> str:
    return _HOW.get(place.partition(".")[0], f"{otherwise}.")
