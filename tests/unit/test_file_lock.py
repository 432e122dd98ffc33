"""One holder at a time, among tasks and among processes."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from gateway.adapters.file_lock import FileLock


@pytest.mark.parametrize("same", [True, False])
async def test_it_is_held_by_one_at_a_time(tmp_path: Path, same: bool) -> None:
    """Two objects stand for two processes: each has opened the file by itself."""
    one = FileLock(tmp_path / "ledger")
    two = one if same else FileLock(tmp_path / "ledger")
    said: list[str] = []

    async def second() -> None:
        async with two:
            said.append("second")

    async with asyncio.timeout(20), asyncio.TaskGroup() as group, one:
        waiting = group.create_task(second())
        await asyncio.wait((waiting,), timeout=0.1)
        said.append("first")
    assert said == ["first", "second"]


async def test_one_who_gives_up_waiting_leaves_it_as_it_was(tmp_path: Path) -> None:
    one, two = FileLock(tmp_path / "ledger"), FileLock(tmp_path / "ledger")
    async with one:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await two.__aenter__()
    async with asyncio.timeout(20), two:
        pass
