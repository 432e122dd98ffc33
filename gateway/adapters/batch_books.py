"""The ledger, for the entries of batches: each commit is awaited, and may be repeated after a crash.

Entries of calls go through the queue of `ledger.py`, beside which this writes to the same file.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from gateway.adapters.ledger_file import open_for_writing
from gateway.adapters.ledger_rows import insert
from gateway.adapters.ledger_spend import identity
from gateway.core.chain import ChainKey
from gateway.core.entry import entry_of
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.exchange import ExchangeRecord


class LedgerBatchBooks:
    """`ports.BatchBooks` in the ledger's file."""

    def __init__(self, path: Path, key: bytes = b"") -> None:
        """`key` is that of the ledger's chain."""
        self._path = path
        self._key = ChainKey(key)
        self.name = identity(path)
        """Lies beside the file: a pod that is started elsewhere, with its volume, has the same."""

    async def add(self, records: Sequence[ExchangeRecord]) -> int:
        return await asyncio.to_thread(self._add, records)

    def _add(self, records: Sequence[ExchangeRecord]) -> int:
        try:
            with closing(open_for_writing(self._path)) as connection:
                return insert(connection, [entry_of(record) for record in records], self._key)
        except (sqlite3.Error, OverflowError, ConfigError, OSError) as error:
            raise StoreUnavailable(f"the ledger {self._path} cannot be written: {error}") from error
