"""Both ends of the transport joined by a handler that only relays, over spoilt connections."""

from __future__ import annotations

import asyncio
import os
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from gateway.adapters.claude import ClaudeUpstream
from gateway.core.rules import Route
from gateway.web.listener import Listener, ListenerLimits
from tests.bench.passthrough import Passthrough
from tests.support.chaos_proxy import ChaosProxy, Cut, Spoil
from tests.support.listeners import emptied, listening
from tests.support.mock_upstream import MockUpstream, Peer, Script, chunked, forever
from tests.support.raw_client import RawClient

EVENTS = [b'event: content_block_delta\ndata: {"n": %d}\n\n' % n for n in range(200)]
STREAM = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


@dataclass
class Relay:
    upstream: ClaudeUpstream
    listener: Listener
    port: int


@asynccontextmanager
async def relaying(
    script: Script, *, to_upstream: Spoil | None = None, limits: ListenerLimits | None = None
) -> AsyncIterator[Relay]:
    """A client's port whose requests reach `script`, through a chaos proxy if answers are to be spoilt."""
    upstream = ClaudeUpstream()
    async with (
        MockUpstream(script) as mock,
        ChaosProxy(mock.port, to_client=to_upstream or Spoil()) as chaos,
    ):
        port = chaos.port if to_upstream else mock.port
        route = Route(name="test", base_url=f"http://127.0.0.1:{port}", credential=lambda: ())
        async with listening(Passthrough(upstream, route).handle, limits) as (listener, front):
            yield Relay(upstream, listener, front)
            await emptied(listener)
        await upstream.close()


async def test_many_streams_at_once_arrive_whole_through_slow_and_broken_up_connections() -> None:
    spoilt = Spoil(delay_seconds=0.002, bytes_per_second=400_000)

    async def one(port: int) -> bool:
        async with await RawClient.connect(port) as client:
            await client.post(body=b"x" * 5_000)
            response = await client.response()
            return response.complete and response.body == b"".join(EVENTS)

    async with relaying(forever(STREAM + chunked(*EVENTS)), to_upstream=spoilt) as relay:
        assert all(await asyncio.gather(*(one(relay.port) for _ in range(40))))


@pytest.mark.parametrize("cut", [Cut.FIN, Cut.RESET, Cut.HALF_CLOSE])
async def test_an_answer_cut_upstream_is_cut_for_the_client(cut: Cut) -> None:
    spoilt = Spoil(cut_at=5_000, cut=cut)
    async with (
        relaying(forever(STREAM + chunked(*EVENTS)), to_upstream=spoilt) as relay,
        await RawClient.connect(relay.port) as client,
    ):
        await client.post()
        response = await client.response()

    assert not response.complete
    assert 4_000 < len(response.body) < 5_000
    assert b"".join(EVENTS).startswith(response.body)


async def test_corrupted_framing_never_looks_complete() -> None:
    wire = STREAM + chunked(*EVENTS)
    sizes_at = wire.index(b"\r\n\r\n") + 4
    for at in (sizes_at, sizes_at + 1, len(wire) - 5):
        async with (
            relaying(forever(wire), to_upstream=Spoil(corrupt_at=at)) as relay,
            await RawClient.connect(relay.port) as client,
        ):
            await client.post()
            response = await client.response()

        assert response.status >= 500 or not response.complete


async def test_a_client_that_leaves_cuts_upstream_within_a_stream() -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(STREAM + chunked(*EVENTS[:5], end=False))
        await peer.left()
        left.set()

    async with relaying(script) as relay:
        client = await RawClient.connect(relay.port)
        await client.post()
        await client.head()
        client.reset()
        await asyncio.wait_for(left.wait(), 20)


async def test_a_client_that_leaves_before_the_head_cuts_upstream() -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        asked.set()
        await peer.left()
        left.set()

    async with relaying(script) as relay:
        client = await RawClient.connect(relay.port)
        await client.post()
        await asyncio.wait_for(asked.wait(), 20)
        client.writer.close()
        await asyncio.wait_for(left.wait(), 20)


async def test_a_slow_reader_holds_upstream_back_in_flat_memory() -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.asked()
        await peer.say(STREAM)
        piece = chunked(b"x" * 100_000, end=False)
        while True:
            await peer.say(piece)
            sent += 100_000

    async with relaying(script, limits=ListenerLimits(slow_client_seconds=2.0)) as relay:
        before = _resident_bytes()
        async with await RawClient.connect(relay.port, receive_buffer=4_096) as client:
            await client.post()
            response = await client.head()
            held = -1
            while held != sent or not sent:  # until the kernel's buffers are full
                held = sent
                await asyncio.sleep(0.1)
            assert held < 20_000_000
            assert _resident_bytes() - before < 15_000_000
            assert response.status == 200
            assert relay.listener.open
            await emptied(relay.listener)  # it is too slow


async def test_clients_that_come_and_go_at_random_leave_nothing_open() -> None:
    async def script(peer: Peer) -> None:
        while True:
            await peer.asked()
            await peer.say(STREAM)
            for event in EVENTS[:50]:
                await peer.say(chunked(event, end=False))
                await asyncio.sleep(0.0005)
            await peer.say(b"0\r\n\r\n")

    async def one(port: int, chance: random.Random) -> None:
        async with await RawClient.connect(port) as client:
            await client.post(body=b"x" * chance.randrange(200_000))
            await asyncio.sleep(chance.random() * 0.1)
            if chance.random() < 0.5:
                client.reset()
            elif chance.random() < 0.5:
                await client.response()

    chance = random.Random(7)
    async with relaying(script) as relay:
        await asyncio.gather(*(one(relay.port, chance) for _ in range(100)))
        await emptied(relay.listener)
        assert relay.upstream.exchanges() == 0
        async with await RawClient.connect(relay.port) as client:
            await client.post()
            assert (await client.response()).complete


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
