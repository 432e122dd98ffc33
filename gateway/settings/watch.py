"""Notices that the configuration changed, and reads it anew; what cannot be used changes nothing.

Polling the contents, not events: a ConfigMap, an editor and a network file system all change files in ways
that some event interface misses. Whoever owns the loop (the service) asks every few seconds, and at once
after SIGHUP.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from gateway.settings.gateway import RESTART_SECTIONS
from gateway.settings.load import Settings, load_settings, read_contents
from gateway.settings.source import content_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Reloaded:
    """New settings, valid."""

    settings: Settings
    """With the sections that only a restart takes over as the process was started with them."""
    needs_restart: tuple[str, ...]
    """Those sections that differ from what the files say now."""


class ConfigWatcher:
    """The last good settings, and a way to better ones. Reading blocks for a few milliseconds: call it in a
    thread."""

    def __init__(self, settings: Settings) -> None:
        self._started_with = settings
        self._good = settings
        self._seen = settings.digest

    @property
    def settings(self) -> Settings:
        """The last good ones."""
        return self._good

    def has_changed(self) -> bool:
        """Whether the files differ from what was last read, good or bad. A directory that cannot be read has
        not changed."""
        try:
            return content_digest(read_contents(self._good.directory)) != self._seen
        except OSError:
            return False

    def reload(self) -> Reloaded:
        """Read everything anew. Raises `ConfigError`, and then keeps the last good settings."""
        directory, environ = self._good.directory, self._good.environ
        self._seen = _digest_of(directory) or self._seen
        settings = load_settings(directory, environ)
        changed = needs_restart(self._started_with, settings)
        settings = _pinned(self._started_with, settings)
        self._good, self._seen = settings, settings.digest
        return Reloaded(settings=settings, needs_restart=changed)


def needs_restart(started_with: Settings, now: Settings) -> tuple[str, ...]:
    """Sections that differ from those the process was started with."""
    return tuple(
        section
        for section in RESTART_SECTIONS
        if getattr(started_with.gateway, section) != getattr(now.gateway, section)
    )


def _pinned(started_with: Settings, now: Settings) -> Settings:
    kept = {section: getattr(started_with.gateway, section) for section in RESTART_SECTIONS}
    return replace(now, gateway=now.gateway.model_copy(update=kept))


def _digest_of(directory: Path) -> str | None:
    try:
        return content_digest(read_contents(directory))
    except OSError:
        return None
