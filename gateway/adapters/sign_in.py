"""An identity provider that people sign in at (OpenID Connect): its discovery document, its token endpoint,
its keys. The document must say that it is the configured issuer's; endpoints must be https, or this machine.
What an ID token has to say is `core/sign_in.py`.

Nothing that is exchanged is in any log, error or `repr`.
"""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from gateway.adapters.jwks import KeySet, KeySource
from gateway.adapters.outbound import Outbound, OutboundError
from gateway.core.bearer import BadToken, Issuer, check_claims, issuer_of, read_token
from gateway.core.errors import StoreUnavailable
from gateway.core.sign_in import WELL_KNOWN, Attempt, SignedIn, SignInRules, authorisation_url, signed_in
from gateway.ports import Clock

DISCOVERED_SECONDS = 3_600.0
"""How long a discovery document holds."""
FAILED_SECONDS = 5.0
"""How long a failure to read it does, before the provider is asked again."""


@dataclass(frozen=True, slots=True)
class _Discovered:
    at: float
    authorisation: str
    token: str
    keys: KeySet
    in_body: bool
    """Whether the client's secret goes into the body, for providers that do not take it as a header."""


class SignInProvider:
    """`rules` and `issuer` say what is taken; `secret` reads the client's, where it has one (OSError or
    ValueError). `is_safe` judges the URLs of the discovery document."""

    def __init__(
        self,
        issuer: Issuer,
        rules: SignInRules,
        *,
        secret: Callable[[], str] | None,
        is_safe: Callable[[str], bool],
        clock: Clock,
        outbound: Outbound,
    ) -> None:
        self._issuer = issuer
        self._rules = rules
        self._secret = secret
        self._is_safe = is_safe
        self._clock = clock
        self._outbound = outbound
        self._found: _Discovered | None = None
        self._discovering = asyncio.Lock()
        """One at a time: anybody can begin to sign in, and each would ask the provider."""
        self._failed: tuple[float, str] | None = None
        """When that failed last, and why."""

    async def begin(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where the browser is to go. Raises `StoreUnavailable`."""
        found = await self._discovered()
        return authorisation_url(found.authorisation, self._rules, attempt, redirect_uri)

    async def redeem(self, code: str, attempt: Attempt, redirect_uri: str) -> SignedIn:
        """Who came back with this code. Raises `BadToken`, `Forbidden`, `StoreUnavailable`."""
        found = await self._discovered()
        token = read_token((await self._id_token(found, code, attempt, redirect_uri)).encode())
        if issuer_of(token) != self._issuer.issuer:
            raise BadToken("it is of another issuer.")
        check_claims(token, self._issuer, self._clock.now())
        now = self._clock.monotonic()
        verify = found.keys.find(token.key_id, token.algorithm) if found.keys.usable(now) else None
        if verify is None and (found.keys.is_due(now) or found.keys.ask_again(token.key_id, now)):
            try:
                await found.keys.read(self._clock.monotonic)
            except OutboundError as error:
                raise _unavailable(str(error)) from None
            verify = found.keys.find(token.key_id, token.algorithm)
        if verify is None or not verify(token.signed, token.signature):
            raise BadToken("its signature is not that of its issuer.")
        return signed_in(token.claims, self._rules, attempt.nonce)

    async def _id_token(self, found: _Discovered, code: str, attempt: Attempt, redirect_uri: str) -> str:
        client = self._rules.client_id
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
            "client_id": client,
        }
        headers = {"content-type": "application/x-www-form-urlencoded", "accept": "application/json"}
        try:
            if self._secret is not None and found.in_body:
                form["client_secret"] = self._secret()
            elif self._secret is not None:
                # RFC 6749, section 2.3.1: both are form-encoded first.
                pair = f"{quote(client, safe='')}:{quote(self._secret(), safe='')}"
                headers["authorization"] = "Basic " + b64encode(pair.encode()).decode()
            fetched = await self._outbound.fetch(found.token, body=urlencode(form).encode(), headers=headers)
        except (OutboundError, OSError, ValueError) as error:
            raise _unavailable(str(error)) from None
        if fetched.status in (400, 401, 403):
            raise BadToken("the identity provider did not take the code. Try again.")
        answer = _read_object(fetched.status, fetched.body)
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise _unavailable("its answer has no id_token")
        return token

    async def _discovered(self) -> _Discovered:
        async with self._discovering:
            now = self._clock.monotonic()
            if self._found is not None and now - self._found.at < DISCOVERED_SECONDS:
                return self._found
            if self._failed is not None and now - self._failed[0] < FAILED_SECONDS:
                raise StoreUnavailable(self._failed[1])
            try:
                self._found = await self._discover(now)
            except StoreUnavailable as error:
                self._failed = (self._clock.monotonic(), error.message)
                raise
            return self._found

    async def _discover(self, now: float) -> _Discovered:
        issuer = self._issuer.issuer
        try:
            fetched = await self._outbound.fetch(issuer.rstrip("/") + WELL_KNOWN)
        except OutboundError as error:
            raise _unavailable(str(error)) from None
        document = _read_object(fetched.status, fetched.body)
        if document.get("issuer") != issuer:
            raise _unavailable("its discovery document is of another issuer")
        names = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        urls = [url for name in names if isinstance(url := document.get(name), str) and self._is_safe(url)]
        if len(urls) != len(names):
            raise _unavailable("its discovery document lacks an endpoint that is https")
        methods = document.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        keys = self._found.keys if self._found is not None else None
        source = KeySource(url=urls[2])
        if keys is None or keys.source != source:
            keys = KeySet(self._issuer.name, source, self._outbound)
        in_body = isinstance(methods, list) and "client_secret_basic" not in methods
        return _Discovered(now, urls[0], urls[1], keys, in_body)


def _read_object(status: int, body: bytes) -> dict[str, object]:
    if status != 200:
        raise _unavailable(f"it answered {status}")
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise _unavailable("its answer is no JSON object")
    return value


def _unavailable(why: str) -> StoreUnavailable:
    return StoreUnavailable(f"The identity provider cannot be used at the moment: {why}. Try again.")
