"""Tokens that others issue (JWTs), as far as they can be judged without a key: their form, their header, what
they claim. Pure; signatures are the business of `adapters/issuers.py`, who a token stands for of `claims.py`.

A token is read once, strictly, and what is read is what was signed: no second reader can see it otherwise.
Nothing in its header chooses a key but `kid`; `jku`, `x5u`, `x5c` and `jwk` are never looked at, and a `crit`
refuses the token (RFC 7515, RFC 7519, RFC 8725).
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from math import isfinite
from typing import TYPE_CHECKING, Final

from gateway.core.errors import Refusal, Unauthenticated

if TYPE_CHECKING:
    from gateway.core.claims import ClaimRule

MAX_TOKEN_BYTES: Final = 8_192
MAX_HEADER_BYTES: Final = 1_024
"""Of a token's header, as encoded; real ones have some 100."""
MAX_KEY_ID_LENGTH: Final = 256

Claims = Mapping[str, object]

_SHAPE = re.compile(rb"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_TYPES = frozenset({"jwt", "at+jwt", "application/jwt", "application/at+jwt"})


class Algorithm(StrEnum):
    """How a token may be signed: with a private key that the gateway does not have."""

    RS256 = "RS256"
    PS256 = "PS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


class BadToken(Unauthenticated):
    """A token that is not taken; `why` says what to do about it, in a sentence without any of the token."""

    def __init__(self, why: str) -> None:
        Refusal.__init__(self, f"This gateway does not accept the token of this request: {why}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Issuer:
    """Whose tokens are taken, and what for. Without its keys, which change by themselves."""

    name: str
    issuer: str
    """What `iss` must say, to the letter."""
    audiences: tuple[str, ...]
    """`aud` must name one of them."""
    algorithms: frozenset[Algorithm]
    leeway_seconds: float
    """How far its clock may be from ours."""
    subject: str
    """Where the token says whom it stands for; see `claims.find_claim`."""
    rules: tuple[ClaimRule, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says. Nothing of it is to be believed until its signature was verified."""

    algorithm: Algorithm
    key_id: str | None
    claims: Claims = field(repr=False)
    signed: bytes = field(repr=False)
    signature: bytes = field(repr=False)


def looks_like_token(credential: bytes) -> bool:
    """Whether it is to be read as a token at all; nothing else that the gateway takes has two dots."""
    return credential.count(b".") == 2


def read_token(raw: bytes) -> Token:
    """Reads size, form and header before anything else, so that garbage costs no more. Raises `BadToken`."""
    if len(raw) > MAX_TOKEN_BYTES:
        raise BadToken(
            f"it is longer than {MAX_TOKEN_BYTES} bytes. Ask its issuer for one with fewer claims."
        )
    shape = _SHAPE.fullmatch(raw)
    if shape is None or len(shape[1]) > MAX_HEADER_BYTES:
        raise _not_a_token()
    header = _object(shape[1])
    algorithm, key_id = _judged_header(header)
    return Token(
        algorithm=algorithm,
        key_id=key_id,
        claims=_object(shape[2]),
        signed=raw[: shape.end(2)],
        signature=_decoded(shape[3]),
    )


def issuer_of(token: Token) -> str:
    """What it claims. Raises `BadToken` where it claims none."""
    issuer = token.claims.get("iss")
    if not isinstance(issuer, str) or not issuer:
        raise BadToken("it names no issuer.")
    return issuer


def check_claims(token: Token, issuer: Issuer, now: float) -> float:
    """Whether it is for this gateway, and for now; until when it is good, leeway included (epoch seconds).
    Raises `BadToken`."""
    if token.algorithm not in issuer.algorithms:
        raise BadToken("it is signed by a method that is not taken from its issuer.")
    audience = token.claims.get("aud")
    named = audience if isinstance(audience, list) else [audience]
    if not any(isinstance(each, str) and each in issuer.audiences for each in named):
        raise BadToken("it is not meant for this gateway (`aud`). Ask its issuer for one that is.")
    leeway = issuer.leeway_seconds
    expires = _instant(token.claims, "exp")
    if expires is None:
        raise BadToken("it never expires (`exp`). Ask its issuer for one that does.")
    if expires + leeway <= now:
        raise BadToken("it has expired. Get a new one from its issuer.")
    for name in ("nbf", "iat"):
        begins = _instant(token.claims, name)
        if begins is not None and begins - leeway > now:
            raise BadToken(
                f"it is not valid yet (`{name}`). Compare the clocks of its issuer and the gateway."
            )
    return expires + leeway


def _judged_header(header: Claims) -> tuple[Algorithm, str | None]:
    if "crit" in header:
        raise BadToken("its header demands something (`crit`) that this gateway does not know.")
    kind = header.get("typ", "JWT")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise BadToken("it is a token of another kind (`typ`). Send an access or service-account token.")
    try:
        algorithm = Algorithm(str(header.get("alg")))
    except ValueError:
        taken = ", ".join(Algorithm)
        raise BadToken(f"it is signed by a method that is not taken; taken are {taken}.") from None
    key_id = header.get("kid")
    if key_id is not None and not (isinstance(key_id, str) and 0 < len(key_id) <= MAX_KEY_ID_LENGTH):
        raise _not_a_token()
    return algorithm, key_id


def _instant(claims: Claims, name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise BadToken(f"its `{name}` is no number.")
    try:
        instant = float(value)
    except OverflowError:
        instant = float("inf")
    if not isfinite(instant):
        raise BadToken(f"its `{name}` is no number.")
    return instant


def _object(encoded: bytes) -> Claims:
    try:
        value = json.loads(_decoded(encoded), object_pairs_hook=_unique, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise _not_a_token() from None
    if not isinstance(value, dict):
        raise _not_a_token()
    return value


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Two readers could each take another one of two claims of the same name.
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError
    return found


def _no_number(_: str) -> object:
    raise ValueError


def _decoded(part: bytes) -> bytes:
    try:
        return base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))
    except ValueError:
        raise _not_a_token() from None


def _not_a_token() -> BadToken:
    return BadToken(
        "it is not a well-formed token. Send a key of this gateway, or a token of an issuer that it trusts, "
        "as Authorization: Bearer."
    )
