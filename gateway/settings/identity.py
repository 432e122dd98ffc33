"""Identities that others issue: whose tokens callers may show in place of a key, and how the gateway shows
its own identity upstream. Shapes and their checks only; what spans files is in `identity_checks.py`."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Annotated, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from gateway.core.bearer import Algorithm, Issuer
from gateway.core.claims import ClaimRule
from gateway.core.federation import CALL_BETAS, EXCHANGE_BETAS, TOKEN_PATH, TokenRequest
from gateway.core.ids import WorkspaceId
from gateway.core.sign_in import SignInRules
from gateway.settings.shared import Name, OwnHeader, SecretRef, Section
from gateway.settings.units import Seconds


def is_loopback(host: str) -> bool:
    """Whether a host of a URL is this machine itself."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _safe_url(text: str) -> str:
    url = urlsplit(text)
    if not url.hostname or url.username is not None or url.fragment:
        raise ValueError("not a URL that can be read; write for example https://issuer.example.com/keys")
    if url.scheme != "https" and not (url.scheme == "http" and is_loopback(url.hostname)):
        raise ValueError("must begin with https://; http is for this machine only")
    _ = url.port
    return text


def _several(value: object) -> object:
    return [value] if isinstance(value, str) else value


SafeUrl = Annotated[str, AfterValidator(_safe_url)]
"""https, or http to this machine."""
Text = Annotated[str, StringConstraints(pattern=r"^[!-~]([ -~]{0,253}[!-~])?$")]
Texts = Annotated[tuple[Text, ...], BeforeValidator(_several), Field(min_length=1, max_length=32)]
ClaimPath = Annotated[str, StringConstraints(pattern=r"^[ -~]{1,200}$")]
Beta = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]
ProviderId = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")]


class ClaimRuleSettings(Section):
    """Which callers, and what they get. A claim is named as it is, as `sub`; one within others by a path that
    begins with a slash, as `/kubernetes.io/namespace`."""

    when: Annotated[dict[ClaimPath, Texts], Field(min_length=1, max_length=16)]
    """Claims and globs, all of which must match; of several globs, or values of a claim, one. `*` matches any
    characters, slashes and colons too."""
    workspace: Name
    """Whose limits and upstream they use."""
    name: ClaimPath | None = None
    """Claim that people know the caller by, as `email`; what `subject` says where it is not said."""
    tags: dict[OwnHeader, ClaimPath] = Field(default_factory=dict)
    """Tag headers of gateway.yaml, and the claims that set them; what the caller itself sends in them is not
    looked at then."""


class IssuerSettings(Section):
    """Somebody whose tokens (JWTs) are taken in place of keys. Needs the package's extra `oidc`."""

    issuer: Text
    """What the tokens say in `iss`, to the letter."""
    audience: Texts
    """What they must say in `aud`, one of them: a name of this gateway's own, so that a token for something
    else opens nothing here."""
    jwks_url: SafeUrl | None = None
    """Where its keys are read. Redirects are not followed; the URL is not taken from any token."""
    jwks_file: Annotated[str, Field(min_length=1)] | None = None
    """A file with its keys, in place of the URL; looked at every five seconds."""
    jwks_authority: Annotated[str, Field(min_length=1)] | None = None
    """File of certificates that the URL's server is known by, as that of a cluster; the system's where it is
    not said."""
    jwks_credential: SecretRef | None = None
    """Where a bearer token is found that the URL asks for, as a cluster does."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = tuple(Algorithm)
    """How its tokens may be signed: RS256, PS256, ES256, EdDSA."""
    leeway: Annotated[Seconds, Field(ge=0, le=60)] = 30.0
    """How far its clock may be from the gateway's."""
    refresh: Annotated[Seconds, Field(ge=10, le=86_400)] = 300.0
    """How often its keys are read anew. A token that names an unknown key makes them be read at once, at most
    once a minute."""
    keep: Annotated[Seconds, Field(ge=60, le=604_800)] = 86_400.0
    """How long its last keys hold where they cannot be read; then its tokens are refused."""
    subject: ClaimPath = "sub"
    """Claim that says who calls. Limits of scope `key`, the ledger and freezes know the caller as
    `token:<name of the issuer>:<subject>`."""
    rules: Annotated[tuple[ClaimRuleSettings, ...], Field(min_length=1, max_length=1_000)]
    """The first that matches decides; where none does, the call is refused."""

    @model_validator(mode="after")
    def _one_place_for_keys(self) -> Self:
        if (self.jwks_url is None) == (self.jwks_file is None):
            raise ValueError("write either jwks_url or jwks_file")
        if self.jwks_url is None and (self.jwks_authority or self.jwks_credential):
            raise ValueError("jwks_authority and jwks_credential are for a jwks_url")
        return self

    def trusted(self, name: str) -> Issuer:
        """The value that the core works with."""
        return Issuer(
            name=name,
            issuer=self.issuer,
            audiences=self.audience,
            algorithms=frozenset(self.algorithms),
            leeway_seconds=self.leeway,
            subject=self.subject,
            rules=tuple(
                ClaimRule(
                    conditions=tuple(rule.when.items()),
                    workspace=WorkspaceId(rule.workspace),
                    name=rule.name or "",
                    tags=tuple(rule.tags.items()),
                )
                for rule in self.rules
            ),
        )


class FederationSettings(Section):
    """Workload identity federation: no static credential; the gateway shows an identity token of its own, and
    is given a short-lived token of the provider's, again and again."""

    identity: SecretRef
    """Where the gateway's own identity token is found, as a projected service-account token. A file is read
    again whenever it changes."""
    rule: ProviderId
    """Id of the federation rule at the provider, as fdrl_..."""
    organisation: ProviderId
    """Id of the organisation at the provider, a UUID."""
    service_account: ProviderId | None = None
    """Id of the service account to act as, as svac_...; the documentation asks for it, the official SDK does
    not."""
    workspace: ProviderId | None = None
    """Id of the provider's workspace, as wrkspc_..., or `default`; needed where the rule allows several."""
    path: Annotated[str, Field(pattern=r"^/[!-~]{1,200}$")] = TOKEN_PATH
    """Where tokens are exchanged, below the upstream's base_url."""
    exchange_betas: tuple[Beta, ...] = EXCHANGE_BETAS
    """What the exchange needs in `anthropic-beta`."""
    call_betas: tuple[Beta, ...] = CALL_BETAS
    """What calls with such a token need; added to the client's list, as `betas` of the upstream."""
    refresh_before: Annotated[Seconds, Field(ge=1, le=3_600)] = 120.0
    """How long before its end a token is replaced; at half of its life where that is shorter."""

    def token_request(self) -> TokenRequest:
        """The value that the core works with."""
        return TokenRequest(
            rule=self.rule,
            organisation=self.organisation,
            service_account=self.service_account,
            workspace=self.workspace,
        )


class SignInSettings(Section):
    """An identity provider (OpenID Connect) that people sign in to the page at, by authorisation code with
    PKCE."""

    issuer: SafeUrl
    """Its URL, to the letter as its tokens say it; the discovery document is read below it."""
    client_id: Text
    """What it knows the gateway by."""
    client_secret: SecretRef | None = None
    """Where the client's secret is found; a public client has none."""
    scopes: Annotated[tuple[Text, ...], Field(min_length=1)] = ("openid", "profile", "email")
    """What is asked for; `openid` has to be among it."""
    name: ClaimPath = "email"
    """Claim that the audit trail names people by."""
    editors: dict[ClaimPath, Texts] = Field(default_factory=dict)
    """Claims and globs that let people change things, as `when` of an issuer's rules; nobody where empty."""
    viewers: dict[ClaimPath, Texts] = Field(default_factory=dict)
    """Claims and globs that let people see things. Who is neither is turned away."""
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1)] = tuple(Algorithm)
    """How its tokens may be signed."""
    leeway: Annotated[Seconds, Field(ge=0, le=60)] = 30.0
    """How far its clock may be from the gateway's."""
    title: Annotated[str, Field(min_length=1, max_length=100)] = "Sign in with your organisation's account"
    """What the button says."""

    @model_validator(mode="after")
    def _lets_somebody_in(self) -> Self:
        if not self.editors and not self.viewers:
            raise ValueError("write `editors` or `viewers`: otherwise nobody can sign in")
        if "openid" not in self.scopes:
            raise ValueError("scopes must have openid")
        return self

    def trusted(self) -> Issuer:
        """Whose ID tokens are taken, and how."""
        return Issuer(
            name="sign-in",
            issuer=self.issuer,
            audiences=(self.client_id,),
            algorithms=frozenset(self.algorithms),
            leeway_seconds=self.leeway,
            subject="sub",
            rules=(),
        )

    def rules(self) -> SignInRules:
        """Who may come in."""
        return SignInRules(
            client_id=self.client_id,
            scopes=self.scopes,
            name=self.name,
            editors=tuple(self.editors.items()),
            viewers=tuple(self.viewers.items()),
        )


def is_safe_url(url: str) -> bool:
    """Whether a URL is https, or leads to this machine."""
    try:
        _safe_url(url)
    except ValueError:
        return False
    return True
