"""Reloading: what is good is taken over, what is not changes nothing."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.core.rules import PlacementMode
from gateway.settings import ConfigWatcher, load_settings
from gateway.settings.source import FILE_NAMES
from tests.unit.settings.conftest import GATEWAY, LIMITS, WORKSPACES, Directory


def test_touching_a_file_is_no_change(directory: Directory) -> None:
    watcher = ConfigWatcher(directory.load())
    directory.write("limits.yaml", LIMITS)

    assert not watcher.has_changed()


def test_a_change_is_noticed_and_taken_over(directory: Directory) -> None:
    watcher = ConfigWatcher(directory.load())
    directory.write("workspaces.yaml", "workspaces: {demo: {}, new: {}}\n")

    assert watcher.has_changed()
    reloaded = watcher.reload()

    assert "new" in reloaded.settings.workspaces.workspaces
    assert reloaded.needs_restart == ()
    assert watcher.settings is reloaded.settings
    assert not watcher.has_changed()


def test_bad_contents_keep_the_last_good_ones_and_are_tried_once(directory: Directory) -> None:
    good = directory.load()
    watcher = ConfigWatcher(good)
    directory.write("limits.yaml", "defaults: [\n")

    with pytest.raises(ConfigError, match=r"limits.yaml:"):
        watcher.reload()

    assert watcher.settings is good
    assert not watcher.has_changed()


def test_nothing_of_what_was_refused_is_held(directory: Directory) -> None:
    """Its error leads to all that had been read by then: megabytes, for as long as nobody mends the files."""
    watcher = ConfigWatcher(directory.load())
    directory.write("limits.yaml", "defaults: [\n")
    refused: weakref.ref[ConfigError] | None = None
    try:
        watcher.reload()
    except ConfigError as error:
        refused = weakref.ref(error)
    gc.collect()

    assert refused is not None and refused() is None


def test_going_back_to_what_was_good_is_a_change(directory: Directory) -> None:
    watcher = ConfigWatcher(directory.load())
    directory.write("limits.yaml", "defaults: [\n")
    with pytest.raises(ConfigError):
        watcher.reload()
    directory.write("limits.yaml", LIMITS)

    assert watcher.has_changed()
    watcher.reload()

    assert not watcher.has_changed()


def test_a_directory_that_went_away_changes_nothing(directory: Directory) -> None:
    good = directory.load()
    watcher = ConfigWatcher(good)
    directory.path.rename(directory.path.with_name("moved"))

    with pytest.raises(ConfigError):
        watcher.reload()

    assert watcher.settings is good


def test_settings_that_need_a_restart_are_reported_until_they_are_put_back(directory: Directory) -> None:
    watcher = ConfigWatcher(directory.load())
    directory.write("gateway.yaml", GATEWAY + "listen: {data: 127.0.0.1:1}\nplacement: {mode: off}\n")
    first = watcher.reload()
    assert first.settings.gateway.listen.data == "127.0.0.1:8080"
    assert first.settings.gateway.placement.mode is PlacementMode.OFF
    directory.write("limits.yaml", LIMITS + "\n")
    second = watcher.reload()
    directory.write("gateway.yaml", GATEWAY)

    assert first.needs_restart == second.needs_restart == ("listen",)
    assert watcher.reload().needs_restart == ()


def test_a_configmap_swap_is_seen_as_a_whole(tmp_path: Path) -> None:
    """Kubernetes mounts `..data -> ..version` and file links through it; an update renames `..data`."""

    def version(name: str, workspaces: str) -> None:
        (tmp_path / name).mkdir()
        for file, text in zip(FILE_NAMES, (GATEWAY, LIMITS, None, workspaces), strict=True):
            if text is not None:
                (tmp_path / name / file).write_text(text)

    version("..1", WORKSPACES)
    version("..2", "workspaces: {demo: {}, second: {}}\n")
    (tmp_path / "..data").symlink_to("..1")
    for file in ("gateway.yaml", "limits.yaml", "workspaces.yaml"):
        (tmp_path / file).symlink_to(f"..data/{file}")
    watcher = ConfigWatcher(load_settings(tmp_path, {}))

    (tmp_path / "..swap").symlink_to("..2")
    (tmp_path / "..swap").rename(tmp_path / "..data")

    assert watcher.has_changed()
    assert "second" in watcher.reload().settings.workspaces.workspaces
