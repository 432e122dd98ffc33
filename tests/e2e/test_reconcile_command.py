"""What `gateway reconcile` prints and how it ends, where there is no telling or somebody made a mistake."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from gateway.sim.faults import Fault, FaultKind, Match
from tests.e2e.whole.calls import MODEL
from tests.support.reconciling import ADMIN, MovableClock, edit, reconciled, some_traffic
from tests.support.stack import Stack, a_stack


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[Stack]:
    async with a_stack(tmp_path, clock=MovableClock()) as running:
        yield running


async def test_without_data_there_is_no_telling(stack: Stack) -> None:
    await some_traffic(stack)
    elsewhere = await reconciled(stack, first="2026-11-10", last="2026-11-11")
    refused = await reconciled(stack, key="sk-test-no-administrator")
    unset = await reconciled(stack, "--admin-key-env", "NOT_SET_ANYWHERE")
    nowhere = await reconciled(stack, "--ledger", str(stack.state / "missing.sqlite3"))
    for line in stack.simulator.bill.lines:
        await edit(stack, do="drop", message_id=line.message_id)
    empty = await reconciled(stack)

    assert [said.code for said in (elsewhere, refused, unset, nowhere, empty)] == [2] * 5
    assert elsewhere.json["verdict"] == "cannot_tell"
    assert "401" in refused.text
    assert "NOT_SET_ANYWHERE" in unset.text
    assert "missing.sqlite3" in nowhere.text
    assert "right organisation" in empty.text


async def test_the_admin_key_is_in_nothing_that_is_printed(stack: Stack) -> None:
    await some_traffic(stack)
    refused = Fault(kind=FaultKind.STATUS, status=400, times=None, match=Match(path="/v1/org"))
    stack.simulator.faults.add(refused)
    said = [await reconciled(stack, form=form) for form in ("--json", "--csv", "")]

    assert all(ADMIN not in one.text for one in said)
    assert {one.code for one in said} == {2}


async def test_the_table_and_the_csv_say_the_same(stack: Stack) -> None:
    await some_traffic(stack)
    await edit(stack, do="foreign", workspace="=cmd()", model=MODEL, usage={"output_tokens": 7})
    await edit(stack, do="drop", message_id=stack.simulator.bill.lines[3].message_id)
    text = (await reconciled(stack, form="")).text
    rows = list(csv.DictReader(io.StringIO((await reconciled(stack, form="--csv")).text)))

    assert "The ledger and the reports differ in 2 of" in text
    assert "! unexplained" in text
    assert "other_traffic +7" in text
    (foreign,) = (row for row in rows if row["account"] == "'=cmd()")
    assert foreign["other_traffic_tokens"] == "7"
    assert sum(row["agrees"] == "False" for row in rows) == 2


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--account", "nobody=wrkspc_1"), "default, other"),
        (("--upstream", "nobody"), "default, other"),
        (("--tolerance", "0.01"), "$250.00"),
        (("--to", "2020-01-01"), "span of days"),
    ],
)
async def test_a_mistake_is_explained(stack: Stack, arguments: tuple[str, ...], words: str) -> None:
    said = await reconciled(stack, *arguments)

    assert said.code == 2
    assert words in said.text
