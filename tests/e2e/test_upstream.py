"""The connection to upstream over real sockets: framings, cuts, stalls, early answers, reuse."""

from __future__ import annotations

import asyncio

import pytest

from gateway.adapters.claude import ClaudeUpstream
from gateway.core.errors import (
    ClientGone,
    UpstreamCut,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tests.support.chaos_proxy import ChaosProxy, Cut, Spoil
from tests.support.mock_upstream import MockUpstream, Peer, chunked, forever
from tests.support.upstreams import ANSWERS, BODY, EVENTS, OK, Collected, a_request, read_all


@pytest.mark.parametrize("framing", ANSWERS)
async def test_relays_every_framing_to_the_byte(patient: ClaudeUpstream, framing: str) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(ANSWERS[framing])
        peer.finish()

    async with MockUpstream(script) as mock, patient.open(a_request(mock.base_url)) as answer:
        headers = answer.headers
        body = await read_all(answer)

    assert body == BODY
    assert answer.status == 200
    assert (b"content-type", b"text/event-stream") in headers
    assert not answer.headers  # they are not kept for as long as a stream lasts
    assert b"transfer-encoding" not in dict(answer.headers)


@pytest.mark.parametrize("framing", ANSWERS)
@pytest.mark.parametrize("cut", [Cut.FIN, Cut.RESET, Cut.STALL])
async def test_a_cut_within_the_body_is_never_taken_for_its_end(
    upstream: ClaudeUpstream, framing: str, cut: Cut
) -> None:
    answer_bytes = ANSWERS[framing]
    body_at = answer_bytes.index(b"\r\n\r\n") + 4
    cut_at = body_at + (len(answer_bytes) - body_at) // 2
    collected = Collected()

    async def run(port: int) -> None:
        async with upstream.open(a_request(f"http://127.0.0.1:{port}")) as answer:
            await read_all(answer, collected)

    async with (
        MockUpstream(forever(answer_bytes)) as mock,
        ChaosProxy(mock.port, to_client=Spoil(cut_at=cut_at, cut=cut)) as proxy,
    ):
        if cut is Cut.STALL:
            with pytest.raises(UpstreamTimeout):
                await run(proxy.port)
        elif framing == "close" and cut is Cut.FIN:
            await run(proxy.port)  # nothing on the wire tells it from the end: message_stop has to
        else:
            with pytest.raises(UpstreamCut):
                await run(proxy.port)

    assert BODY.startswith(collected.body)
    assert len(collected.body) < len(BODY)


@pytest.mark.parametrize("cut", [Cut.FIN, Cut.RESET])
@pytest.mark.parametrize("cut_at", [0, 10])
async def test_a_connection_that_breaks_before_the_head_may_have_been_billed(
    upstream: ClaudeUpstream, cut: Cut, cut_at: int
) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(ANSWERS["length"][:cut_at])
        peer.reset() if cut is Cut.RESET else peer.finish()

    async with MockUpstream(script) as mock:
        with pytest.raises(UpstreamUnreachable) as caught:
            async with upstream.open(a_request(mock.base_url)):
                pass

    assert caught.value.request_sent


async def test_a_refused_connection_was_surely_not_sent(upstream: ClaudeUpstream) -> None:
    async with MockUpstream(forever()) as mock:
        nobody = mock.base_url

    with pytest.raises(UpstreamUnreachable) as caught:
        async with upstream.open(a_request(nobody)):
            pass

    assert not caught.value.request_sent


async def test_silence_before_the_head_is_a_timeout(upstream: ClaudeUpstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.left()

    async with MockUpstream(script) as mock:
        with pytest.raises(UpstreamTimeout) as caught:
            async with upstream.open(a_request(mock.base_url)):
                pass

    assert caught.value.request_sent


async def test_a_reader_that_rests_is_not_upstreams_silence(upstream: ClaudeUpstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(ANSWERS["length"])
        await peer.left()

    collected = Collected(congested_every=1)
    async with MockUpstream(script) as mock, upstream.open(a_request(mock.base_url)) as answer:
        finished = await answer.pump(collected.feed)
        await asyncio.sleep(2.1)  # over twice the idle timeout
        while not finished:
            finished = await answer.pump(collected.feed)

    assert collected.body == BODY


async def test_a_congested_reader_stops_the_socket(patient: ClaudeUpstream) -> None:
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.asked()
        await peer.say(OK + b"content-length: 100000000\r\n\r\n")
        while True:
            await peer.say(bytes(100_000))
            sent += 100_000

    async with MockUpstream(script) as mock, patient.open(a_request(mock.base_url)) as answer:
        assert not await answer.pump(lambda data: True)
        before = -1
        while before != sent:  # until the kernel's buffers are full
            before = sent
            await asyncio.sleep(0.2)

        assert sent < 20_000_000


async def test_keeps_and_reuses_a_connection_whose_answer_was_read(patient: ClaudeUpstream) -> None:
    async with MockUpstream(forever(ANSWERS["chunked"])) as mock:
        for _ in range(5):
            async with patient.open(a_request(mock.base_url)) as answer:
                assert await read_all(answer) == BODY

    assert mock.connections == 1
    assert len(mock.requests) == 5


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(ANSWERS["length"] + b"HTTP/1.1 200 OK\r\n", id="bytes after the end"),
        pytest.param(
            ANSWERS["length"].replace(b"200 OK\r\n", b"200 OK\r\nconnection: close\r\n"), id="close"
        ),
        pytest.param(ANSWERS["length"].replace(b"HTTP/1.1", b"HTTP/1.0"), id="http 1.0"),
    ],
)
async def test_a_connection_in_doubt_is_not_reused(patient: ClaudeUpstream, answer: bytes) -> None:
    async with MockUpstream(forever(answer)) as mock:
        for _ in range(2):
            async with patient.open(a_request(mock.base_url)) as got:
                assert await read_all(got) == BODY

    assert mock.connections == 2


async def test_leaving_early_cuts_upstream_at_once(patient: ClaudeUpstream) -> None:
    left = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(*EVENTS, end=False))
        await peer.left()
        left.set()

    async with MockUpstream(script) as mock:
        async with patient.open(a_request(mock.base_url)) as answer:
            assert answer.status == 200
        await asyncio.wait_for(left.wait(), 20)


async def test_a_cancelled_opening_cuts_upstream_at_once(patient: ClaudeUpstream) -> None:
    asked, left = asyncio.Event(), asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        asked.set()
        await peer.left()
        left.set()

    async with MockUpstream(script) as mock, asyncio.TaskGroup() as group:
        opening = patient.open(a_request(mock.base_url))
        task = group.create_task(opening.__aenter__())
        await asyncio.wait_for(asked.wait(), 20)
        task.cancel()
        await asyncio.wait_for(left.wait(), 20)


async def test_a_kept_connection_that_breaks_before_the_head_may_have_been_billed(
    patient: ClaudeUpstream,
) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(ANSWERS["length"])
        await peer.asked(body=False)
        peer.reset()

    async with MockUpstream(script) as mock:
        async with patient.open(a_request(mock.base_url)) as answer:
            await read_all(answer)
        with pytest.raises(UpstreamUnreachable) as caught:
            async with patient.open(a_request(mock.base_url)):
                pass

    assert caught.value.request_sent


async def test_a_connection_closed_while_kept_is_not_used(patient: ClaudeUpstream) -> None:
    closed = asyncio.Event()

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(ANSWERS["length"])
        if mock.connections == 1:
            peer.finish()
            await peer.writer.wait_closed()
            closed.set()
        await peer.left()

    async with MockUpstream(script) as mock:
        for _ in range(2):
            async with patient.open(a_request(mock.base_url)) as answer:
                assert await read_all(answer) == BODY
            await asyncio.wait_for(closed.wait(), 20)
            await asyncio.sleep(0.05)

    assert mock.connections == 2


async def test_skips_informational_responses_and_follows_no_redirect(patient: ClaudeUpstream) -> None:
    early = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n"
    found = b"HTTP/1.1 307 Temporary Redirect\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"
    async with MockUpstream(forever(early + found)) as mock, patient.open(a_request(mock.base_url)) as answer:
        assert answer.status == 307
        assert (b"location", b"http://127.0.0.1:1/") in answer.headers
        assert await read_all(answer) == b""


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"not http at all\r\n\r\n",
        b"HTTP/1.1 200 OK\ncontent-length: 0\n\nHTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
    ],
)
async def test_a_malformed_head_is_no_answer(patient: ClaudeUpstream, head: bytes) -> None:
    async with MockUpstream(forever(head)) as mock:
        with pytest.raises(UpstreamUnreachable):
            async with patient.open(a_request(mock.base_url)):
                pass


@pytest.mark.parametrize("spoilt", [b"zz\r\n", b"-5\r\n", b"5\r\nabcdefgh", b"0x5\r\n", b"f" * 17 + b"\r\n"])
async def test_broken_chunks_are_a_cut(patient: ClaudeUpstream, spoilt: bytes) -> None:
    answer_bytes = OK + b"transfer-encoding: chunked\r\n\r\n" + chunked(b"fine", end=False) + spoilt
    async with MockUpstream(forever(answer_bytes)) as mock:
        with pytest.raises(UpstreamCut):
            async with patient.open(a_request(mock.base_url)) as answer:
                await read_all(answer)


async def test_what_the_reader_raises_reaches_its_caller(patient: ClaudeUpstream) -> None:
    def feed(data: bytes) -> bool:
        raise ClientGone("the client has left")

    async with MockUpstream(forever(ANSWERS["length"])) as mock:
        with pytest.raises(ClientGone):
            async with patient.open(a_request(mock.base_url)) as answer:
                await answer.pump(feed)


async def test_survives_any_splitting_of_the_answer(patient: ClaudeUpstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        data = ANSWERS["chunked"]
        for at in range(0, len(data), 3):
            await peer.say(data[at : at + 3])
            if at % 60 == 0:
                await asyncio.sleep(0.001)
        await peer.left()

    async with MockUpstream(script) as mock, patient.open(a_request(mock.base_url)) as answer:
        assert await read_all(answer) == BODY
