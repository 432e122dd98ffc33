"""Long reading and packing in threads pauses; who reads on the main thread, a command, does not."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from gateway.adapters import give_way, ledger_source
from gateway.adapters.give_way import SHORT_PAUSE_SECONDS, WORK_SECONDS, Pauses
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


def test_work_that_a_call_waits_for_pauses_shortly_when_it_is_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now, slept = 100.0, list[float]()

    class Time:
        @staticmethod
        def perf_counter() -> float:
            return now

        @staticmethod
        def sleep(seconds: float) -> None:
            nonlocal now
            now += seconds
            slept.append(seconds)

    monkeypatch.setattr(give_way, "time", Time)
    pause = Pauses()
    for _ in range(1_000):  # 10 ms of work
        now += 0.000_01
        pause()

    assert slept == [SHORT_PAUSE_SECONDS] * len(slept)
    assert 0.8 < len(slept) * WORK_SECONDS / 0.01 <= 1.0
