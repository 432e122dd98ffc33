"""What `gateway top` says of a gateway's live calls: figures of the last minute, and which calls and limits
to look at. Pure: from the answers of the admin API to values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

SPAN_SECONDS = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """Of the calls that ended within a span of time until now."""

    seconds: float
    """How long the span is: a minute, or less where more ended in it than is told."""
    requests: int
    failed: int
    """Without an answer, or with one of status 400 and above."""
    prompt_tokens: int
    read_tokens: int
    output_tokens: int
    cost_nanousd: int

    @property
    def read_share(self) -> float | None:
        """Of the prompts' tokens, what was read from a cache."""
        return self.read_tokens / self.prompt_tokens if self.prompt_tokens else None

    def per_minute(self, amount: float) -> float:
        return amount * 60 / self.seconds


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """How one limit stands."""

    id: str
    whose: str
    amount: str
    left: str
    used_share: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    at: str
    open: int
    streaming: int
    set_aside_nanousd: int
    last_minute: Rates
    limits: Sequence[Limit]
    """The most used first."""
    slowest: Sequence[Mapping[str, Any]]
    """Open calls, the longest first."""
    newest: Sequence[Mapping[str, Any]]
    """Ended ones, the last first."""
    replicas: Sequence[str]
    """Whose calls these are."""
    missing: Sequence[str]
    """What is not among them, and why: sentences."""


def figures(live: Mapping[str, Any], budgets: Mapping[str, Any] | None) -> Figures:
    """From the answers of `GET /v1/live` and `GET /v1/budgets`. Raises KeyError, TypeError or ValueError for
    what is none."""
    opened, ended = live["open"], live["ended"]
    now = _instant(live["at"])
    return Figures(
        at=live["at"],
        open=len(opened),
        streaming=sum(call["streaming"] for call in opened),
        set_aside_nanousd=sum(call["set_aside_nanousd"] for call in opened),
        last_minute=_rates(ended, now, _instant(live["whole_since"])),
        limits=_limits(budgets["budgets"] if budgets is not None else ()),
        slowest=opened,
        newest=ended,
        replicas=live["replicas"],
        missing=_missing(live),
    )


def _missing(live: Mapping[str, Any]) -> list[str]:
    said = [f"{name} does not answer: its calls are missing." for name in live["silent"]]
    if live["trouble"]:
        said.append(f"Other replicas are missing. {live['trouble']}")
    if live["left_out"]:
        said.append(f"{live['left_out']:,} more calls are open on other replicas.")
    return said


def _rates(ended: Sequence[Mapping[str, Any]], now: float, whole_since: float) -> Rates:
    seconds = max(1.0, min(SPAN_SECONDS, now - whole_since))
    calls = [call for call in ended if now - _ended_at(call) <= seconds]
    return Rates(
        seconds=seconds,
        requests=len(calls),
        failed=sum(call["state"] != "answered" or call["status"] >= 400 for call in calls),
        prompt_tokens=sum(call["prompt_tokens"] or 0 for call in calls),
        read_tokens=sum(call["read_tokens"] for call in calls),
        output_tokens=sum(call["output_tokens"] or 0 for call in calls),
        cost_nanousd=sum(call["cost_nanousd"] or 0 for call in calls),
    )


def _limits(budgets: Sequence[Mapping[str, Any]]) -> list[Limit]:
    found = [
        Limit(
            id=each["limit"],
            whose=each["subject"] or each["scope"],
            amount=each["amount"]["text"],
            left=each["left"]["text"],
            used_share=1 - each["left"]["value"] / each["amount"]["value"]
            if each["amount"]["value"]
            else 1.0,
        )
        for each in budgets
    ]
    return sorted(found, key=lambda limit: -limit.used_share)


def _ended_at(call: Mapping[str, Any]) -> float:
    return _instant(call["received_at"]) + float(call["duration_seconds"])


def _instant(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()
