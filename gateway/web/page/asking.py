"""What the URL of a screen about money asks for: a period, and of what alone; and the sums that answer it.

Shared by `spend.py` and `caching.py`. Nothing here draws.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from aiohttp import web

from gateway.core.errors import ConfigError
from gateway.core.focus import Charge
from gateway.core.ledger import Dimension, Total, add_up
from gateway.core.periods import HOUR_MS, Span, months_before, read_span
from gateway.core.rollup import Only, RollupState, SpendBook
from gateway.web.admin_api import AdminError

FILTERS = (Dimension.WORKSPACE, Dimension.MODEL, Dimension.KEY)
MONTHS = 14
MOST_TEXT = 200
"""Of a value in a URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """Where the screens about money have their numbers from, as things are when they ask."""

    book: SpendBook
    refresh: Callable[[], RollupState]
    """Brings the sums up to date, as far as that takes a moment only. Blocks: called in a thread."""
    budgets: Callable[[Dimension, Collection[str]], Mapping[str, int]]
    """Dollars a month by organisation, workspace or team, in nano-dollars, where there are any."""
    team_of: Callable[[], Mapping[str, str]]
    """The team of each workspace that has one."""
    key_names: Callable[[], Mapping[str, str]]
    """What people call the keys, by id."""
    charges: Callable[[int, int], Iterator[Charge]]
    """Of a span of time, from the ledger itself, for export. Blocks: called in a thread. Raises
    `ConfigError`."""
    now: Callable[[], float]
    alone: bool = False
    """Whether other replicas have books of their own, that are not in these."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """One view of the books."""

    span: Span
    only: Only
    by: str
    """What the table is split by."""

    def query(self, **changes: str | None) -> dict[str, str]:
        """The parameters of this view's URL, some of them changed; None takes one out."""
        kept: dict[str, str | None] = {
            "period": self.span.name,
            **{one.value: value for one, value in self.only.items()},
            "by": self.by,
        }
        return {name: value for name, value in {**kept, **changes}.items() if value}


def read_asked(request: web.Request, now: float, choices: Sequence[str], default: str) -> Asked:
    """Raises `AdminError` for what cannot be understood."""
    query = request.query
    try:
        span = read_span(query.get("period", ""), round(now * 1000))
    except ValueError as error:
        raise AdminError(400, str(error)) from None
    only = {one: query[one.value][:MOST_TEXT] for one in FILTERS if query.get(one.value)}
    by = query.get("by") or default
    if by not in choices:
        raise AdminError(400, f"This cannot be split by {by[:40]!r}; there are {', '.join(choices)}.")
    return Asked(span=span, only=only, by=by)


def periods(now: float) -> list[tuple[str, str]]:
    """What a form offers: values and texts."""
    months = months_before(round(now * 1000), MONTHS)
    return [
        (months[0], f"This month ({months[0]})"),
        *((month, month) for month in months[1:]),
        ("24h", "Last 24 hours"),
        ("7d", "Last 7 days"),
        ("30d", "Last 30 days"),
        ("90d", "Last 90 days"),
        ("365d", "Last 365 days"),
    ]


def grouped(books: Books, totals: Sequence[Total], place: int, by: str) -> tuple[Total, ...]:
    """Where totals are by workspace and teams are asked for: of teams, at that place of the groups."""
    if by != Dimension.TEAM:
        return tuple(totals)
    teams = books.team_of()
    return add_up(
        replace(
            total,
            group=(*total.group[:place], teams.get(total.group[place], "-"), *total.group[place + 1 :]),
        )
        for total in totals
    )


def by_step(
    book: SpendBook, by: Sequence[Dimension], span: Span, only: Only
) -> list[tuple[int, tuple[Total, ...]]]:
    """The totals of each step of a span. By hours that is a question each: a few dozen at most."""
    if span.step_ms == HOUR_MS:
        return [(at, book.totals(by, at, at + HOUR_MS, only)) for at in span.steps]
    found: dict[str, list[Total]] = {}
    for total in book.totals((Dimension.DAY, *by), span.start_ms, span.end_ms, only):
        found.setdefault(total.group[0], []).append(replace(total, group=total.group[1:]))
    return [(at, tuple(found.get(span.step_name(at), ()))) for at in span.steps]


def whole(totals: Sequence[Total]) -> Total:
    """All of them together."""
    return next(iter(add_up(replace(total, group=()) for total in totals)), Total())


def readable(books: Books) -> RollupState:
    """The state of the sums, brought up to date; blocks. Raises `AdminError` where there are none yet."""
    state = books.refresh()
    if state.complete:
        return state
    if state.trouble:
        raise AdminError(503, f"The ledger cannot be read: {state.trouble}")
    done = state.entries + state.waiting
    raise AdminError(
        503,
        f"The ledger is being summed for this page: {state.entries:,} of {done:,} entries are in. That is "
        "done once, and takes some fifteen seconds for a million entries; try again then.",
    )


def unreadable(error: ConfigError) -> AdminError:
    """What the sums or the ledger have to say, as a page."""
    return AdminError(503, str(error))


def as_of(state: RollupState) -> str:
    """When the sums were complete, in UTC: as the days that they are of."""
    return f"{datetime.fromtimestamp(state.as_of or 0, UTC):%Y-%m-%d %H:%M:%S} UTC"


def command(asked: Asked, *, by: Sequence[str], more: str = "") -> str:
    """What prints the same in a terminal."""
    span = asked.span
    if span.month:
        when = f"--month {span.month}"
    elif span.step_ms == HOUR_MS:
        when = f"--period {span.name}"  # days would be another span
    else:
        first, last = (
            f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}" for ms in (span.start_ms, span.end_ms - 1)
        )
        when = f"--from {first} --to {last}"
    split = list(dict.fromkeys([*(one.value for one in asked.only), *by])) or [Dimension.MONTH.value]
    return f"gateway report {when} --by {','.join(split)}{more}"
