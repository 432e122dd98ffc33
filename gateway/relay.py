"""How an answer's body crosses: untouched, with a copy read for its usage; or, for the two kinds of answer
that would lead clients out of the gateway, whole and rewritten.

The head was received; nothing of it has been sent to the client yet. Raises what `Answer.pump` and the reply
raise, and `UpstreamCut` for a stream that ends before its end.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from gateway.core.answer import AnswerReader, answer_reader
from gateway.core.errors import UpstreamCut
from gateway.core.exchange import Exchange
from gateway.core.headers import Header, Headers, value_of
from gateway.core.inflate import Inflater
from gateway.ports import Answer, Clock, Reply

log = logging.getLogger(__name__)

MAX_REWRITTEN_BYTES = 32 << 20


async def relay_untouched(
    answer: Answer,
    reply: Reply,
    exchange: Exchange,
    head: Callable[[Headers], list[Header]],
    clock: Clock,
    *,
    metered: bool,
) -> None:
    """Bytes go from upstream's socket to the client's as they come. `head` makes of upstream's headers those
    that the client gets."""
    content_type = (value_of(answer.headers, b"content-type") or b"").lower()
    encoding = value_of(answer.headers, b"content-encoding") or b""
    reader = answer_reader(content_type, encoding) if metered else None
    is_stream = metered and answer.status < 300 and content_type.startswith(b"text/event-stream")
    headers = head(answer.headers)
    if is_stream:
        # A stream ends by its last event; a length would leave no room to say that it was cut.
        headers = [line for line in headers if line[0] != b"content-length"]
    reply.start(answer.status, headers)
    del headers  # a stream lasts for minutes
    feed = _feed(reply, exchange, reader, clock)
    try:
        while not await answer.pump(feed):
            await reply.drained()
    finally:
        exchange.report = reader.report() if reader is not None else None
    report = exchange.report
    # Of a stream in an encoding that cannot be read nothing tells but its framing, which `pump` has judged.
    legible = report is not None and not (encoding and report.parse_errors)
    if is_stream and legible and report is not None and not (report.ended or report.error_type):
        # A close-delimited body ends the same way whether upstream was done or was cut: only the stream's
        # own last event tells.
        raise UpstreamCut("Upstream closed the stream before its end.")
    reply.finish()


def _feed(
    reply: Reply, exchange: Exchange, reader: AnswerReader | None, clock: Clock
) -> Callable[[bytes], bool]:
    """What the pump calls for every piece, from within the socket's callback: it must stay cheap."""
    write = reply.write
    read = reader.feed if reader is not None else None

    def feed(data: bytes) -> bool:
        nonlocal read
        if exchange.first_byte_at is None:
            exchange.first_byte_at = clock.monotonic()
        exchange.response_bytes += len(data)
        congested = write(data)
        if read is not None:
            try:
                read(data)
            except Exception:
                log.exception("reading a copy of the answer failed; it is relayed all the same")
                read = None
        return congested

    return feed


async def relay_rewritten(
    answer: Answer,
    reply: Reply,
    exchange: Exchange,
    head: Callable[[Headers], list[Header]],
    rewrite: Callable[[bytes], Awaitable[bytes]],
) -> None:
    """Take the whole body, send what `rewrite` makes of it."""
    headers = head(answer.headers)
    encoding = (value_of(answer.headers, b"content-encoding") or b"identity").strip().lower()
    body = bytearray()

    def feed(data: bytes) -> bool:
        body.extend(data)
        if len(body) > MAX_REWRITTEN_BYTES:
            raise UpstreamCut("Upstream's answer is longer than the gateway can rewrite.")
        return False

    while not await answer.pump(feed):
        pass
    changed = await rewrite(_inflated(bytes(body), encoding))
    exchange.response_bytes = len(changed)
    kept = [line for line in headers if line[0] not in (b"content-length", b"content-encoding")]
    reply.start(answer.status, [*kept, (b"content-length", b"%d" % len(changed))])
    if reply.write(changed):
        await reply.drained()
    reply.finish()


def _inflated(body: bytes, encoding: bytes) -> bytes:
    """The body without its content-encoding, should upstream use one although it was asked not to: what
    cannot be read cannot be rewritten, and would lead clients out of the gateway."""
    if encoding == b"identity":
        return body
    inflater = Inflater(encoding)
    plain = b"".join(inflater.feed(body))
    if inflater.broken:
        raise UpstreamCut("Upstream's answer has an encoding that the gateway cannot read.")
    return plain
