"""Who may use the admin plane by showing a token: one judgement for its API and its page.

Comparing comes first: whoever has the right token is let in however many wrong ones were shown from the same
address, so that nobody can lock others out. Wrong ones are counted by address, and beyond a bound are told to
wait. That keeps noise down; what no guess gets past is the length of the token.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Final

from gateway.web.admin_api import AdminError
from gateway.web.me import Turns

WRONG_AT_ONCE: Final = 5.0
WRONG_PER_SECOND: Final = 0.1
"""How many wrong tokens of one address are answered as such."""


class Admission:
    """Knows the tokens by their digests. `token` opens everything, `metrics_token` the metrics alone; None
    where nobody is asked for it. `monotonic` is of a clock, in seconds."""

    def __init__(
        self, token: str | None, monotonic: Callable[[], float], *, metrics_token: str | None = None
    ) -> None:
        self._token = _digest(token) if token else None
        self._metrics_token = _digest(metrics_token) if metrics_token else None
        self._monotonic = monotonic
        self._wrong = Turns(at_once=WRONG_AT_ONCE, per_second=WRONG_PER_SECOND)

    @property
    def asks(self) -> bool:
        """Whether there is a token for everything."""
        return self._token is not None

    @property
    def asks_for_metrics(self) -> bool:
        """Whether the metrics need one of the tokens."""
        return self._token is not None or self._metrics_token is not None

    def check(self, given: str, who: str, *, for_metrics: bool = False) -> None:
        """Raises `AdminError`: 401 where this is not the token, 429 where `who` (an address) showed too many
        that were not. Nothing at all is no guess, and is not counted."""
        digest = _digest(given)
        expected = [self._token, self._metrics_token if for_metrics else None]
        # Both are compared always, each in constant time.
        found = [each is not None and hmac.compare_digest(digest, each) for each in expected]
        if any(found):
            return
        if given:
            try:
                self._wrong.take(who, self._monotonic())
            except AdminError as error:
                raise AdminError(
                    error.status, "Too many wrong tokens; wait for ten seconds and try again."
                ) from None
        raise AdminError(401, "This is not the admin token.")


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.strip().encode("utf-8", "surrogatepass")).digest()
