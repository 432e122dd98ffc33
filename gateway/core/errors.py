"""The errors of the gateway, split by who can do something about them.

Nothing here knows HTTP: `web/faults.py` maps each class to a status and to the API's error type.
A broken invariant is an assertion, never one of these.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from gateway.core.headers import Header


class GatewayError(Exception):
    """An exchange that ends without an answer from upstream.

    `code` is stable and machine-readable; the message is written for the person who reads it and says
    what to do. `retry_after_seconds` is set only when waiting that long is likely to help.
    """

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, *, retry_after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.retry_after_seconds = retry_after_seconds


class Refusal(GatewayError):
    """Decided here; nothing was sent upstream and nothing is charged."""


class BadRequest(Refusal):
    """The request cannot be understood, and upstream would refuse it too."""

    code = "bad_request"


class Unauthenticated(Refusal):
    """No key, or an unknown, expired or revoked one: one text for all, so that nothing can be probed."""

    code = "unauthenticated"

    def __init__(self) -> None:
        super().__init__(
            "This gateway does not accept the credential of this request. Send a key of this gateway as "
            "Authorization: Bearer; whoever runs the gateway can issue one."
        )


class Forbidden(Refusal):
    """The key is good, but not for this model or endpoint."""

    code = "forbidden"


class Frozen(Refusal):
    """The key is good, but somebody has stopped its calls, or those of all that it belongs to."""

    code = "frozen"


class NotFound(Refusal):
    """No such route on this gateway."""

    code = "not_found"


class TooLarge(Refusal):
    """The body is over the limit of the route."""

    code = "too_large"


class RequestTimeout(Refusal):
    """The client did not send its request in time."""

    code = "request_timeout"


class UnsupportedEncoding(Refusal):
    """A content-encoding that the gateway cannot read, or one that decodes to garbage."""

    code = "unsupported_encoding"


class Draining(Refusal):
    """This replica is going away; another one, or the same a little later, will serve."""

    code = "draining"


class Overloaded(Refusal):
    """This replica holds as many exchanges as it may."""

    code = "overloaded"


class BudgetExhausted(Refusal):
    """A limit is spent. `limit_id` names it; `reset_at` is when it is replenished (epoch seconds)."""

    code = "budget_exhausted"

    def __init__(
        self,
        message: str,
        *,
        limit_id: str,
        reset_at: float | None,
        retry_after_seconds: float | None = None,
        headers: tuple[Header, ...] = (),
    ) -> None:
        super().__init__(message, retry_after_seconds=retry_after_seconds)
        self.limit_id = limit_id
        self.reset_at = reset_at
        self.headers = headers
        """Lines for the answer: how the caller's rate limits stand."""


class Unbounded(Refusal):
    """Nothing in the request bounds what it may cost, and its workspace promises to keep its budget."""

    code = "unbounded"


class StoreUnavailable(GatewayError):
    """A store did not answer in time, or cannot be written. `outcome_known` is False where the
    store may have acted although its reply never came."""

    code = "store_unavailable"

    def __init__(self, message: str, *, outcome_known: bool = True) -> None:
        super().__init__(message, retry_after_seconds=2.0)
        self.outcome_known = outcome_known


class UpstreamFailure(GatewayError):
    """Tried, and no complete answer came. `request_sent` says whether upstream may have begun to work
    (and to bill): False only when surely no byte of the request reached it."""

    def __init__(self, message: str, *, request_sent: bool) -> None:
        super().__init__(message)
        self.request_sent = request_sent


class UpstreamUnreachable(UpstreamFailure):
    """No connection, or it broke before a response began."""

    code = "upstream_unreachable"


class UpstreamTimeout(UpstreamFailure):
    """Upstream was silent for longer than the phase allows."""

    code = "upstream_timeout"


class UpstreamCut(UpstreamFailure):
    """The response began and did not end properly."""

    code = "upstream_cut"

    def __init__(self, message: str) -> None:
        super().__init__(message, request_sent=True)


class CredentialUnavailable(UpstreamFailure):
    """The upstream credential of the workspace cannot be read (its variable or file is missing)."""

    code = "credential_unavailable"

    def __init__(self, message: str) -> None:
        super().__init__(message, request_sent=False)


class ClientGone(Exception):
    """The client hung up. Not an error of anybody's; the exchange ends as cut by the client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigProblem:
    """One thing that is wrong, or doubtful, in what people wrote. Lines and columns count from 1; 0 where
    there is none, as in an environment variable."""

    file: str
    line: int = 0
    column: int = 0
    key: str = ""
    """Path of the setting, as in `timeouts.connect`."""
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        return f"{place}: {self.key}: {self.message}" if self.key else f"{place}: {self.message}"


class TooManyAdjustments(Exception):
    """As many adjustments are in force as there may be (`adjustments.MAX_IN_FORCE`); take some back, or write
    what is meant to last into limits.yaml."""


class ConfigError(Exception):
    """The configuration cannot be used. The message names every problem of every file: file, line, key and
    what to write instead; `problems` holds the same as values."""

    def __init__(self, message: str, problems: tuple[ConfigProblem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems
