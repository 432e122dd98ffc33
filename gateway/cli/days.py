"""Days on the command line: one way to write them, and one sentence for those who wrote another."""

from __future__ import annotations

from datetime import date, datetime

import typer


def read_day(text: str) -> date:
    """Of "2026-11-01". Raises ValueError."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").date()  # noqa: DTZ007 - a day has no time zone
    except ValueError:
        raise ValueError(f"{text!r} is no day; write it as 2026-11-01") from None


def day_given(text: str) -> date:
    """The same as the value of an option. Raises `typer.BadParameter`."""
    try:
        return read_day(text)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
