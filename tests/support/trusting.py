"""Issuers that are trusted, on a clock that tests move."""

from __future__ import annotations

import asyncio
from pathlib import Path

from gateway.adapters.issuers import Issuers, TrustedIssuer
from gateway.adapters.jwks import KeySource
from gateway.adapters.outbound import Outbound
from gateway.core.bearer import Algorithm, Issuer
from gateway.core.claims import ClaimRule
from gateway.core.ids import WorkspaceId
from tests.support.clock import FakeClock
from tests.support.tokens import AUDIENCE


class World:
    """`Issuers` with its clock, and whether it asked to be woken."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.outbound = Outbound(timeout_seconds=20.0, largest_bytes=65_536)
        self.woken = 0
        self.issuers = Issuers(self.clock, self.outbound, self._woke)

    def _woke(self) -> None:
        self.woken += 1

    async def trust(self, *trusted: TrustedIssuer) -> None:
        self.issuers.take_over(trusted)
        await self.refresh()

    async def refresh(self) -> None:
        await asyncio.gather(*self.issuers.due())

    def who(self, token: str | bytes) -> str:
        raw = token.encode() if isinstance(token, str) else token
        return self.issuers.identify(raw, self.clock.now()).subject


def put(path: Path, text: bytes) -> None:
    path.write_bytes(text)


def trusted(source: KeySource, name: str = "test", issuer: str = "https://issuer.test") -> TrustedIssuer:
    return TrustedIssuer(
        issuer=Issuer(
            name=name,
            issuer=issuer,
            audiences=(AUDIENCE,),
            algorithms=frozenset(Algorithm),
            leeway_seconds=30.0,
            subject="sub",
            rules=(ClaimRule(conditions=(("sub", ("app-*",)),), workspace=WorkspaceId("demo")),),
        ),
        source=source,
    )
