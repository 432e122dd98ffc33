"""Collectors that `prometheus.py` registers: sums of tokens and money, budgets, and values read at scrape.

They hold plain integers, so that adding is cheap and exact, and make metric families when asked. Adding is
for the event loop's thread alone; collecting may happen in another one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.adapters.prometheus_catalogue import (
    BUDGET_LIMITS,
    BUDGET_RESET,
    BUDGET_RUNS_OUT,
    BUDGET_USED,
    COST,
    OVERRUN,
    TOKENS,
    Spec,
)
from gateway.core.budget_reading import BudgetReading
from gateway.core.ledger import NANOUSD_PER_USD
from gateway.core.pricing import Cost
from gateway.core.usage import Usage


def family(spec: Spec) -> CounterMetricFamily | GaugeMetricFamily:
    """An empty family for a counter or a gauge."""
    make = CounterMetricFamily if spec.type == "counter" else GaugeMetricFamily
    return make(spec.name, spec.help, labels=spec.labels)


_TOKEN_KINDS = ("uncached_input", "cache_read", "cache_write_5m", "cache_write_1h", "output")
_COST_KINDS = (*_TOKEN_KINDS, "server_tools")
_COST_AT = len(_TOKEN_KINDS)
_OVERRUN_AT = _COST_AT + len(_COST_KINDS)


class Books(Collector):
    """Tokens and nano-dollars by workspace and model."""

    SPECS = (TOKENS, COST, OVERRUN)

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], list[int]] = {}

    def add(self, workspace: str, model: str, usage: Usage, cost: Cost | None, overrun_nanousd: int) -> None:
        row = self._rows.get((workspace, model))
        if row is None:
            row = self._rows[workspace, model] = [0] * (_OVERRUN_AT + 1)
        row[0] += usage.uncached_input_tokens
        row[1] += usage.cache_read_tokens
        row[2] += usage.cache_write_5m_tokens
        row[3] += usage.cache_write_1h_tokens
        row[4] += usage.output_tokens
        if cost is not None:
            row[5] += cost.uncached_input_nanousd
            row[6] += cost.cache_read_nanousd
            row[7] += cost.cache_write_5m_nanousd
            row[8] += cost.cache_write_1h_nanousd
            row[9] += cost.output_nanousd
            row[10] += cost.server_tools_nanousd
            row[_OVERRUN_AT] += overrun_nanousd

    def collect(self) -> Iterator[Metric]:
        tokens, cost, overrun = (family(spec) for spec in self.SPECS)
        for pair, row in list(self._rows.items()):
            for index, kind in enumerate(_TOKEN_KINDS):
                tokens.add_metric((*pair, kind), row[index])
            for index, kind in enumerate(_COST_KINDS, start=_COST_AT):
                cost.add_metric((*pair, kind), row[index] / NANOUSD_PER_USD)
            overrun.add_metric(pair, row[_OVERRUN_AT] / NANOUSD_PER_USD)
        return iter((tokens, cost, overrun))


class Budgets(Collector):
    """The last readings of all limits; a limit that is gone from the readings is gone from the page."""

    SPECS = (*BUDGET_LIMITS.values(), *BUDGET_USED.values(), BUDGET_RESET, BUDGET_RUNS_OUT)

    def __init__(self) -> None:
        self.readings: Sequence[BudgetReading] = ()

    def collect(self) -> Iterator[Metric]:
        families = {spec.name: family(spec) for spec in self.SPECS}
        for reading in self.readings:
            labels = (reading.limit, reading.workspace)
            divisor = NANOUSD_PER_USD if reading.unit == "nanousd" else 1
            families[BUDGET_LIMITS[reading.unit].name].add_metric(labels, reading.amount / divisor)
            families[BUDGET_USED[reading.unit].name].add_metric(labels, reading.used / divisor)
            if reading.reset_at is not None:
                families[BUDGET_RESET.name].add_metric(labels, reading.reset_at)
            if reading.runs_out_at is not None:
                families[BUDGET_RUNS_OUT.name].add_metric(labels, reading.runs_out_at)
        return iter(families.values())


class Pulled(Collector):
    """Values without labels that are read when the page is made; declared first, connected later."""

    def __init__(self, specs: Iterable[Spec]) -> None:
        self.specs = {spec.name: spec for spec in specs}
        self._reads: dict[str, Callable[[], float]] = {}

    def connect(self, name: str, read: Callable[[], float]) -> None:
        """Raises KeyError for an undeclared metric. Any thread may call `read`; it must not block."""
        self._reads[self.specs[name].name] = read

    def collect(self) -> Iterator[Metric]:
        for name, spec in self.specs.items():
            metric = family(spec)
            if (read := self._reads.get(name)) is not None:
                metric.add_metric((), read())
            yield metric
