"""From an error of the gateway to what the client gets: status, the API's error type, envelope, headers.

The envelope is the API's own, so that SDKs raise the class that they would have raised. The one table of
codes lives here; `config/README.md` lists it for people.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from email.utils import formatdate

from gateway.core.errors import BudgetExhausted, GatewayError, UpstreamFailure
from gateway.core.headers import Header


@dataclass(frozen=True, slots=True)
class Fault:
    """How one code is shown. `retry`: what `x-should-retry` says; None leaves it to the SDK's own rules."""

    status: int
    type: str
    retry: bool | None


FAULTS: dict[str, Fault] = {
    "bad_request": Fault(400, "invalid_request_error", None),
    "unsupported_encoding": Fault(400, "invalid_request_error", None),
    "unauthenticated": Fault(401, "authentication_error", False),
    "forbidden": Fault(403, "permission_error", False),
    "frozen": Fault(403, "permission_error", False),
    "not_found": Fault(404, "not_found_error", None),
    "request_timeout": Fault(408, "timeout_error", False),
    "unbounded": Fault(400, "invalid_request_error", False),
    "too_large": Fault(413, "request_too_large", False),
    "budget_exhausted": Fault(429, "rate_limit_error", False),
    "internal_error": Fault(500, "api_error", False),
    "upstream_unreachable": Fault(502, "api_error", None),
    "upstream_cut": Fault(502, "api_error", None),
    "credential_unavailable": Fault(502, "api_error", False),
    "upstream_timeout": Fault(504, "timeout_error", None),
    "store_unavailable": Fault(529, "overloaded_error", None),
    "draining": Fault(529, "overloaded_error", None),
    "overloaded": Fault(529, "overloaded_error", None),
}

REASONS = {529: "Overloaded"}

MAX_RETRY_AFTER_SECONDS = 60
"""SDKs wait as long as they are told; a wait longer than this is a refusal, not a retry."""


@dataclass(frozen=True, slots=True)
class Rendered:
    status: int
    headers: list[Header]
    body: bytes


def render(error: GatewayError, request_id: str) -> Rendered:
    """The whole answer to an exchange that failed before anything was relayed."""
    fault = FAULTS[error.code]
    body = envelope(fault.type, error.message, request_id)
    headers: list[Header] = [
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
        (b"request-id", request_id.encode()),
        (b"x-gateway-error-source", b"gateway"),
        (b"x-gateway-error", error.code.encode()),
    ]
    headers.extend(_retry_headers(error, fault))
    if isinstance(error, BudgetExhausted):
        headers.append((b"x-gateway-limit", error.limit_id.encode()))
        headers.extend(error.headers)
        if error.reset_at is not None:
            headers.append((b"x-gateway-limit-reset", formatdate(error.reset_at, usegmt=True).encode()))
    return Rendered(fault.status, headers, body)


def envelope(kind: str, message: str, request_id: str) -> bytes:
    """The API's error body (errors page, 2026-08-21)."""
    error = {"type": "error", "error": {"type": kind, "message": message}, "request_id": request_id}
    return json.dumps(error, ensure_ascii=True).encode()


def stream_error(error: GatewayError, request_id: str) -> bytes:
    """The event that ends a stream which upstream did not end.

    It begins with a line break and names its event: where upstream stopped in the middle of an event, a
    reader then ends the half line and takes the type `error` for the whole, so that no half event passes
    for a good one.
    """
    body = envelope(FAULTS[error.code].type, error.message, request_id)
    return b"\nevent: error\ndata: " + body + b"\n\n"


def _retry_headers(error: GatewayError, fault: Fault) -> list[Header]:
    wait = error.retry_after_seconds
    if wait is not None and wait <= MAX_RETRY_AFTER_SECONDS:
        retry = b"true" if fault.status in (429, 529) else b"false"
        return [(b"retry-after", b"%d" % max(1, math.ceil(wait))), (b"x-should-retry", retry)]
    if isinstance(error, UpstreamFailure) and not error.request_sent and fault.retry is None:
        return [(b"x-should-retry", b"true")]
    if fault.retry is not None:
        return [(b"x-should-retry", b"true" if fault.retry else b"false")]
    return []
