"""The gateway's own lines on an answer: which exchange it was, what was placed, what was set aside.

They go out before the answer's usage is known, so what they say of tokens is what is expected. Numbers and
names from closed sets only, never content. They are listed in config/README.md. The headers of an error are
`web/faults.py`'s; which of upstream's cross is `headers.py`'s.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.core.headers import response_headers
from gateway.core.ledger import usd
from gateway.core.limit_headers import RATE_LIMITS, limit_headers
from gateway.core.misses import MissCause
from gateway.core.rules import LimitHeaders
from gateway.core.savings import Cohort, cohort_of

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange
    from gateway.core.headers import Header, Headers
    from gateway.core.rules import Rules


TOO_MANY_REQUESTS: Final = 429


def answer_headers(exchange: Exchange, rules: Rules, upstream: Headers) -> list[Header]:
    """The head of an answer: what crosses of upstream's, and the gateway's own lines. Where limits of the
    caller are told, upstream's are not; but a 429 of upstream keeps those that explain it."""
    lines = response_headers(upstream)
    limits: list[Header] = []
    if rules.limit_headers is LimitHeaders.OWN and exchange.status != TOO_MANY_REQUESTS:
        limits = limit_headers(exchange.verdicts)
    if limits or rules.limit_headers is LimitHeaders.OFF:
        lines = [line for line in lines if not line[0].startswith(RATE_LIMITS)]
    return [*lines, *own_headers(exchange, rules), *limits]


_NOT_TOLD = frozenset({MissCause.OTHER_WORKSPACE})
"""It would tell one workspace what another one asks."""


def own_headers(exchange: Exchange, rules: Rules) -> list[Header]:
    headers = [(b"x-gateway-exchange-id", exchange.id.encode())]
    if not rules.cost_headers:
        return headers
    if exchange.placement is not None:
        added = len(exchange.placement.breakpoints) if exchange.placement_applied else 0
        headers.append((b"x-gateway-breakpoints", b"%d" % added))
    if (statement := _statement(exchange)) is not None:
        headers.append((b"x-gateway-cache", statement.encode()))
    if exchange.estimated_nanousd:
        headers.append((b"x-gateway-reserved-usd", usd(exchange.estimated_nanousd).encode()))
    return headers


def _statement(exchange: Exchange) -> str | None:
    """As `placed; read=12000; write=800; miss=expired; held=350`: the cohort, then what there is to say."""
    cohort, placement = cohort_of(exchange), exchange.placement
    if cohort is None or placement is None:
        return None
    parts = [cohort.value]
    write = placement.write_5m_tokens + placement.write_1h_tokens
    if placement.read_tokens or write:
        parts += [f"read={placement.read_tokens}", f"write={write}"]
    if placement.miss is not None and cohort is not Cohort.HOLDOUT and placement.miss.cause not in _NOT_TOLD:
        parts.append(f"miss={placement.miss.cause.value}")
    if exchange.hold.seconds > 0:
        parts.append(f"held={round(exchange.hold.seconds * 1000)}")
    return "; ".join(parts)
