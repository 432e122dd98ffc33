"""An adjustment, and what took it back, as one line of JSON: what the stores keep. A line that was written is
never changed, so what reads them has to go on reading all that was ever written.
"""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any

from gateway.core.adjustments import (
    MAX_IN_FORCE,
    Adjustment,
    Author,
    Freeze,
    FreezeScope,
    Grant,
    LogEntry,
    Override,
    TakenBack,
    Target,
)
from gateway.core.errors import StoreUnavailable
from gateway.core.limits import Period, Scope, Unit

Fields = dict[str, Any]
"""JSON, as it is kept."""


def text_of(adjustment: Adjustment, taken_back: TakenBack | None = None) -> str:
    """The line of a log entry; its number is kept beside it."""
    fields: Fields = {"id": adjustment.id, **_made(adjustment)}
    match adjustment:
        case Override():
            fields |= {"kind": "override", "target": _target(adjustment.target), "amount": adjustment.amount}
        case Grant():
            fields |= {
                "kind": "grant",
                "target": _target(adjustment.target),
                "extra": adjustment.extra,
                "from_at": adjustment.from_at,
                "until_at": adjustment.until_at,
            }
        case Freeze():
            fields |= {"kind": "freeze", "scope": adjustment.scope, "subject": adjustment.subject}
    if taken_back is not None:
        fields["taken_back"] = _made(taken_back)
    return json.dumps(fields)


@lru_cache(maxsize=2 * MAX_IN_FORCE)  # those that hold are read every few seconds, and never change
def entry_of(number: int, text: str | bytes) -> LogEntry:
    """The entry of a line. Raises `StoreUnavailable` where it cannot be read: what it stops or allows is not
    known, so nothing may be done as if it were not there."""
    try:
        fields: Fields = json.loads(text)
        taken = fields.get("taken_back")
        return LogEntry(
            number=number,
            adjustment=_adjustment(fields),
            taken_back=None
            if taken is None
            else TakenBack(reason=taken["reason"], by=_author(taken), at=taken["at"]),
        )
    except (ValueError, TypeError, KeyError):
        raise StoreUnavailable(
            f"line {number} of the adjustments cannot be read; was it written by a newer version, or is the "
            "prefix shared?"
        ) from None


def _made(what: Adjustment | TakenBack) -> Fields:
    return {"reason": what.reason, "by": what.by.name, "via": what.by.via, "at": what.at}


def _target(target: Target) -> Fields:
    return {
        "limit": target.limit,
        "subject": target.subject,
        "scope": target.scope,
        "unit": target.unit,
        "period": target.period,
    }


def _adjustment(fields: Fields) -> Adjustment:
    made: Fields = {"id": fields["id"], "reason": fields["reason"], "by": _author(fields), "at": fields["at"]}
    match fields["kind"]:
        case "override":
            return Override(target=_read_target(fields["target"]), amount=fields["amount"], **made)
        case "grant":
            return Grant(
                target=_read_target(fields["target"]),
                extra=fields["extra"],
                from_at=fields["from_at"],
                until_at=fields["until_at"],
                **made,
            )
        case "freeze":
            return Freeze(scope=FreezeScope(fields["scope"]), subject=fields["subject"], **made)
    raise ValueError(fields["kind"])


def _author(fields: Fields) -> Author:
    return Author(name=fields["by"], via=fields["via"])


def _read_target(fields: Fields) -> Target:
    return Target(
        limit=fields["limit"],
        subject=fields["subject"],
        scope=Scope(fields["scope"]),
        unit=Unit(fields["unit"]),
        period=Period(fields["period"]),
    )
