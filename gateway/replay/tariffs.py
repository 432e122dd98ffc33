"""What tokens cost in a replay: by the simulator's price table where the trace names a model that it knows,
else in token equivalents (1 = one uncached input token) by the factors that came with the trace.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from gateway.replay.request import Request
from gateway.sim.bill import Rate, rate_for

MILLION = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Tariff:
    """Factors of one uncached input token, and what that one costs in dollars, where it is known. `Tariffs`
    makes one object of each."""

    model: str
    read: Fraction
    write_5m: Fraction
    write_1h: Fraction
    input_usd: Fraction | None = None
    output_usd: Fraction = Fraction(0)


@dataclass(slots=True)
class Tally:
    """Tokens by what they are billed as."""

    uncached: int = 0
    read: int = 0
    write_5m: int = 0
    write_1h: int = 0

    @property
    def prompt(self) -> int:
        return self.uncached + self.read + self.write_5m + self.write_1h

    def add(self, uncached: int, read: int, write_5m: int, write_1h: int) -> None:
        self.uncached += uncached
        self.read += read
        self.write_5m += write_5m
        self.write_1h += write_1h

    def cost(self, tariff: Tariff) -> Fraction:
        """In token equivalents, exactly."""
        return (
            self.uncached
            + self.read * tariff.read
            + self.write_5m * tariff.write_5m
            + self.write_1h * tariff.write_1h
        )


@dataclass(frozen=True, slots=True)
class Cost:
    """A sum over models. Token equivalents of different models are different money: where every model's
    price is known compare `usd`."""

    tokens: float
    usd: float | None


class Bill:
    """What one contestant pays, by tariff."""

    def __init__(self) -> None:
        self.tallies: dict[Tariff, Tally] = {}

    def of(self, tariff: Tariff) -> Tally:
        found = self.tallies.get(tariff)
        if found is None:
            found = self.tallies[tariff] = Tally()
        return found

    @property
    def total(self) -> Tally:
        total = Tally()
        for tally in self.tallies.values():
            total.add(tally.uncached, tally.read, tally.write_5m, tally.write_1h)
        return total

    @property
    def cost(self) -> Cost:
        return add_up([(tariff, tally.cost(tariff)) for tariff, tally in self.tallies.items()])


def add_up(amounts: list[tuple[Tariff, Fraction]]) -> Cost:
    """Amounts in token equivalents of each tariff, as one cost."""
    tokens = float(sum(amount for _, amount in amounts))
    if not amounts or any(tariff.input_usd is None for tariff, _ in amounts):
        return Cost(tokens, None)
    return Cost(tokens, float(sum(amount * (tariff.input_usd or 0) for tariff, amount in amounts)))


class Tariffs:
    """Tariffs by model, day and size of the prompt."""

    def __init__(self) -> None:
        self._by_rate: dict[int, Tariff] = {}
        self._by_prices: dict[tuple[str, float, float, float], Tariff] = {}

    def of(self, request: Request, prompt_tokens: int) -> Tariff:
        try:
            rate = rate_for(request.model, request.at, prompt_tokens)
        except KeyError:
            return self._unpriced(request)
        found = self._by_rate.get(id(rate))
        if found is None:
            found = self._by_rate[id(rate)] = _tariff(request.model, rate)
        return found

    def _unpriced(self, request: Request) -> Tariff:
        prices = request.prices
        key = (request.model, prices.read, prices.write_5m, prices.write_1h)
        found = self._by_prices.get(key)
        if found is None:
            read, write_5m, write_1h = (Fraction(str(price)) for price in key[1:])
            found = self._by_prices[key] = Tariff(
                model=request.model, read=read, write_5m=write_5m, write_1h=write_1h
            )
        return found


def _tariff(model: str, rate: Rate) -> Tariff:
    unit = Fraction(rate.input)
    return Tariff(
        model=model,
        read=Fraction(rate.read) / unit,
        write_5m=Fraction(rate.write_5m) / unit,
        write_1h=Fraction(rate.write_1h) / unit,
        input_usd=unit / MILLION,
        output_usd=Fraction(rate.output) / MILLION,
    )
