"""The metrics of the gateway: name, type, labels, meaning. `prometheus.py` makes the instruments.

What caching does has its metrics in `prometheus_caching.py`.

The table in `config/README.md` is made from here. Names are stable: a change is announced in CHANGELOG.md.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spec:
    name: str
    type: str
    labels: tuple[str, ...]
    help: str
    """One or two sentences; what to do with the series of several replicas (sum, max) is said here."""
    buckets: tuple[float, ...] = ()


PAIR = ("workspace", "model")
_BUDGET = ("limit", "workspace")
_FIRST_BYTES = (0.1, 0.25, 0.5, 1, 2, 4, 8, 15, 30, 60)
SUM_BUCKETS = "Sum buckets over replicas."
_ONE_STORE = "All replicas read one store: take max by (limit, workspace), never sum."

LABEL_OVERFLOW = Spec(
    "gateway_metrics_label_overflow_total",
    "counter",
    ("metric",),
    "Observations counted as `other` because the metric had too many label sets. Sum.",
)

REQUESTS = Spec(
    "gateway_requests_total",
    "counter",
    (*PAIR, "endpoint", "outcome"),
    "Exchanges that ended, by outcome: answered, rejected (by upstream, 4xx or 5xx), stream_error (an error "
    "event in a stream), refused (here), failed, cut_by_client, cut_by_upstream, cut_by_gateway. "
    "Sum.",
)
RESPONSES = Spec(
    "gateway_http_responses_total",
    "counter",
    ("endpoint", "code"),
    "Responses by status as the client got it; 0 where it got none. Sum.",
)
DURATION = Spec(
    "gateway_request_duration_seconds",
    "histogram",
    ("endpoint", "model", "streaming"),
    f"From a call's arrival to the end of its exchange. {SUM_BUCKETS}",
    # up to the ten minutes that SDKs wait
    (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640),
)
FIRST_TOKEN = Spec(
    "gateway_time_to_first_token_seconds",
    "histogram",
    ("model",),
    f"From a call's arrival to the first byte of a body relayed. {SUM_BUCKETS}",
    _FIRST_BYTES,
)
UPSTREAM_FIRST_BYTE = Spec(
    "gateway_upstream_first_byte_seconds",
    "histogram",
    ("route",),
    f"From sending upstream to the head of its response: upstream's own time. {SUM_BUCKETS}",
    _FIRST_BYTES,
)
OVERHEAD = Spec(
    "gateway_overhead_seconds",
    "histogram",
    (),
    f"Spent in the gateway between a request's last byte and sending it upstream. {SUM_BUCKETS}",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25),
)
REQUEST_BYTES = Spec(
    "gateway_request_body_bytes",
    "histogram",
    (),
    f"Sizes of request bodies. {SUM_BUCKETS}",
    tuple(4**power for power in range(4, 14)),
)
ATTEMPTS = Spec(
    "gateway_upstream_attempts_total",
    "counter",
    ("route",),
    "Attempts at sending upstream; beyond one for each exchange they are retries. Sum.",
)
UPSTREAM_ERRORS = Spec(
    "gateway_upstream_errors_total", "counter", ("type",), "Errors upstream reported, by the API's type. Sum."
)
ERRORS = Spec(
    "gateway_errors_total", "counter", ("code",), "Exchanges that the gateway ended itself, by its code. Sum."
)
RESERVATIONS = Spec(
    "gateway_reservations_total",
    "counter",
    ("outcome",),
    "Reservations closed: settled on reported, partial or estimated usage, unmetered, or presumed; released; "
    "expired. "
    "pending: held for a batch, which is counted once more when it is settled. Sum.",
)
PLACEMENTS = Spec(
    "gateway_placements_total",
    "counter",
    ("cohort",),
    "Messages calls that were planned, billed or not, by whose breakpoints they went out with, as in "
    "gateway_input_paid_usd_total. Sum.",
)
PLAN_FAILURES = Spec(
    "gateway_plan_failures_total",
    "counter",
    (),
    "Placements that failed; the client's own bytes were sent. Sum. Should stay 0.",
)
BUDGET_REFUSALS = Spec(
    "gateway_budget_refusals_total", "counter", ("limit",), "Calls refused because the limit was spent. Sum."
)
THRESHOLDS_CROSSED = Spec(
    "gateway_budget_thresholds_crossed_total",
    "counter",
    ("limit", "threshold"),
    "Thresholds (`warn_at`) that the spend of a bucket passed, once in a window and replica. Take max.",
)
SHADOW_REFUSALS = Spec(
    "gateway_shadow_refusals_total",
    "counter",
    ("limit",),
    "Calls that a limit in shadow mode would have refused. Sum.",
)
FALLBACK_PRICES = Spec(
    "gateway_fallback_prices_total",
    "counter",
    (),
    "Uses of the fallback price, for models that the price table does not know. Sum. Should stay 0.",
)
PARSE_ERRORS = Spec(
    "gateway_parse_errors_total",
    "counter",
    (),
    "Parts of answers that could not be read for their usage; they were relayed all the same. Sum.",
)
OBSERVER_FAILURES = Spec(
    "gateway_observer_failures_total",
    "counter",
    ("observer",),
    "Exchanges that an observer failed on. Sum. Should stay 0.",
)

TOKENS = Spec(
    "gateway_tokens_total",
    "counter",
    (*PAIR, "kind"),
    "Tokens billed, by kind; kinds do not overlap. Sum over kinds, models and replicas.",
)
COST = Spec(
    "gateway_cost_usd_total",
    "counter",
    (*PAIR, "kind"),
    "US dollars spent, by kind. Sum. Kept in whole nano-dollars and divided once for the page: each series "
    "equals the ledger's sum to the last digit of a double.",
)
OVERRUN = Spec(
    "gateway_overrun_usd_total",
    "counter",
    PAIR,
    "US dollars by which real cost exceeded what was reserved. Sum. Stays 0 with strict estimates.",
)

BUDGET_UNITS = {
    "nanousd": ("usd", "US dollars", "a period"),
    "input_tokens": ("input_tokens", "input tokens", "a period"),
    "output_tokens": ("output_tokens", "output tokens", "a period"),
    "requests": ("requests", "requests", "a period"),
    "prompt_tokens": ("prompt_tokens", "input tokens, with cache reads,", "a period"),
    "concurrent": ("concurrent", "open requests", "at a time"),
}
BUDGET_LIMITS = {
    unit: Spec(
        f"gateway_budget_limit_{suffix}", "gauge", _BUDGET, f"Configured {words} {period}. {_ONE_STORE}"
    )
    for unit, (suffix, words, period) in BUDGET_UNITS.items()
}
BUDGET_USED = {
    unit: Spec(
        f"gateway_budget_used_{suffix}",
        "gauge",
        _BUDGET,
        f"Spent and reserved {words} of the limit. {_ONE_STORE}",
    )
    for unit, (suffix, words, _) in BUDGET_UNITS.items()
}
BUDGET_RESET = Spec(
    "gateway_budget_reset_timestamp_seconds",
    "gauge",
    _BUDGET,
    f"When the bucket is full again or its window ends, epoch seconds. {_ONE_STORE}",
)
BUDGET_RUNS_OUT = Spec(
    "gateway_budget_runs_out_timestamp_seconds",
    "gauge",
    _BUDGET,
    "When the budget of a day, week or month is spent if spending goes on as it has on average since the "
    f"window began, epoch seconds; not there while it lasts until the window ends. {_ONE_STORE}",
)

STORE_OPERATIONS = Spec(
    "gateway_store_operation_duration_seconds",
    "histogram",
    ("operation",),
    f"Round trips to the store. {SUM_BUCKETS}",
    (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
)
STORE_ERRORS = Spec(
    "gateway_store_errors_total",
    "counter",
    ("operation", "kind"),
    "Operations on the store that failed. Sum.",
)
STORE_DEGRADED = Spec(
    "gateway_store_degraded", "gauge", (), "1 while the store cannot serve and policies decide. Take max."
)
DEGRADED_EXCHANGES = Spec(
    "gateway_store_degraded_exchanges_total",
    "counter",
    (),
    "Exchanges decided by policy because the store could not answer. Sum.",
)

RELOADS = Spec(
    "gateway_config_reloads_total",
    "counter",
    ("result",),
    "Configurations loaded (success) or refused (failure). Sum.",
)
RELOAD_SUCCESSFUL = Spec(
    "gateway_config_last_reload_successful",
    "gauge",
    (),
    "0 after a configuration was refused, until one is taken over. Take min.",
)
GENERATION = Spec(
    "gateway_config_generation", "gauge", (), "Number of the configuration in force. Take min and max."
)
RELOADED_AT = Spec(
    "gateway_config_last_reload_success_timestamp_seconds",
    "gauge",
    (),
    "When the configuration in force was loaded, epoch seconds. Take min.",
)
KEYS = Spec("gateway_keys", "gauge", (), "Keys that the gateway accepts. Take max.")
DRAINING = Spec("gateway_draining", "gauge", (), "1 while the replica is going away. Sum.")
BUILD_INFO = Spec("gateway_build_info", "gauge", ("version", "revision", "python"), "Always 1: what runs.")
LOOP_LAG = Spec(
    "gateway_event_loop_lag_seconds",
    "histogram",
    (),
    f"How much later than asked timers of the event loop fire. {SUM_BUCKETS}",
    (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5),
)

PULLED = (
    Spec("gateway_inflight_exchanges", "gauge", (), "Calls being handled now. Sum."),
    Spec("gateway_open_streams", "gauge", (), "Streaming answers being relayed now. Sum."),
    Spec("gateway_ledger_backlog_entries", "gauge", (), "Ledger entries not yet committed. Sum."),
    Spec("gateway_ledger_lag_seconds", "gauge", (), "Age of the oldest entry being written. Take max."),
    Spec("gateway_ledger_entries_total", "counter", (), "Ledger entries committed. Sum."),
    Spec(
        "gateway_ledger_spilled_total",
        "counter",
        (),
        "Ledger entries written to the log for want of room; `gateway ledger restore` puts them back. Sum. "
        "Should stay 0.",
    ),
    Spec("gateway_ledger_write_failures_total", "counter", (), "Commits that failed and were retried. Sum."),
    Spec(
        "gateway_ledger_shipping_backlog_entries",
        "gauge",
        (),
        "Entries committed on this replica that the shared ledger does not have yet. Sum.",
    ),
    Spec(
        "gateway_ledger_shipping_lag_seconds",
        "gauge",
        (),
        "Age of the oldest of them; after a start, time since it, until the shared ledger answers. Take max.",
    ),
    Spec("gateway_ledger_shipped_total", "counter", (), "Entries shipped to the shared ledger. Sum."),
    Spec(
        "gateway_ledger_shipping_refused_total",
        "counter",
        (),
        "Entries that the shared ledger cannot hold; they stay on their replica. Sum. Should stay 0.",
    ),
    Spec(
        "gateway_ledger_shipping_failures_total",
        "counter",
        (),
        "Times that the shared ledger did not answer, or not well; entries wait meanwhile. Sum.",
    ),
    Spec(
        "gateway_budget_settlements_owed",
        "gauge",
        (),
        "Calls that ended and that the store does not know to have ended yet: it is away, or was. Sum.",
    ),
    Spec(
        "gateway_budget_settlements_given_up_total",
        "counter",
        (),
        "Calls that the store will not hear of, since too many waited; the ledger has them. Sum. Should stay "
        "0; else run `gateway budget audit`.",
    ),
    Spec(
        "gateway_budget_rebuilding",
        "gauge",
        (),
        "1 while the counters of money are computed anew from the ledger. Take max.",
    ),
    Spec(
        "gateway_budget_drift_short_usd",
        "gauge",
        (),
        "By how many US dollars the worst counter of money was behind this replica's ledger at the last "
        "audit, every 15 minutes: so much more could be spent. Take max. Should stay 0.",
    ),
    Spec(
        "gateway_budget_drift_over_usd",
        "gauge",
        (),
        "By how many US dollars the worst one was ahead of it. Take max. Should stay 0 where all replicas "
        "share one ledger; else it is what other replicas spent since their own audits.",
    ),
    Spec("gateway_trace_spans_exported_total", "counter", (), "Spans that the collector took. Sum."),
    Spec("gateway_trace_spans_failed_total", "counter", (), "Spans that the collector did not take. Sum."),
    Spec(
        "gateway_trace_calls_dropped_total",
        "counter",
        (),
        "Traced calls without spans, as too many waited to be sent. Sum. Should stay 0.",
    ),
    Spec("gateway_access_log_dropped_total", "counter", (), "Access log lines dropped. Sum."),
    Spec(
        "gateway_prices_as_of_timestamp_seconds",
        "gauge",
        (),
        "The day (`as_of`) of the price table in force, epoch seconds. Take min.",
    ),
    Spec("gateway_planner_prefixes", "gauge", (), "Prefixes that the planner remembers. Take max."),
    Spec(
        "gateway_planner_trust",
        "gauge",
        (),
        "The planner's belief, from 0 to 1, that a 1h entry behind a 5m one lives for an hour. Take min.",
    ),
    Spec("gateway_recording_news_total", "counter", (), "News that the recording has taken in. Sum."),
    Spec(
        "gateway_recording_dropped_total",
        "counter",
        (),
        "News that the recording found no room for, or could not write: it has gaps. Sum. Should stay 0.",
    ),
    Spec(
        "gateway_snapshot_age_seconds",
        "gauge",
        (),
        "How long ago what was learned was saved last: that much is lost with the process. Take max.",
    ),
)
"""Read when the page is made, from callables that are connected at start-up."""


def metrics_table(specs: Iterable[Spec]) -> str:
    """The table of `config/README.md`, as Markdown, in order of names."""
    rows = [
        f"| `{spec.name}` | {spec.type} | {', '.join(f'`{label}`' for label in spec.labels)} | {spec.help} |"
        for spec in sorted(specs, key=lambda spec: spec.name)
    ]
    return "\n".join(("| Metric | Type | Labels | Meaning |", "| --- | --- | --- | --- |", *rows, ""))
