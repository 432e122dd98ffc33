"""Metrics of alerts to people. Read when the page is made, from what sends them; nothing is counted here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.adapters.prometheus_books import family
from gateway.adapters.prometheus_catalogue import Spec

DELIVERIES = Spec(
    "gateway_alert_deliveries_total",
    "counter",
    ("target", "outcome"),
    "Attempts at sending an alert to people, by outcome: delivered, retried (it failed and is tried again), "
    "failed (given up). Sum.",
)
DROPPED = Spec(
    "gateway_alerts_dropped_total",
    "counter",
    (),
    "Alerts to people that were not written down, since too many waited. Sum. Should stay 0.",
)
WAITING = Spec(
    "gateway_alerts_waiting",
    "gauge",
    (),
    "Alerts to people that have still to arrive somewhere. All replicas read one log: take max.",
)


class Alerts(Collector):
    """Zeros until `connect`."""

    SPECS = (DELIVERIES, DROPPED, WAITING)

    def __init__(self) -> None:
        self._deliveries: Callable[[], Mapping[tuple[str, str], int]] = dict
        self._dropped: Callable[[], int] = int
        self._waiting: Callable[[], int] = int

    def connect(
        self,
        deliveries: Callable[[], Mapping[tuple[str, str], int]],
        dropped: Callable[[], int],
        waiting: Callable[[], int],
    ) -> None:
        """Any thread may call the three; they must not block. Deliveries are by target and outcome."""
        self._deliveries, self._dropped, self._waiting = deliveries, dropped, waiting

    def collect(self) -> Iterator[Metric]:
        deliveries, dropped, waiting = (family(spec) for spec in self.SPECS)
        for labels, count in self._deliveries().items():
            deliveries.add_metric(labels, count)
        dropped.add_metric((), self._dropped())
        waiting.add_metric((), self._waiting())
        return iter((deliveries, dropped, waiting))
