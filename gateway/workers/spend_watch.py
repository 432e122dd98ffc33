"""What deserves an alert of what the books say: hours that cost far more than usual, prompts that are read
from the cache far less than before; and, for other alerts, what costs the most. Reads the hourly sums of the
ledger (`core.rollup.SpendBook`), and so belongs in a thread.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from shlex import quote
from typing import Final

from gateway.core.alerts import Alert, AlertKind
from gateway.core.anomaly import WEEKS, CacheFall, Unusual, cache_fall, unusual
from gateway.core.budget_alerts import Standing
from gateway.core.ledger import By, Dimension, Total, add_up, dollars, loss_sentence
from gateway.core.limits import Scope, Unit
from gateway.core.rollup import HOUR_MS, Only, SpendBook
from gateway.core.windows import windows_around

WEEK_MS: Final = 7 * 24 * HOUR_MS
WHOSE: Final = (Dimension.ORGANISATION, Dimension.WORKSPACE)

Key = tuple[str, ...]
"""Organisation and workspace."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """From when on people are told; None: never."""

    deviations: float | None
    floor_nanousd: int
    fall: float | None
    fall_floor_nanousd: int


def spend_alerts(
    book: SpendBook, at: float, sensitivity: Sensitivity, team_of: Mapping[str, str]
) -> Iterator[Alert]:
    """What is unusual now, once a day (UTC) for each workspace and kind. Blocks as the book does. Raises
    `ConfigError`."""
    hour_ms = round(at * 1000) // HOUR_MS * HOUR_MS
    if sensitivity.deviations is not None:
        since = _known_since(book, hour_ms)
        for start_ms in (hour_ms - HOUR_MS, hour_ms):
            yield from _anomalies(book, at, start_ms, since, sensitivity, team_of)
    if sensitivity.fall is not None:
        yield from _falls(book, at, hour_ms, sensitivity, team_of)


def top_cause(book: SpendBook, standing: Standing, at: float, team_of: Mapping[str, str]) -> str:
    """What costs the most of a budget of dollars in its window; empty where the books cannot tell it from
    what others spent. Blocks as the book does. Raises `ConfigError`."""
    bound = standing.verdict.bound
    limit = bound.limit
    if limit.unit is not Unit.NANOUSD or limit.shared or limit.models or not limit.period.is_calendar:
        return ""
    start_ms = windows_around(limit.period, limit.timezone, round(at * 1000))[1].start_ms
    span = (start_ms // HOUR_MS * HOUR_MS, round(at * 1000) // HOUR_MS * HOUR_MS + HOUR_MS)
    organisation = {Dimension.ORGANISATION: standing.organisation}
    by: tuple[By, ...]
    match limit.scope:
        case Scope.WORKSPACE:
            only: Only = {**organisation, Dimension.WORKSPACE: bound.subject}
            totals = book.totals((Dimension.KEY, Dimension.MODEL), *span, only)
            by = (Dimension.KEY, Dimension.MODEL)
        case Scope.KEY:
            totals = book.totals((Dimension.MODEL,), *span, {Dimension.KEY: bound.subject})
            by = (Dimension.MODEL,)
        case Scope.ORGANISATION:
            totals = book.totals((Dimension.WORKSPACE, Dimension.MODEL), *span, organisation)
            by = (Dimension.WORKSPACE, Dimension.MODEL)
        case Scope.TEAM:
            found = book.totals((Dimension.WORKSPACE, Dimension.MODEL), *span, organisation)
            totals = tuple(each for each in found if team_of.get(each.group[0]) == bound.subject)
            by = (Dimension.WORKSPACE, Dimension.MODEL)
        case _:
            return ""
    return _dearest(by, totals)


def _dearest(by: tuple[By, ...], totals: tuple[Total, ...]) -> str:
    whole = sum(each.cost_nanousd for each in totals)
    if not whole:
        return ""
    first = max(totals, key=lambda each: each.cost_nanousd)
    names = ", ".join(f"{one.value} {name}" for one, name in zip(by, first.group, strict=True))
    share = first.cost_nanousd / whole
    return f"{names}: ${dollars(first.cost_nanousd, 2)}, {share:.0%} of it, {first.requests:,} requests"


def _known_since(book: SpendBook, hour_ms: int) -> dict[Key, int]:
    """The first day with calls of each workspace, of those that are looked back at."""
    since: dict[Key, int] = {}
    for total in book.totals((*WHOSE, Dimension.DAY), hour_ms - (WEEKS + 1) * WEEK_MS, hour_ms):
        *whose, day = total.group
        first_ms = round(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
        key = tuple(whose)
        since[key] = min(first_ms, since.get(key, first_ms))
    return since


def _anomalies(
    book: SpendBook,
    at: float,
    start_ms: int,
    since: Mapping[Key, int],
    sensitivity: Sensitivity,
    team_of: Mapping[str, str],
) -> Iterator[Alert]:
    assert sensitivity.deviations is not None
    now = _by_workspace(book, start_ms)
    dear = {key for key, total in now.items() if total.cost_nanousd > sensitivity.floor_nanousd}
    if not dear:
        return
    starts = [start_ms - week * WEEK_MS for week in range(1, WEEKS + 1)]
    before = {start: _by_workspace(book, start) for start in starts}
    for key in sorted(dear):
        known = [start for start in starts if start >= since.get(key, start_ms)]
        weeks = [before[start].get(key, Total()) for start in known]
        found = unusual(
            now[key], weeks, deviations=sensitivity.deviations, floor_nanousd=sensitivity.floor_nanousd
        )
        if found is not None:
            only = dict(zip(WHOSE, key, strict=True))
            keys = book.totals((Dimension.KEY, Dimension.MODEL), start_ms, start_ms + HOUR_MS, only)
            who = _dearest((Dimension.KEY, Dimension.MODEL), keys)
            yield _anomaly_alert(key, at, start_ms, found, who, team_of)


def _falls(
    book: SpendBook, at: float, hour_ms: int, sensitivity: Sensitivity, team_of: Mapping[str, str]
) -> Iterator[Alert]:
    """The hour that is now and the one before it, against the seven days before them."""
    assert sensitivity.fall is not None
    start_ms, end_ms = hour_ms - HOUR_MS, hour_ms + HOUR_MS
    now = _by_workspace(book, start_ms, end_ms)
    before = _by_workspace(book, start_ms - WEEK_MS, start_ms)
    for key, total in sorted(now.items()):
        found = cache_fall(
            total,
            before.get(key, Total()),
            fall=sensitivity.fall,
            floor_nanousd=sensitivity.fall_floor_nanousd,
        )
        if found is not None:
            losses = book.losses((), start_ms, end_ms, dict(zip(WHOSE, key, strict=True)))
            cause = loss_sentence(losses[0]) if losses else ""
            yield _fall_alert(key, at, found, cause, team_of)


def _by_workspace(book: SpendBook, start_ms: int, end_ms: int | None = None) -> dict[Key, Total]:
    totals = book.totals(WHOSE, start_ms, start_ms + HOUR_MS if end_ms is None else end_ms)
    return {each.group: each for each in add_up(totals)}


def _anomaly_alert(
    key: Key, at: float, start_ms: int, found: Unusual, who: str, team_of: Mapping[str, str]
) -> Alert:
    organisation, workspace = key
    begin = datetime.fromtimestamp(start_ms / 1000, UTC)
    facts = [
        ("spent", f"${dollars(found.cost_nanousd, 2)} in the hour from {begin:%H:%M} UTC"),
        ("usual", f"${dollars(found.usual_nanousd, 2)} at this hour, over {found.weeks} weeks"),
    ]
    names = ("top cause", "next cause")
    for name, effect in zip(names, found.effects, strict=False):
        more = f"${dollars(effect.nanousd, 2)}"
        facts.append((name, f"{effect.cause.value} ({effect.sentence}): {more} of the difference"))
    if who:
        facts.append(("most of it", who))
    return Alert(
        id=f"{AlertKind.ANOMALY}/{organisation}/{workspace}/{begin:%Y-%m-%d}",
        kind=AlertKind.ANOMALY,
        at=at,
        headline=f"Workspace {workspace} spends unusually much: ${dollars(found.cost_nanousd, 2)} in an hour",
        facts=tuple(facts),
        amounts=(("spent_nanousd", found.cost_nanousd), ("usual_nanousd", found.usual_nanousd)),
        command=f"gateway budget freeze workspace {quote(workspace)} -r 'why'",
        organisation=organisation,
        team=team_of.get(workspace, ""),
        workspace=workspace,
    )


def _fall_alert(key: Key, at: float, found: CacheFall, cause: str, team_of: Mapping[str, str]) -> Alert:
    organisation, workspace = key
    facts = [
        ("read from the cache", f"{found.ratio:.0%} of prompt tokens, {found.before_ratio:.0%} before"),
        ("cost", f"${dollars(found.lost_nanousd, 2)} more in this hour and the last"),
    ]
    if cause:
        facts.append(("likely cause", cause))
    return Alert(
        id=f"{AlertKind.CACHE}/{organisation}/{workspace}/{datetime.fromtimestamp(at, UTC):%Y-%m-%d}",
        kind=AlertKind.CACHE,
        at=at,
        headline=(
            f"Workspace {workspace} reads {found.ratio:.0%} of its prompts from the cache, "
            f"{found.before_ratio:.0%} before"
        ),
        facts=tuple(facts),
        amounts=(("lost_nanousd", found.lost_nanousd),),
        command=f"gateway report --by workspace,cause --from {datetime.fromtimestamp(at, UTC):%Y-%m-%d}",
        organisation=organisation,
        team=team_of.get(workspace, ""),
        workspace=workspace,
    )
