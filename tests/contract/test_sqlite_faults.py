"""What the budget file does when it is damaged, locked, full, or its process dies."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from gateway.adapters import sqlite_tables
from gateway.adapters.clock import SystemClock
from gateway.adapters.sqlite_budgets import ANSWER_SECONDS, DECIDE_SECONDS, SqliteBudgets
from gateway.core.bucket import Amounts
from gateway.core.errors import ConfigError, StoreUnavailable
from gateway.core.limits import BoundLimit
from tests.support.budgets import bound, reservation, rid, usd
from tests.support.elapsed import elapsed

LIMIT = bound(1_000_000_000)


async def opened(path: Path) -> SqliteBudgets:
    return await SqliteBudgets(path, SystemClock()).open()


async def test_what_was_answered_is_there_after_a_restart(tmp_path: Path) -> None:
    budgets = await opened(tmp_path / "b.db")
    first = await budgets.reserve(reservation("a", LIMIT, nanousd=60))
    await budgets.close()
    with pytest.raises(StoreUnavailable):
        await budgets.ping()
    budgets = await opened(tmp_path / "b.db")

    assert await budgets.reserve(reservation("a", LIMIT, nanousd=60)) == first
    await budgets.settle(rid("a"), usd(50))
    (verdict,) = await budgets.peek([LIMIT])
    assert (verdict.spent, verdict.set_aside) == (50, 0)
    await budgets.close()


async def test_a_file_that_is_no_database_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    path.write_bytes(b"this is not a database " * 500)

    with pytest.raises(ConfigError, match="recover"):
        await opened(path)
    assert path.read_bytes().startswith(b"this is not")


async def test_a_damaged_file_is_refused_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    budgets = await opened(path)
    for i in range(200):
        await budgets.reserve(reservation(f"r{i}", LIMIT, nanousd=1))
    await budgets.close()
    whole = bytearray(path.read_bytes())
    whole[8192:] = b"\x5a" * (len(whole) - 8192)
    path.write_bytes(whole)

    with pytest.raises(ConfigError, match="recover"):
        await opened(path)


async def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    with closing(sqlite3.connect(path)) as other, other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()

    with pytest.raises(ConfigError, match="not a budget file"):
        await opened(path)


async def test_a_file_of_another_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    await (await opened(path)).close()
    with closing(sqlite3.connect(path)) as later, later:
        later.execute("PRAGMA user_version = 99")
    later.close()

    with pytest.raises(ConfigError, match="version 99"):
        await opened(path)


async def test_a_missing_directory_is_a_fault_of_the_configuration(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"b\.db"):
        await opened(tmp_path / "nowhere" / "b.db")


async def test_a_lock_held_too_long_is_the_store_being_down_and_then_it_is_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert DECIDE_SECONDS < sqlite_tables.BUSY_SECONDS < ANSWER_SECONDS
    # Half way between the two: on a busy machine SQLite waits longer than it is told to, and timers are late.
    monkeypatch.setattr(sqlite_tables, "BUSY_SECONDS", (DECIDE_SECONDS + ANSWER_SECONDS) / 2)
    path = tmp_path / "b.db"
    budgets = await opened(path)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with elapsed() as took, pytest.raises(StoreUnavailable) as caught:
        await budgets.settle(rid("b"), usd(60))  # nobody waits behind it: the reason is heard
    assert took.seconds < ANSWER_SECONDS + 0.1
    assert caught.value.outcome_known
    with elapsed() as took, pytest.raises(StoreUnavailable) as caught:
        await budgets.reserve(reservation("a", LIMIT, nanousd=60))  # a call waits behind it
    assert took.seconds < DECIDE_SECONDS + 0.15
    assert not caught.value.outcome_known
    other.execute("ROLLBACK")
    other.close()
    await budgets.release(rid("a"))  # it may have been made after all

    assert (await budgets.reserve(reservation("c", LIMIT, nanousd=60))).allowed
    (verdict,) = await budgets.peek([LIMIT])
    assert verdict.set_aside == 60
    await budgets.close()


async def test_a_broken_invariant_fails_its_own_operation_only(tmp_path: Path) -> None:
    budgets = await opened(tmp_path / "b.db")
    good = [budgets.reserve(reservation(f"g{i}", LIMIT, nanousd=10)) for i in range(5)]
    bad = budgets.settle(rid("g0"), Amounts(nanousd=-1))
    *decisions, failure = await asyncio.gather(*good, bad, return_exceptions=True)

    assert isinstance(failure, AssertionError)
    assert all(getattr(d, "allowed", False) for d in decisions)
    (verdict,) = await budgets.peek([LIMIT])
    assert verdict.set_aside == 50
    await budgets.close()


WORKER = """
import asyncio, sys, resource, signal
from pathlib import Path
from gateway.adapters.clock import SystemClock
from gateway.adapters.sqlite_budgets import SqliteBudgets
from gateway.core.errors import StoreUnavailable
from tests.support.budgets import bound, reservation

async def main(path, bytes_allowed):
    budgets = await SqliteBudgets(Path(path), SystemClock()).open()
    if bytes_allowed:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_allowed, bytes_allowed))
    limit, answered = bound(1_000_000_000), 0
    while True:
        batch = [f"r{answered + i}" for i in range(8)]
        try:
            await asyncio.gather(*(budgets.reserve(reservation(id, limit, nanousd=1)) for id in batch))
        except StoreUnavailable as error:
            print("unavailable", error.outcome_known, flush=True)
            return
        answered += 8
        print(answered, flush=True)

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


ADMITTING = """
import asyncio, sys
from pathlib import Path
from gateway.adapters.clock import SystemClock
from gateway.adapters.sqlite_budgets import SqliteBudgets
from tests.support.budgets import bound, reservation

async def main(path, name):
    budgets = await SqliteBudgets(Path(path), SystemClock()).open()
    asked = (budgets.reserve(reservation(f"{name}-{i}", bound(500), nanousd=10)) for i in range(40))
    print(sum(decision.allowed for decision in await asyncio.gather(*asked)))
    await budgets.close()

asyncio.run(main(*sys.argv[1:]))
"""


def test_several_processes_on_one_file_admit_the_limit_exactly(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", ADMITTING, str(path), name], stdout=subprocess.PIPE, text=True
        )
        for name in ("one", "two", "three")
    ]
    admitted = [int(worker.communicate(timeout=120)[0]) for worker in workers]

    assert sum(admitted) == 50
    assert set_aside_in(path, bound(500)) == 500


def set_aside_in(path: Path, limit: BoundLimit = LIMIT) -> int:
    async def read() -> int:
        budgets = await opened(path)
        (verdict,) = await budgets.peek([limit])
        await budgets.close()
        return verdict.set_aside

    return asyncio.run(read())


@pytest.mark.parametrize("answers", [3, 10, 24])
def test_a_killed_process_loses_nothing_that_it_answered(tmp_path: Path, answers: int) -> None:
    path = tmp_path / "b.db"
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, str(path), "0"], stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdout is not None
        for _ in range(answers):
            answered = int(worker.stdout.readline())
        worker.kill()
        answered = max(answered, *(int(line) for line in worker.stdout.read().split()), 0)

    assert answered <= set_aside_in(path) <= answered + 8


def test_a_full_disk_is_the_store_being_down_and_nothing_is_torn(tmp_path: Path) -> None:
    path = tmp_path / "b.db"
    worker = subprocess.run(
        [sys.executable, "-c", WORKER, str(path), "300000"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    *answered, last = worker.stdout.splitlines()

    assert last == "unavailable True"
    assert set_aside_in(path) == int(answered[-1])
