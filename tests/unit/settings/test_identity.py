"""Settings of identities: what is taken, what is refused with which words, what becomes of it."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from gateway.core.bearer import Algorithm
from gateway.core.claims import ClaimRule
from gateway.core.errors import CredentialUnavailable
from gateway.core.ids import WorkspaceId
from gateway.identity import Identity
from gateway.settings.build import build_keyring, build_rules
from tests.support.clock import FakeClock
from tests.unit.settings.conftest import GATEWAY, WORKSPACES, Directory

CLUSTER = """\
issuers:
  cluster:
    issuer: https://cluster.test
    audience: claude-gateway
    jwks_url: https://cluster.test/keys
    rules:
      - {when: {sub: "system:serviceaccount:payments:*"}, workspace: demo}
"""
FEDERATION = (
    GATEWAY + "    federation: {identity: {file: /no/such/token}, rule: fdrl_1, organisation: org-1}\n"
)


def test_an_issuer_is_what_was_written(directory: Directory) -> None:
    rules = (
        '      - {when: {groups: [a, b], "/x/y": c}, workspace: demo, name: email, tags: {X-Team: team}}\n'
    )
    directory.write("gateway.yaml", GATEWAY + "tags: {headers: [x-team]}\n")
    directory.write("workspaces.yaml", WORKSPACES + CLUSTER + rules)
    issuer = directory.load().workspaces.issuers["cluster"].trusted("cluster")

    assert (issuer.audiences, issuer.leeway_seconds, issuer.subject) == (("claude-gateway",), 30.0, "sub")
    assert issuer.algorithms == set(Algorithm)
    assert issuer.rules[1] == ClaimRule(
        conditions=(("groups", ("a", "b")), ("/x/y", ("c",))),
        workspace=WorkspaceId("demo"),
        name="email",
        tags=(("x-team", "team"),),
    )


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("https://cluster.test/keys", "http://cluster.test/keys", "must begin with https://"),
        ("https://cluster.test/keys", "https://user@cluster.test/keys", "not a URL"),
        ("https://cluster.test/keys", "file:///etc/keys", "not a URL"),
        ("    jwks_url: https://cluster.test/keys\n", "", "either jwks_url or jwks_file"),
        ("    jwks_url", "    jwks_file: a\n    jwks_url", "either jwks_url or jwks_file"),
        (
            "    jwks_url: https://cluster.test/keys",
            "    jwks_file: a\n    jwks_authority: b",
            "are for a jwks_url",
        ),
        ("    audience: claude-gateway\n", "", "is missing"),
        ("audience: claude-gateway", "audience: []", "at least 1"),
        ("    rules:", "    algorithms: [HS256]\n    rules:", "must be RS256"),
        ("    rules:", "    leeway: 61s\n    rules:", "less than or equal to 60"),
        ("workspace: demo", "workspace: nowhere", "there is no workspace 'nowhere'"),
        ('when: {sub: "system:serviceaccount:payments:*"}', "when: {}", "at least 1"),
        ("workspace: demo}", "workspace: demo, tags: {x-team: team}}", "x-team in tags.headers"),
        ("workspace: demo}", "workspace: demo, tags: {authorization: team}}", "beginning with x-"),
    ],
)
def test_issuers_that_cannot_work_are_refused(directory: Directory, old: str, new: str, says: str) -> None:
    assert old in CLUSTER
    directory.write("workspaces.yaml", WORKSPACES + CLUSTER.replace(old, new))

    assert any(says in line for line in directory.lines()), directory.lines()


def test_one_issuer_has_one_entry(directory: Directory) -> None:
    again = CLUSTER.replace("issuers:\n", "").replace("  cluster:", "  again:")
    directory.write("workspaces.yaml", WORKSPACES + CLUSTER + again)

    assert any("cluster is the same issuer" in line for line in directory.lines())


def test_without_the_extra_it_is_said_what_to_install(
    directory: Directory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jwt", None)
    directory.write("workspaces.yaml", WORKSPACES)
    assert directory.load().workspaces.issuers == {}

    directory.write("workspaces.yaml", WORKSPACES + CLUSTER)
    assert any("pip install 'claude-cache-gateway[oidc]'" in line for line in directory.lines())


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (FEDERATION.replace("    federation", "    header: x-api-key\n    federation"), "sent as bearer"),
        (FEDERATION.replace("    federation", "    workspace_id: w\n    federation"), "federation.workspace"),
        (
            FEDERATION.replace("https://upstream.example", "http://upstream.example"),
            "must begin with https://",
        ),
        (FEDERATION.replace("{file: /no/such/token}", "eyJ.eyJ.x"), "must be a mapping"),
    ],
)
def test_federations_that_cannot_work_are_refused(directory: Directory, text: str, says: str) -> None:
    directory.write("gateway.yaml", text)

    assert any(says in line for line in directory.lines()), directory.lines()


def test_a_federation_needs_no_credential_and_warns_of_a_missing_identity(directory: Directory) -> None:
    directory.environ.clear()
    directory.write("gateway.yaml", FEDERATION)
    warnings = [str(each) for each in directory.load().warnings]

    assert any("file /no/such/token cannot be read now; calls will fail" in each for each in warnings)
    assert not any("UPSTREAM_KEY" in each for each in warnings)


def test_a_route_with_federation_has_no_credential_until_it_is_got(directory: Directory) -> None:
    directory.write("gateway.yaml", FEDERATION)
    settings = directory.load()
    rules = build_rules(settings, build_keyring(settings, []), 1)
    with pytest.raises(CredentialUnavailable):
        rules.routes["default"].credential()

    taken = Identity(FakeClock(), lambda: 0.0).take_over(settings, rules)
    assert taken.routes["default"].renew is not None
    with pytest.raises(CredentialUnavailable, match="none was got yet"):
        taken.routes["default"].credential()


def test_a_reload_keeps_what_did_not_change(directory: Directory) -> None:
    directory.write("gateway.yaml", FEDERATION)
    directory.write("workspaces.yaml", WORKSPACES + CLUSTER)
    settings = directory.load()
    rules = build_rules(settings, build_keyring(settings, []), 1)
    identity = Identity(FakeClock(), lambda: 0.0)
    first = identity.take_over(settings, rules).routes["default"]
    again = identity.take_over(directory.load(), rules).routes["default"]
    assert again.credential == first.credential

    directory.write("gateway.yaml", FEDERATION.replace("fdrl_1", "fdrl_2"))
    other = identity.take_over(directory.load(), replace(rules)).routes["default"]
    assert other.credential != first.credential


SIGN_IN = (
    GATEWAY + "page: {public_url: https://gw.test, sign_in: {issuer: https://login.test, client_id: gw%s}}\n"
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SIGN_IN % "", "write `editors` or `viewers`"),
        (SIGN_IN % ", viewers: {groups: a}, scopes: [email]", "scopes must have openid"),
        (
            (SIGN_IN % ", viewers: {groups: a}").replace("public_url: https://gw.test, ", ""),
            "page.public_url",
        ),
        ((SIGN_IN % ", viewers: {groups: a}").replace("https://login", "http://login"), "https://"),
    ],
)
def test_a_sign_in_that_cannot_work_is_refused(directory: Directory, text: str, says: str) -> None:
    directory.write("gateway.yaml", text)

    assert any(says in line for line in directory.lines()), directory.lines()


@pytest.mark.parametrize("page", ["{public_url: https://gw.test}", "PROVIDER"])
def test_what_is_behind_a_proxy_needs_the_admin_token(directory: Directory, page: str) -> None:
    """To the admin API a proxy on the same machine looks like a command on it."""
    text = SIGN_IN % ", viewers: {groups: a}"
    if page != "PROVIDER":
        text = f"{GATEWAY}page: {page}\n"
    directory.write("gateway.yaml", text)
    assert any("needs listen.admin_token" in line for line in directory.lines()), directory.lines()

    directory.write("gateway.yaml", text + "listen: {admin_token: {env: ADMIN_TOKEN}}\n")
    assert directory.load().gateway.listen.admin_token is not None
