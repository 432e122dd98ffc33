"""Callers by token: verifies what `core/bearer.py` read, remembers what was verified, and keeps the issuers'
key sets fresh in the background. No call waits for an issuer.

A verified token is remembered by its digest until it expires, so that a caller's signature is verified once
and not with each call; all is forgotten when any key or rule changes.
"""

from __future__ import annotations

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.adapters.jwks import KeySet, KeySource
from gateway.adapters.outbound import Outbound, OutboundError
from gateway.core.bearer import MAX_TOKEN_BYTES, BadToken, Issuer, check_claims, issuer_of, read_token
from gateway.core.claims import Bearer, bearer_of
from gateway.core.errors import Forbidden, StoreUnavailable, Unauthenticated
from gateway.ports import Clock

log = logging.getLogger(__name__)

REMEMBERED = 10_000
"""Verified tokens; which was used longest ago is forgotten first."""
UNKNOWN = "unknown"
"""In place of an issuer's name where a token is not from any that is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedIssuer:
    """An issuer, and where its keys are. `credential`: what the key set's URL asks for."""

    issuer: Issuer
    source: KeySource
    credential: Callable[[], str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class IssuerStatus:
    """How an issuer stands: `keys_age_seconds` is None where its keys could never be read."""

    name: str
    keys_age_seconds: float | None
    reads: int
    failures: int
    accepted: int
    refused: int


@dataclass(slots=True)
class _Counts:
    reads: int = 0
    failures: int = 0
    accepted: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class _Known:
    """What was found out about one token."""

    issuer: str
    bearer: Bearer
    until: float


class Issuers:
    """Implements `principal.Tokens`. Verifying and taking over are for the event loop's thread alone."""

    def __init__(self, clock: Clock, outbound: Outbound, due: Callable[[], None]) -> None:
        """`due` is called when a key set is to be read before its time."""
        self._clock = clock
        self._outbound = outbound
        self._wake = due
        self._issuers: dict[str, Issuer] = {}
        """By what `iss` says."""
        self._keys: dict[str, KeySet] = {}
        """By name."""
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._counts: dict[str, _Counts] = {}

    def take_over(self, trusted: Sequence[TrustedIssuer]) -> None:
        """These are trusted from now on, and no others. Keys of those whose source did not change stay."""
        before = self._keys
        self._known.clear()
        self._issuers = {each.issuer.issuer: each.issuer for each in trusted}
        self._keys = {}
        for each in trusted:
            name = each.issuer.name
            kept = before.get(name)
            if kept is None or kept.source != each.source:
                kept = KeySet(name, each.source, self._outbound, each.credential)
            else:
                kept.use(each.credential)
            self._keys[name] = kept
        self._counts = {
            name: self._counts.get(name, _Counts()) for name in ([*self._keys, UNKNOWN] if trusted else [])
        }
        self._wake()

    def identify(self, token: bytes, now: float) -> Bearer:
        """Whom a token stands for, at this instant. Raises `BadToken`, `Forbidden` where no rule takes it,
        and `StoreUnavailable` where its issuer's keys are not to be had at the moment."""
        if not self._issuers:
            raise Unauthenticated
        if len(token) > MAX_TOKEN_BYTES:
            read_token(token)  # raises before anything is spent on it
        digest = hashlib.sha256(token).digest()
        known = self._known.get(digest)
        if (
            known is not None
            and now < known.until
            and self._keys[known.issuer].usable(self._clock.monotonic())
        ):
            self._known.move_to_end(digest)
            self._counts[known.issuer].accepted += 1
            return known.bearer
        self._known.pop(digest, None)
        name = UNKNOWN
        try:
            read = read_token(token)
            issuer = self._issuers.get(issuer_of(read))
            if issuer is None:
                raise BadToken("its issuer is not one that this gateway trusts.")
            name = issuer.name
            until = check_claims(read, issuer, now)
            keys = self._keys[name]
            verify = self._usable(keys).find(read.key_id, read.algorithm)
            if verify is None:
                raise self._unknown_key(keys, read.key_id)
            if not verify(read.signed, read.signature):
                raise BadToken("its signature is not that of its issuer.")
            bearer = bearer_of(read.claims, issuer)
        except (BadToken, Forbidden):
            if name in self._counts:
                self._counts[name].refused += 1
            raise
        self._remember(digest, _Known(name, bearer, until))
        self._counts[name].accepted += 1
        return bearer

    def due(self) -> list[Coroutine[Any, Any, None]]:
        """To be awaited, one by one or side by side: each reads a key set that is due, and raises nothing."""
        now = self._clock.monotonic()
        return [self._read(keys) for keys in self._keys.values() if keys.is_due(now)]

    def status(self) -> tuple[IssuerStatus, ...]:
        """How the issuers stand, and tokens of unknown ones under the name `UNKNOWN`."""
        now = self._clock.monotonic()
        ages: Mapping[str, float | None] = {
            name: keys.age_seconds(now) for name, keys in list(self._keys.items())
        }
        return tuple(
            IssuerStatus(
                name=name,
                keys_age_seconds=ages.get(name),
                reads=counts.reads,
                failures=counts.failures,
                accepted=counts.accepted,
                refused=counts.refused,
            )
            for name, counts in list(self._counts.items())
        )

    async def _read(self, keys: KeySet) -> None:
        counts = self._counts.get(keys.name, _Counts())
        counts.reads += 1
        try:
            changed = await keys.read(self._clock.monotonic)
        except OutboundError as error:
            counts.failures += 1
            log.warning("the keys of issuer %s could not be read: %s", keys.name, error)
            return
        if changed:
            self._known.clear()
            log.info("the keys of issuer %s are read", keys.name)

    def _usable(self, keys: KeySet) -> KeySet:
        if not keys.usable(self._clock.monotonic()):
            raise StoreUnavailable(
                f"The keys of issuer {keys.name} cannot be read at the moment, so none of its tokens can be "
                "verified; try again soon."
            )
        return keys

    def _unknown_key(self, keys: KeySet, key_id: str | None) -> BadToken | StoreUnavailable:
        """An issuer that has just changed its keys signs with one that was not read yet."""
        now = self._clock.monotonic()
        if keys.ask_again(key_id, now):
            if keys.is_due(now):
                self._wake()
            return StoreUnavailable(
                f"The keys of issuer {keys.name} are being read anew, to find the one that the token names; "
                "try again soon."
            )
        return BadToken("its issuer has no such key (`kid`). Get a new one from its issuer.")

    def _remember(self, digest: bytes, known: _Known) -> None:
        self._known[digest] = known
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
