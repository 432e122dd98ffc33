"""The tables of the screen about spend; each can be had as CSV."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.focus import KINDS
from gateway.core.ledger import SAVED_MEANS, Dimension, Total
from gateway.core.periods import DAY_MS
from gateway.core.variance import PARTS, Variance
from gateway.web.page import showing
from gateway.web.page.asking import (
    whole,
)
from gateway.web.page.spend_found import KIND, OTHERS, Found, ratio, stacks_of
from gateway.web.page.spend_view import NOTABLE_RISE, href_of, signed
from gateway.web.page.tables import Cell, Column, Table, link, money, number, share, text

NEXT = {"workspace": "key", "key": "model", "model": "workspace"}
"""What a row's link splits by, once it is all that is looked at."""


def spend_tables(found: Found) -> list[Table]:
    main = _kinds_table(found) if found.asked.by == KIND else _split_table(found)
    if found.asked.by == "day":
        main = _steps_table(found, name="table", caption=f"Spend by {step_word(found)}")
        return [main]
    return [main, _steps_table(found, name="days", caption=f"Values of the chart, by {step_word(found)}")]


def step_word(found: Found) -> str:
    return "day" if found.asked.span.step_ms == DAY_MS else "hour"


def _split_table(found: Found) -> Table:
    asked, all_of_it = found.asked, found.total.cost_nanousd
    why = {one.name: one for one in found.variances}
    rows: list[Sequence[Cell | str | int]] = []
    sums: dict[str, Total] = {
        name: whole([total for total in found.now if total.group[0] == name])
        for name in {total.group[0] for total in found.now}
    }
    budgets = bool(found.budgets)
    for name in sorted(why, key=lambda name: -why[name].after_nanousd):
        total, one = sums.get(name, Total()), why[name]
        rise = ratio(one.difference_nanousd, one.before_nanousd)
        row: list[Cell | str | int] = [
            _name_cell(found, name),
            money(total.cost_nanousd),
            share(ratio(total.cost_nanousd, all_of_it)),
            money(one.before_nanousd),
            Cell(
                text=signed(one.difference_nanousd),
                value=one.difference_nanousd,
                exported=money(one.difference_nanousd).exported,
                tone="bad" if rise is not None and rise > NOTABLE_RISE else "",
                note="" if rise is None else f"{rise:+.0%}".replace("-", "−"),
            ),
            Cell(text=_parts(one), value=one.sentence),
            share(total.cache_read_ratio),
            money(total.saved_nanousd),
            number(total.requests),
        ]
        if budgets:
            row.insert(2, _budget_cell(total.cost_nanousd, found.budgets.get(name)))
        rows.append(row)
    columns = [
        Column(asked.by, asked.by.capitalize()),
        Column("cost_usd", "Spent", number=True),
        Column("share", "Share", number=True),
        Column("before_usd", "Before", number=True, help=f"In {asked.span.before_words}."),
        Column("difference_usd", "Difference", number=True),
        Column("why", "Mostly because of", sortable=False, help="The sentence in full is in the CSV."),
        Column("cache_read_ratio", "Read", number=True, help="Share of the prompt tokens read from caches."),
        Column("saved_usd", "Saved", number=True, help=SAVED_MEANS),
        Column("requests", "Calls", number=True),
    ]
    if budgets:
        columns.insert(2, Column("budget_usd", "Of budget", help="The month's budget, grants included."))
    return Table(
        caption=f"Spend by {asked.by}", columns=columns, rows=rows, empty="Nothing was spent in this period."
    )


def _name_cell(found: Found, name: str) -> Cell:
    asked = found.asked
    shown = found.key_names.get(name, name) if asked.by == "key" else name
    following = NEXT.get(asked.by)
    if following is None:
        return text(shown)
    if Dimension(following) in asked.only:
        following = "day"
    href = href_of(asked, **{asked.by: name, "by": following})
    return link(shown, href, note=name if shown != name else "")


def _budget_cell(spent: int, budget: int | None) -> Cell:
    if not budget:
        return Cell(text=showing.NOTHING, value=-1.0, exported="")
    used = spent / budget
    tone = "bad" if used >= 1 else "warn" if used >= 0.8 else ""
    return Cell(
        text=f"{showing.percent(used)} of {showing.usd(budget)}",
        value=used,
        exported=money(budget).exported,
        tone=tone,
        share=used,
    )


def _kinds_table(found: Found) -> Table:
    now, before = found.total, whole(found.before)
    rows: list[Sequence[Cell | str | int]] = []
    for kind in KINDS:
        cost, then = getattr(now, kind.cost), getattr(before, kind.cost)
        quantity = getattr(now, kind.column)
        if not (cost or then or quantity):
            continue
        rows.append(
            [
                text(kind.name.replace("_", " ")),
                money(cost),
                share(ratio(cost, now.cost_nanousd)),
                number(quantity),
                money(round(cost * kind.priced_by / quantity) if quantity else None),
                money(then),
                Cell(text=signed(cost - then), value=cost - then, exported=money(cost - then).exported),
            ]
        )
    return Table(
        caption="Spend by kind",
        columns=[
            Column(KIND, "Kind"),
            Column("cost_usd", "Spent", number=True),
            Column("share", "Share", number=True),
            Column("quantity", "Tokens or searches", number=True),
            Column("unit_usd", "Per million tokens", number=True, help="Of searches: per thousand."),
            Column("before_usd", "Before", number=True, help=f"In {found.asked.span.before_words}."),
            Column("difference_usd", "Difference", number=True),
        ],
        rows=rows,
        empty="Nothing was spent in this period.",
    )


def _steps_table(found: Found, *, name: str, caption: str) -> Table:
    """One row for each bar of the chart, one column for each colour."""
    stacks = stacks_of(found)
    split = len(stacks) > 1
    rows: list[Sequence[Cell | str | int]] = []
    for n, (at, totals) in enumerate(found.steps):
        total = whole(totals)
        parts = [money(values[n]) for _, values in stacks] if split else []
        rows.append(
            [
                text(found.asked.span.step_name(at)),
                money(total.cost_nanousd),
                *parts,
                share(total.cache_read_ratio),
                number(total.requests),
            ]
        )
    return Table(
        name=name,
        caption=caption,
        columns=[
            Column(step_word(found), f"{step_word(found).capitalize()} (UTC)"),
            Column("cost_usd", "Spent", number=True),
            *(
                Column(f"part_{n}" if part == OTHERS else part, found.key_names.get(part, part), number=True)
                for n, (part, _) in enumerate(stacks)
                if split
            ),
            Column("cache_read_ratio", "Read", number=True),
            Column("requests", "Calls", number=True),
        ],
        rows=rows,
        sort=f"-{step_word(found)}" if name == "table" else "",
        empty="Nothing was spent in this period.",
    )


def _parts(one: Variance) -> str:
    """The two greatest parts of a difference."""
    if not one.before_nanousd:
        return "new"
    ranked = sorted(zip(PARTS, one.parts, strict=True), key=lambda part: -abs(part[1]))
    told = [f"{part} {signed(amount)}" for part, amount in ranked[:2] if abs(amount) >= 5_000_000]
    return ", ".join(told) or "no change"
