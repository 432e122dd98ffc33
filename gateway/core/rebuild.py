"""What the ledger says that the dollar windows should hold. Pure.

Of all counters those that are money can be computed again: each ledger entry says what an exchange cost, who
made it and when. Here sums of entries become sums of windows, through the same `Limits` that bound the calls.
What reads ledgers and writes counters is in `adapters/` and `workers/rebuild.py`.

Exact but for three edges: an entry belongs to the window of the instant at which its call was received, while
the store took the window of the reservation, milliseconds later; a configuration that changed within a window
counts as if it had been in force all along; and of a limit for some models the ledger tells by which model
was answered, not for which was asked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import Final

from gateway.core.bucket import Verdict
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import BoundLimit, Limit, Limits, Period, Unit
from gateway.core.principal import Principal
from gateway.core.windows import Window, windows_around

SHARED: Final = "shared"
"""The identity of the ledger that all replicas share."""


class Turn(Enum):
    """What a replica has to do in one turn of a rebuilding."""

    WAIT = auto()
    READ_OWN = auto()
    READ_SHARED = auto()
    LOOK_AGAIN = auto()
    """What the store can do in one go was not all."""


KNOWN_MS: Final = 120_000
"""Of exchanges that ended so recently a late settlement may still come: they are named one by one."""

SURELY_READ_SECONDS: Final = 90.0
"""What ended so long before the counters were rebuilt is in their sum, if it is in any. Less than `KNOWN_MS`,
by what clocks may differ and by how long a ledger may take to write an entry down."""

NEAR_EDGE_MS: Final = 3_600_000
"""So long after the beginning of a window the one before it is rebuilt too: the store may still be in it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """What a ledger has for one caller and model in one span of time."""

    organisation: str
    workspace: str
    key_id: str
    model: str
    tags: tuple[tuple[str, str], ...] = ()
    nanousd: int


@dataclass(frozen=True, slots=True)
class Span:
    """A window that money limits count in."""

    period: Period
    timezone: str
    window: Window


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerPart:
    """What one ledger says, read in one state of it."""

    ledger: str
    """The same for whoever reads the same ledger; empty while it has no entry."""
    spends: Mapping[Span, tuple[Spend, ...]]
    known: tuple[str, ...]
    """Ids of the exchanges in it that ended within `KNOWN_MS`."""
    reached: Mapping[str, int] = field(default_factory=dict)
    """Of a shared ledger: how far the chains of those that are shipped to it go in this state of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowSpend:
    """One counter as it should be."""

    bound: BoundLimit
    window: Window
    nanousd: int

    @property
    def key(self) -> str:
        """The bucket's key, as stores name it."""
        return f"{self.bound.bucket_id}/{self.window.label}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """A counter beside the ledger's sum for it, both in nano-dollars."""

    spend: WindowSpend
    counted: int
    set_aside: int

    @property
    def nanousd(self) -> int:
        """Above zero where the counter says more than the ledger."""
        return self.counted - self.spend.nanousd

    @property
    def lacks(self) -> int:
        """What the ledger has more than the counter can have once all that is open is settled; 0 for none."""
        return max(self.spend.nanousd - self.set_aside - self.counted, 0)


def is_rebuilt(limit: Limit) -> bool:
    """Whether the limit's counters can be computed from the ledger: those of money in calendar windows. They
    admit nothing while they are lost; rates fill up again by themselves, and other windows begin anew."""
    return limit.unit is Unit.NANOUSD and limit.period.is_calendar


def spans_of(limits: Iterable[Limit], now_ms: int) -> tuple[Span, ...]:
    """The windows to be read from the ledger."""
    spans: dict[Span, None] = {}
    for limit in limits:
        if is_rebuilt(limit):
            before, current, _ = windows_around(limit.period, limit.timezone, now_ms)
            spans[Span(limit.period, limit.timezone, current)] = None
            if now_ms - current.start_ms < NEAR_EDGE_MS:
                spans[Span(limit.period, limit.timezone, before)] = None
    return tuple(spans)


def window_spends(
    parts: Iterable[LedgerPart],
    limits: Limits,
    *,
    team_of: Callable[[str], str],
    canonical: Callable[[str], str | None],
) -> tuple[WindowSpend, ...]:
    """The sums of all parts by counter. `team_of` gives a workspace's team, `canonical` the model's name."""
    sums: dict[str, WindowSpend] = {}
    for span, spends in (each for part in parts for each in part.spends.items()):
        for spend in spends:
            principal = Principal(
                workspace=WorkspaceId(spend.workspace),
                key_id=KeyId(spend.key_id),
                key_name="",
                organisation=spend.organisation,
                team=team_of(spend.workspace),
            )
            for bound in limits.binding(principal, canonical(spend.model) or spend.model, spend.tags):
                limit = bound.limit
                if not is_rebuilt(limit) or (limit.period, limit.timezone) != (span.period, span.timezone):
                    continue
                one = WindowSpend(bound=bound, window=span.window, nanousd=spend.nanousd)
                before = sums.get(one.key)
                total = spend.nanousd + (before.nanousd if before else 0)
                sums[one.key] = WindowSpend(bound=bound, window=span.window, nanousd=total)
    return tuple(sums.values())


def drift_of(spend: WindowSpend, verdict: Verdict) -> Drift:
    """How the store's counter stands beside the ledger's sum."""
    return Drift(spend=spend, counted=verdict.spent, set_aside=verdict.set_aside)
