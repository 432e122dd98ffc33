"""People who sign in to the page at an identity provider (OpenID Connect): what an ID token has to say, and
who may do what. Pure; asking the provider is the business of `adapters/sign_in.py`.

Sources: OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3; RFC 7636 (PKCE); RFC 9700.
"""

from __future__ import annotations

import hashlib
import hmac
from base64 import urlsafe_b64encode
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlencode

from gateway.core.bearer import BadToken, Claims
from gateway.core.claims import Conditions, find_claim, hold
from gateway.core.errors import Forbidden

WELL_KNOWN: Final = "/.well-known/openid-configuration"
MAX_NAME_LENGTH: Final = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class SignInRules:
    """Who may come in. An editor may do all that a viewer may; who is neither is turned away."""

    client_id: str
    scopes: tuple[str, ...]
    name: str
    """Claim that the audit trail names people by."""
    editors: Conditions
    viewers: Conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What the gateway keeps of one attempt to sign in, and the provider never sees in full."""

    state: str
    nonce: str
    verifier: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedIn:
    """Somebody whom the provider vouches for."""

    name: str
    may_edit: bool


def authorisation_url(endpoint: str, rules: SignInRules, attempt: Attempt, redirect_uri: str) -> str:
    """Where a browser goes to sign in."""
    challenge = urlsafe_b64encode(hashlib.sha256(attempt.verifier.encode()).digest()).rstrip(b"=").decode()
    query = {
        "response_type": "code",
        "client_id": rules.client_id,
        "redirect_uri": redirect_uri,
        "scope": " ".join(rules.scopes),
        "state": attempt.state,
        "nonce": attempt.nonce,
        "code_challenge": challenge,
        "code_challenge_method": "S256",
    }
    return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"


def signed_in(claims: Claims, rules: SignInRules, nonce: str) -> SignedIn:
    """Whom the claims of a verified ID token let in. Raises `BadToken`, or `Forbidden` without a role."""
    said = claims.get("nonce")
    if not isinstance(said, str) or not hmac.compare_digest(said.encode("utf-8", "replace"), nonce.encode()):
        raise BadToken("it is not for this attempt to sign in (`nonce`). Try again.")
    party = claims.get("azp", rules.client_id)
    audience = claims.get("aud")
    several = isinstance(audience, list) and len(audience) > 1
    if party != rules.client_id or (several and "azp" not in claims):
        raise BadToken("it is meant for another client (`azp`).")
    name = find_claim(claims, rules.name)
    if not isinstance(name, str) or not name.strip() or not name.isprintable():
        raise Forbidden(f"The identity provider does not say who you are (`{rules.name}`).")
    may_edit = bool(rules.editors) and hold(claims, rules.editors)
    if not may_edit and not (rules.viewers and hold(claims, rules.viewers)):
        raise Forbidden(
            f"You are signed in as {name[:MAX_NAME_LENGTH]}, but this page is not for you; ask whoever runs "
            "this gateway."
        )
    return SignedIn(name=name.strip()[:MAX_NAME_LENGTH], may_edit=may_edit)
