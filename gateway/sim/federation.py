"""`POST /v1/oauth/token`: identity tokens in, short-lived tokens of the API out (identity federation).

Sources: workload identity federation docs, 2026-10; the official SDK 2.12, lib/credentials. An identity token
is judged here by what it says only: which signatures an organisation trusts is not simulated. All refusals
look alike, as the API's do.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aiohttp import web

from gateway.sim.records import Received
from gateway.sim.wire import ApiError, JsonObject, dump, invalid, read_object

if TYPE_CHECKING:
    from gateway.sim.control import Endpoint
    from gateway.sim.world import World

GRANT_TYPE = "urn:ietf:params:oauth:grant-type:jwt-bearer"
MAX_ASSERTION_BYTES = 16_384
SKEW_SECONDS = 30.0
LEAST_SECONDS, MOST_SECONDS = 60.0, 86_400.0
CALL_BETA = "oauth-2025-04-20"
NEEDED_BETAS = frozenset({CALL_BETA, "oidc-federation-2026-04-01"})


@dataclass(frozen=True, slots=True, kw_only=True)
class FederationRule:
    """Whose identity tokens are exchanged for what."""

    id: str
    organisation: str
    issuer: str
    subject: str
    workspaces: Sequence[str]
    seconds: float = 3_600.0


@dataclass(slots=True)
class Federated:
    """The rules, and the tokens that were given: token to workspace and end."""

    rules: dict[str, FederationRule] = field(default_factory=dict)
    given: dict[str, tuple[str, float]] = field(default_factory=dict)

    def add(self, rule: FederationRule) -> None:
        self.rules[rule.id] = rule

    def revoke(self) -> None:
        """All tokens that were given open nothing from now on."""
        self.given.clear()

    def workspace(self, authorization: str | None, betas: Sequence[str], now: float) -> str | None:
        """What a token opens at this instant, for a call that has the beta which such tokens need."""
        scheme, _, token = (authorization or "").partition(" ")
        workspace, until = self.given.get(token.strip(), ("", 0.0))
        good = scheme.lower() == "bearer" and now < until and CALL_BETA in betas
        return workspace if good else None


async def _exchange(world: World, _request: web.Request, received: Received) -> web.StreamResponse:
    betas = {item.strip() for item in (received.header("anthropic-beta") or "").split(",")}
    if not betas >= NEEDED_BETAS:
        raise invalid("anthropic-beta: this endpoint needs its betas")
    body = read_object(received.body)
    if body.get("grant_type") != GRANT_TYPE:
        raise invalid("grant_type: unsupported")
    rule = world.federation.rules.get(str(body.get("federation_rule_id")))
    assertion = body.get("assertion")
    if rule is None or not isinstance(assertion, str) or body.get("organization_id") != rule.organisation:
        raise _refused()
    now = world.clock.now()
    left = _seconds_left(rule, assertion, now)
    workspace = _workspace(rule, body)
    seconds = max(LEAST_SECONDS, min(rule.seconds, 2 * left, MOST_SECONDS))
    token = world.next_id("sk-test-oat01-")
    world.federation.given[token] = (workspace, now + seconds)
    received.workspace = workspace
    answer: JsonObject = {
        "access_token": token,
        "token_type": "Bearer",
        "expires_in": int(seconds),
        "scope": "workspace:inference",
    }
    return web.Response(body=dump(answer), content_type="application/json")


def _seconds_left(rule: FederationRule, assertion: str, now: float) -> float:
    parts = assertion.split(".")
    if len(parts) != 3 or len(assertion) > MAX_ASSERTION_BYTES:
        raise _refused()
    try:
        claims = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
        left = float(claims["exp"]) - now
    except (ValueError, KeyError, TypeError):
        raise _refused() from None
    if left < -SKEW_SECONDS or (claims.get("iss"), claims.get("sub")) != (rule.issuer, rule.subject):
        raise _refused()
    return left


def _workspace(rule: FederationRule, body: JsonObject) -> str:
    asked = body.get("workspace_id")
    if asked is None and len(rule.workspaces) == 1:
        return rule.workspaces[0]
    if not isinstance(asked, str) or asked not in rule.workspaces:
        raise _refused()
    return asked


def _refused() -> ApiError:
    return ApiError(401, "authentication_error", "Authentication failed")


ROUTES: list[tuple[str, str, Endpoint]] = [("POST", "/v1/oauth/token", _exchange)]
