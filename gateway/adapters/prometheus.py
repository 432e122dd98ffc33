"""Metrics: an observer of exchanges, and instruments for what is no exchange.

Every name begins with `gateway_`. Labels are bounded sets: workspaces and models come from the configuration
and the price table, anything else is `other`; no key, caller, path or text from a request is ever a label.
The registry is the gateway's own. The table in `config/README.md` is made from the catalogue.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from gateway.adapters import prometheus_caching as caching
from gateway.adapters import prometheus_catalogue as catalogue
from gateway.adapters.prometheus_alerts import Alerts
from gateway.adapters.prometheus_books import Books, Budgets, Pulled
from gateway.adapters.prometheus_catalogue import Spec
from gateway.adapters.prometheus_identity import Identities
from gateway.core.exchange import Basis, State
from gateway.core.ledger import billed
from gateway.core.savings import cohort_of

if TYPE_CHECKING:
    from gateway.core.budget_reading import BudgetReading
    from gateway.core.exchange import ExchangeRecord

_UPSTREAM_ERROR_TYPES = frozenset(
    (
        "invalid_request_error",
        "authentication_error",
        "billing_error",
        "permission_error",
        "not_found_error",
        "conflict_error",
        "request_too_large",
        "rate_limit_error",
        "api_error",
        "timeout_error",
        "overloaded_error",
    )
)
"""The API's error types (errors page, 2026-08-21); others are counted as `other`."""

OTHER = "other"

M = TypeVar("M", Counter, Gauge, Histogram)


class _Children(Generic[M]):
    """The children of one metric by label values, so that finding one costs a dictionary lookup.

    At most `limit` of them: the values of any more are counted as `other`."""

    __slots__ = ("_known", "_limit", "_metric", "_overflowed")

    def __init__(self, metric: M, limit: int, overflowed: Callable[[], None]) -> None:
        self._metric: M = metric
        self._limit = limit
        self._overflowed = overflowed
        self._known: dict[tuple[str | int, ...], M] = {}

    def __call__(self, *values: str | int) -> M:
        child = self._known.get(values)
        return child if child is not None else self._make(values)

    def _make(self, values: tuple[str | int, ...]) -> M:
        if len(self._known) >= self._limit:
            self._overflowed()
            values = (OTHER,) * len(values)
            if values in self._known:
                return self._known[values]
        child: M = self._metric.labels(*values) if values else self._metric
        self._known[values] = child
        return child


class Metrics:
    """`ports.Observer` over Prometheus. Observing takes some microseconds and never blocks.

    `canonical` gives the name of a model in the price table, or None for one that is not in it; it is asked
    once for each exchange. `drop` names the labels (`workspace`, `model`) to leave empty, which is to
    Prometheus as if they were not there. `max_label_sets` bounds each metric.
    """

    def __init__(
        self,
        *,
        canonical: Callable[[str], str | None],
        version: str,
        revision: str = "",
        drop: frozenset[str] = frozenset(),
        max_label_sets: int = 2000,
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a timestamp for each counter would double the page
        self.registry = CollectorRegistry()
        self.specs: list[Spec] = []
        self._canonical = canonical
        self._drop_workspace, self._drop_model = "workspace" in drop, "model" in drop
        self._max_label_sets = max_label_sets
        self._pairs: set[tuple[str, str]] = set()
        self._overflows = self._counter(catalogue.LABEL_OVERFLOW)
        self._make_exchange_instruments()
        self._make_state_instruments()
        self._make_caching_instruments()
        self._books, self._budgets, self._pulled = Books(), Budgets(), Pulled(catalogue.PULLED)
        self._caching = caching.Caching()
        self.identities, self.alerts = Identities(), Alerts()
        pulled = (self._pulled, self.identities, self.alerts)
        for collector in (self._books, self._caching, self._budgets, *pulled):
            self.registry.register(collector)
        self.specs += [*Books.SPECS, *caching.Caching.SPECS, *Budgets.SPECS, *catalogue.PULLED]
        self.specs += [*Identities.SPECS, *Alerts.SPECS]
        ProcessCollector(registry=self.registry)
        self._build_info(version, revision, platform.python_version()).set(1)

    def observe(self, record: ExchangeRecord) -> None:
        workspace, model = self._pair(record)
        endpoint, timings = record.endpoint, record.timings
        self._requests(workspace, model, endpoint, _outcome(record)).inc()
        self._responses(endpoint, record.status).inc()
        self._duration(endpoint, model, "true" if record.streaming else "false").observe(
            timings.total_seconds
        )
        self._request_bytes.observe(record.request_bytes)
        if record.attempts:
            self._overhead.observe(timings.overhead_seconds)
            self._attempts(record.route or OTHER).inc(record.attempts)
        if timings.upstream_first_byte_seconds is not None:
            self._upstream_first_byte(record.route or OTHER).observe(timings.upstream_first_byte_seconds)
        if timings.first_token_seconds is not None:
            self._first_token(model).observe(timings.first_token_seconds)
        if record.usage is not None:
            self._books.add(workspace, model, billed(record.usage), record.cost, record.overrun_nanousd)
        if record.reservation is not None:
            basis = record.basis
            self._reservations("released" if basis is Basis.NONE else basis.value).inc()
        if (cohort := cohort_of(record)) is not None:
            self._placements(cohort.value).inc()
        if record.savings is not None:
            self._caching.add(workspace, model, record.savings, record)
        if timings.held_seconds:
            read = record.savings is not None and record.savings.held_tokens
            self._holds("read" if read else "released").observe(timings.held_seconds)
        if record.upstream_error_type is not None or record.error_code is not None:
            self._observe_errors(record)
        self._observe_oddities(record)

    def _pair(self, record: ExchangeRecord) -> tuple[str, str]:
        """The two open labels, the same for all metrics of this exchange, so that metrics can be divided."""
        workspace = model = ""
        if not self._drop_workspace:
            workspace = record.principal.workspace if record.principal else OTHER
        if not self._drop_model:
            model = (self._canonical(record.model) if record.model else None) or OTHER
        pair = (workspace, model)
        if pair not in self._pairs:
            if len(self._pairs) >= self._max_label_sets:
                self._overflows("gateway_tokens_total").inc()
                return OTHER, OTHER
            self._pairs.add(pair)
        return pair

    def _observe_errors(self, record: ExchangeRecord) -> None:
        if record.error_code is not None:
            self._errors(record.error_code).inc()
        if (kind := record.upstream_error_type) is not None:
            self._upstream_errors(kind if kind in _UPSTREAM_ERROR_TYPES else OTHER).inc()
        if record.binding_limit is not None and record.error_code == "budget_exhausted":
            self._budget_refusals(record.binding_limit).inc()

    def _observe_oddities(self, record: ExchangeRecord) -> None:
        for limit in record.shadow_refusals:
            self._shadow_refusals(limit).inc()
        for crossing in record.crossed:
            self._thresholds_crossed(crossing.limit, f"{crossing.threshold:g}").inc()
        if record.store_degraded:
            self._degraded_exchanges.inc()
        if record.plan_failed:
            self._plan_failures.inc()
        if record.cost is not None and record.cost.fallback:
            self._fallback_prices.inc()
        if record.report is not None and record.report.parse_errors:
            self._parse_errors.inc(record.report.parse_errors)

    def pull(self, name: str, read: Callable[[], float]) -> None:
        """Connect a metric that is read at scrape (`catalogue.PULLED`). Raises KeyError for an
        unknown name. `read` must not block; it is called from a thread."""
        self._pulled.connect(name, read)

    def draining(self, draining: bool) -> None:
        self._draining.set(draining)

    def config_reloaded(self, *, generation: int, at: float) -> None:
        """New configuration is in force, the first one included. `at`: epoch seconds."""
        self._reloads("success").inc()
        self._reload_successful.set(1)
        self._generation.set(generation)
        self._reloaded_at.set(at)

    def config_refused(self) -> None:
        """A reload failed; the old configuration stays."""
        self._reloads("failure").inc()
        self._reload_successful.set(0)

    def keyring(self, keys: int) -> None:
        self._keys.set(keys)

    def store_operation(self, operation: str, seconds: float) -> None:
        self._store_operations(operation).observe(seconds)

    def store_error(self, operation: str, kind: str) -> None:
        """`kind` is from a closed set of the store's adapter: timeout, connection, ..."""
        self._store_errors(operation, kind).inc()

    def store_degraded(self, degraded: bool) -> None:
        self._degraded.set(degraded)

    def reservations_expired(self, count: int) -> None:
        """The sweeper closed so many."""
        if count:
            self._reservations("expired").inc(count)

    def budgets(self, readings: Sequence[BudgetReading]) -> None:
        """Replace all budget gauges; a limit without a reading disappears."""
        if len(readings) > self._max_label_sets:
            self._overflows("gateway_budget_limit").inc(len(readings) - self._max_label_sets)
        self._budgets.readings = tuple(readings[: self._max_label_sets])

    def observer_failed(self, observer: str) -> None:
        """`observer` is a class name."""
        self._observer_failures(observer).inc()

    def warm_up(self, workspace: str, cause: str, outcome: str) -> None:
        """A warm-up came to its end. `cause` and `outcome` are from closed sets of the prewarmer's; what it
        cost comes from its exchange."""
        self._warm_ups("" if self._drop_workspace else workspace, cause, outcome).inc()

    def warming_saved(self, workspace: str, nanousd: int) -> None:
        """A call read what a warm-up had kept or written. Never negative: a counter does not go down."""
        self._caching.warming_saved("" if self._drop_workspace else workspace, nanousd)

    def schedule_fired(self, schedule: str, state: str) -> None:
        """A schedule was due. `state` is from a closed set of the schedules'."""
        self._firings(schedule, state).inc()

    def peer_news(self, direction: str, count: int = 1) -> None:
        """`direction` is from a closed set of the peers' adapter, as the labels of the two below."""
        self._peer_news(direction).inc(count)

    def peer_claim(self, outcome: str) -> None:
        self._peer_claims(outcome).inc()

    def peer_failed(self, operation: str) -> None:
        self._peer_failures(operation).inc()

    def event_loop_lag(self, seconds: float) -> None:
        """How much later than asked a timer of the event loop fired."""
        self._loop_lag.observe(seconds)

    def render(self, accept: str) -> tuple[str, bytes]:
        """Content type and page for an `Accept` header. Takes up to some 100 ms: call it in a thread."""
        encode, content_type = choose_encoder(accept)
        return content_type, encode(self.registry)

    def _make_exchange_instruments(self) -> None:
        self._requests = self._counter(catalogue.REQUESTS)
        self._responses = self._counter(catalogue.RESPONSES)
        self._duration = self._histogram(catalogue.DURATION)
        self._first_token = self._histogram(catalogue.FIRST_TOKEN)
        self._upstream_first_byte = self._histogram(catalogue.UPSTREAM_FIRST_BYTE)
        self._overhead = self._histogram(catalogue.OVERHEAD)()
        self._request_bytes = self._histogram(catalogue.REQUEST_BYTES)()
        self._attempts = self._counter(catalogue.ATTEMPTS)
        self._upstream_errors = self._counter(catalogue.UPSTREAM_ERRORS)
        self._errors = self._counter(catalogue.ERRORS)
        self._reservations = self._counter(catalogue.RESERVATIONS)
        self._placements = self._counter(catalogue.PLACEMENTS)
        self._plan_failures = self._counter(catalogue.PLAN_FAILURES)()
        self._budget_refusals = self._counter(catalogue.BUDGET_REFUSALS)
        self._shadow_refusals = self._counter(catalogue.SHADOW_REFUSALS)
        self._thresholds_crossed = self._counter(catalogue.THRESHOLDS_CROSSED)
        self._fallback_prices = self._counter(catalogue.FALLBACK_PRICES)()
        self._parse_errors = self._counter(catalogue.PARSE_ERRORS)()
        self._degraded_exchanges = self._counter(catalogue.DEGRADED_EXCHANGES)()

    def _make_state_instruments(self) -> None:
        self._observer_failures = self._counter(catalogue.OBSERVER_FAILURES)
        self._store_operations = self._histogram(catalogue.STORE_OPERATIONS)
        self._store_errors = self._counter(catalogue.STORE_ERRORS)
        self._degraded = self._gauge(catalogue.STORE_DEGRADED)()
        self._draining = self._gauge(catalogue.DRAINING)()
        self._reloads = self._counter(catalogue.RELOADS)
        self._reload_successful = self._gauge(catalogue.RELOAD_SUCCESSFUL)()
        self._generation = self._gauge(catalogue.GENERATION)()
        self._reloaded_at = self._gauge(catalogue.RELOADED_AT)()
        self._keys = self._gauge(catalogue.KEYS)()
        self._build_info = self._gauge(catalogue.BUILD_INFO)
        self._loop_lag = self._histogram(catalogue.LOOP_LAG)()

    def _make_caching_instruments(self) -> None:
        self._holds = self._histogram(caching.HOLD)
        self._warm_ups = self._counter(caching.WARM_UPS)
        self._firings = self._counter(caching.FIRINGS)
        self._peer_news = self._counter(caching.PEER_NEWS)
        self._peer_claims = self._counter(caching.PEER_CLAIMS)
        self._peer_failures = self._counter(caching.PEER_FAILURES)

    def _counter(self, spec: Spec) -> _Children[Counter]:
        return self._children(Counter(spec.name, spec.help, spec.labels, registry=self.registry), spec)

    def _gauge(self, spec: Spec) -> _Children[Gauge]:
        return self._children(Gauge(spec.name, spec.help, spec.labels, registry=self.registry), spec)

    def _histogram(self, spec: Spec) -> _Children[Histogram]:
        metric = Histogram(spec.name, spec.help, spec.labels, registry=self.registry, buckets=spec.buckets)
        return self._children(metric, spec)

    def _children(self, metric: M, spec: Spec) -> _Children[M]:
        self.specs.append(spec)
        return _Children(metric, self._max_label_sets, lambda: self._overflows(spec.name).inc())


def _outcome(record: ExchangeRecord) -> str:
    if record.state is not State.ANSWERED:
        return record.state.value
    if record.status >= 400:
        return "rejected"
    return "stream_error" if record.upstream_error_type is not None else "answered"
