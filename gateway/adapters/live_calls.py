"""`ports.Observer` that keeps the calls that ended last, for people who look: some hundreds, for minutes, in
memory; and shows them with those that are open. What is said of a call is `core/live.py`'s."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING

from gateway.core.claims import is_subject
from gateway.core.live import Told, ended_call, open_call

if TYPE_CHECKING:
    from gateway.core.exchange import Exchange, ExchangeRecord
    from gateway.ports import Clock

KEPT = 500
KEPT_SECONDS = 600.0


class LiveCalls:
    """Costs a call next to nothing: its record is kept as it is, and read when somebody looks."""

    def __init__(self, opened: Callable[[], Collection[Exchange]], clock: Clock, replica: str = "") -> None:
        """`opened` gives the exchanges that run; `replica` is what people know this one by."""
        self._opened = opened
        self.replica = replica
        self._clock = clock
        self._ended: deque[ExchangeRecord] = deque(maxlen=KEPT)
        self._last_used: dict[str, float] = {}

    def observe(self, record: ExchangeRecord) -> None:
        self._ended.append(record)
        if record.principal is not None and not is_subject(record.principal.key_id):
            # As many as there are keys. Subjects of tokens have no end: each job of a pipeline may be one.
            self._last_used[record.principal.key_id] = record.received_at

    def told(self) -> Told:
        """Those that are open, the longest first; then those that ended within the last `KEPT_SECONDS`, the
        last first."""
        instant, now = self._clock.monotonic(), self._clock.now()
        opened = sorted(self._opened(), key=lambda exchange: exchange.started)
        ended = [
            ended_call(record, self.replica)
            for record in reversed(self._ended)
            if now - record.received_at - record.timings.total_seconds < KEPT_SECONDS
        ]
        return Told(
            calls=[*(open_call(exchange, instant, self.replica) for exchange in opened), *ended],
            whole_since=ended[-1].ended_at if len(ended) == KEPT else now - KEPT_SECONDS,
        )

    @property
    def last_used(self) -> Mapping[str, float]:
        """When each key last sent a call to this replica, since it started; epoch seconds by id."""
        return MappingProxyType(self._last_used)
