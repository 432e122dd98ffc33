"""Faults on request: what goes wrong, at which requests, how often.

The queue decides only which fault strikes; the wire code carries it out. Randomness is seeded.
"""

from __future__ import annotations

import enum
import json
import random
from dataclasses import dataclass, fields
from typing import Final

import msgspec

from gateway.sim.wire import ApiError, JsonObject, invalid


class FaultKind(enum.Enum):
    STATUS = "status"
    """Answer with `status`, and `retry_after`, `headers`, `error_type`, `message`, `error_code`, `html`."""
    STALL = "stall"
    """Say nothing for `seconds` (None: until the client leaves) before the response's head, then go on."""
    STALL_STREAM = "stall_stream"
    """The same, inside a stream before event `at_event`; inside a plain body at its middle."""
    CUT = "cut"
    """Close the connection: before the head (`at_event` None), before event `at_event`, or inside it
    (`mid_event`). With `reset` by RST, else by FIN. A plain body is cut at its middle for any `at_event`."""
    GARBAGE = "garbage"
    """Bytes that are no events, before event `at_event`, then go on."""
    MALFORMED_EVENT = "malformed_event"
    """Event `at_event` comes with data that is not JSON."""
    ERROR_EVENT = "error_event"
    """An `error` event in the 200 stream instead of event `at_event`, then the end."""
    SLOW = "slow"
    """`seconds` of delay before each event, or before a plain body."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """Which requests. Empty fields match all; `path` matches by prefix."""

    path: str = "/v1/"
    method: str | None = None
    model: str | None = None
    stream: bool | None = None

    def fits(self, *, method: str, path: str, model: str | None, stream: bool) -> bool:
        return (
            path.startswith(self.path)
            and self.method in (None, method)
            and self.model in (None, model)
            and self.stream in (None, stream)
        )


ANY_REQUEST: Final = Match()


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One scripted fault, for the next `times` matching requests (None: always) after `skip` of them."""

    kind: FaultKind
    match: Match = ANY_REQUEST
    times: int | None = 1
    skip: int = 0
    probability: float = 1.0
    status: int = 500
    retry_after: float | None = None
    headers: dict[str, str] | None = None
    error_type: str | None = None
    message: str = "Scripted fault"
    error_code: str | None = None
    html: str | None = None
    """Body to send as text/html instead of the API's envelope, as the edge does for 413."""
    at_event: int | None = None
    """Counted from 0 (`message_start`)."""
    mid_event: bool = False
    reset: bool = True
    seconds: float | None = None
    processed: bool = False
    """For a cut before the head: the request ran to its end and is billed, only its answer is lost."""

    def error(self) -> ApiError:
        """The error of a STATUS or ERROR_EVENT fault."""
        headers = dict(self.headers or {})
        if self.retry_after is not None:
            headers["retry-after"] = f"{self.retry_after:g}"
        return ApiError(
            self.status,
            self.error_type or _TYPES.get(self.status, "api_error"),
            self.message,
            details={"error_code": self.error_code} if self.error_code else None,
            headers=headers,
            html=self.html,
        )


_TYPES = {
    400: "invalid_request_error", 401: "authentication_error", 402: "billing_error", 403: "permission_error",
    404: "not_found_error", 409: "conflict_error", 413: "request_too_large", 429: "rate_limit_error",
    500: "api_error", 504: "timeout_error", 529: "overloaded_error",
}  # fmt: skip


class _Armed:
    def __init__(self, fault: Fault) -> None:
        self.fault = fault
        self.left = fault.times
        self.skip = fault.skip


class Faults:
    """Faults waiting for their requests, in the order they were added; the first that fits strikes."""

    def __init__(self, seed: int) -> None:
        self._armed: list[_Armed] = []
        self._random = random.Random(seed)  # noqa: S311 - reproducible, not secret

    def __len__(self) -> int:
        return len(self._armed)

    def add(self, fault: Fault) -> None:
        self._armed.append(_Armed(fault))

    def clear(self) -> None:
        self._armed.clear()

    def waiting(self) -> list[JsonObject]:
        """What is armed, for the control endpoint."""
        return [{"kind": a.fault.kind.value, "left": a.left, "skip": a.skip} for a in self._armed]

    def strike(self, *, method: str, path: str, model: str | None, stream: bool) -> Fault | None:
        """The fault for this request, if any; uses it up."""
        for armed in self._armed:
            if not armed.fault.match.fits(method=method, path=path, model=model, stream=stream):
                continue
            if armed.skip > 0:
                armed.skip -= 1
                continue
            if self._random.random() >= armed.fault.probability:
                continue
            if armed.left is not None:
                armed.left -= 1
                if armed.left <= 0:
                    self._armed.remove(armed)
            return armed.fault
        return None


def parse_fault(text: str) -> Fault:
    """A fault as people write it on a command line: `KIND,NAME=VALUE,...`, for example
    `status,status=529,times=3,model=claude-opus-5-5` or `cut,at_event=4`. Raises ValueError."""
    kind, *settings = text.split(",")
    value: JsonObject = {"kind": kind.strip()}
    for setting in settings:
        name, equals, written = setting.partition("=")
        if not equals:
            raise ValueError(f"expected NAME=VALUE, not {setting!r}")
        try:
            read = json.loads(written)
        except ValueError:
            read = written
        target = value.setdefault("match", {}) if name in _MATCHED else value
        target[name.strip()] = read
    try:
        return read_fault(value)
    except ApiError as error:
        raise ValueError(error.message) from error


_MATCHED = ("path", "method", "model", "stream")


def read_fault(value: JsonObject) -> Fault:
    """A fault from JSON, as `POST /_sim/faults` takes it: the fields of `Fault`, `match` as an object."""
    known = {field.name for field in fields(Fault)}
    match = value.get("match")
    unknown = [name for name in value if name not in known]
    unknown += [f"match.{name}" for name in match if name not in _MATCHED] if isinstance(match, dict) else []
    if unknown:
        raise invalid(f"{unknown[0]}: Extra inputs are not permitted")
    try:
        return msgspec.convert(value, Fault)
    except msgspec.ValidationError as error:
        kinds = ", ".join(kind.value for kind in FaultKind)
        raise invalid(f"not a fault: {error}; kinds are {kinds}") from error
