"""Metrics of identities: issuers whose tokens are taken, tokens that upstreams are shown. Read when the page
is made, from what keeps them; nothing is counted here."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from gateway.adapters.federation import FederationStatus
from gateway.adapters.issuers import IssuerStatus
from gateway.adapters.prometheus_books import family
from gateway.adapters.prometheus_catalogue import Spec

_ISSUER, _UPSTREAM = ("issuer",), ("upstream",)

KEYS_AGE = Spec(
    "gateway_issuer_keys_age_seconds",
    "gauge",
    _ISSUER,
    "Since the keys of an issuer were last read; not there where they never were. Tokens are refused once it "
    "is above the issuer's `keep`. Max.",
)
READS = Spec(
    "gateway_issuer_reads_total", "counter", _ISSUER, "Times that an issuer's keys were to be read. Sum."
)
READ_FAILURES = Spec(
    "gateway_issuer_read_failures_total", "counter", _ISSUER, "Times that they could not be read. Sum."
)
CALLER_TOKENS = Spec(
    "gateway_caller_tokens_total",
    "counter",
    ("issuer", "outcome"),
    "Tokens that callers showed, by outcome: accepted, refused. Those of no known issuer, and what is no "
    "token, have the issuer `unknown`. Sum.",
)
TOKEN_EXPIRES = Spec(
    "gateway_upstream_token_expires_timestamp_seconds",
    "gauge",
    _UPSTREAM,
    "When the token of an upstream with federation expires, epoch seconds; not there where there is none. "
    "Min.",
)
TOKEN_REFRESHES = Spec(
    "gateway_upstream_token_refreshes_total", "counter", _UPSTREAM, "Tokens that were got for it. Sum."
)
TOKEN_FAILURES = Spec(
    "gateway_upstream_token_failures_total",
    "counter",
    _UPSTREAM,
    "Times that none was to be had. The last one goes on being used until it expires. Sum.",
)


class Identities(Collector):
    """Nothing until `connect`."""

    SPECS = (
        KEYS_AGE,
        READS,
        READ_FAILURES,
        CALLER_TOKENS,
        TOKEN_EXPIRES,
        TOKEN_REFRESHES,
        TOKEN_FAILURES,
    )

    def __init__(self) -> None:
        self._issuers: Callable[[], Sequence[IssuerStatus]] = tuple
        self._federations: Callable[[], Sequence[FederationStatus]] = tuple

    def connect(
        self,
        issuers: Callable[[], Sequence[IssuerStatus]],
        federations: Callable[[], Sequence[FederationStatus]],
    ) -> None:
        """Any thread may call the two; they must not block."""
        self._issuers, self._federations = issuers, federations

    def collect(self) -> Iterator[Metric]:
        age, reads, failures, tokens, expires, refreshes, refused = (family(spec) for spec in self.SPECS)
        for issuer in self._issuers():
            labels = (issuer.name,)
            if issuer.keys_age_seconds is not None:
                age.add_metric(labels, issuer.keys_age_seconds)
            reads.add_metric(labels, issuer.reads)
            failures.add_metric(labels, issuer.failures)
            tokens.add_metric((*labels, "accepted"), issuer.accepted)
            tokens.add_metric((*labels, "refused"), issuer.refused)
        for federation in self._federations():
            labels = (federation.upstream,)
            if federation.expires_at is not None:
                expires.add_metric(labels, federation.expires_at)
            refreshes.add_metric(labels, federation.refreshes)
            refused.add_metric(labels, federation.failures)
        return iter((age, reads, failures, tokens, expires, refreshes, refused))
