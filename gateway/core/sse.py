"""Server-sent events from bytes, however they are cut. No IO; nothing here knows what an event means.

The reader works on a copy for metering: it never fails, whatever it is fed, so that it cannot break a relay.
Nearly all events of every stream are deltas, which are taken in a few searches at memory speed; everything
else goes line by line. What events mean is `usage.py`'s.
"""

from __future__ import annotations

import re

MAX_EVENT_BYTES = 1 << 20
"""Longest line, and longest data of one event, that is kept. Longer ones are skipped and counted."""

Event = tuple[bytes, bytes]
"""Name (empty where the event has none) and data, the lines of which are joined by line feeds."""

_DELTA = b"event: content_block_delta\ndata: "
_DELTA_NAME = b"content_block_delta"
_DELTA_BYTES = len(_DELTA)
_LINE_END = re.compile(rb"[\r\n]")
_BOM = b"\xef\xbb\xbf"


class SseReader:
    """Events out of a stream of bytes (the WHATWG event stream format), the same for any chunking.

    Line ends may be LF, CR or CRLF; comments, `id`, `retry` and unknown fields are passed over; events
    without data are not events. Names outside `wanted` are dropped unread; nameless events are always
    handed on. Of names in `bare` the data is no loss: where it is too long, or there is none, only the name
    is. Memory is bounded by twice `max_event_bytes`; `oversized` counts wanted events above it.
    """

    __slots__ = (
        "_after_cr", "_bare", "_clean", "_data", "_first", "_line", "_max", "_name", "_overlong", "_wanted",
        "oversized",
    )  # fmt: skip

    def __init__(
        self,
        wanted: frozenset[bytes],
        *,
        bare: frozenset[bytes] = frozenset(),
        max_event_bytes: int = MAX_EVENT_BYTES,
    ) -> None:
        self._wanted = wanted
        self._bare = bare
        self._max = max_event_bytes
        self._line: bytearray | None = None  # a line that has begun and not ended
        self._name = b""
        self._data: bytearray | None = None
        self._overlong = False
        self._after_cr = False
        self._first = True
        # Nothing is pending, so that a whole delta may be taken as it is: never before an event has ended.
        self._clean = False
        self.oversized = 0

    def feed(self, data: bytes) -> list[Event]:
        """The events that end within `data`, in order. Never raises."""
        events: list[Event] = []
        plain = b"\r" not in data
        position, length = 0, len(data)
        if self._after_cr and length:
            self._after_cr = False
            position = int(data.startswith(b"\n"))
        while position < length:
            if self._clean and plain and data.startswith(_DELTA, position):
                start = position + _DELTA_BYTES
                end = data.find(b"\n", start)
                if start < end <= position + self._max and data.startswith(b"\n", end + 1):
                    events.append((_DELTA_NAME, data[start:end]))
                    position = end + 2
                    continue
            self._clean = False
            position = self._take_line(data, position, plain, events)
        return events

    def _take_line(self, data: bytes, position: int, plain: bool, events: list[Event]) -> int:
        """Read up to the next line end, or keep what there is of a line; where to go on."""
        if plain:
            end = data.find(b"\n", position)
        else:
            found = _LINE_END.search(data, position)
            end = found.start() if found else -1
        if end < 0:
            self._keep(data[position:])
            return len(data)
        if self._line is None:
            self._end_line(data[position:end], events)
        else:
            self._keep(data[position:end])
            line, self._line = bytes(self._line), None
            self._end_line(line, events)
        if data[end] == 0x0D:
            if end + 1 == len(data):
                self._after_cr = True
            elif data[end + 1] == 0x0A:
                end += 1
        return end + 1

    def _keep(self, piece: bytes) -> None:
        # One byte more than the bound is kept, so that its end shows the line to be overlong; the first line
        # may lose a mark of byte order before it is measured.
        if self._line is None:
            self._line = bytearray()
        self._line += piece[: self._max + 1 + len(_BOM) - len(self._line)]

    def _end_line(self, line: bytes, events: list[Event]) -> None:
        if self._first:
            self._first = False
            line = line.removeprefix(_BOM)
        if not line:
            self._dispatch(events)
            return
        if len(line) > self._max:
            self._overlong = True
            return
        name, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if name == b"event":
            self._name = value
        elif name == b"data":
            self._add(value)

    def _add(self, value: bytes) -> None:
        if self._overlong:
            return
        if self._data is None:
            self._data = bytearray(value)
            return
        if len(self._data) + len(value) >= self._max:
            self._overlong = True
            self._data = None
            return
        self._data += b"\n"
        self._data += value

    def _dispatch(self, events: list[Event]) -> None:
        name, data, overlong = self._name, self._data, self._overlong
        self._name, self._data, self._overlong = b"", None, False
        self._clean = _DELTA_NAME in self._wanted
        if name and name not in self._wanted:
            if name in self._bare and (overlong or data is not None):
                events.append((name, b"" if overlong or data is None else bytes(data)))
            return
        if overlong:
            self.oversized += 1
        elif data is not None:
            events.append((name, bytes(data)))

    def rest(self) -> Event | None:
        """The event that was begun and has no blank line after it yet, should the stream end here.

        The format says to drop such an event; its data may still be whole. Changes nothing."""
        name, data = self._name, self._data
        if self._line is not None and self._line.startswith(b"data:") and len(self._line) <= self._max:
            value = bytes(self._line[5:]).removeprefix(b" ")
            data = bytearray(value) if data is None else data + b"\n" + value
        if data is None or self._overlong or (name and name not in self._wanted):
            return None
        return name, bytes(data)
