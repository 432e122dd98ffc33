"""From settings to the values of the core."""

from __future__ import annotations

import stat
from dataclasses import replace
from hashlib import sha512
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError, CredentialUnavailable, Unauthenticated
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import OnStoreFailure, Period, Unit
from gateway.core.principal import RANDOM_BYTES, KeyRecord, Principal, mint_key
from gateway.core.rules import PlacementMode, UnknownModels
from gateway.settings import build_keyring, build_limits, build_rules, declared_keys, store_url
from gateway.settings.gateway import Upstream
from gateway.settings.secrets import upstream_credential
from tests.unit.settings.conftest import GATEWAY, LIMITS, Directory

HEADERS = "    header: x-api-key\n    workspace_id: wrkspc_1\n    betas: [oauth-2025-04-20]\n"


@pytest.fixture(autouse=True)
def _in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def caller(workspace: str = "demo") -> Principal:
    return Principal(workspace=WorkspaceId(workspace), key_id=KeyId("k"), key_name="app")


def key(workspace: str = "demo", seed: int = 1) -> tuple[str, KeyRecord]:
    return mint_key(
        random_bytes=sha512(bytes([seed])).digest()[:RANDOM_BYTES],
        name="app",
        workspace=WorkspaceId(workspace),
        created_at=0,
    )


def test_rules_hold_what_was_configured(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + HEADERS + "models: {unknown: refuse}\nstore: {lease: 20m}\n")
    settings = directory.load()

    rules = build_rules(settings, build_keyring(settings, []), 7)

    route = rules.routes["default"]
    assert (rules.generation, rules.lease_seconds, rules.unknown_models) == (7, 1200, UnknownModels.REFUSE)
    assert route.base_url == "https://upstream.example"
    assert list(route.credential()) == [
        (b"x-api-key", b"sk-test-upstream"),
        (b"anthropic-workspace-id", b"wrkspc_1"),
        (b"anthropic-beta", b"oauth-2025-04-20"),
    ]
    assert rules.models.canonical("claude-opus-5") == "claude-opus-5"


def test_nothing_that_is_built_shows_a_secret(directory: Directory) -> None:
    settings = directory.load()
    rules = build_rules(settings, build_keyring(settings, []), 1)

    assert "sk-test-upstream" not in repr(settings) + repr(rules) + str(settings)
    assert rules.prefix_secret.hex() not in repr(rules)
    assert repr(rules.prefix_secret) not in repr(rules)


@pytest.mark.parametrize(
    ("everywhere", "here", "result"),
    [("on", "shadow", "shadow"), ("shadow", "on", "shadow"), ("off", "shadow", "off"), ("on", "on", "on")],
)
def test_the_stricter_placement_mode_holds(
    directory: Directory, everywhere: str, here: str, result: str
) -> None:
    directory.write("gateway.yaml", GATEWAY + f"placement: {{mode: {everywhere}}}\n")
    directory.write("workspaces.yaml", f"workspaces: {{demo: {{placement: {here}}}}}\n")
    settings = directory.load()

    rules = build_rules(settings, build_keyring(settings, []), 1)

    assert rules.workspaces[WorkspaceId("demo")].placement is PlacementMode(result)


def test_an_override_takes_its_defaults_place_and_keeps_its_bucket(directory: Directory) -> None:
    """Raising a budget in the middle of a month must not forget what was spent in it."""
    before = build_limits(directory.load()).binding(caller(), "claude-opus-5")
    directory.write(
        "limits.yaml",
        LIMITS + "overrides:\n  - {limit: month, subject: demo, amount: $50, mode: shadow, comment: more}\n",
    )
    directory.write("workspaces.yaml", "workspaces: {demo: {}, other: {}}\n")
    limits = build_limits(directory.load())

    (bound,) = limits.binding(caller(), "claude-opus-5")
    (others,) = limits.binding(caller("other"), "claude-opus-5")

    assert bound.limit.amount == 50_000_000_000
    assert bound.bucket_id == before[0].bucket_id
    assert bound.limit.on_store_failure is OnStoreFailure.REFUSE
    assert others.limit.amount == 25_000_000_000


def test_money_refuses_and_rates_allow_while_the_store_is_away(directory: Directory) -> None:
    directory.write(
        "limits.yaml",
        LIMITS + "  - {id: rate, scope: key, unit: requests, amount: 1k, per: minute, comment: rate}\n",
    )

    month, rate, warming = build_limits(directory.load()).all

    assert (month.unit, month.period, month.on_store_failure) == (
        Unit.NANOUSD,
        Period.CALENDAR_MONTH,
        OnStoreFailure.REFUSE,
    )
    assert (rate.amount, rate.on_store_failure) == (1000, OnStoreFailure.ALLOW)
    assert (warming.id, warming.on_store_failure) == ("warming", OnStoreFailure.REFUSE)


def declare(directory: Directory, record: KeyRecord) -> None:
    digest = f"sha256:{record.digest.hex()}"
    directory.write(
        "workspaces.yaml",
        f"workspaces:\n  demo:\n    keys: [{{id: '{record.id}', name: ci, digest: '{digest}'}}]\n",
    )


def test_keys_come_from_the_file_and_the_store(directory: Directory) -> None:
    declared_text, declared = key(seed=1)
    stored_text, stored = key(seed=2)
    declare(directory, declared)
    settings = directory.load()

    keyring = build_keyring(settings, [stored])

    assert keyring.identify(declared_text, 1.0).key_name == "ci"
    assert keyring.identify(stored_text, 1.0).key_name == "app"
    assert declared_keys(settings)[0].id == declared.id


def test_a_declared_key_can_be_revoked_by_the_store(directory: Directory) -> None:
    text, record = key()
    declare(directory, record)

    keyring = build_keyring(directory.load(), [replace(record, revoked_at=5.0)])

    with pytest.raises(Unauthenticated):
        keyring.identify(text, 6.0)


def test_a_stored_record_cannot_take_over_a_declared_id(directory: Directory) -> None:
    text, record = key()
    other_text, other = key(seed=2)
    declare(directory, record)

    keyring = build_keyring(directory.load(), [replace(other, id=record.id)])

    assert keyring.identify(text, 1.0)
    with pytest.raises(Unauthenticated):
        keyring.identify(other_text, 1.0)


def test_keys_of_a_workspace_that_is_gone_open_nothing(directory: Directory) -> None:
    text, record = key("gone")

    with pytest.raises(Unauthenticated):
        build_keyring(directory.load(), [record]).identify(text, 1.0)


def test_a_credential_in_a_file_is_read_again_when_it_changes(tmp_path: Path) -> None:
    """Kubernetes rotates a mounted secret by swapping a symlink."""
    (tmp_path / "one").mkdir()
    (tmp_path / "two").mkdir()
    (tmp_path / "one" / "key").write_text("sk-test-one\n")
    (tmp_path / "two" / "key").write_text("sk-test-two\n")
    link = tmp_path / "data"
    link.symlink_to(tmp_path / "one")
    upstream = Upstream.model_validate({"credential": {"file": str(link / "key")}})
    credential = upstream_credential("default", upstream, {})

    first = credential()
    again = credential()
    swap = tmp_path / "swap"
    swap.symlink_to(tmp_path / "two")
    swap.rename(link)

    assert list(first) == [(b"authorization", b"Bearer sk-test-one")]
    assert again is first
    assert list(credential()) == [(b"authorization", b"Bearer sk-test-two")]


@pytest.mark.parametrize("content", ["", "  \n", "sk-test\r\nx-evil: 1", "sk test", "sk-täst", None])
def test_a_credential_that_a_header_cannot_carry_is_refused_without_showing_it(
    tmp_path: Path, content: str | None
) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_text(content)
    upstream = Upstream.model_validate({"credential": {"file": str(path)}})

    with pytest.raises(CredentialUnavailable) as error:
        upstream_credential("default", upstream, {})()

    assert "upstream 'default'" in error.value.message
    assert "sk" not in error.value.message
    assert not error.value.request_sent


def test_a_missing_variable_is_found_out_when_it_is_needed() -> None:
    credential = upstream_credential("default", Upstream(), {"ANTHROPIC_API_KEY": ""})

    with pytest.raises(CredentialUnavailable, match="ANTHROPIC_API_KEY is not set"):
        credential()


def test_the_prefix_secret_is_made_once_and_kept_private(directory: Directory, tmp_path: Path) -> None:
    settings = directory.load()

    first = build_rules(settings, build_keyring(settings, []), 1).prefix_secret
    second = build_rules(settings, build_keyring(settings, []), 2).prefix_secret

    path = tmp_path / "var" / "prefix.secret"
    assert first == second == path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["prefix.secret"]


def test_a_short_prefix_secret_is_refused(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "prefixes: {secret: {env: SHORT}}\n")
    directory.environ["SHORT"] = "guess-me"
    settings = directory.load()

    with pytest.raises(ConfigError, match="shorter than 32") as error:
        build_rules(settings, build_keyring(settings, []), 1)
    assert "guess-me" not in str(error.value)


def test_the_store_url_is_found_by_reference(directory: Directory) -> None:
    settings = directory.load()

    assert store_url(settings.gateway, {"REDIS_URL": "redis://:secret@host/0"}) == "redis://:secret@host/0"
    for environ in ({}, {"REDIS_URL": "http://:secret@host"}):
        with pytest.raises(ConfigError, match="REDIS_URL") as error:
            store_url(settings.gateway, environ)
        assert "secret" not in str(error.value)
