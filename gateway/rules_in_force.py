"""The rules that a replica works by, and how they change while it runs: keys and adjustments from the stores,
files that are edited. What cannot be read or used changes nothing. What takes time with thousands of keys or
workspaces is made in threads, and taken over by the loop when it is whole."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from gateway.core.adjustments import Adjustment, Freezes, in_force
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.limits import Limit, Limits
from gateway.core.principal import KeyRecord, Keyring
from gateway.core.rules import Rules
from gateway.identity import Identity
from gateway.ports import AdjustmentStore, KeyStore
from gateway.settings.build import build_keyring, build_limits, build_rules, read_adjusted
from gateway.settings.load import Settings
from gateway.settings.watch import ConfigWatcher

log = logging.getLogger(__name__)


class RulesInForce:
    """`rules` is the newest snapshot; a call takes it once. `more_keys` are for this process only."""

    def __init__(self, settings: Settings, more_keys: Sequence[KeyRecord], identity: Identity) -> None:
        self._identity = identity
        self._settings = settings
        """Those that the rules are built from; the watcher may be ahead, in its thread."""
        self._more_keys = tuple(more_keys)
        self._watcher = ConfigWatcher(settings)
        self._stored_keys: tuple[KeyRecord, ...] | None = None
        """None until they could be read once."""
        self.adjustments: tuple[Adjustment, ...] = ()
        """Those in force, as of the last refresh."""
        self._standing: tuple[Adjustment, ...] | None = None
        """All that were not taken back, as last read; None until they could be read once."""
        self._adjusted_at = 0.0
        self._refreshing = asyncio.Lock()
        self._refreshing_keys = asyncio.Lock()
        self._keys_away, self._adjustments_away = _Away("keys"), _Away("adjustments")
        self._asked = False
        self.wake = asyncio.Event()
        """Set when a reload was asked for."""
        self.generation = 0
        self.rules: Rules
        self.configured: Limits
        """The limits without adjustments."""
        self._take_over(settings, self._make(settings))

    @property
    def complete(self) -> bool:
        """Whether the keys of the store could be read."""
        return self._stored_keys is not None

    @property
    def adjusted(self) -> bool:
        """Whether the adjustments could be read: before that nobody passes, as anybody may be frozen."""
        return self._standing is not None

    def unread(self) -> list[str]:
        """What was not read once since the start; calls are refused for it."""
        return [*([] if self.complete else ["keys"]), *([] if self.adjusted else ["adjustments"])]

    @property
    def settings(self) -> Settings:
        """Those that the rules are built from."""
        return self._settings

    def prices_as_of(self) -> float:
        """The day of the price table in force, epoch seconds."""
        day = self._settings.prices.as_of
        return datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()

    def reload_soon(self) -> None:
        """Read the configuration anew at once, changed or not."""
        self._asked = True
        self.wake.set()

    async def refresh_keys(self, keys: KeyStore) -> None:
        """Take over what the store has. Raises nothing."""
        async with self._refreshing_keys:
            try:
                stored = await keys.load()
            except StoreUnavailable as error:
                self._keys_away.tell(error.message, known=self.complete)
                return
            self._keys_away.over()
            if stored != self._stored_keys:
                _tell_lost(self._stored_keys or (), stored)
                self._stored_keys = stored
                keyring = await asyncio.to_thread(self._keyring, self._settings)
                self.rules = replace(self.rules, keyring=keyring)

    async def refresh_adjustments(self, store: AdjustmentStore, at: float) -> bool:
        """Take over what the store has and what begins or ends by `at`: also where the store does not answer,
        for those that are known. Whether it answered. Raises nothing."""
        async with self._refreshing:  # what was read first must not come after what was read last
            answered = True
            try:
                self._standing = await store.load(at)
                self._adjustments_away.over()
            except StoreUnavailable as error:
                answered = False
                self._adjustments_away.tell(error.message, known=self.adjusted)
            self._adjusted_at = at
            now = in_force(self._standing or (), at)
            if now != self.adjustments:
                limits = await asyncio.to_thread(build_limits, self._settings, now, at)
                self.rules = replace(self.rules, limits=limits)
                self.adjustments = now
                log.info("adjustments in force: %d", len(now))
            elif self.rules.freezes.complete == self.adjusted:
                return answered
            self.rules = replace(self.rules, freezes=self._freezes())
            return answered

    def read_amount(self, limit: Limit, amount: str | int) -> int:
        """An amount of this limit as people write it in limits.yaml. Raises ValueError."""
        return read_adjusted(limit, amount)

    async def reload_if_changed(self, reloaded: Callable[[], None], refused: Callable[[], None]) -> None:
        """Take over what the files say, and tell which of the two it was, if any. Raises nothing that is the
        files' fault."""
        try:
            if not (self._asked or await asyncio.to_thread(self._watcher.has_changed)):
                return
            self._asked = False
            newer = await asyncio.to_thread(self._watcher.reload)
            async with self._refreshing_keys, self._refreshing:  # or what they bring meanwhile would be lost
                self._take_over(newer.settings, await asyncio.to_thread(self._make, newer.settings))
        except ConfigError as error:
            refused()
            log.error("the new configuration cannot be used, the old one stays in force:\n%s", error)
            return
        reloaded()
        log.info("configuration %d is in force", self.generation)
        for section in newer.needs_restart:
            log.warning("gateway.yaml: %s changed, and takes effect at the next start only", section)

    def _make(self, settings: Settings) -> tuple[Rules, Limits]:
        """The rules with the adjustments in force, and the limits without. Changes nothing here."""
        rules = build_rules(settings, self._keyring(settings), self.generation + 1)
        limits = build_limits(settings, self.adjustments, self._adjusted_at)
        return replace(rules, limits=limits, freezes=self._freezes()), rules.limits

    def _freezes(self) -> Freezes:
        return Freezes(self.adjustments, complete=self.adjusted)

    def _take_over(self, settings: Settings, made: tuple[Rules, Limits]) -> None:
        rules, self.configured = made
        self.generation = rules.generation
        self._settings = settings
        self.rules = self._identity.take_over(settings, rules)

    def _keyring(self, settings: Settings) -> Keyring:
        stored = self._stored_keys or ()
        return build_keyring(
            settings,
            (*stored, *self._more_keys),
            complete=self.complete,
            tokens=self._identity.tokens,
        )


def _tell_lost(before: Sequence[KeyRecord], stored: Sequence[KeyRecord]) -> None:
    """Nothing removes the record of a key: where some are gone, the store lost its data."""
    if gone := len({record.id for record in before} - {record.id for record in stored}):
        log.error(
            "keys that are gone from the store: %d. It must have lost its data; calls with them are refused, "
            "and revocations of keys in workspaces.yaml may be gone too",
            gone,
        )


class _Away:
    """Says that something cannot be read, and that it can again: once each, however often it is tried."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._told = False

    def tell(self, why: str, *, known: bool) -> None:
        if not self._told:
            meanwhile = "those known stay in force" if known else "calls are refused until they can"
            log.warning("%s cannot be read, %s: %s", self._what, meanwhile, why)
        self._told = True

    def over(self) -> None:
        if self._told:
            log.info("%s can be read again", self._what)
        self._told = False
