"""What one view of caching shows, read from the books; blocks. Nothing here draws."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from gateway.core.ledger import (
    Dimension,
    Loss,
    Total,
    holdout_sentences,
)
from gateway.core.periods import HOUR_MS, Span
from gateway.core.rollup import Only, RollupState, SpendBook
from gateway.core.savings import Cohort
from gateway.web.page.asking import (
    Asked,
    Books,
    by_step,
    readable,
    whole,
)
from gateway.web.page.charts import MAX_SERIES
from gateway.web.page.rendering import PREFIX

OTHER_CAUSES = "other causes"
_CAUSE_WORDS = {"never_written": "not written before", "parallel_twin": "written side by side"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """All that one view shows."""

    asked: Asked
    cause: str
    state: RollupState
    steps: Sequence[tuple[int, Total]]
    totals: Sequence[Total]
    """By what the table is split by."""
    losses: Sequence[Loss]
    """By workspace and cause; of one of both, by key and model too."""
    loss_by: tuple[Dimension, ...]
    lost: Sequence[tuple[int, dict[str, int]]]
    """By step and cause, nano-dollars."""
    warm_ups: Sequence[Total]
    """By workspace and cohort: those of the gateway's own calls that warm."""
    holdouts: Sequence[tuple[str, str]]
    shadows: Sequence[Total]
    """Workspaces in shadow mode."""
    workspaces: Sequence[str]
    key_names: dict[str, str]

    @property
    def total(self) -> Total:
        return whole(self.totals)


def read_caching(books: Books, asked: Asked, cause: str) -> Found:
    """Blocks."""
    state = readable(books)
    book, span, only = books.book, asked.span, asked.only
    by_cohort = book.totals((Dimension.WORKSPACE, Dimension.COHORT), span.start_ms, span.end_ms, only)
    by_workspace = book.totals((Dimension.WORKSPACE,), span.start_ms, span.end_ms)
    loss_by: tuple[Dimension, ...] = (Dimension.WORKSPACE,)
    if cause or Dimension.WORKSPACE in only:
        loss_by = (Dimension.WORKSPACE, Dimension.KEY, Dimension.MODEL)
    losses = book.losses(loss_by, span.start_ms, span.end_ms, only)
    return Found(
        asked=asked,
        cause=cause,
        state=state,
        steps=[(at, whole(totals)) for at, totals in by_step(book, (), span, only)],
        totals=book.totals((Dimension(asked.by),), span.start_ms, span.end_ms, only),
        losses=[loss for loss in losses if not cause or loss.cause == cause],
        loss_by=loss_by,
        lost=_lost_by_step(book, span, only, cause),
        warm_ups=[total for total in by_cohort if total.group[1] == Cohort.WARMING],
        holdouts=list(holdout_sentences(by_cohort)),
        shadows=[
            total
            for total in by_workspace
            if total.shadow_paid_nanousd and only.get(Dimension.WORKSPACE, total.group[0]) == total.group[0]
        ],
        workspaces=sorted(total.group[0] for total in by_workspace),
        key_names=dict(books.key_names()),
    )


def _lost_by_step(book: SpendBook, span: Span, only: Only, cause: str) -> list[tuple[int, dict[str, int]]]:
    if span.step_ms == HOUR_MS:
        parts = [(at, book.losses((), at, at + HOUR_MS, only)) for at in span.steps]
    else:
        by_day: dict[str, list[Loss]] = {}
        for loss in book.losses((Dimension.DAY,), span.start_ms, span.end_ms, only):
            by_day.setdefault(loss.group[0], []).append(loss)
        parts = [(at, tuple(by_day.get(span.step_name(at), ()))) for at in span.steps]
    return [
        (at, {loss.cause: loss.nanousd for loss in found if not cause or loss.cause == cause})
        for at, found in parts
    ]


def losses_stacked(found: Found) -> list[tuple[str, list[int]]]:
    sums: dict[str, int] = {}
    for _, losses in found.lost:
        for cause, nanousd in losses.items():
            sums[cause] = sums.get(cause, 0) + nanousd
    ranked = sorted((cause for cause in sums if sums[cause]), key=lambda cause: (-sums[cause], cause))
    named = ranked if len(ranked) <= MAX_SERIES else ranked[: MAX_SERIES - 1]
    stacks = [(cause_words(cause), [losses.get(cause, 0) for _, losses in found.lost]) for cause in named]
    if len(named) < len(ranked):
        rest = [sum(losses.get(cause, 0) for cause in ranked[len(named) :]) for _, losses in found.lost]
        stacks.append((OTHER_CAUSES, rest))
    return stacks


def step_word(found: Found) -> str:
    return "hour" if found.asked.span.step_ms == HOUR_MS else "day"


def cause_words(name: str) -> str:
    return _CAUSE_WORDS.get(name, name.replace("_", " "))


def caching_href(found: Found, **changes: str | None) -> str:
    query = found.asked.query(**{"cause": found.cause or None, **changes})
    return f"{PREFIX}/caching?{urlencode(query)}"
