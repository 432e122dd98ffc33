"""What the books say: totals over the ledger's entries.

Totals of several ledgers are added up here, and put into words. What an entry is, `entry.py` says; storing
and reading them is `adapters/ledger.py` and `adapters/ledger_queries.py`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from typing import TypeVar

from gateway.core.misses import MissCause
from gateway.core.usage import Usage

NANOUSD_PER_USD = 1_000_000_000
YEARS = range(1970, 9999)
"""Of which reports can be asked for: of each there is an end that a calendar can say."""


def billed(usage: Usage) -> Usage:
    """The tokens that are billed: those of all iterations where there are any, because upstream's totals
    leave out compaction and advisor iterations (usage iterations in the SDK's types, 2026-11)."""
    if not usage.iterations:
        return usage
    parts = usage.iterations
    return Usage(
        uncached_input_tokens=sum(part.uncached_input_tokens for part in parts),
        cache_read_tokens=sum(part.cache_read_tokens for part in parts),
        cache_write_5m_tokens=sum(part.cache_write_5m_tokens for part in parts),
        cache_write_1h_tokens=sum(part.cache_write_1h_tokens for part in parts),
        output_tokens=sum(part.output_tokens for part in parts),
    )


class Dimension(StrEnum):
    """What a report can be split by."""

    ORGANISATION = "organisation"
    WORKSPACE = "workspace"
    KEY = "key"
    MODEL = "model"
    ENDPOINT = "endpoint"
    COHORT = "cohort"
    """Whose breakpoints it went out with (`savings.Cohort`); "-" where nothing was billed."""
    TEAM = "team"
    """The team of the workspace, as it is configured today. The ledger does not know it: what reads the
    ledger gives the workspace, and `into_teams` puts the team in its place."""
    DAY = "day"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class Tag:
    """The value of one tag header, by which a report can be split as well; "-" where a call had none."""

    name: str

    def __post_init__(self) -> None:
        if not _TAG.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name of a header; write it as tag:x-cost-centre")

    @property
    def value(self) -> str:
        """As it is asked for, and the heading of its column."""
        return f"{_TAG_PREFIX}{self.name}"


_TAG_PREFIX = "tag:"
_TAG = re.compile("[a-z0-9_-]{1,100}")

By = Dimension | Tag


def read_by(name: str) -> By:
    """What people write: "workspace", "tag:x-cost-centre". Raises ValueError."""
    if name.startswith(_TAG_PREFIX):
        return Tag(name.removeprefix(_TAG_PREFIX).lower())
    if name not in list(Dimension):
        raise ValueError(f"cannot split by {name}; there are {', '.join(Dimension)}, {_TAG_PREFIX}NAME")
    return Dimension(name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Total:
    """Sums over the entries of one group, exact: all are integers."""

    group: tuple[str, ...] = ()
    """One value per dimension asked for; "-" where the exchange has none."""
    requests: int = 0
    """Calls: what was presumed of one and taken back are entries, and none."""
    refused: int = 0
    failed: int = 0
    """Neither answered nor refused by the gateway: no answer, or a cut one."""
    uncached_input_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_5m_tokens: int = 0
    cache_write_1h_tokens: int = 0
    output_tokens: int = 0
    web_search_requests: int = 0
    uncached_input_nanousd: int = 0
    cache_read_nanousd: int = 0
    cache_write_5m_nanousd: int = 0
    cache_write_1h_nanousd: int = 0
    output_nanousd: int = 0
    server_tools_nanousd: int = 0
    counterfactual_nanousd: int = 0
    guessed_nanousd: int = 0
    """The part of the cost whose usage upstream did not report in full."""
    fallback_nanousd: int = 0
    """The part of the cost priced by the fallback, because no row of the price table knew the model."""
    miss_nanousd: int = 0
    """What misses cost above reads; within the cost."""
    held_saved_nanousd: int = 0
    """What was not spent because calls were held."""
    shadow_paid_nanousd: int = 0
    """The input of calls in shadow mode, as it was billed."""
    shadow_nanousd: int = 0
    """The same input, as it would have been billed with what was decided."""

    @property
    def cost_nanousd(self) -> int:
        return (
            self.uncached_input_nanousd
            + self.cache_read_nanousd
            + self.cache_write_5m_nanousd
            + self.cache_write_1h_nanousd
            + self.output_nanousd
            + self.server_tools_nanousd
        )

    @property
    def paid_nanousd(self) -> int:
        """What the input cost."""
        return self.cost_nanousd - self.output_nanousd - self.server_tools_nanousd

    @property
    def plain_nanousd(self) -> int:
        """What the input would have cost without caching."""
        return self.counterfactual_nanousd - self.output_nanousd - self.server_tools_nanousd

    @property
    def saved_nanousd(self) -> int:
        """Negative where caching lost money. Of the input and of the whole: the rest costs the same."""
        return self.plain_nanousd - self.paid_nanousd

    @property
    def saved_ratio(self) -> float | None:
        """Share of the input's plain cost; None where there was no input."""
        return self.saved_nanousd / self.plain_nanousd if self.plain_nanousd else None

    @property
    def prompt_tokens(self) -> int:
        return (
            self.uncached_input_tokens
            + self.cache_read_tokens
            + self.cache_write_5m_tokens
            + self.cache_write_1h_tokens
        )

    @property
    def cache_read_ratio(self) -> float | None:
        """Share of all prompt tokens that were read from a cache; None without any."""
        return self.cache_read_tokens / self.prompt_tokens if self.prompt_tokens else None


SUMMED = tuple(item.name for item in fields(Total) if item.name != "group")


def add_up(totals: Iterable[Total]) -> tuple[Total, ...]:
    """One total per group, dearest first: how the ledgers of several replicas become one report."""
    sums: dict[tuple[str, ...], list[int]] = {}
    for total in totals:
        row = sums.setdefault(total.group, [0] * len(SUMMED))
        for index, name in enumerate(SUMMED):
            row[index] += getattr(total, name)
    added = [Total(group=group, **dict(zip(SUMMED, row, strict=True))) for group, row in sums.items()]
    return tuple(sorted(added, key=lambda total: (-total.cost_nanousd, total.group)))


SAVED_MEANS = (
    "Saved: what the same prompts would have cost with each of their tokens at the price of uncached input, "
    "less what they did cost."
)
"""The counterfactual that all savings in reports are against, in one sentence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What the misses of one cause cost one group. Tokens and money are sums over its calls."""

    group: tuple[str, ...]
    cause: str
    """A `MissCause`, or what a later version knew besides."""
    calls: int
    tokens: int
    nanousd: int
    first_ms: int
    """Epoch milliseconds of its first call, and of the last one below."""
    last_ms: int
    detail: str
    """The sentence of its dearest call."""
    detail_nanousd: int


def add_up_losses(losses: Iterable[Loss]) -> tuple[Loss, ...]:
    """One loss per group and cause, dearest first: over the ledgers of several replicas."""
    sums: dict[tuple[tuple[str, ...], str], Loss] = {}
    for loss in losses:
        known = sums.get((loss.group, loss.cause))
        sums[loss.group, loss.cause] = loss if known is None else _both(known, loss)
    return tuple(sorted(sums.values(), key=lambda loss: (-loss.nanousd, loss.group, loss.cause)))


def _both(one: Loss, other: Loss) -> Loss:
    dearer = max(one, other, key=lambda loss: loss.detail_nanousd)
    return replace(
        dearer,
        calls=one.calls + other.calls,
        tokens=one.tokens + other.tokens,
        nanousd=one.nanousd + other.nanousd,
        first_ms=min(one.first_ms, other.first_ms),
        last_ms=max(one.last_ms, other.last_ms),
    )


_Grouped = TypeVar("_Grouped", bound=Total | Loss)


def into_teams(rows: Iterable[_Grouped], by: Sequence[By], team_of: Mapping[str, str]) -> list[_Grouped]:
    """The same rows, with the team of each workspace in the column of teams; "-" for those without one.
    Rows that fall into one group so have still to be added up."""
    if Dimension.TEAM not in by:
        return list(rows)
    at = list(by).index(Dimension.TEAM)
    found = []
    for row in rows:
        team = team_of.get(row.group[at]) or "-"
        found.append(replace(row, group=(*row.group[:at], team, *row.group[at + 1 :])))
    return found


_IN_WORDS: dict[str, str] = {
    MissCause.EXPIRED: "entries had expired",
    MissCause.NEVER_WRITTEN: "prefixes returned that were not written",
    MissCause.BELOW_MINIMUM: "prefixes were below the model's minimum",
    MissCause.PARALLEL_TWIN: "calls ran side by side with one that was writing",
    MissCause.BEYOND_LOOKBACK: "entries lay beyond the lookback",
    MissCause.GONE_EARLY: "entries were gone before their time",
    MissCause.CHANGED: "prompts changed",
    MissCause.OTHER_WORKSPACE: "prefixes were cached in another workspace",
    MissCause.OTHER_MODEL: "prefixes were cached for another model",
    MissCause.OTHER_PARAMETER: "prefixes were cached with another parameter",
}


def loss_sentence(loss: Loss) -> str:
    """As "search: prompts changed: $4.12 since 14:05, 31 calls. Dearest: ...". Instants are UTC."""
    words = _IN_WORDS.get(loss.cause, loss.cause)
    first, last = (datetime.fromtimestamp(ms / 1000, UTC) for ms in (loss.first_ms, loss.last_ms))
    since = f"{first:%H:%M}" if first.date() == last.date() else f"{first:%Y-%m-%d %H:%M}"
    who = f"{', '.join(loss.group)}: " if loss.group else ""
    calls = _calls(loss.calls)
    dearest = f" Dearest: {loss.detail}." if loss.detail else ""
    return f"{who}{words}: ${dollars(loss.nanousd, 2)} since {since}, {calls}.{dearest}"


FEW_CALLS = 100
"""Of a holdout: with fewer, one large prompt more or less decides what the comparison says."""


def holdout_sentence(decided: Total, held_out: Total) -> str | None:
    """What deciding on breakpoints is measured to save, against calls that were held out. `decided` is all
    that could have been held out, those included for which no breakpoint was found: leaving them out would
    compare what suits caching with everything. None where nothing was held out."""
    if not held_out.requests:
        return None
    if min(held_out.requests, decided.requests) < FEW_CALLS:
        return (
            f"{_calls(held_out.requests)} held out against {decided.requests:,} decided on: too few to say "
            f"what deciding saves ({FEW_CALLS} of each are needed)."
        )
    return f"{_side(decided)} decided on; {_side(held_out)} held out."


def holdout_sentences(by_cohort: Iterable[Total]) -> Iterator[tuple[str, str]]:
    """Workspace and sentence, where something was held out. Groups are of a workspace and a `Cohort`. Each
    workspace by itself: two that differ in their prompts say nothing of each other."""
    by_group = {total.group: total for total in by_cohort}
    for workspace in sorted({workspace for workspace, _ in by_group}):
        held_out = by_group.get((workspace, "holdout"), Total())
        decided = [by_group.get((workspace, cohort), Total()) for cohort in ("placed", "none")]
        (both,) = add_up(replace(total, group=()) for total in decided)
        if (sentence := holdout_sentence(both, held_out)) is not None:
            yield workspace, sentence


def _side(total: Total) -> str:
    ratio = "-" if total.saved_ratio is None else f"{total.saved_ratio:.1%}"
    a_call = dollars(total.paid_nanousd // total.requests, 6)
    return f"{ratio} of the input's cost saved, ${a_call} of input a call, over {_calls(total.requests)}"


def _calls(count: int) -> str:
    return "1 call" if count == 1 else f"{count:,} calls"


def month_bounds(month: str) -> tuple[int, int]:
    """Epoch milliseconds of a month such as "2026-11" in UTC, the end exclusive. Raises ValueError."""
    try:
        start = datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC)
        if start.year not in YEARS:
            raise ValueError
    except ValueError:
        raise ValueError(f"{month!r} is no month; write it as 2026-11") from None
    following = start.replace(year=start.year + start.month // 12, month=start.month % 12 + 1)
    return round(start.timestamp() * 1000), round(following.timestamp() * 1000)


def day_bounds(first: date | None, last: date | None) -> tuple[int, int]:
    """Epoch milliseconds of whole days in UTC, the end exclusive; all there is on a side that is not said.
    Raises ValueError."""
    if (first and last and last < first) or any(day and day.year not in YEARS for day in (first, last)):
        raise ValueError(f"{first or 'the beginning'} to {last or 'now'} is no span of days")
    start = _midnight_ms(first) if first else 0
    return start, _midnight_ms(last + timedelta(days=1)) if last else 2**62


def _midnight_ms(day: date) -> int:
    return round(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def iso_instant(epoch_ms: int) -> str:
    """As 2026-11-18T14:05:00Z, to the second below."""
    return datetime.fromtimestamp(epoch_ms // 1000, UTC).isoformat().replace("+00:00", "Z")


def dollars(nanousd: int, places: int = 4) -> str:
    """For people: so many decimals, half a unit rounded up."""
    unit = NANOUSD_PER_USD // 10**places
    units = (abs(nanousd) + unit // 2) // unit
    sign = "-" if nanousd < 0 and units else ""
    return f"{sign}{units // 10**places:,}.{units % 10**places:0{places}d}"


def usd(nanousd: int) -> str:
    """Dollars with all nine decimals: exact, for machines."""
    sign, amount = ("-", -nanousd) if nanousd < 0 else ("", nanousd)
    return f"{sign}{amount // NANOUSD_PER_USD}.{amount % NANOUSD_PER_USD:09d}"
