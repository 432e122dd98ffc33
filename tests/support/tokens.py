"""Somebody who issues tokens: keys, signatures, key sets, and a server for the latter that can misbehave."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import jwt
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import ECAlgorithm, OKPAlgorithm, RSAAlgorithm

AUDIENCE = "claude-gateway"


def private_key(kind: str, number: int = 0) -> Any:
    """One of several keys of a kind; the same within a process."""
    return _made(kind, number)


@functools.cache
def _made(kind: str, number: int) -> Any:
    del number
    if kind in ("RS256", "PS256"):
        return rsa.generate_private_key(public_exponent=65_537, key_size=2_048)
    return (
        ed25519.Ed25519PrivateKey.generate() if kind == "EdDSA" else ec.generate_private_key(ec.SECP256R1())
    )


def jwk_of(kind: str, key_id: str | None, number: int = 0, **more: object) -> dict[str, Any]:
    """The public half, as a key set has it."""
    public = private_key(kind, number).public_key()
    make: Any = {"EdDSA": OKPAlgorithm, "ES256": ECAlgorithm}.get(kind, RSAAlgorithm)
    jwk = {**make.to_jwk(public, as_dict=True), "use": "sig", **more}
    return jwk if key_id is None else {**jwk, "kid": key_id}


def key_set(*jwks: Mapping[str, Any]) -> bytes:
    return json.dumps({"keys": jwks}).encode()


@dataclass
class TokenIssuer:
    """Signs with `number`-th key of the kind, under the id `key_id`."""

    url: str = "https://issuer.test"
    kind: str = "ES256"
    key_id: str = "key-1"
    number: int = 0

    def claims(self, now: float, **changed: object) -> dict[str, Any]:
        """Those of a good token; None leaves one out."""
        claims = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "app-1",
            "iat": int(now),
            "exp": int(now) + 600,
            **changed,
        }
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, now: float, *, header: Mapping[str, Any] | None = None, **changed: object) -> str:
        return jwt.encode(
            self.claims(now, **changed),
            private_key(self.kind, self.number),
            algorithm=self.kind,
            headers={"kid": self.key_id, **(header or {})},
        )

    def keys(self, *others: Mapping[str, Any]) -> bytes:
        return key_set(jwk_of(self.kind, self.key_id, self.number), *others)


def by_hand(header: object, claims: object, signature: bytes = b"signature") -> bytes:
    """Three parts of anything."""
    return b".".join(
        base64.urlsafe_b64encode(part if isinstance(part, bytes) else json.dumps(part).encode()).rstrip(b"=")
        for part in (header, claims, signature)
    )


@dataclass
class KeyServer:
    """A server of key sets. `answers` are what it does, path by path: bytes to serve, a status, or `slow`."""

    url: str = ""
    answers: dict[str, bytes | int | str] = field(default_factory=dict)
    asked: list[web.Request] = field(default_factory=list)

    async def respond(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(request)
        answer = self.answers.get(request.path, 404)
        if answer == "slow":
            await asyncio.sleep(3_600)
        if isinstance(answer, str):
            raise web.HTTPFound(answer)
        if isinstance(answer, int):
            return web.Response(status=answer)
        return web.Response(body=answer, content_type="application/json")


@asynccontextmanager
async def a_key_server(**answers: bytes | int | str) -> AsyncIterator[KeyServer]:
    """On a free port, until the end; an answer's name is its path."""
    server = KeyServer(answers={f"/{name}": answer for name, answer in answers.items()})
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", server.respond)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()
