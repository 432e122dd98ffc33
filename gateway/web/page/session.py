"""Who is looking at the page: sessions as signed cookies, with an end by idleness and an absolute one.

A session is the cookie alone, so that replicas that share a key share sessions, and a restart ends none of
them. What they share besides is which sessions were signed out of. However somebody signed in,
`begin_session` makes it; the form with the admin token is `signing_in.py`.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import logging
from collections import OrderedDict
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from aiohttp import web

from gateway.core.errors import StoreUnavailable

log = logging.getLogger(__name__)

COOKIE = "cgw_session"
SECURE_COOKIE = "__Host-cgw_session"
"""Where the page is reached by https: browsers then take it from this host alone."""
RENEWED_AFTER_SECONDS = 60.0
"""How old a cookie's `seen_at` may be before a new one is sent."""
ENDED_KEPT = 10_000
MAX_SUBJECT = 200


class Role(StrEnum):
    """What somebody may do on the page."""

    VIEWER = "viewer"
    """See all of it."""
    EDITOR = "editor"
    """Change budgets and keys, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Session:
    """One sign-in of one person. Instants are epoch seconds."""

    id: str
    subject: str
    """The name that goes into the audit trail; empty where nobody knows it."""
    by: str
    """How it is known that they may, for the audit trail: `by the admin token`."""
    role: Role
    began_at: float
    seen_at: float


class SignOuts(Protocol):
    """Which sessions were signed out of, for all who share their key. May raise `StoreUnavailable`. Instants
    are epoch seconds."""

    async def add(self, session_id: str, *, at: float, until: float) -> None:
        """Signed out of at `at`, to be remembered `until`."""
        ...

    async def has(self, session_id: str) -> bool: ...

    async def close(self) -> None: ...


def cookie_name(name: str, port: int | None) -> str:
    """Of the gateway at this port."""
    return f"{name}_{port}" if port else name


class Sessions:
    """Seals sessions into cookies and opens them. `key` signs; whoever has it can make a session."""

    def __init__(
        self,
        key: bytes,
        sign_outs: SignOuts,
        *,
        idle_seconds: float,
        longest_seconds: float,
        secure: bool,
        port: int | None = None,
    ) -> None:
        """`port`: where browsers reach the page, where that is not what their scheme means. Cookies do not
        know ports: without it in the name, two gateways on one host would end each other's sessions."""
        self._key = key
        self._sign_outs = sign_outs
        self._idle_seconds = idle_seconds
        self._longest_seconds = longest_seconds
        self._secure = secure
        self.cookie = cookie_name(SECURE_COOKIE if secure else COOKIE, port)
        self._ended: OrderedDict[str, None] = OrderedDict()
        """Those that are known to have been signed out of, whether or not the others can be asked."""

    def begin_session(
        self, response: web.StreamResponse, *, id: str, subject: str, by: str, role: Role, at: float
    ) -> Session:
        """A new session, its cookie on the response. `id`: 128 random bits or more, as text."""
        session = Session(id=id, subject=subject[:MAX_SUBJECT], by=by, role=role, began_at=at, seen_at=at)
        self._set(response, session)
        return session

    async def of(self, request: web.Request, at: float) -> Session | None:
        """The session of a request; None where there is none, or it has ended. While nobody can say who has
        signed out elsewhere, it has not: the page is for looking at just such a time."""
        session = self._opened(request.cookies.get(self.cookie, ""))
        if session is None or session.id in self._ended:
            return None
        idle, age = at - session.seen_at, at - session.began_at
        if idle >= self._idle_seconds or age >= self._longest_seconds:
            return None
        try:
            ended = await self._sign_outs.has(session.id)
        except StoreUnavailable as error:
            log.warning("a session counts as not signed out of: %s", error.message)
            return session
        if ended:
            self._remember(session)
        return None if ended else session

    def renew(self, response: web.StreamResponse, session: Session, at: float) -> None:
        """Note on the response that the session was used."""
        if at - session.seen_at >= RENEWED_AFTER_SECONDS:
            self._set(response, replace(session, seen_at=at))

    async def end(self, session: Session, at: float) -> None:
        """Sign out: no copy of the cookie is taken any more, here and by all who share sessions. Raises
        `StoreUnavailable` where only this process knows."""
        self._remember(session)
        await self._sign_outs.add(session.id, at=at, until=session.began_at + self._longest_seconds)

    def forget(self, response: web.StreamResponse) -> None:
        """Let the browser forget the cookie."""
        response.del_cookie(self.cookie, path="/", secure=self._secure, httponly=True, samesite="Strict")

    def form_token(self, session: Session) -> str:
        """What a form of this session carries, which no other page can know."""
        return self._mac(b"form", session.id.encode())

    def is_form_token(self, session: Session, given: str) -> bool:
        return hmac.compare_digest(self.form_token(session).encode(), given.encode("utf-8", "replace"))

    def seal(self, session: Session, text: str) -> str:
        """What the page says of itself in a URL, so that nobody can make a link that says something else."""
        return f"{text}.{self._said(session, text)}"

    def unseal(self, session: Session, sealed: str) -> str:
        """What was sealed for this session; empty where it was not."""
        text, _, mac = sealed.rpartition(".")
        expected = self._said(session, text).encode()
        return text if hmac.compare_digest(expected, mac.encode("utf-8", "replace")) else ""

    def _said(self, session: Session, text: str) -> str:
        return self._mac(b"said", f"{session.id}\0{text}".encode("utf-8", "replace"))[:32]

    def _remember(self, session: Session) -> None:
        self._ended[session.id] = None
        if len(self._ended) > ENDED_KEPT:
            self._ended.popitem(last=False)

    def _set(self, response: web.StreamResponse, session: Session) -> None:
        fields = [session.id, session.subject, session.by, session.role, session.began_at, session.seen_at]
        body = (
            base64.urlsafe_b64encode(json.dumps(fields, ensure_ascii=False).encode("utf-8", "replace"))
            .decode()
            .rstrip("=")
        )
        response.set_cookie(
            self.cookie,
            f"{body}.{self._mac(b'session', body.encode())}",
            path="/",
            httponly=True,
            secure=self._secure,
            samesite="Strict",
        )

    def _opened(self, cookie: str) -> Session | None:
        body, _, mac = cookie.partition(".")
        expected = self._mac(b"session", body.encode("utf-8", "replace"))
        if not hmac.compare_digest(expected.encode(), mac.encode("utf-8", "replace")):
            return None
        # Signed with our key: what it holds is what was put in.
        fields = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        key, subject, by, role, began_at, seen_at = fields
        return Session(id=key, subject=subject, by=by, role=Role(role), began_at=began_at, seen_at=seen_at)

    def _mac(self, purpose: bytes, message: bytes) -> str:
        return hmac.new(self._key, purpose + b"\0" + message, hashlib.sha256).hexdigest()
