"""The price of usage, exactly: dated rows, bands, speed, geography, batch, server tools.

Money is an integer number of nano-dollars, rounded up once per request; rates are exact rationals. Which
prices there are is configuration (`config/prices.yaml`); what was used is `usage.py`'s; what may be used is
`estimate.py`'s.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from math import inf, lcm
from typing import NamedTuple

import msgspec

from gateway.core.models import ModelNames
from gateway.core.usage import Report, Usage

STANDARD = "standard"
FAST = "fast"
MAX_REMEMBERED_PRICES = 4096
_DECIMAL = re.compile(r"\d{1,18}(\.\d{1,18})?", re.ASCII)


# A msgspec.Struct, since it is made for each call: a frozen dataclass takes ten times as long to make.
class Cost(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Nano-dollars by kind. `total` is rounded up once; the kinds share it so that they sum to it.

    Where a kind's exact price is a fraction, the nano-dollars that rounding leaves over go to the kinds with
    the largest fractions.
    """

    uncached_input_nanousd: int = 0
    cache_read_nanousd: int = 0
    cache_write_5m_nanousd: int = 0
    cache_write_1h_nanousd: int = 0
    output_nanousd: int = 0
    server_tools_nanousd: int = 0
    counterfactual_nanousd: int = 0
    """What the same request had cost had nothing been written to or read from a cache."""
    price_id: str = ""
    """Which row of the table priced it; of several iterations, the first."""
    fallback: bool = False
    """True where no row knew the model that upstream named or its speed, or the last row had ended: a stated
    fallback price, or the nearest one, was used."""

    @property
    def total_nanousd(self) -> int:
        return (
            self.uncached_input_nanousd
            + self.cache_read_nanousd
            + self.cache_write_5m_nanousd
            + self.cache_write_1h_nanousd
            + self.output_nanousd
            + self.server_tools_nanousd
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceRow:
    """One price list of one model: nano-dollars per token, in force from `from_at` (epoch seconds, UTC) until
    `until_at` (exclusive) or until a later row takes over.

    Rows of one model, speed and `from_at` are its bands: the one with the least `up_to_prompt_tokens` that
    holds the whole prompt (inclusive) prices all kinds of tokens; one row must be open (None).
    """

    id: str
    model: str
    input: Fraction
    output: Fraction
    cache_write_5m: Fraction
    cache_write_1h: Fraction
    cache_read: Fraction
    from_at: float = -inf
    until_at: float = inf
    speed: str = STANDARD
    up_to_prompt_tokens: int | None = None
    by_geography: bool = True
    """False for models whose price does not depend on where they run (before Claude 4.6)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for all models from a date on, until later terms take over."""

    from_at: float = -inf
    batch_factor: Fraction = Fraction(1, 2)
    geography_factors: Mapping[str, Fraction] = field(default_factory=dict)
    """By the value of `inference_geo` in the usage; others are 1."""
    unlisted_fast_factor: Fraction = Fraction(2)
    """On the standard price, where a model ran fast and no row says what that costs. Counts as fallback."""
    web_search: Fraction = Fraction(0)
    """Nano-dollars each."""
    billed_refusals: frozenset[str] = frozenset()
    """Categories of refusals that are billed even where they come before any output."""


class Factors(NamedTuple):
    """Prices of cache reads and writes, where uncached input is 1."""

    read: float
    write_5m: float
    write_1h: float


class _Price(NamedTuple):
    """Whole numbers of the table's smallest unit, every factor applied."""

    from_at: float
    up_to: float
    input: int
    read: int
    write_5m: int
    write_1h: int
    output: int
    id: str
    fallback: bool


def usd_per_million(text: str) -> Fraction:
    """A list price, `"0.20"` dollars per million tokens, in nano-dollars per token. Raises `ValueError`."""
    return exact_decimal(text) * 1000


def usd_per_thousand(text: str) -> Fraction:
    """A price such as `"10"` dollars per thousand searches, in nano-dollars each. Raises `ValueError`."""
    return exact_decimal(text) * 1_000_000


def cents(text: str) -> Fraction:
    """An amount of the usage and cost reports, `"123.456"` US cents, in nano-dollars: prices are in dollars,
    reports in cents. Raises `ValueError`."""
    return exact_decimal(text) * 10_000_000


def exact_decimal(text: str) -> Fraction:
    """A number that is not negative, exactly as it is written. Raises `ValueError`."""
    if not _DECIMAL.fullmatch(text):
        raise ValueError(f"not a number such as 0.25: {text!r}")
    return Fraction(text)


class PriceTable:
    """Prices by model, date, band, speed, geography and tier. Immutable, but for what it remembers having
    worked out, which is bounded."""

    __slots__ = (
        "_dearest_places",
        "_fallback",
        "_names",
        "_remembered",
        "_rows",
        "_scale",
        "_searches",
        "_terms",
        "_terms_from",
    )

    def __init__(
        self, rows: Iterable[PriceRow], *, terms: Sequence[Terms], fallback: PriceRow, names: ModelNames
    ) -> None:
        """ValueError names rows that contradict each other."""
        self._names = names
        self._fallback = fallback
        self._terms = sorted(terms, key=lambda terms: terms.from_at) or [Terms()]
        self._terms_from = [terms.from_at for terms in self._terms]
        self._rows: dict[tuple[str, str], list[PriceRow]] = {}
        for row in rows:
            self._rows.setdefault((row.model, row.speed), []).append(row)
        for group in self._rows.values():
            _check_bands(group)
        self._scale = self._common_denominator()
        self._dearest_places = [_dearest(terms.geography_factors) for terms in self._terms]
        self._searches = [int(terms.web_search * self._scale) for terms in self._terms]
        self._remembered: dict[tuple[str | None, str, str, bool], tuple[_Price, ...]] = {}

    def cost(
        self,
        usage: Usage,
        *,
        model: str | None,
        at: float,
        batch: bool = False,
        report: Report | None = None,
    ) -> Cost:
        """What upstream bills for it, to the nano-dollar.

        Model, speed, geography and tier are those that upstream reported; `batch` says what is known from
        elsewhere. `model`, the one that was asked for, stands in where upstream named none, and where the
        table does not know the name that it gave the message; then the cost is marked as `fallback`. Where
        there are iterations each is priced by its own model and the totals above them are not billed; those
        of the message's own model are priced as it is, one of another unknown model at the stated fallback.
        The band is chosen per iteration (the docs are silent on it). Thinking is within the output.

        Refusals (release notes and refusal docs, 2026-09-24): where `report` ended in a refusal before any
        output, tokens are not billed, unless its category is among the billed ones of that date. Before any
        output means without a content block: usage shows tokens, of output too, for the free ones as well.
        """
        if report is not None and self._is_free_refusal(report, at):
            usage = Usage(web_search_requests=usage.web_search_requests)
        batch = batch or usage.service_tier == "batch"
        speed, geography = usage.speed or STANDARD, usage.inference_geo or ""
        reported = usage.model or (report.model if report is not None else None)
        named = reported or model
        by = named if self._knows(named) or not self._knows(model) else model
        uncached = read = write_5m = write_1h = output = bare = 0
        first: _Price | None = None
        fallback = by != named
        for part in usage.iterations or (usage,):
            prompt_tokens = part.prompt_tokens
            own = by if part.model in (None, named) else part.model
            price = self._price_of(own, speed, geography, batch, at, prompt_tokens)
            uncached += part.uncached_input_tokens * price.input
            read += part.cache_read_tokens * price.read
            write_5m += part.cache_write_5m_tokens * price.write_5m
            write_1h += part.cache_write_1h_tokens * price.write_1h
            output += part.output_tokens * price.output
            bare += prompt_tokens * price.input
            first = first or price
            fallback |= price.fallback
        searches = 0
        if usage.web_search_requests:
            searches = usage.web_search_requests * self._searches[self._terms_index(at)]
        kinds = self._round([uncached, read, write_5m, write_1h, output, searches])
        assert first is not None
        return Cost(
            uncached_input_nanousd=kinds[0],
            cache_read_nanousd=kinds[1],
            cache_write_5m_nanousd=kinds[2],
            cache_write_1h_nanousd=kinds[3],
            output_nanousd=kinds[4],
            server_tools_nanousd=kinds[5],
            counterfactual_nanousd=-(-(bare + output + searches) // self._scale),
            price_id=first.id,
            fallback=fallback,
        )

    def factors(self, model: str, *, at: float, prompt_tokens: int = 0, speed: str = STANDARD) -> Factors:
        """Prices of cache reads and writes against uncached input, for planning."""
        price = self._price_of(model, speed, "", False, at, prompt_tokens)
        unit = price.input or 1
        return Factors(price.read / unit, price.write_5m / unit, price.write_1h / unit)

    def input_nanousd(self, model: str, *, at: float) -> float:
        """The price of one uncached input token, for planning."""
        return self._price_of(model, STANDARD, "", False, at, 0).input / self._scale

    def places(self, at: float) -> Mapping[str, Fraction]:
        """The factors by `inference_geo` of that date; anywhere else the factor is 1."""
        return self._terms[self._terms_index(at)].geography_factors

    def dearest_place(self, at: float) -> str:
        """The `inference_geo` that costs most on that date; `global` where none costs more than that."""
        return self._dearest_places[self._terms_index(at)]

    def edges(self, model: str, *, at: float, speed: str = STANDARD) -> tuple[int, ...]:
        """The sizes of prompts above which the model has other prices, ascending; mostly none."""
        begun: float | None = None
        found = []
        for price in self._prices_of(model, speed, "", False):
            if at >= price.from_at and begun in (None, price.from_at):
                begun = price.from_at
                if price.up_to != inf:
                    found.append(int(price.up_to))
        return tuple(found)

    def _round(self, exact: list[int]) -> list[int]:
        """Whole nano-dollars that sum to the exact total rounded up: by largest remainder."""
        scale = self._scale
        whole = [amount // scale for amount in exact]
        left = -(-sum(exact) // scale) - sum(whole)
        if left:
            by_remainder = sorted(range(len(exact)), key=lambda kind: exact[kind] % scale, reverse=True)
            for kind in by_remainder[:left]:
                whole[kind] += 1
        return whole

    def _knows(self, model: str | None) -> bool:
        return model is not None and (self._names.resolve(model), STANDARD) in self._rows

    def _is_free_refusal(self, report: Report, at: float) -> bool:
        return (
            report.stop_reason == "refusal"
            and not report.has_content
            and report.refusal_category not in self._terms[self._terms_index(at)].billed_refusals
        )

    def _terms_index(self, at: float) -> int:
        return max(0, bisect_right(self._terms_from, at) - 1)

    def _price_of(
        self, model: str | None, speed: str, geography: str, batch: bool, at: float, prompt_tokens: int
    ) -> _Price:
        prices = self._prices_of(model, speed, geography, batch)
        for price in prices:
            if at >= price.from_at and prompt_tokens <= price.up_to:
                return price
        raise AssertionError("the last price holds since ever, for any size")

    def _prices_of(self, model: str | None, speed: str, geography: str, batch: bool) -> tuple[_Price, ...]:
        key = (model, speed, geography, batch)
        prices = self._remembered.get(key)
        if prices is None:
            if len(self._remembered) >= MAX_REMEMBERED_PRICES:  # some names are the clients': bounded
                self._remembered.clear()
            prices = self._remembered[key] = tuple(self._work_out(model, speed, geography, batch))
        return prices

    def _work_out(self, model: str | None, speed: str, geography: str, batch: bool) -> Iterable[_Price]:
        """All prices for a kind of request, latest first, bands ascending; the last holds since ever."""
        known = self._names.resolve(model) if model else None
        rows, listed = self._rows.get((known or "", speed)), True
        if rows is None:
            listed = speed == STANDARD
            rows = self._rows.get((known or "", STANDARD))
        if rows is None:
            rows, listed = [self._fallback], False
        edges = {-inf, *self._terms_from}
        for row in rows:
            edges |= {row.from_at, row.until_at}
        for edge in sorted(edges - {inf}, reverse=True):
            terms = self._terms[self._terms_index(edge)]
            in_force, covered = _in_force(rows, edge)
            for row in in_force:
                factor = terms.batch_factor if batch else Fraction(1)
                if row.by_geography:
                    factor *= terms.geography_factors.get(geography, 1)
                if speed == FAST and row.speed != FAST:
                    factor *= terms.unlisted_fast_factor
                yield self._scaled(row, factor, edge, not (listed and covered))

    def _scaled(self, row: PriceRow, factor: Fraction, from_at: float, fallback: bool) -> _Price:
        unit = factor * self._scale
        return _Price(
            from_at=from_at,
            up_to=inf if row.up_to_prompt_tokens is None else row.up_to_prompt_tokens,
            input=int(row.input * unit),
            read=int(row.cache_read * unit),
            write_5m=int(row.cache_write_5m * unit),
            write_1h=int(row.cache_write_1h * unit),
            output=int(row.output * unit),
            id=row.id,
            fallback=fallback,
        )

    def _common_denominator(self) -> int:
        """The least unit of a nano-dollar in which every rate, with every factor, is a whole number."""
        rates = lcm(
            *(
                rate.denominator
                for row in (*(row for rows in self._rows.values() for row in rows), self._fallback)
                for rate in (row.input, row.output, row.cache_write_5m, row.cache_write_1h, row.cache_read)
            )
        )
        batch = lcm(*(terms.batch_factor.denominator for terms in self._terms))
        fast = lcm(*(terms.unlisted_fast_factor.denominator for terms in self._terms))
        places = lcm(1, *(f.denominator for terms in self._terms for f in terms.geography_factors.values()))
        searches = lcm(*(terms.web_search.denominator for terms in self._terms))
        return lcm(rates * batch * fast * places, searches)


def _dearest(places: Mapping[str, Fraction]) -> str:
    dearest = max(places, key=places.__getitem__, default="global")
    return dearest if places.get(dearest, 0) > 1 else "global"


def _in_force(rows: Sequence[PriceRow], at: float) -> tuple[list[PriceRow], bool]:
    """The bands in force at an instant, ascending; before the first ones these, after the end of the last
    ones those, and then False."""
    first = min(row.from_at for row in rows)
    begun = [row for row in rows if row.from_at <= max(at, first)]
    current = [row for row in begun if at < row.until_at]
    covered = bool(current)
    current = current or begun
    latest = max(row.from_at for row in current)
    bands = [row for row in current if row.from_at == latest]
    return sorted(bands, key=lambda row: row.up_to_prompt_tokens or inf), covered


def _check_bands(rows: Sequence[PriceRow]) -> None:
    for from_at in {row.from_at for row in rows}:
        same = [row for row in rows if row.from_at == from_at]
        bounds = {row.up_to_prompt_tokens for row in same}
        if len(bounds) < len(same):
            raise ValueError(f"two prices for one band of one date: {', '.join(row.id for row in same)}")
        if None not in bounds:
            raise ValueError(
                f"no price for prompts above the highest band: {', '.join(row.id for row in same)}"
            )
        if len({row.until_at for row in same}) > 1:
            raise ValueError(f"bands of one date must end together: {', '.join(row.id for row in same)}")
