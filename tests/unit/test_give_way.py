"""Long reading and packing in threads pauses; who reads on the main thread, a command, does not."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.adapters import ledger_source
from gateway.adapters.ledger_source import reading
from tests.support.year_of_ledger import write_year


def entries_by_hour(ledger: Path) -> int:
    with reading(ledger) as source:
        rows = source.rows(
            "SELECT received_at_ms / 3600000, COUNT(*), SUM(output_tokens) FROM entries GROUP BY 1"
        )
        return sum(count for _, count, _ in rows)


async def test_reading_a_ledger_pauses_in_a_thread_and_not_in_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paused: list[int] = []

    def pause() -> int:
        paused.append(threading.get_ident())
        return 0

    monkeypatch.setattr(ledger_source, "give_way", pause)
    ledger = tmp_path / "ledger.sqlite3"
    write_year(ledger, entries=20_000)

    found = entries_by_hour(ledger)
    assert paused == []
    assert await asyncio.to_thread(entries_by_hour, ledger) == found >= 20_000
    assert len(paused) > 5
    assert threading.get_ident() not in paused
