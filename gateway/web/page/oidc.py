"""Signing in at an identity provider (OpenID Connect, authorisation code with PKCE): two screens, and between
them a cookie that holds the attempt. What the provider says is judged by whoever `provider` is.

The attempt is bound to the browser: `state` comes back by the URL and by the cookie, and both must agree.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import html
import json
from collections.abc import Callable
from typing import Final, Protocol

from aiohttp import web

from gateway.core.errors import Forbidden, StoreUnavailable, Unauthenticated
from gateway.core.sign_in import Attempt, SignedIn
from gateway.ports import Clock
from gateway.web.admin_api import AdminError
from gateway.web.page.rendering import HEADERS, PREFIX, Screen
from gateway.web.page.session import Role, Sessions, cookie_name

BEGIN, BACK = "/oidc/begin", "/oidc/back"
"""Below /page; the second is what the provider knows as redirect URI."""
COOKIE, SECURE_COOKIE = "cgw_oidc", "__Host-cgw_oidc"
ATTEMPT_SECONDS: Final = 600
MAX_CODE: Final = 4_096
BY_PROVIDER = "by the identity provider"


class Provider(Protocol):
    """Who people sign in at."""

    async def begin(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where the browser is to go. Raises `StoreUnavailable`."""
        ...

    async def redeem(self, code: str, attempt: Attempt, redirect_uri: str) -> SignedIn:
        """Who came back. Raises `Unauthenticated`, `Forbidden` or `StoreUnavailable`."""
        ...


class SigningInElsewhere:
    """The way out and the way back. `key` seals the cookie; `new_secret` gives 192 random bits or more, as
    text; `inside` makes a place of this page of what a browser asked for."""

    def __init__(
        self,
        provider: Provider,
        sessions: Sessions,
        *,
        key: bytes,
        public_url: str,
        clock: Clock,
        new_secret: Callable[[], str],
        inside: Callable[[str], str],
        port: int | None = None,
    ) -> None:
        self._provider = provider
        self._sessions = sessions
        self._key = key
        self._redirect_uri = f"{public_url}{PREFIX}{BACK}"
        self._secure = public_url.startswith("https:")
        self._cookie = cookie_name(SECURE_COOKIE if self._secure else COOKIE, port)
        self._clock = clock
        self._new_secret = new_secret
        self._inside = inside

    def screens(self) -> list[Screen]:
        return [
            Screen(path=BEGIN, respond=self._begin, open=True),
            Screen(path=BACK, respond=self._back, open=True),
        ]

    async def _begin(self, request: web.Request) -> web.StreamResponse:
        new = self._new_secret
        attempt = Attempt(state=new(), nonce=new(), verifier=new() + new())
        try:
            url = await self._provider.begin(attempt, self._redirect_uri)
        except StoreUnavailable as error:
            raise AdminError(503, error.message) from None
        response = web.Response(status=303, headers={"location": url, "cache-control": "no-store"})
        wanted = self._inside(request.query.get("next", ""))
        response.set_cookie(
            self._cookie,
            _sealed(self._key, attempt, wanted, self._clock.now()),
            max_age=ATTEMPT_SECONDS,
            path="/",
            httponly=True,
            secure=self._secure,
            samesite="Lax",  # the way back begins at the provider, where no strict cookie is sent
        )
        return response

    async def _back(self, request: web.Request) -> web.StreamResponse:
        attempt, wanted = _opened(self._key, request.cookies.get(self._cookie, ""), self._clock.now())
        person = await self._redeemed(_code_of(request, attempt), attempt)
        response = _on_to(wanted)
        response.del_cookie(self._cookie, path="/", secure=self._secure, httponly=True, samesite="Lax")
        self._sessions.begin_session(
            response,
            id=self._new_secret(),
            subject=person.name,
            by=BY_PROVIDER,
            role=Role.EDITOR if person.may_edit else Role.VIEWER,
            at=self._clock.now(),
        )
        return response

    async def _redeemed(self, code: str, attempt: Attempt) -> SignedIn:
        try:
            return await self._provider.redeem(code, attempt, self._redirect_uri)
        except (Unauthenticated, Forbidden) as error:
            raise AdminError(403, error.message) from None
        except StoreUnavailable as error:
            raise AdminError(503, error.message) from None


def _code_of(request: web.Request, attempt: Attempt) -> str:
    state, code = request.query.getall("state", []), request.query.getall("code", [])
    same = len(state) == 1 and hmac.compare_digest(
        state[0].encode("utf-8", "replace"), attempt.state.encode()
    )
    if not same:
        raise AdminError(400, "This is not the attempt to sign in that this browser began; begin again.")
    if len(code) != 1 or not 0 < len(code[0]) <= MAX_CODE:
        raise AdminError(403, "The identity provider did not let you in.")
    return code[0]


def _on_to(path: str) -> web.Response:
    """A page that goes on by itself. A redirect would still count as coming from the provider, and browsers
    would leave the session's strict cookie out."""
    target = html.escape(path, quote=True)
    text = (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Signed in</title>'
        f'<meta http-equiv="refresh" content="0;url={target}"></head>'
        f'<body><p>You are signed in. <a href="{target}">Go on</a></p></body></html>'
    )
    return web.Response(text=text, content_type="text/html", headers=HEADERS)


def _sealed(key: bytes, attempt: Attempt, wanted: str, at: float) -> str:
    fields = [attempt.state, attempt.nonce, attempt.verifier, wanted, at]
    body = base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")
    return f"{body}.{_mac(key, body)}"


def _opened(key: bytes, cookie: str, at: float) -> tuple[Attempt, str]:
    body, _, mac = cookie.partition(".")
    if not hmac.compare_digest(_mac(key, body).encode(), mac.encode("utf-8", "replace")):
        raise AdminError(400, "This browser began no attempt to sign in, or its cookie is gone; begin again.")
    # Signed with our key: what it holds is what was put in.
    state, nonce, verifier, wanted, began_at = json.loads(
        base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))
    )
    if not 0 <= at - began_at < ATTEMPT_SECONDS:
        raise AdminError(400, "This attempt to sign in took too long; begin again.")
    return Attempt(state=state, nonce=nonce, verifier=verifier), wanted


def _mac(key: bytes, body: str) -> str:
    return hmac.new(key, b"oidc\0" + body.encode("utf-8", "replace"), hashlib.sha256).hexdigest()
