"""Gauges that are read from what runs whenever a page of metrics is asked for, instead of being told."""

from __future__ import annotations

from gateway.adapters.access_log import AccessLog
from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_shipping import ShippedLedger
from gateway.adapters.prometheus import Metrics
from gateway.learning import Learning
from gateway.pipeline import Pipeline
from gateway.ports import Clock
from gateway.rules_in_force import RulesInForce


def connect_gauges(
    metrics: Metrics,
    *,
    pipeline: Pipeline,
    ledger: Ledger | ShippedLedger,
    access_log: AccessLog,
    learning: Learning | None,
    rules_in_force: RulesInForce,
    clock: Clock,
) -> None:
    """From now on `metrics` shows them."""
    pull, status = metrics.pull, ledger.status
    pull("gateway_inflight_exchanges", lambda: len(pipeline.open))
    pull("gateway_open_streams", pipeline.open_streams)
    pull("gateway_ledger_backlog_entries", lambda: status().backlog)
    pull("gateway_ledger_lag_seconds", lambda: status().lag_seconds)
    pull("gateway_ledger_entries_total", lambda: status().stored)
    pull("gateway_ledger_spilled_total", lambda: status().spilled)
    pull("gateway_ledger_write_failures_total", lambda: status().write_failures)
    if isinstance(ledger, ShippedLedger):
        _connect_shipping(metrics, ledger, clock)
    pull("gateway_prices_as_of_timestamp_seconds", rules_in_force.prices_as_of)
    pull("gateway_access_log_dropped_total", lambda: access_log.dropped)
    if learning is not None:
        pull("gateway_planner_prefixes", learning.known_prefixes)
        pull("gateway_planner_trust", learning.trust)
        pull("gateway_snapshot_age_seconds", learning.saved_seconds_ago)
        pull("gateway_recording_news_total", learning.recorded)
        pull("gateway_recording_dropped_total", learning.not_recorded)


def _connect_shipping(metrics: Metrics, ledger: ShippedLedger, clock: Clock) -> None:
    pull, shipping = metrics.pull, ledger.shipping
    pull("gateway_ledger_shipping_backlog_entries", lambda: shipping().backlog)
    pull("gateway_ledger_shipping_lag_seconds", lambda: shipping().lag_seconds(clock.now()))
    pull("gateway_ledger_shipped_total", lambda: shipping().shipped)
    pull("gateway_ledger_shipping_refused_total", lambda: shipping().refused)
    pull("gateway_ledger_shipping_failures_total", lambda: shipping().failures)
