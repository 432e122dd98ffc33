"""A year of one organisation's ledger, made up: the same for the same seed, and quick to write.

Weekdays and office hours, growth over the year, five workspaces that use caching in different ways, a team
whose tools begin to differ from call to call three days before the end, and a key that overspends in the last
ten days. As a file of the ledger's own schema; without chains, which cost time and which no sum looks at.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from random import Random

from gateway.adapters.ledger_file import open_for_writing
from gateway.core.entry import SCHEMA_VERSION, Entry

UNTIL_MS = 1_795_361_400_000
"""2026-11-22T15:30:00Z, a Sunday: the last instant."""
DAY_MS = 86_400_000
INCIDENT_AT_MS = UNTIL_MS - 3 * DAY_MS - 5_100_000
"""2026-11-19T14:05:00Z: from then on the tools of `support` differ from call to call."""
OVERSPENDING_FROM_MS = UNTIL_MS - 10 * DAY_MS
OVERSPENDER = ("research", "key_research_nightly")

_COLUMNS = ", ".join(Entry._fields)
_INSERT = f"INSERT INTO entries ({_COLUMNS}) VALUES ({', '.join('?' * len(Entry._fields))})"


@dataclass(frozen=True, slots=True)
class _Price:
    """Nano-dollars a token."""

    uncached: int
    output: int
    read: int

    @property
    def write_5m(self) -> int:
        return self.uncached * 5 // 4

    @property
    def write_1h(self) -> int:
        return self.uncached * 2


_PRICES = {
    "claude-haiku-5-5": _Price(100, 500, 10),
    "claude-sonnet-5-5": _Price(2_000, 10_000, 100),
    "claude-opus-5-5": _Price(4_000, 20_000, 200),
}


@dataclass(frozen=True, slots=True)
class _Workspace:
    name: str
    keys: tuple[str, ...]
    share: float
    """Of all calls."""
    models: tuple[tuple[str, float], ...]
    prompt_tokens: int
    output_tokens: int
    hit: float
    """Of calls, how many read what is cached."""


_HAIKU, _SONNET, _OPUS = _PRICES
WORKSPACES = (
    _Workspace(
        "coding",
        ("key_coding_ide", "key_coding_review", "key_coding_ci"),
        0.34,
        ((_SONNET, 0.75), (_OPUS, 0.25)),
        46_000,
        900,
        0.9,
    ),
    _Workspace(
        "support",
        ("key_support_bot", "key_support_desk"),
        0.30,
        ((_SONNET, 0.8), (_HAIKU, 0.2)),
        14_000,
        350,
        0.86,
    ),
    _Workspace("search", ("key_search_app",), 0.22, ((_HAIKU, 1.0),), 6_000, 220, 0.7),
    _Workspace(
        "research",
        ("key_research_notebooks", "key_research_nightly"),
        0.08,
        ((_OPUS, 0.6), (_SONNET, 0.4)),
        38_000,
        2_200,
        0.35,
    ),
    _Workspace("marketing", ("key_marketing_copy",), 0.06, ((_SONNET, 1.0),), 3_000, 800, 0.0),
)
_BY_WEEKDAY = (1.0, 1.06, 1.1, 1.04, 0.9, 0.28, 0.24)
_BY_HOUR = (2, 1, 1, 1, 1, 2, 4, 8, 14, 18, 18, 16, 14, 16, 18, 18, 16, 12, 8, 6, 5, 4, 3, 2)
_CAUSES = (
    ("expired", 0.5, "{tokens:,} tokens had expired 412.0 s before"),
    ("parallel_twin", 0.2, "{tokens:,} tokens were being written by a request sent 0.4 s before"),
    ("never_written", 0.2, "{tokens:,} tokens were seen before but not written, as that did not seem to pay"),
    ("beyond_lookback", 0.1, "{tokens:,} tokens lie further back than a breakpoint searches"),
)
_TOOLS_CHANGED = (
    "tools[3] changed at byte 118, where a timestamp stands; {tokens:,} tokens had to be processed again"
)


def write_year(path: Path, *, entries: int, seed: int = 7, days: int = 365, until_ms: int = UNTIL_MS) -> None:
    """A new ledger of about so many entries, in the order of their arrival."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(open_for_writing(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("BEGIN")
        connection.executemany(
            _INSERT, year_of_entries(entries=entries, seed=seed, days=days, until_ms=until_ms)
        )
        connection.execute("COMMIT")


def year_of_entries(
    *, entries: int, seed: int = 7, days: int = 365, until_ms: int = UNTIL_MS
) -> Iterator[tuple[object, ...]]:
    """In the order of their arrival."""
    random = Random(seed)
    shift = until_ms - UNTIL_MS
    first = until_ms // DAY_MS - days + 1
    weights = [
        _BY_WEEKDAY[(first + n + 3) % 7] * (1.0 + 1.6 * n / days) * (1.0 + 0.06 * math.sin(n / 9.0))
        for n in range(days)
    ]
    whole = sum(weights)
    number = 0
    for n, weight in enumerate(weights):
        count = max(1, round(entries * weight / whole))
        midnight = (first + n) * DAY_MS
        hours = random.choices(range(24), _BY_HOUR, k=count)
        for at_ms in sorted(midnight + hour * 3_600_000 + random.randrange(3_600_000) for hour in hours):
            if at_ms > until_ms:
                break
            for workspace, key in _who(random, at_ms - shift):
                number += 1
                yield _entry(random, number, at_ms, at_ms - shift, workspace, key)


def _who(random: Random, at_ms: int) -> list[tuple[_Workspace, str]]:
    """Who calls: one, and beside it the overspender while it does."""
    (workspace,) = random.choices(WORKSPACES, [one.share for one in WORKSPACES])
    calls = [(workspace, random.choice(workspace.keys))]
    if at_ms >= OVERSPENDING_FROM_MS and random.random() < 0.12:
        calls.append((WORKSPACES[3], OVERSPENDER[1]))
    return calls


def _entry(
    random: Random, number: int, at_ms: int, story_ms: int, workspace: _Workspace, key: str
) -> tuple[object, ...]:
    ((model, _),) = random.choices(workspace.models, [share for _, share in workspace.models])
    price = _PRICES[model]
    refused, failed = random.random() < 0.004, random.random() < 0.006
    if refused:
        return _row(
            number, at_ms, workspace, key, model, state="refused", basis="none", tokens=(0, 0, 0, 0, 0)
        )
    prompt = max(200, round(random.gauss(1.0, 0.35) * workspace.prompt_tokens))
    output = max(1, round(random.expovariate(1.0 / workspace.output_tokens)))
    cached = prompt * 92 // 100
    draw = random.random()
    held_out = random.random() < 0.02 and workspace.hit > 0.0
    cohort, cause, detail, missed = "placed", None, None, 0
    uncached, read, write_5m, write_1h = prompt - cached, 0, 0, 0
    shadow = None
    if workspace.hit == 0.0:
        cohort, uncached = "shadow", prompt
        shadow = (prompt - cached) * price.uncached + cached * (price.read if draw < 0.6 else price.write_5m)
    elif held_out:
        cohort, uncached = "holdout", prompt
    elif workspace.name == "support" and story_ms >= INCIDENT_AT_MS and draw < 0.9:
        write_5m, cause, missed = cached, "changed", cached * 9 // 10
        detail = _TOOLS_CHANGED.format(tokens=missed)
    elif draw < workspace.hit:
        write_5m = prompt // 40
        read = cached - write_5m
    else:
        write_1h = cached if random.random() < 0.15 else 0
        write_5m = cached - write_1h
        if random.random() < 0.6:
            ((cause, _, words),) = random.choices(_CAUSES, [share for _, share, _ in _CAUSES])
            missed = cached * 8 // 10
            detail = words.format(tokens=missed)
    warming = number % 400 == 0 and workspace.hit > 0.5
    if warming:
        cohort, cause, detail, missed, output = "warming", None, None, 0, 0
        uncached, read, write_5m, write_1h = prompt - cached, cached, 0, 0
    state, basis = ("cut_by_client", "partial") if failed else ("answered", "reported")
    return _row(
        number,
        at_ms,
        workspace,
        key if not warming else f"warming:{workspace.name}",
        model,
        state=state,
        basis=basis,
        tokens=(uncached, read, write_5m, write_1h, output),
        cohort=cohort,
        shadow=shadow,
        miss=(cause, detail, missed, missed * (price.write_5m - price.read) if missed else 0),
        held=(300, 40_000 * price.uncached // 50) if number % 90 == 0 else (0, 0),
    )


def _row(
    number: int,
    at_ms: int,
    workspace: _Workspace,
    key: str,
    model: str,
    *,
    state: str,
    basis: str,
    tokens: Sequence[int],
    cohort: str | None = None,
    shadow: int | None = None,
    miss: tuple[str | None, str | None, int, int] = (None, None, 0, 0),
    held: tuple[int, int] = (0, 0),
) -> tuple[object, ...]:
    price = _PRICES[model]
    uncached, read, write_5m, write_1h, output = tokens
    prompt = uncached + read + write_5m + write_1h
    who = ("default", workspace.name, key, "direct", "messages")
    identity = (f"gw_{number:024x}", SCHEMA_VERSION, at_ms, *who)
    refused = state == "refused"
    answer = (429 if refused else 200, "budget_exhausted" if refused else None)
    costs = (
        uncached * price.uncached,
        read * price.read,
        write_5m * price.write_5m,
        write_1h * price.write_1h,
        output * price.output,
        0,
        prompt * price.uncached + output * price.output,
    )
    placed = int(cohort == "placed")
    sizes = (prompt * 3, output * 4)
    rest = (cohort, shadow, read, *miss, *held)
    call = (*identity, "POST", 1, model, state, basis, *answer, *_ANSWERED, *tokens, *_NO_TOOLS)
    priced = (*costs, f"{model}@2026-01-01", 0, *_NOT_RESERVED)
    return (*call, *priced, placed, "", 0, 0, *sizes, *_TIMINGS, "{}", *rest)


_ANSWERED = (None, None, None, "end_turn", 1)
"""From `upstream_error_type` to `attempts`."""
_NO_TOOLS = (0, 0, 0, 0, "standard", None, None)
"""From `web_search_requests` to `speed`."""
_NOT_RESERVED = (None, 0, 0, None, "[]", 0)
"""From `reservation_id` to `store_degraded`."""
_TIMINGS = (2.5, 0.0, 0.0, 0.7, 0.8)
