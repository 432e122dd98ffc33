"""Several processes that write to one ledger at once make one chain without a gap."""

from __future__ import annotations

import asyncio
import sys
from contextlib import closing
from pathlib import Path

from gateway.adapters.ledger import Ledger
from gateway.adapters.ledger_file import open_for_writing
from gateway.adapters.ledger_verify import verify
from gateway.core.chain import ChainKey
from tests.support.process import ROOT

PROCESSES, ENTRIES = 3, 30
KEY = b"k" * 32
_WRITER = """
import sys, time
from pathlib import Path
from msgspec.structs import replace
from gateway.adapters.ledger import Ledger
from tests.support.records import a_record

path, name, entries = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ledger = Ledger(path, key=b"k" * 32, linger_seconds=0.0)
print("ready", flush=True)
sys.stdin.readline()
for number in range(entries):
    ledger.observe(replace(a_record(), id=f"{name}-{number}"))
    while ledger.status().backlog:  # a commit for each
        time.sleep(0.0005)
assert ledger.close(30.0) == 0
"""


async def test_processes_that_write_at_once_make_one_whole_chain(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    Ledger(path, key=KEY).close()
    writers = [
        await asyncio.create_subprocess_exec(
            sys.executable,
            *("-c", _WRITER, str(path), f"p{number}", str(ENTRIES)),
            cwd=ROOT,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
        )
        for number in range(PROCESSES)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert await asyncio.wait_for(writer.stdout.readline(), 120) == b"ready\n"
    for writer in writers:  # all at once
        assert writer.stdin is not None
        writer.stdin.write(b"go\n")
    assert [await asyncio.wait_for(writer.wait(), 120) for writer in writers] == [0] * PROCESSES

    walked = verify(path, [ChainKey(KEY)])
    assert walked.findings == ()
    assert walked.entries == PROCESSES * ENTRIES
    with closing(open_for_writing(path)) as connection:
        assert connection.execute("SELECT COUNT(DISTINCT chain) FROM entries").fetchone() == (1,)
