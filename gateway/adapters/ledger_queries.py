"""Questions to the ledger, read-only: totals by any dimension, what misses cost by cause, charges for export.

The SQL is what SQLite and PostgreSQL both understand. A ledger may be read beside its writers, and a file of
an older schema as it is: what it does not have counts as nothing. Sums are exact integers.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby

from gateway.adapters.ledger_source import LedgerSource, Reading, reading
from gateway.core.focus import KINDS, Charge
from gateway.core.ledger import SUMMED, By, Dimension, Loss, Tag, Total

_GROUPS = {
    Dimension.ORGANISATION: "COALESCE(organisation, '-')",
    Dimension.WORKSPACE: "COALESCE(workspace, '-')",
    Dimension.KEY: "COALESCE(key_id, '-')",
    Dimension.MODEL: "COALESCE(model, '-')",
    Dimension.ENDPOINT: "endpoint",
    Dimension.DAY: "date(received_at_ms / 1000, 'unixepoch')",
    Dimension.COHORT: "COALESCE(cohort, '-')",
    Dimension.TEAM: "COALESCE(workspace, '-')",
    Dimension.MONTH: "substr(date(received_at_ms / 1000, 'unixepoch'), 1, 7)",
}
_UTC = "to_timestamp(received_at_ms / 1000) AT TIME ZONE 'UTC'"
_POSTGRES_GROUPS = {
    Dimension.DAY: f"to_char({_UTC}, 'YYYY-MM-DD')",
    Dimension.MONTH: f"to_char({_UTC}, 'YYYY-MM')",
}
"""Where PostgreSQL says it otherwise."""

_INPUT = "(uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd + cache_write_1h_nanousd)"
_COST = f"({_INPUT} + output_nanousd + server_tools_nanousd)"

_SUMS = {
    # What was presumed of a call is an entry, and so is its taking back (`core/presumed.py`): together they
    # are no call beside that of its own entry, and alone the presumed is all that is known of one.
    "requests": "SUM(CASE WHEN basis = 'presumed' AND id = reservation_id || ':corrected' "
    "THEN -1 ELSE 1 END)",
    "refused": "COUNT(*) FILTER (WHERE state = 'refused')",
    "failed": "COUNT(*) FILTER "
    "(WHERE state IN ('failed', 'cut_by_client', 'cut_by_upstream', 'cut_by_gateway'))",
    "guessed_nanousd": f"SUM({_COST}) FILTER (WHERE basis IN ('partial', 'estimated', 'presumed'))",
    "fallback_nanousd": f"SUM({_COST} * price_fallback)",
    "shadow_paid_nanousd": f"SUM({_INPUT}) FILTER (WHERE shadow_nanousd IS NOT NULL)",
}

CAUSES_SINCE = 2
_SINCE: dict[By | str, int] = dict.fromkeys(
    (Dimension.COHORT, "miss_nanousd", "held_saved_nanousd", "shadow_nanousd", "shadow_paid_nanousd"),
    CAUSES_SINCE,
)
"""The schema from which on there are such columns."""

_BETWEEN = "WHERE received_at_ms >= ? AND received_at_ms < ?"


def read_totals(source: LedgerSource, by: Sequence[By], *, start_ms: int, end_ms: int) -> tuple[Total, ...]:
    """Totals of the entries received from `start_ms` up to but not including `end_ms`, by group.

    Raises `ConfigError` where the ledger is missing, is none, or cannot be reached.
    """
    with reading(source) as ledger:
        groups = _groups(by, ledger)
        # As BIGINT, which is an integer to SQLite too: PostgreSQL's sums are of a type of their own.
        sums = [f"CAST(COALESCE({_sum(name, ledger)}, 0) AS BIGINT)" for name in SUMMED]
        rows = list(
            ledger.rows(
                f"SELECT {', '.join([*groups, *sums])} FROM entries {_BETWEEN} {_grouped(groups)}",  # noqa: S608
                (start_ms, end_ms),
            )
        )
    return tuple(
        Total(group=tuple(row[: len(by)]), **dict(zip(SUMMED, row[len(by) :], strict=True)))
        for row in rows
        if any(row[len(by) :])  # without groups there is a row even where nothing was found
    )


def read_losses(source: LedgerSource, by: Sequence[By], *, start_ms: int, end_ms: int) -> tuple[Loss, ...]:
    """What misses cost in the same span of time, by group and cause. Raises as `read_totals`."""
    with reading(source) as ledger:
        if ledger.version < CAUSES_SINCE:
            return ()
        groups = [*_groups(by, ledger), "miss_cause"]
        among = f"FROM entries {_BETWEEN} AND miss_cause IS NOT NULL"
        sums = (
            "COUNT(*), CAST(SUM(miss_tokens) AS BIGINT), CAST(SUM(miss_nanousd) AS BIGINT), "
            "MIN(received_at_ms), MAX(received_at_ms)"
        )
        rows = list(
            ledger.rows(f"SELECT {', '.join(groups)}, {sums} {among} {_grouped(groups)}", (start_ms, end_ms))
        )
        ranked = (
            f"SELECT {', '.join(f'{group} AS g{n}' for n, group in enumerate(groups))}, miss_nanousd, "
            f"miss_detail, ROW_NUMBER() OVER (PARTITION BY {', '.join(groups)} "
            f"ORDER BY miss_nanousd DESC, received_at_ms, id) AS place {among}"
        )
        dearest = {
            tuple(row[: len(groups)]): (row[-2] or "", row[-3])
            for row in ledger.rows(
                f"SELECT * FROM ({ranked}) AS ranked WHERE place = 1",  # noqa: S608
                (start_ms, end_ms),
            )
        }
    return tuple(
        Loss(
            group=tuple(row[: len(by)]),
            cause=row[len(by)],
            calls=row[-5],
            tokens=row[-4],
            nanousd=row[-3],
            first_ms=row[-2],
            last_ms=row[-1],
            detail=dearest[tuple(row[: len(groups)])][0],
            detail_nanousd=dearest[tuple(row[: len(groups)])][1],
        )
        for row in rows
    )


def read_charges(sources: Sequence[LedgerSource], *, start_ms: int, end_ms: int) -> Iterator[Charge]:
    """What the same span of time cost, in the order of `Charge.key`; ledgers are added up as they are read,
    so that memory does not grow with their number of entries. Raises as `read_totals`, while it is read."""
    with ExitStack() as opened:
        ledgers = [opened.enter_context(reading(source)) for source in sources]
        parts = [_charges(ledger, start_ms, end_ms) for ledger in ledgers]
        for _, same in groupby(heapq.merge(*parts, key=_key), key=_key):
            yield _together(list(same))


_CHARGED_BY = (
    "COALESCE(organisation, '-')",
    "COALESCE(workspace, '-')",
    "COALESCE(model, '-')",
    "COALESCE(service_tier, 'standard')",
    "COALESCE(inference_geo, '-')",
    "price_id",
    "CASE WHEN basis IN ('partial', 'estimated', 'presumed') THEN 1 ELSE 0 END",
    "price_fallback",
    "tags",
)


def _charges(ledger: Reading, start_ms: int, end_ms: int) -> Iterator[Charge]:
    groups = [_group(Dimension.DAY, ledger), *_CHARGED_BY]
    columns = [column for kind in KINDS for column in (kind.column, kind.cost)]
    sums = [f"CAST(SUM({column}) AS BIGINT)" for column in columns]
    order = ", ".join(str(n + 1) for n in range(len(groups)))
    rows = ledger.rows(
        f"SELECT {', '.join([*groups, *sums])} FROM entries {_BETWEEN} AND ({_COST} <> 0 OR {_USED} > 0) "  # noqa: S608
        f"GROUP BY {order} ORDER BY {order}",
        (start_ms, end_ms),
    )
    for (
        day,
        organisation,
        workspace,
        model,
        tier,
        geography,
        price_id,
        guessed,
        fallback,
        tags,
        *used,
    ) in rows:
        yield Charge(
            day=day,
            organisation=organisation,
            workspace=workspace,
            model=model,
            tier=tier,
            geography=geography,
            price_id=price_id,
            guessed=bool(guessed),
            fallback=bool(fallback),
            tags=tags,
            amounts=tuple(zip(used[::2], used[1::2], strict=True)),
        )


_USED = f"({' + '.join(kind.column for kind in KINDS)})"


def _key(charge: Charge) -> tuple[str | bool, ...]:
    return charge.key


def _together(same: Sequence[Charge]) -> Charge:
    if len(same) == 1:
        return same[0]
    pairs = zip(*(charge.amounts for charge in same), strict=True)
    return replace(
        same[0],
        amounts=tuple((sum(q for q, _ in kind), sum(cost for _, cost in kind)) for kind in pairs),
    )


def _groups(by: Sequence[By], ledger: Reading) -> list[str]:
    return [_group(one, ledger) for one in by]


def _group(by: By, ledger: Reading) -> str:
    if isinstance(by, Tag):  # whose name holds nothing that SQL or a path in JSON would take for its own
        value = f"CAST(tags AS json) ->> '{by.name}'" if ledger.postgres else _json_value(by.name)
        return f"COALESCE(NULLIF({value}, ''), '-')"
    if ledger.version < _SINCE.get(by, 0):
        return "'-'"
    return _POSTGRES_GROUPS.get(by, _GROUPS[by]) if ledger.postgres else _GROUPS[by]


def _json_value(name: str) -> str:
    return f"json_extract(tags, '$.\"{name}\"')"


def _sum(name: str, ledger: Reading) -> str:
    return "0" if ledger.version < _SINCE.get(name, 0) else _SUMS.get(name, f"SUM({name})")


def _grouped(groups: Sequence[str]) -> str:
    """By number: a group may be a constant, which GROUP BY would take for a column's number or name."""
    return f"GROUP BY {', '.join(str(n + 1) for n in range(len(groups)))}" if groups else ""
