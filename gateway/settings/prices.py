"""`prices.yaml`: what models cost and what is known of them, by date. For whoever reads the price page."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from fractions import Fraction
from math import inf
from typing import Annotated, Literal, Self

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema, model_validator

from gateway.core.models import ModelFacts, ModelNames, ModelTable
from gateway.core.pricing import PriceRow, PriceTable, Terms, exact_decimal, usd_per_million, usd_per_thousand
from gateway.settings.shared import Section

PRICE_PATTERN = r"^\$\d+(\.\d{1,6})?$"


def _read_price(value: object) -> str:
    text = value if isinstance(value, str) else ""
    if not text.startswith("$"):
        raise ValueError("not a price; write for example $0.20")
    usd_per_million(text[1:])
    return text


def _read_factor(value: object) -> Fraction:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise ValueError("not a factor; write for example 1.1")
    factor = exact_decimal(str(value))  # 1.1 is eleven tenths, not the nearest binary number
    if not 0 < factor <= 100:
        raise ValueError("a factor must be above 0 and at most 100")
    return factor


def _read_date(value: object) -> date:
    if isinstance(value, date):
        return value
    try:
        return date.fromisoformat(str(value))
    except ValueError:
        raise ValueError("not a date; write for example 2026-11-09") from None


Price = Annotated[
    str,
    BeforeValidator(_read_price),
    Field(pattern=PRICE_PATTERN),
    WithJsonSchema({"type": "string", "pattern": PRICE_PATTERN}),
]
"""US dollars, per million tokens unless said otherwise, as `$0.20`."""
Factor = Annotated[
    Fraction,
    BeforeValidator(_read_factor),
    PlainSerializer(float, return_type=float),
    WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": 100}),
]
"""A factor on prices, exactly as written."""
Day = Annotated[
    date,
    BeforeValidator(_read_date),
    PlainSerializer(date.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}),
]
"""A day, which begins at midnight UTC."""


class TermsSettings(Section):
    """What holds for all models from a day on, until later terms."""

    from_day: Annotated[Day, Field(alias="from")]
    """First day it holds."""
    batch: Factor
    """On every kind of token of a batch."""
    inference_geo: dict[str, Factor] = Field(default_factory=dict)
    """On every kind of token, by where the answer says that it was computed; elsewhere 1."""
    unlisted_fast: Factor
    """On the standard price, where a model ran in fast mode and no price of that is listed."""
    web_search_per_thousand: Price
    billed_refusals: frozenset[str] = frozenset()
    """Categories of refusals that are billed even before any output."""
    source: str


class PriceSettings(Section):
    """One price list of one model, or one band of it."""

    from_day: Annotated[Day | None, Field(alias="from")] = None
    """First day; without it, since ever. It holds until a later one of the same speed."""
    until: Day | None = None
    """First day on which it holds no longer."""
    speed: Literal["standard", "fast"] = "standard"
    up_to_prompt_tokens: Annotated[int, Field(ge=1)] | None = None
    """Largest whole prompt (uncached, read and written) of this band, inclusive. One band must be open."""
    input: Price
    output: Price
    cache_write_5m: Price
    cache_write_1h: Price
    cache_read: Price
    assumed: tuple[Literal["input", "output", "cache_write_5m", "cache_write_1h", "cache_read"], ...] = ()
    """Prices that no official page was seen to state."""
    source: str

    def row(self, model: str, by_geography: bool) -> PriceRow:
        band = "" if self.up_to_prompt_tokens is None else f" up to {self.up_to_prompt_tokens}"
        speed = "" if self.speed == "standard" else f" {self.speed}"
        return PriceRow(
            id=f"{model}{speed} from {self.from_day or 'ever'}{band}",
            model=model,
            input=_per_token(self.input),
            output=_per_token(self.output),
            cache_write_5m=_per_token(self.cache_write_5m),
            cache_write_1h=_per_token(self.cache_write_1h),
            cache_read=_per_token(self.cache_read),
            from_at=-inf if self.from_day is None else _midnight(self.from_day),
            until_at=inf if self.until is None else _midnight(self.until),
            speed=self.speed,
            up_to_prompt_tokens=self.up_to_prompt_tokens,
            by_geography=by_geography,
        )


class FactSettings(Section):
    """What is known of a model apart from its price."""

    tokenizer: str
    """One of `tokenizers`."""
    minimum_cacheable_tokens: Annotated[int, Field(ge=0)]
    """Shorter prefixes are not cached, and nobody says so."""
    context_tokens: Annotated[int, Field(ge=1)] = 1_000_000
    max_output_tokens: Annotated[int, Field(ge=1)] = 128_000
    output_tokens_per_second: Annotated[float, Field(gt=0, le=100_000)] = 100.0
    """What a call is presumed to have written in each second that it ran, where it was cut and more may have
    been written than was seen. The API states no speed, so this is assumed: more of it books such calls
    higher, less lets them get past limits."""
    assumed: tuple[
        Literal[
            "tokenizer",
            "minimum_cacheable_tokens",
            "context_tokens",
            "max_output_tokens",
            "output_tokens_per_second",
        ],
        ...,
    ] = ()
    """Facts that no official page was seen to state."""

    def facts(self, model: str, bytes_per_token: float, known: bool) -> ModelFacts:
        return ModelFacts(
            id=model,
            minimum_cacheable_tokens=self.minimum_cacheable_tokens,
            bytes_per_token=bytes_per_token,
            context_tokens=self.context_tokens,
            max_output_tokens=self.max_output_tokens,
            output_tokens_per_second=self.output_tokens_per_second,
            known=known,
        )


class ModelSettings(FactSettings):
    """A model: its names, facts and prices."""

    aliases: tuple[str, ...] = ()
    """Other names, or globs. Snapshot dates and the spellings of clouds are understood without."""
    priced_by_inference_geo: bool = True
    prices: Annotated[tuple[PriceSettings, ...], Field(min_length=1)]


class UnknownModel(FactSettings):
    """What holds for a model that is not listed. What is billed by it is counted."""

    input: Price
    output: Price
    cache_write_5m: Price
    cache_write_1h: Price
    cache_read: Price


class PricesFile(Section):
    """The whole of `prices.yaml`."""

    as_of: Day
    """When somebody last compared it with the price page."""
    terms: Annotated[tuple[TermsSettings, ...], Field(min_length=1)]
    tokenizers: dict[str, Annotated[float, Field(gt=0, le=16)]]
    """Typical bytes of English and JSON per token, by family."""
    unknown_model: UnknownModel
    models: dict[str, ModelSettings]

    @model_validator(mode="after")
    def _is_consistent(self) -> Self:
        facts: Iterator[FactSettings] = iter((self.unknown_model, *self.models.values()))
        for row in facts:
            if row.tokenizer not in self.tokenizers:
                raise ValueError(f"no tokenizer {row.tokenizer!r}; there are {', '.join(self.tokenizers)}")
        if len({terms.from_day for terms in self.terms}) < len(self.terms):
            raise ValueError("two terms begin on one day")
        to_tables(self)
        return self

    def price_table(self) -> PriceTable:
        unknown = self.unknown_model
        fallback = PriceRow(
            id="unknown_model",
            model="",
            input=_per_token(unknown.input),
            output=_per_token(unknown.output),
            cache_write_5m=_per_token(unknown.cache_write_5m),
            cache_write_1h=_per_token(unknown.cache_write_1h),
            cache_read=_per_token(unknown.cache_read),
        )
        rows = [
            price.row(model, settings.priced_by_inference_geo)
            for model, settings in self.models.items()
            for price in settings.prices
        ]
        terms = [
            Terms(
                from_at=_midnight(terms.from_day),
                batch_factor=terms.batch,
                geography_factors=terms.inference_geo,
                unlisted_fast_factor=terms.unlisted_fast,
                web_search=usd_per_thousand(terms.web_search_per_thousand[1:]),
                billed_refusals=terms.billed_refusals,
            )
            for terms in self.terms
        ]
        return PriceTable(rows, terms=terms, fallback=fallback, names=self._names())

    def model_table(self) -> ModelTable:
        facts = [
            model.facts(name, self.tokenizers[model.tokenizer], True) for name, model in self.models.items()
        ]
        unknown = self.unknown_model
        fallback = unknown.facts("unknown", self.tokenizers[unknown.tokenizer], False)
        return ModelTable(facts, fallback=fallback, names=self._names())

    def _names(self) -> ModelNames:
        return ModelNames({name: model.aliases for name, model in self.models.items()})


def to_tables(file: PricesFile) -> tuple[PriceTable, ModelTable]:
    """Both tables of one file. Raises `ValueError` where rows contradict each other."""
    return file.price_table(), file.model_table()


def _per_token(price: str) -> Fraction:
    return usd_per_million(price[1:])


def _midnight(day: date) -> float:
    return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()
