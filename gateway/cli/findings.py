"""What a check of `gateway doctor` says. Nothing in it is secret: references, never what they lead to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Outcome(StrEnum):
    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of the report: what was looked at, how it stands, and what to do about it."""

    check: str
    outcome: Outcome
    found: str
    todo: str = ""


def ok(check: str, found: str) -> Finding:
    return Finding(check, Outcome.OK, found)


def warn(check: str, found: str, todo: str) -> Finding:
    return Finding(check, Outcome.WARN, found, todo)


def fail(check: str, found: str, todo: str) -> Finding:
    return Finding(check, Outcome.FAIL, found, todo)
