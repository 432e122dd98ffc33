"""What the simulator was sent and what became of it, for tests and for people.

Kept in memory, whole bodies included: this is a simulator. Nothing is decided here.
"""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass

from gateway.sim.wire import JsonObject


@dataclass(slots=True, kw_only=True)
class Received:
    """One request as it arrived, byte for byte, and its fate."""

    number: int = 0
    request_id: str
    method: str
    target: str
    """Path and query as sent."""
    headers: tuple[tuple[bytes, bytes], ...]
    """As sent: order, case and duplicates kept."""
    received_at: float
    """By the simulator's clock, when the head had arrived."""
    body: bytes = b""
    """As sent, compressed if it was."""
    workspace: str | None = None
    model: str | None = None
    status: int | None = None
    message_id: str | None = None
    usage: JsonObject | None = None
    cost_nanousd: int = 0
    fault: str | None = None
    first_byte_at: float | None = None
    finished_at: float | None = None
    ended: str = "open"
    """open, complete, cut (by a fault), client_left."""
    events_sent: int = 0

    def header(self, name: str) -> str | None:
        """The first value of a header, whatever its case."""
        wanted = name.lower().encode()
        return next((v.decode("latin-1") for k, v in self.headers if k.lower() == wanted), None)

    def as_json(self, *, with_body: bool = True) -> JsonObject:
        """For `GET /_sim/requests`; the body as text, credentials blotted out."""
        value: JsonObject = {name: getattr(self, name) for name in _PLAIN}
        value["headers"] = [
            [k.decode("latin-1"), "…" if k.lower() in _SECRET else v.decode("latin-1")]
            for k, v in self.headers
        ]
        if with_body:
            value["body"] = self.body.decode("utf-8", "replace")
        return value


_PLAIN = (
    "number", "request_id", "method", "target", "received_at", "workspace", "model", "status", "message_id",
    "usage", "cost_nanousd", "fault", "first_byte_at", "finished_at", "ended", "events_sent",
)  # fmt: skip
_SECRET = (b"authorization", b"x-api-key")

KEPT_BODY_BYTES = 256 * 1024 * 1024
"""Beyond it the oldest bodies are let go, not their records."""


class Records:
    """The newest requests, oldest first; `keep` bounds them."""

    def __init__(self, keep: int) -> None:
        self.items: deque[Received] = deque(maxlen=keep)
        self.idle = asyncio.Event()
        """Set while no request is being served."""
        self.idle.set()
        self._keep = keep
        self._count = 0
        self._open = 0
        self._with_body: deque[Received] = deque()
        self._body_bytes = 0

    def add(self, received: Received) -> None:
        """Keep it, numbered from 1 in the order of arrival."""
        self._count += 1
        received.number = self._count
        self.items.append(received)
        self._open += 1
        self.idle.clear()

    def close(self, received: Received, at: float) -> None:
        """It has been served, one way or another."""
        received.finished_at = at
        self._with_body.append(received)
        self._body_bytes += len(received.body)
        while self._body_bytes > KEPT_BODY_BYTES or len(self._with_body) > self._keep:
            oldest = self._with_body.popleft()
            self._body_bytes -= len(oldest.body)
            oldest.body = b""
        self._open -= 1
        if self._open == 0:
            self.idle.set()
