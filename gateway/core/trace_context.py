"""W3C Trace Context: which trace a call belongs to, read strictly, and what is said of it upstream. Pure.

Sources: Trace Context, W3C Recommendation of 2021-11-23, and Level 2 (candidate of 2024-03-28) for the flag
of random ids. What cannot be read counts as not sent: a new trace begins. `baggage` is no business of the
gateway's and never crosses it (`core/headers.py`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from gateway.core.headers import Header, Headers

SAMPLED: Final = 0x01
RANDOM: Final = 0x02
"""The last 56 bits of the trace id are random (Level 2)."""
MOST_MEMBERS: Final = 32
"""Of `tracestate`; more make it invalid (section 3.3.1.1)."""
MOST_STATE_BYTES: Final = 512
"""What is propagated at least (section 3.3.1.5); of more, long members go first, then the last ones."""
LONG_MEMBER_BYTES: Final = 128

_TRACEPARENT = re.compile(rb"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_KEY = rb"[a-z][a-z0-9_\-*/]{0,255}|[a-z0-9][a-z0-9_\-*/]{0,240}@[a-z][a-z0-9_\-*/]{0,13}"
_MEMBER = re.compile(rb"(%b)=([\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e])" % _KEY)


@dataclass(frozen=True, slots=True)
class Parent:
    """The caller's span, as its headers say."""

    trace_id: int
    span_id: int
    flags: int
    """`SAMPLED` and `RANDOM`; others are not known and not passed on."""
    state: bytes = b""
    """`tracestate`, its lines joined; empty where there is none or it cannot be read."""


def read_parent(headers: Headers) -> Parent | None:
    """None where there is no `traceparent`, more than one, or one that is invalid."""
    found = [value for name, value in headers if name == b"traceparent"]
    if len(found) != 1:
        return None
    match = _TRACEPARENT.fullmatch(found[0])
    if match is None:
        return None
    version, trace_id, span_id = match[1], int(match[2], 16), int(match[3], 16)
    # Later versions may add to the end, this one may not; ff is forbidden.
    if version == b"ff" or (version == b"00" and match[5] is not None) or not trace_id or not span_id:
        return None
    return Parent(trace_id, span_id, int(match[4], 16) & (SAMPLED | RANDOM), read_state(headers))


def read_state(headers: Headers) -> bytes:
    """`tracestate` in its order, bounded; empty where any member is invalid or a key comes twice."""
    lines = [value for name, value in headers if name == b"tracestate"]
    members = [member.strip(b" \t") for member in b",".join(lines).split(b",")]
    members = [member for member in members if member]
    keys = {member.partition(b"=")[0] for member in members}
    if len(members) > MOST_MEMBERS or len(keys) != len(members):
        return b""
    if not all(_MEMBER.fullmatch(member) for member in members):
        return b""
    if len(b",".join(members)) > MOST_STATE_BYTES:
        members = [member for member in members if len(member) <= LONG_MEMBER_BYTES]
    while len(b",".join(members)) > MOST_STATE_BYTES:
        members.pop()
    return b",".join(members)


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One request to upstream. Instants are monotonic."""

    span_id: int
    target: str
    """Path and query; not the client's own where the gateway asks something for itself."""
    base_url: str
    route: str
    started: float
    ended: float | None = None
    status: int | None = None
    error: str = ""
    """The code of what went wrong, or a name for it."""


@dataclass(slots=True, kw_only=True)
class Trace:
    """A call's place in its trace, and the attempts that it made. `span_id` is that of the call itself."""

    call_id: str
    target: str
    trace_id: int
    span_id: int
    parent_span_id: int | None
    """None where the trace begins here."""
    flags: int
    state: bytes
    received_at: float
    """Epoch seconds, at the monotonic instant `started`."""
    started: float
    attempts: list[Attempt] = field(default_factory=list)

    @property
    def sampled(self) -> bool:
        return bool(self.flags & SAMPLED)

    def wall(self, instant: float) -> float:
        """The epoch seconds of a monotonic instant."""
        return self.received_at + (instant - self.started)


def begin_trace(
    headers: Headers,
    *,
    call_id: str,
    target: str,
    received_at: float,
    started: float,
    ratio: float,
    bits: Callable[[int], int],
) -> Trace:
    """Go on with the caller's trace, and its decision whether it is sampled; or begin one, of which `ratio`
    are sampled. `bits` gives so many random bits."""
    parent = read_parent(headers)
    trace_id = _not_zero(bits, 128) if parent is None else parent.trace_id
    flags = RANDOM | (SAMPLED if is_sampled(trace_id, ratio) else 0) if parent is None else parent.flags
    return Trace(
        call_id=call_id,
        target=target,
        trace_id=trace_id,
        span_id=_not_zero(bits, 64),
        parent_span_id=None if parent is None else parent.span_id,
        flags=flags,
        state=b"" if parent is None else parent.state,
        received_at=received_at,
        started=started,
    )


def is_sampled(trace_id: int, ratio: float) -> bool:
    """By the last 56 bits of the id, so that all who know the ratio come to one decision."""
    return trace_id & ((1 << 56) - 1) >= round((1 - ratio) * (1 << 56))


def new_span_id(bits: Callable[[int], int]) -> int:
    return _not_zero(bits, 64)


def told_upstream(headers: Sequence[Header], trace: Trace, span_id: int) -> list[Header]:
    """The headers with the ids of one attempt's span."""
    line = f"00-{trace.trace_id:032x}-{span_id:016x}-{trace.flags:02x}".encode()
    state = [(b"tracestate", trace.state)] if trace.state else []
    return [*headers, (b"traceparent", line), *state]


def _not_zero(bits: Callable[[int], int], count: int) -> int:
    while not (found := bits(count)):
        pass
    return found
