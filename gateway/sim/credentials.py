"""Who calls: a credential decides the workspace, and with it the cache, the files and the batches.

Source: authentication page (2026-10-03). Both `Authorization: Bearer` and `x-api-key` are credentials.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

from gateway.sim.wire import ApiError, invalid, not_found

ADMIN_PREFIXES = ("sk-ant-admin", "sk-test-admin")


class Credentials:
    """`known` maps each credential to its workspace, or to several for one that must name its workspace in
    `anthropic-workspace-id`. None takes any credential, each with a workspace of its own."""

    def __init__(self, known: Mapping[str, str | Sequence[str]] | None) -> None:
        self._known = known

    def workspace(self, *, authorization: str | None, api_key: str | None, asked: str | None) -> str:
        """The workspace to act in. Raises the API's 401, or 400 and 404 for the workspace header."""
        credential = _credential(authorization, api_key)
        if not credential:
            raise _refused(
                "x-api-key header is required" if authorization is None else "Invalid bearer token"
            )
        if self._known is None:
            digest = hashlib.blake2b(credential.encode("utf-8", "surrogateescape"), digest_size=6)
            return asked or f"wrkspc_{digest.hexdigest()}"
        allowed = self._known.get(credential)
        if allowed is None:
            raise _refused("invalid x-api-key" if authorization is None else "Invalid bearer token")
        if isinstance(allowed, str):
            allowed = (allowed,)
        elif asked is None:
            raise invalid(
                "anthropic-workspace-id is required when authenticating with an identity-linked API key that "
                "is not tied to one workspace."
            )
        if asked is not None and asked not in allowed:
            raise not_found(f"Workspace `{asked}` not found.")
        return asked or allowed[0]

    def key_id(self, *, authorization: str | None, api_key: str | None) -> str:
        """How reports name the credential: an id that opens nothing."""
        credential = _credential(authorization, api_key)
        digest = hashlib.blake2b(credential.encode("utf-8", "surrogateescape"), digest_size=6)
        return f"apikey_{digest.hexdigest()}"

    def check_admin(self, *, authorization: str | None, api_key: str | None) -> None:
        """Raises the API's 401 unless it is an Admin key: the workspaces' own keys open no reports."""
        if not _credential(authorization, api_key).startswith(ADMIN_PREFIXES):
            raise _refused("invalid x-api-key" if authorization is None else "Invalid bearer token")


def _credential(authorization: str | None, api_key: str | None) -> str:
    if authorization is not None:
        scheme, _, token = authorization.partition(" ")
        return token.strip() if scheme.lower() == "bearer" else ""
    return (api_key or "").strip()


def _refused(message: str) -> ApiError:
    return ApiError(401, "authentication_error", message)
