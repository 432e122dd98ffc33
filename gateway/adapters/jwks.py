"""Key sets of issuers (JWKS, RFC 7517): read strictly, kept while the issuer cannot be reached, read anew
when a token names a key that is not among them. The library for cryptography comes with the package's extra
`oidc` and is imported here only, when the first key set is read.

When to read is said here, reading is done by whoever runs `KeySet.read`. What tokens claim is not known here.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from gateway.adapters.outbound import Outbound, OutboundError
from gateway.core.bearer import MAX_KEY_ID_LENGTH, Algorithm

log = logging.getLogger(__name__)

MAX_KEYS = 64
LEAST_RSA_BITS = 2_048
ASK_AGAIN_SECONDS = 60.0
"""How often unknown keys may make an issuer be asked, at most."""
MAX_SOUGHT = 256
"""Unknown keys that are remembered; which was named longest ago is forgotten first."""
FIRST_BACKOFF_SECONDS = 2.0
FILE_SECONDS = 5.0
"""How often a file is looked at."""
MAX_FILE_BYTES = 262_144

_CURVES = {("EC", "P-256"): Algorithm.ES256, ("OKP", "Ed25519"): Algorithm.EDDSA}


class Verify(Protocol):
    def __call__(self, signed: bytes, signature: bytes) -> bool:
        """Whether this key made the signature."""
        ...


Keys = Mapping[tuple[str | None, Algorithm], Verify]
"""By `kid` and algorithm: a key verifies nothing by a method that it is not for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySource:
    """Where an issuer's keys are found, and how old they may be. Two equal ones have the same keys."""

    url: str | None = None
    file: str | None = None
    authority: str | None = None
    """File of certificates that the URL's server is known by, in place of the system's."""
    refresh_seconds: float = 300.0
    keep_seconds: float = 86_400.0
    """How long keys that were read hold although they cannot be read again."""


class KeySet:
    """The keys of one issuer, as last read. `credential` gives what the URL asks for, as a bearer token."""

    def __init__(
        self, name: str, source: KeySource, outbound: Outbound, credential: Callable[[], str] | None = None
    ) -> None:
        self.name = name
        self.source = source
        self._outbound = outbound
        self._credential = credential
        self._text = b""
        self._keys: Keys = {}
        self._read_at: float | None = None
        self._next_at = 0.0
        self._begun = 0
        """Readings, ever."""
        self._read = 0
        """Which of them was the last that ended well: what was published after it began is not in it."""
        self._sought: OrderedDict[str | None, tuple[int, float]] = OrderedDict()
        """Keys that tokens named and that were not here: how many readings had begun then, and the time."""
        self._sought_at: float | None = None
        """When it is to be read for their sake, before its time."""
        self._asked_at: float | None = None
        """When that was done last."""
        self._failures = 0
        """In a row."""
        self._reading = False

    def use(self, credential: Callable[[], str] | None) -> None:
        """This is what the URL asks for from now on."""
        self._credential = credential
        if self._failures:
            self._next_at = 0.0  # it may have been for want of this one

    def age_seconds(self, now: float) -> float | None:
        """Since the keys were last read; None where they never were."""
        return None if self._read_at is None else max(0.0, now - self._read_at)

    def usable(self, now: float) -> bool:
        """Whether there are keys that are not too old."""
        age = self.age_seconds(now)
        return age is not None and age <= self.source.keep_seconds

    def find(self, key_id: str | None, algorithm: Algorithm) -> Verify | None:
        """The key that a token names; of a token that names none, the only one there is for its method."""
        if key_id is not None:
            return self._keys.get((key_id, algorithm))
        fitting = [verify for (_, method), verify in self._keys.items() if method is algorithm]
        return fitting[0] if len(fitting) == 1 else None

    def ask_again(self, key_id: str | None, now: float) -> bool:
        """A token named a key that is not here: whether it may be there soon, as the set was not read since
        the key was first named. That makes it due, at most once in `ASK_AGAIN_SECONDS` whatever tokens name:
        a good token with a new key waits as long as it takes, and is not told that it is bad."""
        begun, at = self._sought.pop(key_id, (self._begun, now))
        if self._read > begun and now - at >= ASK_AGAIN_SECONDS:
            begun, at = self._begun, now  # it may have been published since
        self._sought[key_id] = (begun, at)
        if len(self._sought) > MAX_SOUGHT:
            self._sought.popitem(last=False)
        if self._read > begun:
            return False
        if self._sought_at is None and not self._failures:
            again = now if self._asked_at is None else self._asked_at + ASK_AGAIN_SECONDS
            self._sought_at = max(now, again)
        return True

    def is_due(self, now: float) -> bool:
        """Whether it is to be read now, and nobody does."""
        sought = self._sought_at is not None and now >= self._sought_at
        return (sought or now >= self._next_at) and not self._reading

    async def read(self, monotonic: Callable[[], float]) -> bool:
        """Read it now. Whether the keys are others than before. Raises `OutboundError`, and keeps what there
        was."""
        self._reading = True
        self._begun += 1
        begun = self._begun
        if self._sought_at is not None:
            self._sought_at, self._asked_at = None, monotonic()
        try:
            text = await self._fetched()
            changed = text != self._text
            if changed:
                before, self._keys, self._text = self._keys, read_keys(text), text
                for key_id in {key_id for key_id, _ in before} - {key_id for key_id, _ in self._keys}:
                    self._sought[key_id] = (begun - 1, monotonic())  # withdrawn: it is not soon to come
        except (OutboundError, OSError, ValueError) as error:
            self._failures += 1
            wait = FIRST_BACKOFF_SECONDS * 2 ** min(self._failures - 1, 10)
            self._next_at = monotonic() + min(wait, self.source.refresh_seconds)
            raise OutboundError(str(error) or type(error).__name__) from None
        finally:
            self._reading = False
        self._failures = 0
        self._read = begun
        self._read_at = monotonic()
        self._next_at = self._read_at + (
            self.source.refresh_seconds if self.source.url else min(FILE_SECONDS, self.source.refresh_seconds)
        )
        return changed

    async def _fetched(self) -> bytes:
        if self.source.url is None:
            return await asyncio.to_thread(_read_file, Path(self.source.file or ""))
        headers = {"accept": "application/json"}
        if self._credential is not None:
            headers["authorization"] = f"Bearer {self._credential()}"
        tls = await asyncio.to_thread(_trusting, self.source.authority) if self.source.authority else None
        fetched = await self._outbound.fetch(self.source.url, headers=headers, tls=tls)
        if fetched.status != 200:
            raise OutboundError(f"the key set's server answered {fetched.status}")
        return fetched.body


def read_keys(text: bytes) -> Keys:
    """The keys of a set that verify signatures by a known method. Raises `ValueError` where there is none, or
    the text is no key set. Secret keys, private ones, and keys for something else are left out."""
    import jwt

    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        raise ValueError("what was read is no JSON") from None
    listed = value.get("keys") if isinstance(value, dict) else None
    if not isinstance(listed, list) or len(listed) > MAX_KEYS:
        raise ValueError("what was read is no key set")
    keys: dict[tuple[str | None, Algorithm], Verify] = {}
    for jwk in listed:
        if not isinstance(jwk, dict):
            continue
        key_id = jwk.get("kid")
        if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= MAX_KEY_ID_LENGTH):
            continue
        for algorithm in _methods_of(jwk):
            try:
                verify = _verifying(jwk, algorithm)
            except (jwt.PyJWTError, ValueError, TypeError, KeyError) as error:
                log.warning("a key of a key set cannot be used: %s", type(error).__name__)
                continue
            keys.setdefault((key_id, algorithm), verify)
    if not keys:
        raise ValueError("the key set has no key that could verify a token")
    return keys


def _methods_of(jwk: Mapping[str, Any]) -> tuple[Algorithm, ...]:
    """What the key is for, by its type and by what it says of itself."""
    if "d" in jwk or jwk.get("use", "sig") != "sig" or "verify" not in jwk.get("key_ops", ["verify"]):
        return ()
    kind = jwk.get("kty")
    methods: tuple[Algorithm, ...] = ()
    if kind == "RSA":
        methods = (Algorithm.RS256, Algorithm.PS256)
    elif (method := _CURVES.get((str(kind), str(jwk.get("crv"))))) is not None:
        methods = (method,)
    stated = jwk.get("alg")
    return tuple(method for method in methods if stated in (None, method.value))


def _verifying(jwk: Mapping[str, Any], algorithm: Algorithm) -> Verify:
    from jwt import PyJWK

    made = PyJWK(dict(jwk), algorithm=algorithm.value)
    key, method = made.key, made.Algorithm
    if getattr(key, "key_size", LEAST_RSA_BITS) < LEAST_RSA_BITS and jwk.get("kty") == "RSA":
        raise ValueError("too short")

    def verify(signed: bytes, signature: bytes) -> bool:
        return bool(method.verify(signed, key, signature))

    return verify


def _read_file(path: Path) -> bytes:
    with path.open("rb") as file:
        text = file.read(MAX_FILE_BYTES + 1)
    if len(text) > MAX_FILE_BYTES:
        raise ValueError("the file is too large")
    return text


def _trusting(authority: str) -> Any:
    import ssl

    return ssl.create_default_context(cafile=authority)
