"""docs/failure-modes.md against the list of what can fail, and against the tests that there are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs/failure-modes.md"

MODES = """
client leaves before upstream answered | client leaves within a stream | client half-closes
slow reader | slow head or body of a client | pipelined requests | flood of connections
repeated call | silent upstream | bad, slow or large head | informational heads | cut stream
cut stream without a length | garbage in a stream | bytes behind an answer | error event
storm of refusals | name does not resolve | bad certificate | no pool of connections
store away at the start | store away at run time | slow store, lost replies | failover
store out of memory | store evicts | scripts flushed | store lost its data | foreign database
clocks | end of a window | closed twice | counters drift | price missing or changed | disk full
state directory read-only | damaged or locked file | process killed | signals
bad configuration | descriptors run out | memory over time | poison pill | busy loop
request smuggling | hop-by-hop and spoofed headers | oversized body | decompression bomb
odd text and numbers | deep nesting | duplicate keys | leaked credentials | leaked prompts
requests into the network | timing of keys | label explosion | log injection
exposed admin plane | herds | what cannot be warmed | illegal breakpoints
"""
"""One row of the page for each, in this order."""


def rows() -> list[list[str]]:
    cells = [line.strip("| ").split(" | ") for line in PAGE.read_text().splitlines() if line.startswith("|")]
    return [row for row in cells if not row[0].startswith(("What fails", "---"))]


def every_test() -> set[str]:
    files = (ROOT / "tests").rglob("test_*.py")
    return {
        name for file in files for name in re.findall(r"^(?:async )?def (test_\w+)", file.read_text(), re.M)
    }


def test_every_failure_mode_has_its_row() -> None:
    modes = [mode for line in MODES.strip().splitlines() for mode in line.split(" | ")]

    assert len(rows()) == len(modes)
    assert [row for row in rows() if len(row) != 3 or not row[1]] == []


def test_every_row_names_tests_that_there_are() -> None:
    there_are = every_test()
    named = {row[0]: re.findall(r"`(test_\w+)`", row[2]) for row in rows()}

    assert [mode for mode, tests in named.items() if not tests] == []
    assert {name for tests in named.values() for name in tests} - there_are == set()


def test_the_pages_on_failures_lead_to_each_other() -> None:
    assert "(failures.md)" in PAGE.read_text()
    assert "(failure-modes.md)" in (ROOT / "docs/failures.md").read_text()
