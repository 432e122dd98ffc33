"""The data plane: from a request on the wire to a `Call`, and from an error to the answer a client gets.

Steps and decisions are the pipeline's; bytes are the listener's. Here is what lies between them: ids, limits
of size by endpoint, probes, and the API's error shape.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from gateway.core.endpoints import Endpoint, route
from gateway.core.errors import ClientGone, Draining, GatewayError, StoreUnavailable, UpstreamFailure
from gateway.core.exchange import DRAINING
from gateway.core.headers import Headers, value_of
from gateway.pipeline import PLANNED
from gateway.ports import Call, Clock, InboundBody, Reply
from gateway.web.client_reply import ClientReply
from gateway.web.faults import render, stream_error
from gateway.web.listener import InboundRequest
from gateway.web.request_body import RelayedBody, read_body

log = logging.getLogger(__name__)

GOING_AWAY = "This replica of the gateway is going away; try again, another will answer."


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyLimits:
    """Largest bodies by endpoint, in bytes, and how long one may take, in seconds."""

    by_endpoint: Mapping[Endpoint, int]
    otherwise: int
    timeout_seconds: float

    def of(self, endpoint: Endpoint) -> int:
        return self.by_endpoint.get(endpoint, self.otherwise)


class Calls(Protocol):
    """What is asked of `Pipeline`."""

    async def handle(self, call: Call, reply: Reply) -> None: ...


class DataPlane:
    """The listener's one handler."""

    def __init__(
        self,
        *,
        pipeline: Calls,
        limits: BodyLimits,
        clock: Clock,
        new_id: Callable[[], str],
        public_url: str | None = None,
    ) -> None:
        self._pipeline = pipeline
        self._limits = limits
        self._clock = clock
        self._new_id = new_id
        self._public_url = public_url

    async def handle(self, request: InboundRequest, reply: ClientReply) -> None:
        endpoint = route(request.method, request.target)
        if endpoint is Endpoint.PROBE:
            reply.start(200, [(b"content-length", b"0"), (b"allow", b"GET, HEAD, POST, DELETE, OPTIONS")])
            reply.finish()
            return
        exchange_id = self._new_id()
        try:
            await self._pipeline.handle(self._call(exchange_id, endpoint, request), reply)
        except GatewayError as error:
            _show(error, exchange_id, reply)
        except ClientGone:
            reply.abort()
        except asyncio.CancelledError as error:
            if error.args == (DRAINING,):
                _show(Draining(GOING_AWAY), exchange_id, reply)
            raise
        except Exception:
            log.exception("exchange %s failed inside the gateway", exchange_id)
            failure = GatewayError("The gateway failed; its operators find why under this id.")
            _show(failure, exchange_id, reply)

    def _call(self, exchange_id: str, endpoint: Endpoint, request: InboundRequest) -> Call:
        limit_bytes = self._limits.of(endpoint)

        async def read() -> InboundBody:
            return await read_body(
                request, limit_bytes=limit_bytes, timeout_seconds=self._limits.timeout_seconds
            )

        def stream() -> RelayedBody | None:
            if endpoint in PLANNED or not request.has_body:
                return None
            return RelayedBody(request, limit_bytes=limit_bytes, timeout_seconds=self._limits.timeout_seconds)

        return Call(
            id=exchange_id,
            endpoint=endpoint,
            method=request.method,
            target=request.target,
            headers=request.headers,
            received_at=self._clock.now(),
            started=self._clock.monotonic(),
            public_base=self._public_url or _public_base(request.headers),
            read_body=read,
            stream_body=stream,
        )


def _show(error: GatewayError, exchange_id: str, reply: ClientReply) -> None:
    """Answer with the error; in a stream that had begun, end it with an error event, so that nobody takes
    it for complete."""
    if isinstance(error, UpstreamFailure | StoreUnavailable):
        log.warning("exchange %s: %s", exchange_id, error.message)
    try:
        if not reply.started:
            rendered = render(error, exchange_id)
            reply.start(rendered.status, rendered.headers)
            reply.write(rendered.body)
            reply.finish()
            return
        if reply.event_stream:
            reply.write(stream_error(error, exchange_id))
    except ClientGone:
        pass
    reply.abort()


def _public_base(headers: Headers) -> str:
    """By which the client reached us. The scheme may come from a proxy in front: the answer goes to that same
    client, so a false one harms nobody else."""
    host = (value_of(headers, b"host") or b"").decode("latin-1")
    forwarded = (value_of(headers, b"x-forwarded-proto") or b"").strip().lower()
    return f"{'https' if forwarded == b'https' else 'http'}://{host}"
