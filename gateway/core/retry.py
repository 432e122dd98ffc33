"""Again or not, and after how long. Pure: the pipeline asks, waits and tries.

Clients of this API retry on their own (SDKs twice, agents up to ten times), and a request that upstream
began to work on is billed even if its answer is lost. So the gateway tries again only where that is free,
never where a client is already retrying, and never more than a tenth of its traffic.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from gateway.core.errors import UpstreamFailure, UpstreamTimeout

MAX_ATTEMPTS = 3
FIRST_DELAY_SECONDS = 0.05
MAX_DELAY_SECONDS = 1.0


class Failure(StrEnum):
    """How one attempt ended."""

    NOT_SENT = "not_sent"
    """No connection, or it was found closed before the request was complete on it: upstream cannot have
    processed it. `UpstreamFailure.request_sent` is False."""
    BROKE = "broke"
    """The request was sent in full and the connection broke before any byte of an answer."""
    SILENT = "silent"
    """Upstream did not answer in time."""
    BEGUN = "begun"
    """An answer began; its bytes may have reached the client."""
    CREDENTIAL_REFUSED = "credential_refused"
    """Upstream answered 401, which it does before it begins, and there is another credential now."""
    ANSWERED = "answered"
    """Upstream answered, whatever the status: 429, 529 and 5xx are answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecision:
    again: bool
    delay_seconds: float = 0.0
    reason: str = ""


_TENTHS = 10


@dataclass(frozen=True, slots=True)
class RetryBudget:
    """A token bucket as a value, in tenths of a retry: each exchange earns one tenth, each retry costs
    ten. Over any stretch, retries are at most a tenth of the exchanges plus `BURST`."""

    BURST = 10

    tenths: int = BURST * _TENTHS

    def earned(self) -> RetryBudget:
        """After an exchange began."""
        return self if self.tenths >= self.BURST * _TENTHS else RetryBudget(self.tenths + 1)

    def spent(self) -> RetryBudget:
        """After a retry was decided."""
        return RetryBudget(self.tenths - _TENTHS)

    @property
    def exhausted(self) -> bool:
        return self.tenths < _TENTHS


def plan_retry(
    failure: Failure,
    *,
    attempts: int,
    client_retries: bool,
    free: bool,
    continues_thread: bool,
    budget: RetryBudget,
    randomness: float,
    most_attempts: int = MAX_ATTEMPTS,
) -> RetryDecision:
    """Whether to try once more after `attempts` attempts, of which the last ended in `failure`.

    `client_retries`: the client says that this is not its first try (`x-stainless-retry-count`). `free` means
    that repeating costs nothing and changes nothing (GET, HEAD). `continues_thread` is a request that appends
    to a message thread, which upstream keeps: repeating it could append twice. `randomness` is in [0, 1).

    A connection that was reused and broke after the whole request was written (`BROKE`) most likely was an
    idle one that upstream had just closed. Most likely is not surely: where upstream had begun, a second
    attempt is billed a second time, and nobody sees it. The client gets an error that its SDK retries, and
    then it is the client's choice. Go's transport and nginx draw the same line for POST.
    """
    refusal = _why_not(
        failure,
        attempts=attempts,
        client_retries=client_retries,
        free=free,
        continues_thread=continues_thread,
        budget=budget,
        most_attempts=most_attempts,
    )
    if refusal:
        return RetryDecision(again=False, reason=refusal)
    delay = min(FIRST_DELAY_SECONDS * 4 ** (attempts - 1), MAX_DELAY_SECONDS)
    return RetryDecision(again=True, delay_seconds=delay * (0.5 + randomness / 2), reason=failure.value)


def _why_not(
    failure: Failure,
    *,
    attempts: int,
    client_retries: bool,
    free: bool,
    continues_thread: bool,
    budget: RetryBudget,
    most_attempts: int,
) -> str:
    if failure is Failure.ANSWERED:
        return "an answer of upstream is passed on, with its own advice on retries"
    if failure is Failure.BEGUN:
        return "the answer had begun"
    if failure is Failure.SILENT:
        return "upstream may be at work on it"
    if failure is Failure.BROKE and not free:
        return "upstream may have processed it, and would bill it again"
    if continues_thread:
        return "it continues a thread, and could be appended twice"
    if client_retries:
        return "the client is retrying already"
    if attempts >= most_attempts:
        return "attempts are used up"
    if budget.exhausted:
        return "retries have reached their share of the traffic"
    return ""


def failure_of(error: UpstreamFailure) -> Failure:
    """How an attempt ended that brought no answer."""
    if not error.request_sent:
        return Failure.NOT_SENT
    return Failure.SILENT if isinstance(error, UpstreamTimeout) else Failure.BROKE


def has_retried(count: bytes | None) -> bool:
    """Whether a client says that it has tried before, by whatever number it counts that with."""
    return count is not None and count.isdigit() and bool(count.strip(b"0"))  # int() refuses 5,000 digits
