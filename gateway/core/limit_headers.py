"""The API's headers of rate limits, said of the caller's own limits here.

Names and formats are the API's (rate limits page, 2026-08-21): whole numbers, and RFC 3339 for the instant
at which a limit is full again. `remaining` is exact; the API rounds tokens to thousands.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from typing import TYPE_CHECKING, Final

from gateway.core.bucket import Verdict, stricter
from gateway.core.limits import Mode, Unit

if TYPE_CHECKING:
    from gateway.core.headers import Header

RATE_LIMITS: Final = (b"anthropic-ratelimit-", b"anthropic-priority-", b"anthropic-fast-")
"""How the names begin of what upstream says of its own limits."""

_FAMILIES: Final = {
    Unit.REQUESTS: (b"requests",),
    Unit.INPUT_TOKENS: (b"input-tokens", b"tokens"),
    Unit.PROMPT_TOKENS: (b"input-tokens", b"tokens"),
    Unit.OUTPUT_TOKENS: (b"output-tokens", b"tokens"),
}


def limit_headers(verdicts: Iterable[Verdict]) -> list[Header]:
    """Three lines for each family that an enforced limit speaks for; the tightest limit of each. `tokens` is
    the tightest of all limits of tokens. Empty where there is none."""
    tightest: dict[bytes, Verdict] = {}
    for verdict in verdicts:
        if verdict.bound.limit.mode is Mode.ENFORCE and verdict.reset_at is not None:
            for family in _FAMILIES.get(verdict.bound.limit.unit, ()):
                tightest[family] = stricter(tightest.get(family, verdict), verdict)
    headers: list[Header] = []
    for family, verdict in tightest.items():
        assert verdict.reset_at is not None
        stem = b"anthropic-ratelimit-%s-" % family
        headers += [
            (stem + b"limit", b"%d" % verdict.bound.limit.capacity),
            (stem + b"remaining", b"%d" % verdict.remaining),
            (stem + b"reset", _rfc3339(ceil(verdict.reset_at))),
        ]
    return headers


@lru_cache(maxsize=1024)  # limits that refill are full again within the same few seconds, call after call
def _rfc3339(at: int) -> bytes:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ").encode()
