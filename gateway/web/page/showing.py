"""How the page writes amounts, shares, durations and instants. Pure; the same everywhere, so that numbers can
be compared by eye."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

NANOUSD_PER_USD = 1_000_000_000
NOTHING = "–"
"""Shown for what is not known, or is not there."""


def usd(nanousd: int | None) -> str:
    """Dollars to the cent; below ten cents to a ten-thousandth, below that to a millionth."""
    if nanousd is None:
        return NOTHING
    dollars = abs(nanousd) / NANOUSD_PER_USD
    places = 2 if dollars >= 0.1 or not nanousd else 4 if dollars >= 0.01 else 6
    return f"{'−' if nanousd < 0 else ''}${dollars:,.{places}f}"


def count(number: int | None) -> str:
    """A whole number, its thousands apart."""
    return NOTHING if number is None else f"{number:,}".replace("-", "−")


def short_count(number: int | None) -> str:
    """A whole number for a small place: 950, 12.3k, 4.56M, 1.20G."""
    if number is None:
        return NOTHING
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if abs(number) >= size:
            value = number / size
            return f"{value:.2f}{unit}" if abs(value) < 10 else f"{value:.1f}{unit}"
    return str(number)


def percent(share: float | None) -> str:
    """A share of 1, to a tenth of a percent below 10%."""
    if share is None:
        return NOTHING
    value = share * 100
    return f"{value:.1f}%" if 0 < abs(value) < 10 else f"{value:.0f}%"


def seconds(duration: float | None) -> str:
    """A duration: 850 ms, 1.2 s, 2 min 5 s, 3 h 20 min, 12 d 4 h."""
    if duration is None:
        return NOTHING
    if duration < 1:
        return f"{duration * 1000:.0f} ms"
    if duration < 60:
        return f"{duration:.1f} s"
    whole = round(duration)
    for size, unit, smaller, smaller_unit in (
        (86_400, "d", 3_600, "h"),
        (3_600, "h", 60, "min"),
        (60, "min", 1, "s"),
    ):
        if whole >= size:
            rest = whole % size // smaller
            return f"{whole // size} {unit}" + (f" {rest} {smaller_unit}" if rest else "")
    return f"{whole} s"


def when(at: float | None, zone: ZoneInfo) -> str:
    """An instant, to the second, in the page's time zone (which each page names)."""
    return NOTHING if at is None else datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d %H:%M:%S")


def day(at: float | None, zone: ZoneInfo) -> str:
    """The day of an instant."""
    return NOTHING if at is None else datetime.fromtimestamp(at, zone).strftime("%Y-%m-%d")


def iso(at: float | None, zone: ZoneInfo) -> str:
    """An instant for machines, with its offset; empty where there is none."""
    return "" if at is None else datetime.fromtimestamp(at, zone).isoformat(timespec="seconds")
