"""What `gateway reconcile --metrics-file` leaves for node_exporter."""

from __future__ import annotations

from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from gateway.cli.reconcile_metrics import COMPARED_AT, DIFFERING, UNEXPLAINED
from tests.support.reconciling import MovableClock, edit, reconciled, some_traffic
from tests.support.stack import a_stack


def gauges(path: Path) -> dict[str, float]:
    return {
        sample.name: sample.value
        for family in text_string_to_metric_families(path.read_text())
        for sample in family.samples
    }


async def test_the_metrics_file_says_what_differs_and_is_left_alone_where_there_is_no_telling(
    tmp_path: Path,
) -> None:
    written = tmp_path / "reconcile.prom"
    ask = ("--metrics-file", str(written))
    async with a_stack(tmp_path, clock=MovableClock()) as stack:
        await some_traffic(stack)
        agrees = (await reconciled(stack, *ask)).code, gauges(written)
        dropped = stack.simulator.bill.lines[3]
        await edit(stack, do="drop", message_id=dropped.message_id)
        differs = (await reconciled(stack, *ask)).code, gauges(written)
        before = written.read_bytes()
        no_telling = (await reconciled(stack, *ask, key="sk-test-no-administrator")).code

    assert agrees[0] == 0
    assert (agrees[1][DIFFERING], agrees[1][UNEXPLAINED]) == (0, 0)
    assert agrees[1][COMPARED_AT] > 1_700_000_000
    assert differs[0] == 1
    assert differs[1][DIFFERING] > 0
    assert differs[1][UNEXPLAINED] > 0
    assert (no_telling, written.read_bytes()) == (2, before)
    assert not written.with_name(".reconcile.prom.new").is_file()
