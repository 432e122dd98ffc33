"""Ways in which upstream fails that are not cuts of its bytes: names, certificates, heads that drip, bodies
that end with their connection, many calls at once. docs/failure-modes.md tells what the gateway does."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from gateway.adapters.claude import ClaudeUpstream
from gateway.core.errors import UpstreamTimeout, UpstreamUnreachable
from gateway.core.ledger import Dimension
from tests.e2e.whole.calls import ASK, call, in_front_of
from tests.support.mock_upstream import MockUpstream, Peer, forever
from tests.support.raw_client import RawClient
from tests.support.stack import Stack, a_stack
from tests.support.streams import message_delta, start, stop, text_delta, transcript, usage
from tests.support.tls import Certificate
from tests.support.upstreams import OK, a_request

STREAM = {**ASK, "stream": True}
EVENTS = transcript().count(b"\n\n")
AT_ONCE = 150


async def test_a_head_that_drips_has_the_time_of_a_head_and_no_more(upstream: ClaudeUpstream) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        for byte in b"HTTP/1.1 200 OK\r\nx: " + b"y" * 1000:
            await peer.say(bytes([byte]))
            await asyncio.sleep(0.05)

    async with MockUpstream(script) as mock:
        with pytest.raises(UpstreamTimeout) as caught:
            async with upstream.open(a_request(mock.base_url)):
                pass

    assert caught.value.request_sent


async def test_a_name_that_leads_nowhere_is_a_502_that_costs_nothing(tmp_path: Path) -> None:
    nowhere = {"GATEWAY_UPSTREAMS__DEFAULT__BASE_URL": "http://no-such-name.invalid"}
    async with a_stack(tmp_path, environ=nowhere) as stack:
        answer = await call(stack, ASK)
        (total,) = await stack.books(Dimension.WORKSPACE)

    assert (answer.status, answer.json["error"]["type"]) == (502, "api_error")
    assert (total.requests, total.failed, total.cost_nanousd) == (1, 1, 0)


@pytest.mark.parametrize(("host", "days"), [("127.0.0.1", -1), ("api.example.com", 2)])
async def test_a_certificate_that_expired_or_is_for_another_host_gets_no_byte(
    host: str, days: int, tmp_path: Path
) -> None:
    certificate = _certificate(tmp_path, host, days)
    upstream = ClaudeUpstream(tls=certificate.client())
    async with MockUpstream(forever(b""), certificate.server()) as mock:
        mock.failures.clear()
        with pytest.raises(UpstreamUnreachable) as caught:
            async with upstream.open(a_request(mock.base_url)):
                pass
    await upstream.close()

    assert not caught.value.request_sent
    assert mock.requests == []


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("left_out", [1, 5])
async def test_a_stream_that_ends_with_its_connection_is_whole_only_with_its_last_event(
    left_out: int, reset: bool, tmp_path: Path
) -> None:
    """aiohttp's client takes both for an end of a body without a length."""
    kept = b"".join(event + b"\n\n" for event in transcript().split(b"\n\n")[: EVENTS - left_out])

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK + b"connection: close\r\n\r\n" + kept)
        await asyncio.sleep(0.05)  # so that a reset overtakes nothing
        peer.reset() if reset else peer.finish()

    async with in_front_of(script, tmp_path) as (stack, _):
        status, body, whole = await _raw(stack, STREAM)
        (total,) = await stack.books(Dimension.WORKSPACE)

    assert (status, whole) == (200, False)
    assert body.startswith(kept)
    assert body[len(kept) :].lstrip(b"\n").startswith(b"event: error\n")
    assert total.failed == 1
    assert total.guessed_nanousd == total.cost_nanousd > 0


async def test_a_stream_that_ends_with_its_connection_after_its_last_event_is_whole(tmp_path: Path) -> None:
    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK + b"connection: close\r\n\r\n" + transcript())
        peer.finish()

    async with in_front_of(script, tmp_path) as (stack, _):
        status, body, whole = await _raw(stack, STREAM)
        (total,) = await stack.books(Dimension.WORKSPACE)

    assert (status, body, whole) == (200, transcript(), True)
    assert (total.failed, total.guessed_nanousd) == (0, 0)


async def test_no_pool_of_connections_makes_calls_wait_for_each_other(tmp_path: Path) -> None:
    """None is answered before all have arrived: with a pool of a hundred, as clients have, all would hang."""
    arrived = 0
    everyone = asyncio.Event()

    async def script(peer: Peer) -> None:
        nonlocal arrived
        await peer.asked()
        arrived += 1
        if arrived == AT_ONCE:
            everyone.set()
        await everyone.wait()
        await peer.say(OK + b"connection: close\r\n\r\n" + transcript())
        peer.finish()

    async with in_front_of(script, tmp_path) as (stack, _), asyncio.timeout(40):
        answers = await asyncio.gather(*(_raw(stack, STREAM) for _ in range(AT_ONCE)))

    assert {(status, whole) for status, _, whole in answers} == {(200, True)}


async def test_a_long_stream_is_relayed_in_flat_memory(tmp_path: Path) -> None:
    """Forty thousand events: whatever were kept of each would show."""
    delta = text_delta("word ") * 100

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.say(OK + b"connection: close\r\n\r\n" + start(usage(10, 1)))
        for _ in range(400):
            await peer.say(delta)
        await peer.say(message_delta(usage(10, 40_000)) + stop())
        peer.finish()

    async with in_front_of(script, tmp_path) as (stack, _):
        await call(stack, ASK)  # whatever a first call makes once is there
        tracemalloc.start()
        try:
            async with await RawClient.connect(int(stack.url.rpartition(":")[2])) as client:
                headers = (b"x-api-key: " + stack.keys["demo"].encode(), b"anthropic-version: 2023-06-01")
                await client.post("/v1/messages", json.dumps(STREAM).encode(), *headers, b"connection: close")
                passed = 0
                while piece := await client.reader.read(65536):
                    passed += len(piece)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

    assert passed > 400 * len(delta)
    assert most < 3_000_000


async def test_what_upstream_sends_after_its_answer_reaches_nobody(tmp_path: Path) -> None:
    """A second answer behind the first, unasked for: the next call must not take it for its own."""
    body = b'{"type":"error","error":{"type":"api_error","message":"%s"}}'
    numbers = iter(range(100))

    async def script(peer: Peer) -> None:
        while True:
            await peer.asked()
            mine = body % (b"%d" % next(numbers))
            head = b"HTTP/1.1 400 Bad\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
            await peer.say(head % len(mine) + mine + head % len(body) + body)

    async with in_front_of(script, tmp_path) as (stack, mock):
        said = [(await call(stack, ASK)).json["error"]["message"] for _ in range(3)]

    assert said == ["0", "1", "2"]
    assert mock.connections == 3


async def _raw(stack: Stack, ask: object) -> tuple[int, bytes, bool]:
    """Status, body, and whether that ended as its framing says."""
    async with await RawClient.connect(int(stack.url.rpartition(":")[2])) as client:
        headers = (b"x-api-key: " + stack.keys["demo"].encode(), b"anthropic-version: 2023-06-01")
        await client.post("/v1/messages", json.dumps(ask).encode(), *headers)
        response = await client.response()
        return response.status, response.body, response.complete


def _certificate(folder: Path, host: str, days: int) -> Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
    now = datetime.now(UTC)  # noqa: TID251  # of the certificate, which TLS compares with the machine's clock
    alternative: x509.GeneralName = x509.DNSName(host)
    with suppress(ValueError):
        alternative = x509.IPAddress(ipaddress.ip_address(host))
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=9))
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([alternative]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / "cert.pem", folder / "key.pem"
    chain.write_bytes(made.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return Certificate(chain, private)
