"""One short run with a seed of its own; `make chaos-many` runs the long ones."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.chaos.run import play


async def test_books_counters_and_bill_agree_after_replicas_died(tmp_path: Path) -> None:
    async with asyncio.timeout(40):
        outcome = await play(7, seconds=4, clients=30, kinds=["kill", "lost_reply"], folder=tmp_path)

    assert outcome.good, [
        f"{finding.name}: {finding.says}" for finding in outcome.findings if not finding.good
    ]
    assert outcome.deaths, "nothing was broken: choose another seed"
