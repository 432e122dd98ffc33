"""When a limit will be spent: one stated, simple reckoning. Pure."""

from __future__ import annotations

from typing import Final

from gateway.core.bucket import Verdict
from gateway.core.windows import windows_around

EARLIEST_SHARE: Final = 0.01
"""How much of a window has to be over before its pace says anything: a day's first quarter of an hour, a
month's first seven hours."""


def runs_out_at(verdict: Verdict, at: float) -> float | None:
    """When the limit of a calendar window is spent, if spending goes on as it has on average since the window
    began; `at` where it is spent already, settled and set aside together.

    None where it lasts until the window ends, where it is too early to say, while the counter is computed
    anew, and for other limits. Weekends and nights are not known to it: early on a Monday it says more than
    will come true.
    """
    limit = verdict.bound.limit
    if verdict.rebuilding or not limit.period.is_calendar:
        return None
    left = limit.amount - verdict.spent - verdict.set_aside
    if left <= 0:
        return at
    _, window, _ = windows_around(limit.period, limit.timezone, round(at * 1000))
    elapsed, whole = at - window.start_ms / 1000, (window.end_ms - window.start_ms) / 1000
    if verdict.spent <= 0 or elapsed < EARLIEST_SHARE * whole:
        return None
    runs_out = at + left * elapsed / verdict.spent
    return runs_out if runs_out < window.end_ms / 1000 else None
