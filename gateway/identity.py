"""Identities at work: whose tokens callers may show, and the tokens that upstreams are shown. Both change by
themselves while the gateway runs; here they are built from settings, kept over reloads, and kept fresh.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace

from gateway.adapters.federation import Federated, Federation, FederationStatus
from gateway.adapters.issuers import Issuers, IssuerStatus, TrustedIssuer
from gateway.adapters.jwks import KeySource
from gateway.adapters.outbound import Outbound
from gateway.adapters.sign_in import SignInProvider
from gateway.core.rules import Rules
from gateway.ports import Clock
from gateway.settings.gateway import Upstream
from gateway.settings.identity import IssuerSettings, is_safe_url
from gateway.settings.load import Settings
from gateway.settings.secrets import other_lines, secret_reader
from gateway.tasks import TaskSet
from gateway.workers.periodic import every

TURN_SECONDS = 1.0
"""How often it is looked what is due."""
START_SECONDS = 5.0
"""How long a start waits for issuers and token endpoints; the gateway then goes on without."""


class Identity:
    """One for each replica. `take_over` at each reload, `start` and `run` once; it needs no loop before."""

    def __init__(self, clock: Clock, random: Callable[[], float]) -> None:
        self._clock = clock
        self._random = random
        self._outbound = Outbound()
        self._tasks = TaskSet()
        self._wake = asyncio.Event()
        self.tokens = Issuers(clock, self._outbound, self._wake.set)
        """Knows callers by token."""
        self._federations: dict[str, Federation] = {}

    def take_over(self, settings: Settings, rules: Rules) -> Rules:
        """`rules`, built from the same settings, with routes whose credentials are kept fresh here. What did
        not change keeps its keys and tokens."""
        environ = settings.environ
        self.tokens.take_over(
            [
                TrustedIssuer(
                    issuer=issuer.trusted(name),
                    source=_source(issuer),
                    credential=secret_reader(issuer.jwks_credential, environ)
                    if issuer.jwks_credential
                    else None,
                )
                for name, issuer in settings.workspaces.issuers.items()
            ]
        )
        before, self._federations = self._federations, {}
        for name, upstream in settings.gateway.upstreams.items():
            federated = _federated(name, upstream, environ)
            if federated is None:
                continue
            kept = before.get(name)
            self._federations[name] = (
                kept if kept is not None and kept.settings == federated else self._make(federated)
            )
        self._wake.set()
        routes = {
            name: replace(route, credential=found.credential, renew=found.renew)
            if (found := self._federations.get(name)) is not None
            else route
            for name, route in rules.routes.items()
        }
        return replace(rules, routes=routes)

    async def start(self) -> None:
        """Read keys and get tokens, as far as they are to be had soon. Raises nothing."""
        self._begin_what_is_due()
        await self._tasks.settled(START_SECONDS)

    def run(self, loops: TaskSet) -> None:
        """Keep all of it fresh, until `loops` are cancelled."""

        async def turn() -> None:
            self._begin_what_is_due()

        loops.spawn(
            every(TURN_SECONDS, turn, name="renewing identities", clock=self._clock, wake=self._wake),
            "renewing identities",
        )

    async def close(self) -> None:
        await self._tasks.drain(0.0)

    def sign_in(self, settings: Settings) -> SignInProvider | None:
        """Where people sign in to the page; None where that is not configured."""
        wanted = settings.gateway.page.sign_in
        if wanted is None:
            return None
        secret = wanted.client_secret
        return SignInProvider(
            wanted.trusted(),
            wanted.rules(),
            secret=secret_reader(secret, settings.environ) if secret is not None else None,
            is_safe=is_safe_url,
            clock=self._clock,
            outbound=self._outbound,
        )

    def issuers(self) -> tuple[IssuerStatus, ...]:
        """How those stand whose tokens are taken."""
        return self.tokens.status()

    def federations(self) -> tuple[FederationStatus, ...]:
        """How the tokens of upstreams stand."""
        return tuple(federation.status() for federation in list(self._federations.values()))

    def _begin_what_is_due(self) -> None:
        # Nobody waits for another: an issuer that is slow to answer must not let a token expire.
        for reading in self.tokens.due():
            self._tasks.spawn(reading, "reading an issuer's keys")
        for federation in self._federations.values():
            federation.refresh()

    def _make(self, federated: Federated) -> Federation:
        return Federation(
            federated, clock=self._clock, outbound=self._outbound, tasks=self._tasks, random=self._random
        )


def _source(issuer: IssuerSettings) -> KeySource:
    return KeySource(
        url=issuer.jwks_url,
        file=issuer.jwks_file,
        authority=issuer.jwks_authority,
        refresh_seconds=issuer.refresh,
        keep_seconds=issuer.keep,
    )


def _federated(name: str, upstream: Upstream, environ: Mapping[str, str]) -> Federated | None:
    federation = upstream.federation
    if federation is None:
        return None
    return Federated(
        name=name,
        url=upstream.base_url + federation.path,
        request=federation.token_request(),
        identity=secret_reader(federation.identity, environ),
        identity_from=str(federation.identity),
        exchange_betas=federation.exchange_betas,
        lines=tuple(other_lines(upstream)),
        early_seconds=federation.refresh_before,
        proxy=upstream.proxy,
    )
