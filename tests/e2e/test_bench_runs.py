"""The bench runs to its end: nginx, the transport, the gateway with the embedded store and with Redis, each
row. Its figures are not looked at: nobody is alone on the machine here."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.bench.bars import BARS


@pytest.mark.timeout(600)
async def test_a_run_of_the_bench_has_every_row_of_every_target(tmp_path: Path) -> None:
    out, markdown = tmp_path / "out.json", tmp_path / "out.md"
    arguments = ["--quick", "--rounds", "1", "--no-parts", "--out", str(out), "--markdown", str(markdown)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.bench.run", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        cwd=Path(__file__).parents[2],
    )
    told, _ = await process.communicate()
    said = told.decode()

    assert process.returncode == 0, said
    results = json.loads(out.read_text())["results"]
    compared = {"gateway", "with Redis"}
    for row, cells in results.items():
        assert set(cells) in ({"nginx", "transport"} | compared, compared), row
        assert row in said and f"| {row} |" in markdown.read_text()
    assert {bar.row for bar in BARS} <= set(results)
