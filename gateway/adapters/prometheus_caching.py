"""What caching saves, what misses cost, what holding and warming do: the metrics of it, and their collector.

Sums are kept in whole nano-dollars and tokens, and divided once for the page, as in `prometheus_books.py`.
Instruments that others than exchanges feed are made in `prometheus.py`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.adapters.prometheus_books import family
from gateway.adapters.prometheus_catalogue import PAIR, SUM_BUCKETS, Spec
from gateway.core.ledger import NANOUSD_PER_USD
from gateway.core.savings import Cohort

if TYPE_CHECKING:
    from gateway.core.exchange import ExchangeRecord
    from gateway.core.savings import Savings

INPUT_PLAIN = Spec(
    "gateway_input_plain_usd_total",
    "counter",
    (*PAIR, "cohort"),
    "US dollars that the input would have cost without caching. Sum. Less gateway_input_paid_usd_total it is "
    "what caching saved, which may be negative. By whose breakpoints the call went out with: placed, client "
    "(its own alone), none, shadow, off, holdout (left alone to measure; compare it with placed and none "
    "together), warming (the gateway's own).",
)
INPUT_PAID = Spec(
    "gateway_input_paid_usd_total",
    "counter",
    (*PAIR, "cohort"),
    "US dollars that the input cost, reads and writes included; over cohorts it equals the input kinds of "
    "gateway_cost_usd_total. Sum.",
)
SHADOW_INPUT = Spec(
    "gateway_shadow_input_usd_total",
    "counter",
    PAIR,
    "US dollars that the input of calls in shadow mode would have cost with what was decided; compare "
    'gateway_input_paid_usd_total{cohort="shadow"}. Sum.',
)
MISSED_TOKENS = Spec(
    "gateway_cache_missed_tokens_total",
    "counter",
    ("workspace", "cause"),
    "Tokens that were known and could not be read, by cause. Sum.",
)
LOST = Spec(
    "gateway_cache_lost_usd_total",
    "counter",
    ("workspace", "cause"),
    "US dollars that these tokens cost above a read, by cause; within gateway_input_paid_usd_total. Sum.",
)
HOLD_SAVED = Spec(
    "gateway_hold_saved_usd_total",
    "counter",
    ("workspace",),
    "US dollars not spent because calls were held until others had written what they read: a 5m write less a "
    "read. Sum.",
)
WARMING_COST = Spec(
    "gateway_warming_cost_usd_total",
    "counter",
    ("workspace",),
    "US dollars that warm-ups cost; within gateway_cost_usd_total. Sum.",
)
WARMING_SAVED = Spec(
    "gateway_warming_saved_usd_total",
    "counter",
    ("workspace",),
    "US dollars not spent because later calls read what warm-ups had kept or written. Sum; less "
    "gateway_warming_cost_usd_total it is what warming is worth.",
)
HOLD = Spec(
    "gateway_hold_seconds",
    "histogram",
    ("outcome",),
    "For how long calls were held for another that was writing what they could read: until they could and "
    f"did (read), or in vain (released). {SUM_BUCKETS}",
    (0.1, 0.25, 0.5, 1, 2, 4, 8, 16),
)
WARM_UPS = Spec(
    "gateway_warm_ups_total",
    "counter",
    ("workspace", "cause", "outcome"),
    "Warm-ups, by why they were asked for and what became of them. Sum.",
)
FIRINGS = Spec(
    "gateway_schedule_firings_total",
    "counter",
    ("schedule", "state"),
    "Times that a schedule of warm-ups was due, by what became of it: done, partly, broken (its file cannot "
    "be used), unread (skipped: nobody reads what it warms), elsewhere (another replica). Sum.",
)
PEER_NEWS = Spec(
    "gateway_peer_news_total",
    "counter",
    ("direction",),
    "News that replicas tell each other of their calls, by direction. Sum.",
)
PEER_CLAIMS = Spec(
    "gateway_peer_claims_total",
    "counter",
    ("outcome",),
    "Claims on cold prefixes, so that no two replicas write them, by outcome. Sum.",
)
PEER_FAILURES = Spec(
    "gateway_peer_failures_total",
    "counter",
    ("operation",),
    "Operations with the other replicas that failed; this one went on alone. Sum.",
)


class Caching(Collector):
    """What caching did, by workspace and what else parts it. The labels are bounded by whoever adds."""

    SPECS = (
        INPUT_PLAIN,
        INPUT_PAID,
        SHADOW_INPUT,
        MISSED_TOKENS,
        LOST,
        HOLD_SAVED,
        WARMING_COST,
        WARMING_SAVED,
    )

    def __init__(self) -> None:
        self._inputs: dict[tuple[str, str, str], list[int]] = {}
        self._losses: dict[tuple[str, str], list[int]] = {}
        self._shadow: defaultdict[tuple[str, str], int] = defaultdict(int)
        self._hold_saved: defaultdict[str, int] = defaultdict(int)
        self._warming_cost: defaultdict[str, int] = defaultdict(int)
        self._warming_saved: defaultdict[str, int] = defaultdict(int)

    def add(self, workspace: str, model: str, savings: Savings, record: ExchangeRecord) -> None:
        key = (workspace, model, savings.cohort.value)
        row = self._inputs.get(key)
        if row is None:
            row = self._inputs[key] = [0, 0]
        row[0] += savings.plain_nanousd
        row[1] += savings.paid_nanousd
        if savings.miss_tokens and savings.miss_cause is not None:
            loss = self._losses.setdefault((workspace, savings.miss_cause.value), [0, 0])
            loss[0] += savings.miss_tokens
            loss[1] += savings.miss_nanousd
        if savings.shadow_nanousd is not None:
            self._shadow[workspace, model] += savings.shadow_nanousd
        if savings.held_tokens:
            self._hold_saved[workspace] += savings.held_saved_nanousd
        if savings.cohort is Cohort.WARMING and record.cost is not None:
            self._warming_cost[workspace] += record.cost.total_nanousd

    def warming_saved(self, workspace: str, nanousd: int) -> None:
        self._warming_saved[workspace] += nanousd

    def collect(self) -> Iterator[Metric]:
        families = {spec.name: family(spec) for spec in self.SPECS}
        for inputs, (plain, paid) in list(self._inputs.items()):
            families[INPUT_PLAIN.name].add_metric(inputs, plain / NANOUSD_PER_USD)
            families[INPUT_PAID.name].add_metric(inputs, paid / NANOUSD_PER_USD)
        for pair, nanousd in list(self._shadow.items()):
            families[SHADOW_INPUT.name].add_metric(pair, nanousd / NANOUSD_PER_USD)
        for cause, (tokens, nanousd) in list(self._losses.items()):
            families[MISSED_TOKENS.name].add_metric(cause, tokens)
            families[LOST.name].add_metric(cause, nanousd / NANOUSD_PER_USD)
        for spec, sums in (
            (HOLD_SAVED, self._hold_saved),
            (WARMING_COST, self._warming_cost),
            (WARMING_SAVED, self._warming_saved),
        ):
            for workspace, nanousd in list(sums.items()):
                families[spec.name].add_metric((workspace,), nanousd / NANOUSD_PER_USD)
        return iter(families.values())
