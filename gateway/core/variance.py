"""Why one period cost more than another: the difference split into volume, mix, cache and price. Pure.

With q for tokens, c for cost, p = c / q, and m a model, s its side (prompt or output), k the kind of tokens
on that side (uncached, read, written for 5 minutes or an hour), "0" before and "1" after:

    E0 = c0                                  as it was
    E1 = c0 * q1 / q0                        so many tokens as now, all else as it was
    E2 = sum over m, s of q1(m,s) * p0(m,s)  and as they are now spread over models, and prompt and output
    E3 = sum over m, s, k of q1(m,s,k) * p0(m,s,k)   and the prompt as it is now spread over kinds
    E4 = c1                                  and at the prices of now

    volume = E1 - E0, mix = E2 - E1, cache = E3 - E2, price = E4 - E3

Each of E1 to E3 is rounded to the nano-dollar, so the four sum to c1 - c0 exactly. What was not there before
has no price of then, and is taken at that of now: a model that is new is mix, a kind that is new is cache,
and a workspace that is new, volume. Web searches have a volume and a price of their own.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from gateway.core.ledger import Total, dollars

PARTS = ("volume", "mix", "cache", "price")


class Cell(NamedTuple):
    """Tokens and cost of one kind on one side of one model."""

    tokens: int
    nanousd: int


Cells = Mapping[tuple[str, str, str], Cell]
"""By model, side and kind."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Variance:
    """Nano-dollars, exact: `volume + mix + cache + price == after - before`."""

    name: str
    before_nanousd: int
    after_nanousd: int
    before_tokens: int
    after_tokens: int
    volume_nanousd: int
    """More or fewer tokens, and web searches."""
    mix_nanousd: int
    """Dearer or cheaper models, and more or less output beside the prompt."""
    cache_nanousd: int
    """More or less of the prompt read from a cache or written to one."""
    price_nanousd: int
    """Other prices of the same tokens: of the price table, of batches, of geographies."""

    @property
    def difference_nanousd(self) -> int:
        return self.after_nanousd - self.before_nanousd

    @property
    def parts(self) -> tuple[int, int, int, int]:
        """In the order of `PARTS`."""
        return self.volume_nanousd, self.mix_nanousd, self.cache_nanousd, self.price_nanousd

    @property
    def sentence(self) -> str:
        """As "search cost $4.00 more ($10.00 to $14.00): $5.00 more by volume (more tokens), ..."."""
        return _sentence(self)


def variances(before: Iterable[Total], after: Iterable[Total]) -> tuple[Variance, ...]:
    """One for each first value of the groups, the greatest difference first. Groups are of a name and a
    model; totals of several ledgers need not have been added up."""
    cells_before, cells_after = _cells(before), _cells(after)
    searches_before, searches_after = cells_before.searches, cells_after.searches
    found = [
        split(
            name,
            cells_before.tokens[name],
            cells_after.tokens[name],
            searches_before[name],
            searches_after[name],
        )
        for name in sorted(cells_before.tokens.keys() | cells_after.tokens.keys())
    ]
    return tuple(sorted(found, key=lambda one: (-abs(one.difference_nanousd), one.name)))


def add_up_variances(parts: Iterable[Variance], name: str) -> Variance:
    """The whole: each part is the sum of that part."""
    parts = list(parts)
    return Variance(
        name=name,
        before_nanousd=sum(part.before_nanousd for part in parts),
        after_nanousd=sum(part.after_nanousd for part in parts),
        before_tokens=sum(part.before_tokens for part in parts),
        after_tokens=sum(part.after_tokens for part in parts),
        volume_nanousd=sum(part.volume_nanousd for part in parts),
        mix_nanousd=sum(part.mix_nanousd for part in parts),
        cache_nanousd=sum(part.cache_nanousd for part in parts),
        price_nanousd=sum(part.price_nanousd for part in parts),
    )


_NONE = Cell(0, 0)


def split(
    name: str, before: Cells, after: Cells, searches_before: Cell = _NONE, searches_after: Cell = _NONE
) -> Variance:
    """The difference of one workspace, by the formula above."""
    c0, c1 = (sum(cell.nanousd for cell in cells.values()) for cells in (before, after))
    q0, q1 = (sum(cell.tokens for cell in cells.values()) for cells in (before, after))
    e1, e2, e3 = _steps(before, after, c0, q0, c1, q1)
    searched = _at_price_before(searches_before, searches_after)
    return Variance(
        name=name,
        before_nanousd=c0 + searches_before.nanousd,
        after_nanousd=c1 + searches_after.nanousd,
        before_tokens=q0,
        after_tokens=q1,
        volume_nanousd=e1 - c0 + searched - searches_before.nanousd,
        mix_nanousd=e2 - e1,
        cache_nanousd=e3 - e2,
        price_nanousd=c1 - e3 + searches_after.nanousd - searched,
    )


def _steps(before: Cells, after: Cells, c0: int, q0: int, c1: int, q1: int) -> tuple[int, int, int]:
    """E1, E2 and E3."""
    if not q0:
        return c1, c1, c1
    sides_before, sides_after = _by_side(before), _by_side(after)
    e2 = e3 = Fraction(0)
    for (model, side, kind), cell in after.items():
        whole = sides_before.get((model, side), _NONE)
        if not whole.tokens:
            e3 += cell.nanousd
        else:
            e3 += _at(before.get((model, side, kind), _NONE), cell)
    for key, cell in sides_after.items():
        e2 += _at(sides_before.get(key, _NONE), cell)
    return round(Fraction(c0 * q1, q0)), round(e2), round(e3)


def _at(before: Cell, now: Cell) -> Fraction:
    """The tokens of now at the price of then; as they are where there was none."""
    return Fraction(now.tokens * before.nanousd, before.tokens) if before.tokens else Fraction(now.nanousd)


def _at_price_before(before: Cell, now: Cell) -> int:
    return round(_at(before, now))


def _by_side(cells: Cells) -> dict[tuple[str, str], Cell]:
    sums: dict[tuple[str, str], Cell] = defaultdict(lambda: _NONE)
    for (model, side, _), cell in cells.items():
        sums[model, side] = _plus(sums[model, side], cell)
    return dict(sums)


def _plus(one: Cell, other: Cell) -> Cell:
    return Cell(one.tokens + other.tokens, one.nanousd + other.nanousd)


class _Found(NamedTuple):
    tokens: dict[str, dict[tuple[str, str, str], Cell]]
    searches: dict[str, Cell]


_KINDS = {
    "uncached_input": "prompt",
    "cache_read": "prompt",
    "cache_write_5m": "prompt",
    "cache_write_1h": "prompt",
    "output": "output",
}


def _cells(totals: Iterable[Total]) -> _Found:
    found = _Found(defaultdict(dict), defaultdict(lambda: _NONE))
    for total in totals:
        name, model = total.group
        cells = found.tokens[name]
        for kind, side in _KINDS.items():
            cell = Cell(getattr(total, f"{kind}_tokens"), getattr(total, f"{kind}_nanousd"))
            cells[model, side, kind] = _plus(cells.get((model, side, kind), _NONE), cell)
        searched = Cell(total.web_search_requests, total.server_tools_nanousd)
        found.searches[name] = _plus(found.searches[name], searched)
    return found


_WHY = {
    "volume": ("more tokens", "fewer tokens"),
    "mix": ("dearer models or more output", "cheaper models or less output"),
    "cache": ("less of the prompts read from caches", "more of the prompts read from caches"),
    "price": ("higher prices", "lower prices"),
}


def _sentence(variance: Variance) -> str:
    difference = variance.difference_nanousd
    spans = f"(${dollars(variance.before_nanousd, 2)} to ${dollars(variance.after_nanousd, 2)})"
    if not difference:
        return f"{variance.name} cost as much as before {spans}."
    said = (
        f"{variance.name} cost ${dollars(abs(difference), 2)} {'more' if difference > 0 else 'less'} {spans}"
    )
    if not variance.before_nanousd:
        return f"{said}: it cost nothing before."
    if not variance.after_nanousd:
        return f"{said}: it cost nothing after."
    ranked = sorted(zip(PARTS, variance.parts, strict=True), key=lambda part: -abs(part[1]))
    reasons = [
        f"${dollars(abs(amount), 2)} {'more' if amount > 0 else 'less'} by {part} ({_WHY[part][amount < 0]})"
        for part, amount in ranked
        if amount
    ]
    return f"{said}: {', '.join(reasons[:2])}{', and the rest' if len(reasons) > 2 else ''}."
