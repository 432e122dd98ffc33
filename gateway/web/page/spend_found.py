"""What one view of spend shows, read from the books; blocks. Nothing here draws."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from heapq import nlargest

from gateway.core.focus import KINDS
from gateway.core.ledger import Dimension, Total
from gateway.core.month_end import MonthEnd, month_end
from gateway.core.rollup import RollupState
from gateway.core.variance import Variance, add_up_variances, variances
from gateway.web.page.asking import (
    Asked,
    Books,
    by_step,
    grouped,
    readable,
    whole,
)
from gateway.web.page.charts import MAX_SERIES

HISTORY = timedelta(days=400)
"""As far back as the forecast looks."""
KIND = "kind"
BY = ("workspace", "team", "model", KIND, "key", "day")
OTHERS = "all others"
MAX_OFFERED = 200
"""Values of one filter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that one view shows."""

    asked: Asked
    state: RollupState
    steps: Sequence[tuple[int, tuple[Total, ...]]]
    """By what the table is split by; of everything where that is a kind or a day."""
    now: Sequence[Total]
    before: Sequence[Total]
    variances: Sequence[Variance]
    whole_variance: Variance
    budgets: Mapping[str, int]
    """By row of the table."""
    budget: int | None
    """Of all that is looked at."""
    end: MonthEnd | None
    ends: Mapping[str, MonthEnd]
    """By workspace, of the month that is not over."""
    workspace_budgets: Mapping[str, int]
    choices: Mapping[str, Sequence[str]]
    """Values that the filters offer."""
    key_names: Mapping[str, str]

    @property
    def total(self) -> Total:
        return whole(self.now)

    @property
    def is_split(self) -> bool:
        return self.asked.by not in (KIND, "day")


def read_spend(books: Books, asked: Asked, now: float) -> Found:
    """Blocks."""
    state = readable(books)
    span, only, book = asked.span, asked.only, books.book
    split = _dimension(asked.by)
    steps = [
        (at, grouped(books, totals, 0, asked.by))
        for at, totals in by_step(book, (split,) if split else (), span, only)
    ]
    by = (split or Dimension.WORKSPACE, Dimension.MODEL)
    then, before = (
        grouped(books, book.totals(by, start_ms, end_ms, only), 0, asked.by)
        for start_ms, end_ms in (
            (span.start_ms, span.end_ms),
            (span.before_start_ms, span.before_end_ms),
        )
    )
    found = variances(before, then)
    ends, end, workspace_budgets = _month_ends(books, asked, now)
    names = {total.group[0] for total in then}
    budgets: Mapping[str, int] = {}
    if span.month and asked.by in ("workspace", "team") and not set(only) - {Dimension.WORKSPACE}:
        budgets = books.budgets(Dimension(asked.by), names)
    return Found(
        asked=asked,
        state=state,
        steps=steps,
        now=then,
        before=before,
        variances=found,
        whole_variance=add_up_variances(found, _who(asked, books.key_names())),
        budgets=budgets,
        budget=_budget(books, asked),
        end=end,
        ends=ends,
        workspace_budgets=workspace_budgets,
        choices=_choices(books, asked),
        key_names=books.key_names(),
    )


def _dimension(by: str) -> Dimension | None:
    """What the sums are split by for it; None for all together."""
    return None if by in (KIND, "day") else Dimension(by)


def _month_ends(
    books: Books, asked: Asked, now: float
) -> tuple[Mapping[str, MonthEnd], MonthEnd | None, Mapping[str, int]]:
    """Of each workspace, and of all that is looked at, where the month is not over."""
    if not asked.span.running:
        return {}, None, {}
    today = datetime.fromtimestamp(now, UTC).date()
    start_ms = asked.span.start_ms - round(HISTORY.total_seconds() * 1000)
    by_day = books.book.totals((Dimension.WORKSPACE, Dimension.DAY), start_ms, asked.span.end_ms, asked.only)
    spent: dict[str, dict[date, int]] = {}
    everyone: dict[date, int] = {}
    for total in by_day:
        workspace, day = total.group[0], date.fromisoformat(total.group[1])
        spent.setdefault(workspace, {})[day] = total.cost_nanousd
        everyone[day] = everyone.get(day, 0) + total.cost_nanousd
    ends = {name: month_end(days, today) for name, days in spent.items()}
    budgets = books.budgets(Dimension.WORKSPACE, ends) if not asked.only else {}
    return ends, month_end(everyone, today), budgets


def _budget(books: Books, asked: Asked) -> int | None:
    if not asked.span.month:
        return None
    if not asked.only:
        names = {
            total.group[0]
            for total in books.book.totals((Dimension.ORGANISATION,), asked.span.start_ms, asked.span.end_ms)
        }
        found = books.budgets(Dimension.ORGANISATION, names)
        # Several organisations have several budgets: their sum, where each has one.
        return sum(found.values()) if names and found.keys() >= names else None
    if list(asked.only) == [Dimension.WORKSPACE]:
        (name,) = asked.only.values()
        return books.budgets(Dimension.WORKSPACE, [name]).get(name)
    return None


def _choices(books: Books, asked: Asked) -> Mapping[str, Sequence[str]]:
    """What there is in the period, whatever is looked at, with what is. The dearest where there are many:
    names of models are whatever clients wrote."""
    span, names = asked.span, {}
    for one in (Dimension.WORKSPACE, Dimension.MODEL, Dimension.KEY):
        among = {two: value for two, value in asked.only.items() if two != one}
        totals = books.book.totals((one,), span.start_ms, span.end_ms, among)
        dearest = nlargest(MAX_OFFERED, totals, key=lambda total: total.cost_nanousd)
        found = {total.group[0] for total in dearest}
        names[one.value] = sorted(found | ({asked.only[one]} if one in asked.only else set()))
    return names


def _who(asked: Asked, key_names: Mapping[str, str]) -> str:
    if not asked.only:
        return "All workspaces together"
    told = dict(asked.only)
    if Dimension.KEY in told:
        told[Dimension.KEY] = key_names.get(told[Dimension.KEY], told[Dimension.KEY])
    return ", ".join(told.values())


def _ranked(found: Found) -> list[str]:
    """The names that get a colour of their own, dearest first."""
    sums: dict[str, int] = {}
    for total in found.now:
        sums[total.group[0]] = sums.get(total.group[0], 0) + total.cost_nanousd
    names = sorted(sums, key=lambda name: (-sums[name], name))
    return names if len(names) <= MAX_SERIES else names[: MAX_SERIES - 1]


def stacks_of(found: Found) -> list[tuple[str, list[int]]]:
    if found.asked.by == KIND:
        kinds = [
            (kind.name.replace("_", " "), [getattr(whole(totals), kind.cost) for _, totals in found.steps])
            for kind in KINDS
        ]
        kinds = [(name, values) for name, values in kinds if any(values)]
        if len(kinds) <= MAX_SERIES:
            return kinds
        rest = [
            sum(values) for values in zip(*(values for _, values in kinds[MAX_SERIES - 1 :]), strict=True)
        ]
        return [*kinds[: MAX_SERIES - 1], (OTHERS, rest)]
    if not found.is_split:
        return [("spend", [whole(totals).cost_nanousd for _, totals in found.steps])]
    named = _ranked(found)
    stacks = {name: [0] * len(found.steps) for name in named}
    others = [0] * len(found.steps)
    for n, (_, totals) in enumerate(found.steps):
        for total in totals:
            stacks.get(total.group[0], others)[n] += total.cost_nanousd
    rest = [(OTHERS, others)] if any(others) else []
    return [*stacks.items(), *rest]


def ratio(part: int, of: int | None) -> float | None:
    return part / of if of else None
