"""Requests of the gateway's own to places that are configured by URL: key sets, token endpoints. Small,
bounded in time and size, and only where they were meant to go: no redirects, no proxies of the environment,
and no addresses at which clouds keep their metadata, whatever a name resolves to.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import urlsplit

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

_NEVER = tuple(
    ip_network(net)
    for net in (
        "0.0.0.0/8",
        "169.254.0.0/16",  # link-local; the metadata services of most clouds
        "100.100.100.200/32",  # metadata of Alibaba Cloud
        "168.63.129.16/32",  # Azure's wire server
        "192.0.0.192/32",  # metadata of Oracle Cloud
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "fe80::/10",
        "fd00:c1::a9fe:a9fe/128",  # metadata of Oracle Cloud over IPv6
        "fd00:ec2::/32",  # metadata of AWS over IPv6
        "fd20:ce::254/128",  # metadata of Google Cloud over IPv6
        "ff00::/8",
    )
)
_EMBEDDING = (ip_network("64:ff9b::/96"), ip_network("::/96"))
"""IPv6 networks whose addresses end in an IPv4 address."""


class OutboundError(Exception):
    """No usable answer. The message names the host and what went wrong, and nothing that was sent or read."""


@dataclass(frozen=True, slots=True)
class Fetched:
    status: int
    body: bytes = field(repr=False)


class Outbound:
    """A client for rare, small requests. Nothing is kept between two of them."""

    def __init__(
        self, *, timeout_seconds: float = 10.0, largest_bytes: int = 262_144, private: bool = True
    ) -> None:
        """Not `private`: only addresses of the public internet, and this machine where a URL says so."""
        self._timeout_seconds = timeout_seconds
        self._largest_bytes = largest_bytes
        self._private = private

    async def fetch(
        self,
        url: str,
        *,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        proxy: str | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> Fetched:
        """GET, or POST where there is a body. Raises `OutboundError`."""
        host = urlsplit(url).hostname or ""
        if proxy is None and is_refused_literal(host, private=self._private):
            raise OutboundError(f"{host} is an address that the gateway does not ask")
        try:
            async with asyncio.timeout(self._timeout_seconds):
                return await self._fetch(url, body, headers, proxy, tls)
        except TimeoutError:
            raise OutboundError(f"{host} did not answer in {self._timeout_seconds:g} s") from None
        except _Refused as error:
            raise OutboundError(str(error)) from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, _Refused):
                raise OutboundError(str(error.os_error)) from None
            raise OutboundError(f"{host} cannot be asked: {type(error).__name__}") from None

    async def _fetch(
        self,
        url: str,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        proxy: str | None,
        tls: ssl.SSLContext | None,
    ) -> Fetched:
        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(
                    resolver=_Resolver(self._private), use_dns_cache=False, force_close=True
                ),
                trust_env=False,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            ) as session,
            session.request(
                "GET" if body is None else "POST",
                url,
                data=body,
                headers={"accept-encoding": "identity", **(headers or {})},
                allow_redirects=False,
                proxy=proxy,
                ssl=True if tls is None else tls,
            ) as response,
        ):
            if 300 <= response.status < 400:
                raise OutboundError(
                    f"{response.url.host} answered with a redirect, which is not followed; configure the URL "
                    "it leads to"
                )
            return Fetched(response.status, await self._read(response))

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        read = bytearray()
        async for piece in response.content.iter_any():
            read += piece
            if len(read) > self._largest_bytes:
                raise OutboundError(
                    f"{response.url.host} answered with more than {self._largest_bytes} bytes"
                )
        return bytes(read)


def is_refused(address: str) -> bool:
    """Whether an address is one that no service has that the gateway should ask."""
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        embedded = found.ipv4_mapped or found.sixtofour
        if embedded is None and any(found in net for net in _EMBEDDING) and int(found) > 1:
            embedded = IPv4Address(int(found) & 0xFFFFFFFF)
        if embedded is not None and any(embedded in net for net in _NEVER):
            return True
    return any(found in net for net in _NEVER)


def is_private(address: str) -> bool:
    """Whether an address is of no public network: of this machine, a private one, or reserved."""
    found: IPv4Address | IPv6Address = ip_address(address.partition("%")[0])
    if isinstance(found, IPv6Address):
        embedded = found.ipv4_mapped or found.sixtofour
        if embedded is None and any(found in net for net in _EMBEDDING):
            embedded = IPv4Address(int(found) & 0xFFFFFFFF)
        if embedded is not None and not embedded.is_global:
            return True
    return not found.is_global


def is_refused_literal(host: str, *, private: bool = True) -> bool:
    """The same for a host of a URL, where it is an address; names are judged when they are resolved. Where
    `private` ones are not asked, this machine is all the same, since the URL says so."""
    try:
        if not private and is_private(host) and not ip_address(host).is_loopback:
            return True
        return is_refused(host)
    except ValueError:
        return False


class _Refused(OSError):
    """A name led to an address that is not asked."""


class _Resolver(AbstractResolver):
    def __init__(self, private: bool) -> None:
        self._private = private
        self._resolver = aiohttp.ThreadedResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """All addresses, or an error if one of them is refused."""
        found = await self._resolver.resolve(host, port, family)
        local = host == "localhost" or host.endswith(".localhost")
        for each in found:
            address = each["host"]
            near = is_private(address) if not self._private else _is_loopback(address)
            if is_refused(address) or (near and not (local and _is_loopback(address))):
                raise _Refused(f"{host} leads to {address}, an address that the gateway does not ask")
        return found

    async def close(self) -> None:
        await self._resolver.close()


def _is_loopback(address: str) -> bool:
    return ip_address(address.partition("%")[0]).is_loopback
