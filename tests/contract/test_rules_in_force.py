"""What a replica works by while the stores come and go."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gateway.adapters.adjustment_store import SqliteAdjustmentStore
from gateway.adapters.key_store import MemoryKeyStore, SqliteKeyStore
from gateway.core.errors import StoreUnavailable, Unauthenticated
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import RANDOM_BYTES, Principal, mint_key
from gateway.identity import Identity
from gateway.rules_in_force import RulesInForce
from gateway.settings.load import load_settings, packaged_directory
from tests.support.clock import FakeClock


async def test_a_store_that_is_away_is_said_once_however_often_it_is_asked_and_so_is_its_return(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"ANTHROPIC_API_KEY": "sk-test-upstream", "GATEWAY_STATE__DIRECTORY": str(tmp_path)}
    settings = load_settings(packaged_directory(), environ)
    in_force = RulesInForce(settings, (), Identity(FakeClock(), lambda: 0.5))
    folder = tmp_path / "stores"
    folder.write_text("no folder")

    def permit() -> None:
        caller = Principal(
            workspace=WorkspaceId("demo"), key_id=KeyId("k1"), key_name="", organisation="default"
        )
        in_force.rules.freezes.permit(caller)

    async def refresh(times: int) -> None:
        for _ in range(times):
            keys = SqliteKeyStore(folder / "keys.sqlite3")
            adjustments = SqliteAdjustmentStore(folder / "adjustments.sqlite3")
            await in_force.refresh_keys(keys)
            await in_force.refresh_adjustments(adjustments, 0.0)
            await keys.close()
            await adjustments.close()

    with caplog.at_level(logging.INFO, "gateway.rules_in_force"):
        await refresh(3)
        away = [line.partition(",")[0] for line in caplog.messages]
        with pytest.raises(StoreUnavailable, match="freezes cannot be read"):
            permit()
        assert in_force.unread() == ["keys", "adjustments"]
        in_force.reload_soon()
        await in_force.reload_if_changed(lambda: None, pytest.fail)
        with pytest.raises(StoreUnavailable):
            permit()
        folder.unlink()
        await refresh(2)

    assert away == ["keys cannot be read", "adjustments cannot be read"]
    assert all("calls are refused until they can" in line for line in caplog.messages[:2])
    assert [line for line in caplog.messages if "again" in line] == [
        "keys can be read again",
        "adjustments can be read again",
    ]
    assert (in_force.complete, in_force.adjusted, in_force.unread()) == (True, True, [])
    permit()


async def test_keys_that_a_store_lost_open_nothing_and_are_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    environ = {"ANTHROPIC_API_KEY": "sk-test-upstream", "GATEWAY_STATE__DIRECTORY": str(tmp_path)}
    settings = load_settings(packaged_directory(), environ)
    in_force = RulesInForce(settings, (), Identity(FakeClock(), lambda: 0.5))
    keys = MemoryKeyStore()
    text, record = mint_key(
        random_bytes=bytes(RANDOM_BYTES), name="app", workspace=WorkspaceId("demo"), created_at=0.0
    )
    await keys.put(record)
    await in_force.refresh_keys(keys)
    assert in_force.rules.keyring.identify(text, 1.0).key_name == "app"

    await in_force.refresh_keys(MemoryKeyStore())
    await in_force.refresh_keys(MemoryKeyStore())

    with pytest.raises(Unauthenticated):
        in_force.rules.keyring.identify(text, 1.0)
    (said,) = [line for line in caplog.messages if "lost its data" in line]
    assert said.startswith("keys that are gone from the store: 1.")
