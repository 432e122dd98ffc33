"""How an answer to `POST /v1/messages` travels: as one body or as a stream, paced, and cut on request.

What the answer is was decided by the engine. Whatever happens on the wire, the request is charged once:
in full where the answer was generated to its end, up to the last event where it was cut or the client left.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Final

from aiohttp import web

from gateway.sim.catalogue import find_model
from gateway.sim.engine import Run
from gateway.sim.faults import Fault, FaultKind
from gateway.sim.pacing import pause
from gateway.sim.records import Received
from gateway.sim.stream import PING, Event, frame, stream_events
from gateway.sim.wire import dump, read_object
from gateway.sim.world import World

DEFAULT_FAULT_EVENT: Final = 2
GARBAGE: Final = b"\x00\xff\xfe\x80garbage\r\x01\n\n"
_FOREVER: Final = 86_400.0


async def create_message(
    world: World, request: web.Request, received: Received, fault: Fault | None
) -> web.StreamResponse:
    """Accept, run and answer one Messages request."""
    caller = world.caller(received)
    body = read_object(world.plain_body(received))
    at = world.clock.now()
    model = find_model(str(body.get("model")))
    if model is not None:
        received.model = model.id
        world.limits.admit(model, at)
    run = world.engine.accept(body, caller, request_id=received.request_id, at=at)
    received.message_id = run.message_id
    exit_ = _Exit(world, run, received)
    if _lost(fault):
        world.engine.begin(run)
        exit_.charge(complete=True)
        return hang_up(request, received, fault)
    if body.get("stream") is True:
        return await _stream(world, request, run, exit_, fault)
    return await _plain(world, request, run, exit_, fault)


async def count_tokens(world: World, received: Received) -> web.Response:
    caller = world.caller(received)
    body = read_object(world.plain_body(received))
    tokens = world.engine.count(body, caller)
    return web.Response(body=dump({"input_tokens": tokens}), content_type="application/json")


class _Exit:
    """Charges a run exactly once, whichever way it ends."""

    def __init__(self, world: World, run: Run, received: Received) -> None:
        self.received = received
        self._world = world
        self._run = run
        self._charged = False

    def charge(self, *, complete: bool, output_tokens: int = 0) -> None:
        if self._charged:
            return
        self._charged = True
        world, run = self._world, self._run
        at = world.clock.now()
        line = world.engine.finish(run, at=at, output_tokens=None if complete else output_tokens)
        self.received.usage, self.received.cost_nanousd = line.usage, line.cost_nanousd
        fresh = run.outcome.prompt_tokens - run.outcome.read_tokens
        out = line.usage["output_tokens"]
        world.limits.count(run.model, input_tokens=fresh, output_tokens=out, at=run.started_at)

    def begin(self) -> None:
        self._world.engine.begin(self._run)
        self.received.first_byte_at = self._world.clock.now()


async def _plain(
    world: World, request: web.Request, run: Run, exit_: _Exit, fault: Fault | None
) -> web.StreamResponse:
    """One JSON body, once everything is generated."""
    pacing = world.options.pacing
    wait = pacing.first_byte(run.outcome.prompt_tokens - run.outcome.read_tokens)
    total = run.answer.output_tokens
    wait += pacing.event() * sum(1 for event in stream_events(run)) if pacing.events_per_second else 0.0
    wait += (fault.seconds or 0.0) if fault is not None and fault.kind is FaultKind.SLOW else 0.0
    started = asyncio.get_running_loop().time()
    try:
        await pause(wait)
    except asyncio.CancelledError:
        elapsed = asyncio.get_running_loop().time() - started
        exit_.charge(complete=False, output_tokens=min(total, int(total * elapsed / wait)))
        raise
    exit_.begin()
    exit_.charge(complete=True)
    body = dump(run.message())
    response = web.StreamResponse(headers={"content-type": "application/json"})
    response.content_length = len(body)
    await response.prepare(request)
    half = len(body) // 2
    if fault is not None and fault.kind is FaultKind.STALL_STREAM:
        await response.write(body[:half])
        await pause(fault.seconds if fault.seconds is not None else _FOREVER)
        body = body[half:]
    elif fault is not None and fault.kind is FaultKind.CUT:
        await response.write(body[:half])
        hang_up(request, exit_.received, fault)
        return response
    await response.write(body)
    await response.write_eof()
    return response


async def _stream(
    world: World, request: web.Request, run: Run, exit_: _Exit, fault: Fault | None
) -> web.StreamResponse:
    """Server-sent events, one write each, so that readers see the chunks of a real stream."""
    pacing = world.options.pacing
    generated = 0
    complete = False
    try:
        await pause(pacing.first_byte(run.outcome.prompt_tokens - run.outcome.read_tokens))
        exit_.begin()
        response = web.StreamResponse(
            headers={"content-type": "text/event-stream; charset=utf-8", "cache-control": "no-cache"}
        )
        await response.prepare(request)
        for number, event in enumerate(stream_events(run)):
            if fault is not None and not await _survives(
                request, response, exit_.received, fault, number, event
            ):
                return response
            await response.write(_bent(event, fault, number))
            exit_.received.events_sent = number + 1
            generated = event.output_tokens
            if event.name == "content_block_delta":
                await _between_events(response, pacing.event(), pacing.ping_seconds)
        complete = True
        exit_.charge(complete=True)
        await response.write_eof()
        return response
    finally:
        exit_.charge(complete=complete, output_tokens=generated)


async def _between_events(response: web.StreamResponse, seconds: float, ping_seconds: float) -> None:
    """Wait for the next delta, with a ping whenever the silence grows long."""
    while seconds > ping_seconds:
        await pause(ping_seconds)
        await response.write(PING)
        seconds -= ping_seconds
    await pause(seconds)


async def _survives(
    request: web.Request,
    response: web.StreamResponse,
    received: Received,
    fault: Fault,
    number: int,
    event: Event,
) -> bool:
    """Carry out a stream's fault before event `number`; False where the stream ends by it."""
    if fault.kind is FaultKind.SLOW:
        await pause(fault.seconds or 0.0)
        return True
    if number != _fault_event(fault):
        return True
    if fault.kind is FaultKind.STALL_STREAM:
        await pause(fault.seconds if fault.seconds is not None else _FOREVER)
    elif fault.kind is FaultKind.GARBAGE:
        await response.write(GARBAGE)
    elif fault.kind is FaultKind.ERROR_EVENT:
        await response.write(frame("error", fault.error().envelope(received.request_id)))
        await response.write_eof()
        received.ended = "cut"
        return False
    elif fault.kind is FaultKind.CUT:
        if fault.mid_event:
            await response.write(event.data[: len(event.data) // 2])
        hang_up(request, received, fault)
        return False
    return True


def _bent(event: Event, fault: Fault | None, number: int) -> bytes:
    if fault is not None and fault.kind is FaultKind.MALFORMED_EVENT and number == _fault_event(fault):
        return b'event: %b\ndata: {"type": "%b", \n\n' % (event.name.encode(), event.name.encode())
    return event.data


def _fault_event(fault: Fault) -> int:
    return DEFAULT_FAULT_EVENT if fault.at_event is None else fault.at_event


def _lost(fault: Fault | None) -> bool:
    """Whether the answer is generated, billed and lost."""
    return fault is not None and fault.kind is FaultKind.CUT and fault.processed


def hang_up(request: web.Request, received: Received, fault: Fault | None) -> web.Response:
    """Close the client's connection, by RST or by FIN. The response returned is never sent."""
    received.ended = "cut"
    transport = request.transport
    if transport is not None:
        if fault is not None and fault.reset:
            sock = transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            transport.abort()
        else:
            transport.close()
    return web.Response()
