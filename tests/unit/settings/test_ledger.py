"""The ledger's section: its secrets are found by reference, made where none is named, shown by nothing."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.settings.secrets import ledger_key, ledger_url
from tests.unit.settings.conftest import GATEWAY, Directory

SHARED = GATEWAY + "ledger: {kind: postgres, keep: 400d}\n"


def test_the_key_is_made_once_and_kept_private(
    directory: Directory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = directory.load().gateway
    first, second = ledger_key(file, {}), ledger_key(file, {})

    path = tmp_path / "var" / "ledger.key"
    assert first == second == path.read_bytes()
    assert len(first) >= 32
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_short_key_is_refused(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "ledger: {key: {env: SHORT}}\n")

    with pytest.raises(ConfigError, match=r"ledger\.key cannot be used: it is shorter") as error:
        ledger_key(directory.load().gateway, {"SHORT": "guess-me"})
    assert "guess-me" not in str(error.value)


def test_the_url_is_found_by_reference_and_must_be_one_of_postgresql(directory: Directory) -> None:
    directory.write("gateway.yaml", SHARED)
    file = directory.load().gateway
    good = "postgresql://shipper:sk-test-secret@db/books"

    assert ledger_url(file, {"LEDGER_URL": good}) == good
    for environ in ({}, {"LEDGER_URL": "mysql://shipper:sk-test-secret@db"}):
        with pytest.raises(ConfigError, match="LEDGER_URL") as error:
            ledger_url(file, environ)
        assert "sk-test-secret" not in str(error.value)


def test_what_a_shared_ledger_lacks_is_a_warning(directory: Directory) -> None:
    directory.write("gateway.yaml", SHARED)
    warnings = "\n".join(str(problem) for problem in directory.load().warnings)
    assert "LEDGER_URL cannot be read now" in warnings
    assert "no place can verify all chains" in warnings

    directory.environ |= {"LEDGER_URL": "postgresql://db/books", "LEDGER_KEY": "k" * 32}
    directory.write("gateway.yaml", GATEWAY + "ledger: {kind: postgres, key: {env: LEDGER_KEY}}\n")
    assert directory.load().warnings == ()


def test_less_than_a_month_cannot_be_kept(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "ledger: {keep: 7d}\n")

    with pytest.raises(ConfigError, match="keep"):
        directory.load()
