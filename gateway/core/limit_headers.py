"""The API's headers of rate limits, said of the caller's own limits here.

Names and formats are the API's (rate limits page, 2026-08-21): whole numbers, and RFC 3339 for the instant
at which a limit is full again. `remaining` is exact; the API rounds tokens to thousands.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from math import ceil
from typing import TYPE_CHECKING, Final

from gateway.core.bucket import Verdict, stricter
from gateway.core.limits import Mode, Unit

if TYPE_CHECKING:
    from gateway.core.headers import Header

RATE_LIMITS: Final = (b"anthropic-ratelimit-", b"anthropic-priority-", b"anthropic-fast-")
"""How the names begin of what upstream says of its own limits."""

_FAMILIES: Final = {
    Unit.REQUESTS: ("requests",),
    Unit.INPUT_TOKENS: ("input-tokens", "tokens"),
    Unit.PROMPT_TOKENS: ("input-tokens", "tokens"),
    Unit.OUTPUT_TOKENS: ("output-tokens", "tokens"),
}


def limit_headers(verdicts: Iterable[Verdict]) -> list[Header]:
    """Three lines for each family that an enforced limit speaks for; the tightest limit of each. `tokens` is
    the tightest of all limits of tokens. Empty where there is none."""
    tightest: dict[str, Verdict] = {}
    for verdict in verdicts:
        if verdict.bound.limit.mode is Mode.ENFORCE and verdict.reset_at is not None:
            for family in _FAMILIES.get(verdict.bound.limit.unit, ()):
                tightest[family] = stricter(tightest.get(family, verdict), verdict)
    headers: list[Header] = []
    for family, verdict in tightest.items():
        assert verdict.reset_at is not None
        stem = b"anthropic-ratelimit-%s-" % family.encode()
        headers += [
            (stem + b"limit", b"%d" % verdict.bound.limit.capacity),
            (stem + b"remaining", b"%d" % verdict.remaining),
            (stem + b"reset", _rfc3339(verdict.reset_at)),
        ]
    return headers


def _rfc3339(at: float) -> bytes:
    return datetime.fromtimestamp(ceil(at), UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
