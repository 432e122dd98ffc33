"""Rate limits of an organisation's tier: the headers always, refusals when asked for.

Buckets refill continuously; reads from the cache do not count as input (rate limits page, 2026-08-21).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from gateway.sim.catalogue import ModelRow
from gateway.sim.wire import ApiError, rfc3339


@dataclass(frozen=True, slots=True, kw_only=True)
class TierRow:
    requests: int
    input_tokens: int
    output_tokens: int


def _row(requests: int, input_tokens: int, output_tokens: int) -> TierRow:
    return TierRow(requests=requests, input_tokens=input_tokens, output_tokens=output_tokens)


TIERS: Final = {
    "start": (_row(1_000, 2_000_000, 400_000), _row(1_000, 500_000, 100_000)),
    "build": (_row(5_000, 5_000_000, 1_000_000), _row(2_000, 1_500_000, 300_000)),
    "scale": (_row(10_000, 10_000_000, 2_000_000), _row(4_000, 4_000_000, 800_000)),
}
"""Per minute: most classes, and the Fable class."""


class _Bucket:
    """What is left of a per-minute limit; may be overdrawn by what was only known afterwards."""

    def __init__(self, limit: int, at: float) -> None:
        self.limit = limit
        self._level = float(limit)
        self._at = at

    def left(self, at: float) -> float:
        self._level = min(self.limit, self._level + max(0.0, at - self._at) * self.limit / 60)
        self._at = at
        return self._level

    def take(self, amount: int, at: float) -> None:
        self._level = self.left(at) - amount

    def wait(self, at: float) -> float:
        """Seconds until something is left."""
        return max(0.0, (1 - self.left(at)) * 60 / self.limit)


class RateLimits:
    def __init__(self, tier: str, *, enforce: bool) -> None:
        self._rows = TIERS[tier]
        self._enforce = enforce
        self._buckets: dict[str, dict[str, _Bucket]] = {}

    def admit(self, model: ModelRow, at: float) -> None:
        """Count a request. Raises the API's 429 with `retry-after` where the limits are enforced."""
        for name, bucket in self._of(model, at).items():
            wait = bucket.wait(at)
            if wait > 0 and self._enforce:
                message = (
                    f"This request would exceed your organization's rate limit of {bucket.limit:,} {name} "
                    "per minute."
                )
                raise ApiError(
                    429, "rate_limit_error", message, headers={"retry-after": str(math.ceil(wait))}
                )
        self._of(model, at)["requests"].take(1, at)

    def count(self, model: ModelRow, *, input_tokens: int, output_tokens: int, at: float) -> None:
        """Tokens of a request: input that was not read from the cache, output that was generated."""
        buckets = self._of(model, at)
        buckets["input-tokens"].take(input_tokens, at)
        buckets["output-tokens"].take(output_tokens, at)

    def headers(self, model: ModelRow, at: float) -> dict[str, str]:
        """The documented family; token counts are rounded to thousands."""
        out: dict[str, str] = {}
        totals = [0, 0]
        for name, bucket in self._of(model, at).items():
            left = max(0, math.floor(bucket.left(at)))
            if name != "requests":
                left = left // 1000 * 1000
                totals = [totals[0] + bucket.limit, totals[1] + left]
            full_at = at + (bucket.limit - left) * 60 / bucket.limit
            out |= _three(name, bucket.limit, left, full_at)
        return out | _three("tokens", totals[0], totals[1], at)

    def _of(self, model: ModelRow, at: float) -> dict[str, _Bucket]:
        group = _limit_class(model)
        if group not in self._buckets:
            row = self._rows[1] if model.line in ("fable", "mythos") else self._rows[0]
            self._buckets[group] = {
                "requests": _Bucket(row.requests, at),
                "input-tokens": _Bucket(row.input_tokens, at),
                "output-tokens": _Bucket(row.output_tokens, at),
            }
        return self._buckets[group]


def _three(name: str, limit: int, left: int, reset_at: float) -> dict[str, str]:
    stem = f"anthropic-ratelimit-{name}"
    reset = rfc3339(math.ceil(reset_at)).replace(".000000", "")
    return {f"{stem}-limit": str(limit), f"{stem}-remaining": str(left), f"{stem}-reset": reset}


def _limit_class(model: ModelRow) -> str:
    """Models that share buckets: Opus 4.5 to 4.8, Sonnet 4.5 and 4.6, Fable 5.x together."""
    if model.line in ("fable", "mythos"):
        return "fable"
    for shared in ("claude-opus-4-", "claude-sonnet-4-"):
        if model.id.startswith(shared):
            return shared
    return model.id
