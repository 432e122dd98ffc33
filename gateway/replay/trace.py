"""Reading what was recorded: the gateway's own recordings, and traces in the simple public form.

A recording is gzip JSON lines, a header and then news (`adapters/recording.py`). The public form is gzip JSON
lines, one request a line, sorted by time:

    {"t": 12.5, "out": 310, "base": [4, 9], "segments": [["k1", 1200, "user"], ...]}

where a segment is one block: a key that names the whole prefix up to it, its own tokens, and its kind. `base`
says, where there is one, that the prompt starts with the first 9 segments of the file's request 4 (from 0).
"""

from __future__ import annotations

import heapq
import sys
import zlib
from array import array
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

import msgspec

from gateway.adapters.recording import VERSION, Header
from gateway.core.ids import WorkspaceId
from gateway.core.news import Answered, Billed, Failed, News, Sent
from gateway.core.planner import Kind, Prices, Reported, compact_key
from gateway.core.questions import account_of
from gateway.replay.request import Request

CHUNK_BYTES = 1 << 18
UNBILLED_SECONDS = 3600.0
"""A request of whose end nothing is heard for so long is taken as it was estimated."""
MAX_UNBILLED = 1 << 16
_KINDS = {kind.name.lower(): int(kind) for kind in Kind}


class TraceError(ValueError):
    """The file is no trace that can be read; the message says why."""


@dataclass(frozen=True, slots=True)
class Span:
    """Instants from which and up to which requests count, on the trace's own clock."""

    start: float = float("-inf")
    end: float = float("inf")

    def __contains__(self, at: float) -> bool:
        return self.start <= at < self.end


class TraceFile:
    """One file. `bytes_read` grows while it is read; `cut` says afterwards that its end is missing."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bytes_read = 0
        self.cut = False
        first = next(self.lines(), b"")
        self.header: Header | None = None
        """Of a recording; None for the public form."""
        try:
            if b'"gateway-recording"' in first:
                self.header = msgspec.json.decode(first, type=Header)
            elif not isinstance(msgspec.json.decode(first), dict):
                raise TraceError(f"{path} is neither a recording nor a trace.")
        except _UNREADABLE:
            raise TraceError(f"{path} is neither a recording nor a trace.") from None
        if self.header is not None and self.header.version > VERSION:
            raise TraceError(f"{path} was recorded by a later version; replay it with that one.")

    def lines(self) -> Iterator[bytes]:
        """Whole lines, as far as the file can be read. Raises `TraceError` where it cannot be opened."""
        self.bytes_read, self.cut = 0, False
        rest = b""
        try:
            with self.path.open("rb") as file:
                for text in self._inflated(iter(lambda: file.read(CHUNK_BYTES), b"")):
                    *lines, rest = (rest + text).split(b"\n")
                    yield from lines
        except OSError as error:
            raise TraceError(f"{self.path} cannot be read: {error.strerror}.") from error
        if rest:
            yield rest

    def _inflated(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        inflate: Any = None
        for chunk in chunks:
            self.bytes_read += len(chunk)
            if inflate is None and self.bytes_read == len(chunk) and chunk[:2] != b"\x1f\x8b":
                yield chunk
                for plain in chunks:
                    self.bytes_read += len(plain)
                    yield plain
                return
            data = chunk
            while data:
                inflate = inflate or zlib.decompressobj(wbits=31)
                try:
                    yield inflate.decompress(data)
                except zlib.error:
                    self.cut = True
                    return
                data = inflate.unused_data
                if inflate.eof:
                    inflate = None
        self.cut = inflate is not None

    def news(self) -> Iterator[News]:
        """What a recording holds, in the order in which it happened. A line that cannot be read ends it."""
        lines = self.lines()
        next(lines, None)
        decoder = msgspec.json.Decoder(News)
        for line in lines:
            try:
                news = decoder.decode(line)
            except _UNREADABLE:
                news = None
            if news is None or (isinstance(news, Sent) and not _is_even(news)):
                self.cut = True
                return
            yield news

    def requests(self, prices: Prices) -> Iterator[Request]:
        """The requests of a trace in the public form, priced so. Raises `TraceError` for a line that is not
        of that form, or out of order."""
        known: list[Request] = []
        keys: dict[str, int] = {}
        last = float("-inf")
        decoder = msgspec.json.Decoder(_Line)
        for number, line in enumerate(self.lines()):
            try:
                row = decoder.decode(line)
                request = _public_request(number, row, known, keys, prices)
            except (*_UNREADABLE, LookupError) as error:
                raise TraceError(f"{self.path}, line {number + 1}: {error}") from None
            if request.at < last:
                raise TraceError(f"{self.path}, line {number + 1}: earlier than the line before it")
            last = request.at
            known.append(request)
            yield request


_UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, OverflowError, RecursionError)


def _is_even(sent: Sent) -> bool:
    """Whether each block has its key, its end and its kind."""
    return len(sent.keys) == 8 * len(sent.ends) == 8 * len(sent.kinds)


class _Line(msgspec.Struct):
    t: float
    segments: list[tuple[str, int, str]]
    out: int = 0
    base: tuple[int, int] | None = None


def recorded_requests(files: Sequence[TraceFile]) -> Iterator[Request]:
    """The requests of several recordings as one, by time: parts of one, or several replicas'. Those that were
    not served are left out: they wrote nothing and cost nothing."""
    merged = heapq.merge(*(_timed(file.news()) for file in files), key=_instant)
    last = float("-inf")
    for number, (sent, billed) in enumerate(_joined(news for _, news in merged)):
        last = max(last, sent.at)  # a wall clock may go back
        yield _recorded_request(number, sent, billed, last)


def question_prices(sent: Sent) -> Prices:
    """What the planner was told of the model."""
    read, write_5m, write_1h, minimum = sent.prices
    return Prices(read=read, write_5m=write_5m, write_1h=write_1h, minimum_tokens=minimum)


def key_array(packed: bytes) -> array[int]:
    """Packed keys as integers, without a Python object for each."""
    keys = array("Q", packed)
    if sys.byteorder == "big":
        keys.byteswap()
    return keys


def _timed(stream: Iterator[News]) -> Iterator[tuple[float, News]]:
    at = float("-inf")
    for news in stream:
        if isinstance(news, Sent | Answered | Billed | Failed):
            at = max(at, news.at)
        yield at, news


def _instant(timed: tuple[float, News]) -> float:
    return timed[0]


def _joined(stream: Iterable[News]) -> Iterator[tuple[Sent, Billed | None]]:
    """Each request with what it was billed, in the order of sending."""
    unbilled: OrderedDict[str, tuple[Sent, Billed | Failed | None]] = OrderedDict()

    def ready(done: Callable[[Sent], bool]) -> Iterator[tuple[Sent, Billed | None]]:
        while unbilled:
            call, (sent, outcome) = next(iter(unbilled.items()))
            if outcome is None and not done(sent):
                return
            del unbilled[call]
            if not isinstance(outcome, Failed) and sent.ends:
                yield sent, outcome

    for news in stream:
        if isinstance(news, Sent):
            unbilled[news.call] = (news, None)
            now = news.at
            crowd = len(unbilled) > MAX_UNBILLED
            yield from ready(lambda sent, now=now, crowd=crowd: crowd or now - sent.at > UNBILLED_SECONDS)  # type: ignore[misc]
        elif isinstance(news, Billed | Failed) and news.call in unbilled:
            unbilled[news.call] = (unbilled[news.call][0], news)
            yield from ready(lambda sent: False)
    yield from ready(lambda sent: True)


def _recorded_request(number: int, sent: Sent, billed: Billed | None, at: float) -> Request:
    return Request(
        number=number,
        at=at,
        workspace=sent.workspace,
        model=sent.model,
        scope=sent.scope,
        account=account_of(WorkspaceId(sent.workspace)),
        keys=key_array(sent.keys),
        ends=sent.ends,
        kinds=sent.kinds,
        prices=question_prices(sent),
        output_tokens=0 if billed is None else billed.output,
        sent=sent.marks,
        given=None
        if sent.decided and not sent.by_rule
        else sent.marks
        if sent.planned is None
        else sent.planned,
        unmarkable=frozenset(sent.unmarkable),
        warm_up=sent.warm_up,
        warmable=sent.warmable,
        billed=None
        if billed is None
        else Reported(billed.uncached, billed.read, billed.write_5m, billed.write_1h),
    )


def _public_request(
    number: int, row: _Line, known: Sequence[Request], names: dict[str, int], prices: Prices
) -> Request:
    keys, ends, kinds = array("Q"), array("Q"), bytearray()
    if row.base is not None:
        source, count = row.base
        base = known[source]
        keys, ends, kinds = base.keys[:count], array("Q", base.ends[:count]), bytearray(base.kinds[:count])
    end = ends[-1] if ends else 0
    for name, tokens, kind in row.segments:
        key = names.get(name)
        if key is None:
            key = names[name] = compact_key(blake2b(name.encode(), digest_size=8).digest())
        end += tokens
        keys.append(key)
        ends.append(end)
        kinds.append(_KINDS[kind])
    if not keys:
        raise LookupError("a request without segments")
    return Request(
        number=number,
        at=row.t,
        keys=keys,
        ends=ends,
        kinds=bytes(kinds),
        prices=prices,
        output_tokens=row.out,
    )
