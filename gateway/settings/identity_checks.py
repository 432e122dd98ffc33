"""What no single file can tell of identities: whether the names that rules use exist, and whether what
verifies tokens is installed. `checks.py` asks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.settings.identity import IssuerSettings, is_loopback
from gateway.settings.secrets import is_available
from gateway.settings.source import KeyPath

if TYPE_CHECKING:
    from gateway.settings.load import Settings

Found = tuple[str, KeyPath, str]

MISSING = (
    "needs PyJWT and cryptography, which are not installed; install the package with its extra: "
    "pip install 'claude-cache-gateway[oidc]'"
)


def identity_errors(settings: Settings) -> Iterator[Found]:
    """What cannot work."""
    issuers = settings.workspaces.issuers
    if issuers and not has_cryptography():
        yield "workspaces.yaml", ("issuers",), MISSING
    named: dict[str, str] = {}
    for name, issuer in issuers.items():
        if issuer.issuer in named:
            message = f"{named[issuer.issuer]} is the same issuer; give it one entry with all rules"
            yield "workspaces.yaml", ("issuers", name, "issuer"), message
        named.setdefault(issuer.issuer, name)
        yield from _rule_errors(settings, name, issuer)
    page = settings.gateway.page
    if page.enabled and settings.gateway.listen.admin_token is None:
        for setting in ("public_url", "sign_in"):
            if getattr(page, setting) is not None:
                # A proxy on the same machine looks like a command on it: the admin API would take its word.
                message = (
                    "needs listen.admin_token: without it the admin API takes whoever comes by a proxy for a "
                    "command on the gateway's machine"
                )
                yield "gateway.yaml", ("page", setting), message
    if page.sign_in is not None:
        place: KeyPath = ("page", "sign_in")
        if not has_cryptography():
            yield "gateway.yaml", place, MISSING
        if page.public_url is None:
            message = "needs page.public_url, as the provider sends people back to it"
            yield "gateway.yaml", place, message
    for name, upstream in settings.gateway.upstreams.items():
        url = urlsplit(upstream.base_url)
        if upstream.federation is not None and url.scheme == "http" and not is_loopback(url.hostname or ""):
            path: KeyPath = ("upstreams", name, "base_url")
            yield "gateway.yaml", path, "must begin with https://: federation sends an identity token to it"


def identity_warnings(settings: Settings) -> Iterator[Found]:
    """What is doubtful, or not there yet."""
    for name, issuer in settings.workspaces.issuers.items():
        path: KeyPath = ("issuers", name)
        for setting, file in (("jwks_file", issuer.jwks_file), ("jwks_authority", issuer.jwks_authority)):
            if file is not None and not os.access(file, os.R_OK):
                message = f"{file} cannot be read now; tokens of {name} are refused until it can"
                yield "workspaces.yaml", (*path, setting), message
        credential = issuer.jwks_credential
        if credential is not None and not is_available(credential, settings.environ):
            message = f"{credential} cannot be read now; tokens of {name} are refused until it can"
            yield "workspaces.yaml", (*path, "jwks_credential"), message
    yield from _sign_in_warnings(settings)
    for name, upstream in settings.gateway.upstreams.items():
        federation = upstream.federation
        if federation is not None and not is_available(federation.identity, settings.environ):
            message = f"{federation.identity} cannot be read now; calls will fail until it can"
            yield "gateway.yaml", ("upstreams", name, "federation", "identity"), message


def _sign_in_warnings(settings: Settings) -> Iterator[Found]:
    sign_in = settings.gateway.page.sign_in
    if sign_in is None:
        return
    path: KeyPath = ("page", "sign_in")
    secret = sign_in.client_secret
    if secret is not None and not is_available(secret, settings.environ):
        message = f"{secret} cannot be read now; nobody can sign in until it can"
        yield "gateway.yaml", (*path, "client_secret"), message


def has_cryptography() -> bool:
    """Whether the extra `oidc` is installed."""
    return find_spec("jwt") is not None and find_spec("cryptography") is not None


def _rule_errors(settings: Settings, name: str, issuer: IssuerSettings) -> Iterator[Found]:
    known, tags = settings.workspaces.workspaces, settings.gateway.tags.headers
    for index, rule in enumerate(issuer.rules):
        path: KeyPath = ("issuers", name, "rules", index)
        if rule.workspace not in known:
            message = f"there is no workspace {rule.workspace!r}; there are: {', '.join(sorted(known))}"
            yield "workspaces.yaml", (*path, "workspace"), message
        for tag in rule.tags:
            if tag not in tags:
                message = f"gateway.yaml does not have {tag} in tags.headers, so nobody reads it"
                yield "workspaces.yaml", (*path, "tags"), message
