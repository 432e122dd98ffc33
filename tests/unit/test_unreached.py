"""Why upstream was not reached, as clients and operators are told."""

from __future__ import annotations

import errno
import os
import socket
import ssl

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey

from gateway.adapters.unreached import unreached
from tests.support.stack import a_simulator

KEY = ConnectionKey("api.private.example", 443, True, True, None, None, None)


def refusal(number: int) -> aiohttp.ClientConnectorError:
    return aiohttp.ClientConnectorError(KEY, OSError(number, os.strerror(number)))


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (aiohttp.ClientConnectorDNSError(KEY, socket.gaierror(-2, "Name unknown")), "cannot be resolved"),
        (aiohttp.ClientConnectorCertificateError(KEY, ssl.CertificateError("bad")), "not trusted"),
        (aiohttp.ClientConnectorSSLError(KEY, ssl.SSLError("wrong version")), "TLS"),
        (aiohttp.ClientProxyConnectionError(KEY, ConnectionRefusedError(111, "no")), "the proxy"),
        (refusal(errno.ECONNREFUSED), "nothing listens there"),
        (refusal(errno.ENETUNREACH), "Network is unreachable"),
        (aiohttp.ServerDisconnectedError(), "closed the connection"),
        (TimeoutError(), "in time"),
        (aiohttp.ClientPayloadError(), "ClientPayloadError"),
    ],
)
def test_says_in_plain_words_why_and_names_no_address(error: Exception, words: str) -> None:
    said = unreached(error)

    assert words in said
    assert "private" not in said


async def test_plain_http_where_tls_is_expected_is_told() -> None:
    simulator = a_simulator()
    url = await simulator.start()
    try:
        async with aiohttp.ClientSession() as session:
            with pytest.raises(aiohttp.ClientError) as caught:
                await session.get(url.replace("http:", "https:"))
    finally:
        await simulator.stop()

    assert unreached(caught.value) == "it does not speak TLS as it should"
