"""Upstream credentials by workload identity federation: exchanges the gateway's own identity token for a
token of the API, and again before that expires. Calls never wait for it while there is a good one; what a
token looks like and when to ask is `core/federation.py`.

Fails closed: without a token that is good, calls end with `CredentialUnavailable`. Neither the identity token
nor what it is exchanged for is in any log, error, metric or `repr`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from gateway.adapters.outbound import Outbound, OutboundError
from gateway.core.errors import CredentialUnavailable
from gateway.core.federation import (
    MAX_ASSERTION_BYTES,
    TokenRequest,
    UpstreamToken,
    backoff_seconds,
    read_answer,
    refresh_at,
)
from gateway.core.headers import Header, Headers, value_of
from gateway.ports import Clock
from gateway.tasks import TaskSet

log = logging.getLogger(__name__)

RENEW_SECONDS = 10.0
"""How often a token that upstream refused makes another one be asked for, at most."""
WAIT_SECONDS = 10.0
"""How long a call waits for a token where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Federated:
    """An upstream whose credential is got by federation. `identity` reads the gateway's own token, anew
    whenever its file changed; it raises OSError or ValueError. `lines`: what goes with the credential."""

    name: str
    url: str
    request: TokenRequest
    identity: Callable[[], str] = field(repr=False, compare=False)
    identity_from: str
    """How the configuration names where it is found."""
    exchange_betas: tuple[str, ...]
    lines: tuple[Header, ...] = ()
    early_seconds: float
    proxy: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationStatus:
    """How an upstream's token stands; `expires_at` is None where there is none."""

    upstream: str
    expires_at: float | None
    refreshes: int
    failures: int


class Federation:
    """The token of one upstream. `refresh` asks in time; `renew` at once, for all who ask meanwhile."""

    def __init__(
        self,
        settings: Federated,
        *,
        clock: Clock,
        outbound: Outbound,
        tasks: TaskSet,
        random: Callable[[], float],
    ) -> None:
        self.settings = settings
        self._clock = clock
        self._outbound = outbound
        self._tasks = tasks
        self._random = random
        self._token: UpstreamToken | None = None
        self._lines: Headers = ()
        self._under_way: asyncio.Task[None] | None = None
        self._next_at = 0.0
        self._failed_in_a_row = 0
        self._refused_at: float | None = None
        self._why = "none was got yet"
        self._refreshes = 0
        self._failures = 0

    def credential(self) -> Sequence[Header]:
        """The header lines of the token. Raises `CredentialUnavailable` where there is none that is good."""
        if self._token is None or not self._token.is_good(self._clock.now()):
            raise CredentialUnavailable(
                f"The gateway has no token for upstream {self.settings.name!r}: {self._why}. It is asked for "
                "again and again; whoever runs the gateway finds more in its log."
            )
        return self._lines

    async def renew(self, refused: Headers) -> bool:
        """Upstream refused what these lines hold, or there is nothing to send: whether there is another token
        now. Those who ask at the same time share one exchange, and wait for it at most `WAIT_SECONDS`."""
        now = self._clock.now()
        sent = value_of(refused, b"authorization")
        current = value_of(self._lines, b"authorization")
        good = self._token is not None and self._token.is_good(now)
        if good and sent != current:
            return True
        if self._under_way is None:
            if good:
                if self._refused_at is not None and 0 <= now - self._refused_at < RENEW_SECONDS:
                    return False
                self._refused_at = now
            elif now < self._next_at:
                return False  # it has just failed, and is tried again in the background
        await asyncio.wait([self._begin()], timeout=WAIT_SECONDS)
        good = self._token is not None and self._token.is_good(self._clock.now())
        return good and value_of(self._lines, b"authorization") != sent

    def refresh(self) -> None:
        """Begin to ask, if it is time to. Raises nothing."""
        if self._under_way is None and self._clock.now() >= self._next_at:
            self._begin()

    def status(self) -> FederationStatus:
        return FederationStatus(
            upstream=self.settings.name,
            expires_at=self._token.expires_at if self._token else None,
            refreshes=self._refreshes,
            failures=self._failures,
        )

    def _begin(self) -> asyncio.Task[None]:
        """The exchange that is under way; of all who ask, none who leaves ends it."""
        if self._under_way is None:
            self._under_way = self._tasks.spawn(self._exchange(), f"token for {self.settings.name}")
        return self._under_way

    async def _exchange(self) -> None:
        settings = self.settings
        try:
            token = await self._exchanged()
        except (OutboundError, OSError, ValueError) as error:
            self._failures += 1
            self._failed_in_a_row += 1
            self._why = str(error)
            self._next_at = self._clock.now() + backoff_seconds(self._failed_in_a_row, self._random())
            log.warning("no token for upstream %s: %s", settings.name, error)
        else:
            self._token = token
            self._lines = ((b"authorization", b"Bearer " + token.text.encode()), *settings.lines)
            self._refreshes += 1
            self._failed_in_a_row = 0
            self._next_at = refresh_at(token, settings.early_seconds, self._random())
            self._why = "the last one has expired"
            life = token.expires_at - token.got_at
            log.info("a new token for upstream %s, good for %.0f s", settings.name, life)
        finally:
            self._under_way = None

    async def _exchanged(self) -> UpstreamToken:
        settings = self.settings
        try:
            identity = await asyncio.to_thread(settings.identity)
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            raise ValueError(f"its identity ({settings.identity_from}) cannot be used: {reason}") from None
        if len(identity) > MAX_ASSERTION_BYTES:
            raise ValueError(
                f"its identity ({settings.identity_from}) is longer than {MAX_ASSERTION_BYTES} bytes, and so "
                "no token; is it a key or a certificate?"
            )
        asked_at = self._clock.now()
        fetched = await self._outbound.fetch(
            settings.url,
            body=settings.request.body(identity),
            headers={
                "content-type": "application/json",
                "accept": "application/json",
                "anthropic-beta": ",".join(settings.exchange_betas),
            },
            proxy=settings.proxy,
        )
        if fetched.status == 401:
            raise ValueError(
                "the token endpoint refused its identity (401); compare the federation rule with what the "
                "identity token says, and see the authentication events in the Console"
            )
        if fetched.status != 200:
            raise ValueError(f"the token endpoint answered {fetched.status}")
        return read_answer(fetched.body, asked_at)
