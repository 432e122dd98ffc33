"""Tokens of the upstream's that the gateway gets for an identity of its own (workload identity federation):
what is asked, what an answer gives, when to ask again. Pure; asking is done by `adapters/federation.py`.

Sources: workload identity federation docs, 2026-10; the official SDK 2.12, lib/credentials, for the wire.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

GRANT_TYPE: Final = "urn:ietf:params:oauth:grant-type:jwt-bearer"
TOKEN_PATH: Final = "/v1/oauth/token"  # noqa: S105 - a path
EXCHANGE_BETAS: Final = ("oauth-2025-04-20", "oidc-federation-2026-04-01")
"""What the exchange itself asks for in `anthropic-beta` (SDK 2.12)."""
CALL_BETAS: Final = ("oauth-2025-04-20",)
"""What calls with such a token need in `anthropic-beta` (SDK 2.12)."""
MAX_ASSERTION_BYTES: Final = 16_384
"""Of an identity token (docs: 16 KiB)."""
FIRST_BACKOFF_SECONDS: Final = 1.0
MAX_BACKOFF_SECONDS: Final = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenRequest:
    """Which token is asked for. Two equal ones are answered with the same."""

    rule: str
    organisation: str
    service_account: str | None = None
    workspace: str | None = None

    def body(self, assertion: str) -> bytes:
        """The request for it, as the official SDK writes it."""
        fields = {
            "grant_type": GRANT_TYPE,
            "assertion": assertion,
            "federation_rule_id": self.rule,
            "organization_id": self.organisation,
        }
        if self.service_account is not None:
            fields["service_account_id"] = self.service_account
        if self.workspace is not None:
            fields["workspace_id"] = self.workspace
        return json.dumps(fields, separators=(",", ":")).encode()


@dataclass(frozen=True, slots=True, kw_only=True)
class UpstreamToken:
    """A token as it was got. Instants are epoch seconds."""

    text: str = field(repr=False)
    got_at: float
    expires_at: float

    def is_good(self, now: float) -> bool:
        return now < self.expires_at


def read_answer(body: bytes, now: float) -> UpstreamToken:
    """The token of a good answer. Raises `ValueError`, without a word of what was read."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("the answer is no JSON") from None
    if not isinstance(value, dict):
        raise ValueError("the answer is no JSON object")
    kind, text, life = value.get("token_type", "Bearer"), value.get("access_token"), value.get("expires_in")
    if not isinstance(kind, str) or kind.lower() != "bearer":
        raise ValueError("the token is not a bearer token")
    if not isinstance(text, str) or not text or not all("!" <= each <= "~" for each in text):
        raise ValueError("the answer has no usable access_token")
    if isinstance(life, bool) or not isinstance(life, int | float) or not 0 < life <= 10**7:
        raise ValueError("the answer has no usable expires_in")
    return UpstreamToken(text=text, got_at=now, expires_at=now + life)


def refresh_at(token: UpstreamToken, early_seconds: float, randomness: float) -> float:
    """When to ask for the next one: so long before its end, or at half of a shorter life; up to a fifth of
    that earlier, so that replicas do not all ask at once. `randomness` is in [0, 1)."""
    life = token.expires_at - token.got_at
    early = min(early_seconds, life / 2)
    return token.expires_at - early - 0.2 * early * randomness


def backoff_seconds(failures: int, randomness: float) -> float:
    """How long to wait after so many failures in a row."""
    wait = min(FIRST_BACKOFF_SECONDS * 2.0 ** min(failures - 1, 30), MAX_BACKOFF_SECONDS)
    return wait * (0.75 + randomness / 4)
