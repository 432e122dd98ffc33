"""The rules that a replica works by, and how they change while it runs: keys from the store, files that are
edited. What cannot be read or used changes nothing."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace

from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.principal import KeyRecord, Keyring
from gateway.core.rules import Rules
from gateway.ports import KeyStore
from gateway.settings.build import build_keyring, build_rules
from gateway.settings.load import Settings
from gateway.settings.watch import ConfigWatcher

log = logging.getLogger(__name__)


class RulesInForce:
    """`rules` is the newest snapshot; a call takes it once. `more_keys` are for this process only."""

    def __init__(self, settings: Settings, more_keys: Sequence[KeyRecord]) -> None:
        self._settings = settings
        """Those that the rules are built from; the watcher may be ahead, in its thread."""
        self._more_keys = tuple(more_keys)
        self._watcher = ConfigWatcher(settings)
        self._stored_keys: tuple[KeyRecord, ...] | None = None
        """None until they could be read once."""
        self._asked = False
        self.wake = asyncio.Event()
        """Set when a reload was asked for."""
        self.generation = 0
        self.rules = self._build()

    @property
    def complete(self) -> bool:
        """Whether the keys of the store could be read."""
        return self._stored_keys is not None

    def reload_soon(self) -> None:
        """Read the configuration anew at once, changed or not."""
        self._asked = True
        self.wake.set()

    async def refresh_keys(self, keys: KeyStore) -> None:
        """Take over what the store has. Raises nothing."""
        try:
            stored = await keys.load()
        except StoreUnavailable as error:
            log.warning("keys could not be read, those known stay in force: %s", error.message)
            return
        if stored != self._stored_keys:
            self._stored_keys = stored
            self.rules = replace(self.rules, keyring=self._keyring())

    async def reload_if_changed(self, reloaded: Callable[[], None], refused: Callable[[], None]) -> None:
        """Take over what the files say, and tell which of the two it was, if any. Raises nothing that is the
        files' fault."""
        try:
            if not (self._asked or await asyncio.to_thread(self._watcher.has_changed)):
                return
            self._asked = False
            newer = await asyncio.to_thread(self._watcher.reload)
            self._settings = newer.settings
            self.rules = self._build()
        except ConfigError as error:
            refused()
            log.error("the new configuration cannot be used, the old one stays in force:\n%s", error)
            return
        reloaded()
        log.info("configuration %d is in force", self.generation)
        for section in newer.needs_restart:
            log.warning("gateway.yaml: %s changed, and takes effect at the next start only", section)

    def _build(self) -> Rules:
        self.generation += 1
        return build_rules(self._settings, self._keyring(), self.generation)

    def _keyring(self) -> Keyring:
        stored = self._stored_keys or ()
        return build_keyring(self._settings, (*stored, *self._more_keys), complete=self.complete)
