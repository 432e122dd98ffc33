"""Why nothing was reached, in plain words: for people who know neither aiohttp nor its errors."""

from __future__ import annotations

import errno
import os

import aiohttp

_WORDS = (
    (aiohttp.ClientConnectorDNSError, "its name cannot be resolved"),
    (aiohttp.ClientConnectorCertificateError, "its certificate is not trusted here"),
    (aiohttp.ClientSSLError, "it does not speak TLS as it should"),
    (aiohttp.ClientHttpProxyError, "the proxy refused to connect to it"),
    (aiohttp.ClientProxyConnectionError, "the proxy cannot be reached"),
    (aiohttp.ServerDisconnectedError, "it closed the connection"),
    (TimeoutError, "it did not answer in time"),
)
"""More special ones first."""


def unreached(error: BaseException) -> str:
    """What stands after "it cannot be reached:". Names no address: clients are told it too."""
    for kind, words in _WORDS:
        if isinstance(error, kind):
            return words
    number = getattr(error, "errno", None)
    if number == errno.ECONNREFUSED:
        return "nothing listens there"
    return os.strerror(number) if number is not None and number > 0 else type(error).__name__
