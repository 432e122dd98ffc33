"""What the alerts on the books are about, caused for real: each fires on what was exposed."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from gateway.adapters.ledger import Ledger, restore
from gateway.adapters.ledger_shipping import ShippedLedger
from gateway.adapters.ledger_source import PostgresUrl
from gateway.adapters.postgres_ledger_schema import migrate
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.faults import Fault, FaultKind
from tests.e2e.whole.calls import ASK, call, eventually, in_front_of
from tests.support.alert_trial import Page, Trial, assert_fires, booked, page, page_of, value
from tests.support.clock import ShiftedClock
from tests.support.mock_upstream import Peer
from tests.support.postgres_server import PostgresServer
from tests.support.reconciling import MovableClock, edit, reconciled, some_traffic
from tests.support.stack import Stack, a_stack

LAG = "gateway_ledger_lag_seconds"
DAYS = 86_400


@contextmanager
def locked(stack: Stack) -> Iterator[None]:
    """Another program holds the ledger, as a backup may."""
    with closing(sqlite3.connect(stack.state / LEDGER_FILE, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield
        other.execute("ROLLBACK")


async def test_a_ledger_that_is_locked_fires_until_it_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gateway.adapters.ledger_file.BUSY_SECONDS", 0.05)
    async with a_stack(tmp_path) as stack:
        status, clock = stack.service._ledger.status, stack.service._clock.monotonic
        assert (await call(stack, ASK)).status == 200
        await eventually(lambda: not status().backlog)
        well = page(stack)
        with locked(stack):
            assert (await call(stack, ASK)).status == 200
            await eventually(lambda: status().write_failures >= 2)
            began = clock()
            first = page(stack)
            after_first = clock()
            await asyncio.sleep(0.5)
            least = clock() - after_first
            second = page(stack)
            most = clock() - began
        await eventually(lambda: not status().backlog)
        over = page(stack)

    fell_behind = value(second, LAG) - value(first, LAG)
    assert least - 0.01 < fell_behind < most + 0.01, "a second each second"
    minute_later = replace(
        second, values=second.values | {each: 60.0 for each in second.values if LAG in each}
    )
    trial = Trial(quiet=(well, well), wrong=(well, minute_later), over=over)
    assert_fires("GatewayLedgerBehind", tmp_path, trial)
    assert_fires("GatewayLedgerWriteFailures", tmp_path, trial)


async def test_entries_for_which_there_is_no_room_fire_and_are_in_the_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """There is room for two, in place of 50,000."""
    monkeypatch.setattr("gateway.adapters.ledger_file.BUSY_SECONDS", 0.05)
    async with a_stack(tmp_path) as stack:
        well = page(stack)
        ledger = stack.service._ledger
        assert isinstance(ledger, Ledger)
        ledger._writer._limit = 2
        with locked(stack):
            await asyncio.gather(*(call(stack, ASK) for _ in range(8)))
            await eventually(lambda: ledger.status().spilled)
            wrong = page(stack)

    spilled = int(value(wrong, "gateway_ledger_spilled_total"))
    assert restore(stack.state / LEDGER_FILE, caplog.messages) == spilled > 0
    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayLedgerSpilled", tmp_path, trial)


async def test_a_shared_ledger_that_refuses_an_entry_and_then_is_away_fires(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("gateway.adapters.ledger_shipping.MAX_RETRY_SECONDS", 0.1)
    clock = ShiftedClock()
    with PostgresServer() as server:
        source = PostgresUrl(server.database())
        migrate(source)
        environ = {"GATEWAY_LEDGER__KIND": "postgres", "LEDGER_URL": source.url}
        async with a_stack(tmp_path, environ=environ, clock=clock) as stack:
            ledger = stack.service._ledger
            assert isinstance(ledger, ShippedLedger)
            shipping = ledger.shipping
            assert (await call(stack, ASK)).status == 200
            await eventually(lambda: shipping().shipped == 1 and not shipping().backlog)
            well = page(stack)
            with psycopg.connect(source.url) as connection:
                connection.execute("ALTER TABLE gateway_ledger.entries ADD CHECK (status <> 529)")
            stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=529))
            assert (await call(stack, ASK)).status == 529
            await eventually(lambda: shipping().refused == 1)
            refused = page(stack)
            server.stop()
            assert (await call(stack, ASK)).status == 200
            await eventually(lambda: shipping().backlog)
            clock.jump(700.0)
            away = page(stack)
            server.start()
            await eventually(lambda: not shipping().backlog)
            over = page(stack)

    assert "refuses entry gw_" in caplog.text
    trial = Trial(quiet=(well, well), wrong=(well, refused), once=True)
    assert_fires("GatewayLedgerShippingRefused", tmp_path, trial)
    assert_fires(
        "GatewayLedgerShippingBehind", tmp_path, Trial(quiet=(well, well), wrong=(well, away), over=over)
    )


async def test_a_first_event_that_is_no_json_fires(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        well = page(stack)
        stack.simulator.faults.add(Fault(kind=FaultKind.MALFORMED_EVENT, at_event=0))
        assert (await call(stack, {**ASK, "stream": True})).status == 200
        wrong = await booked(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayUsageUnread", tmp_path, trial)


async def test_a_model_that_is_not_in_the_price_table_fires(tmp_path: Path) -> None:
    body = (
        b'{"id": "msg_1", "type": "message", "model": "claude-next-9", "content": [], "stop_reason": "x",'
        b' "usage": {"input_tokens": 1, "output_tokens": 1}}'
    )

    async def script(peer: Peer) -> None:
        await peer.asked()
        await peer.answer(body, b"content-type: application/json")

    async with in_front_of(script, tmp_path) as (stack, _):
        well = page(stack)
        assert (await call(stack, {**ASK, "model": "claude-next-9"})).status == 200
        wrong = await booked(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayModelsUnknown", tmp_path, trial)


async def test_a_price_table_that_nobody_has_compared_for_long_fires(tmp_path: Path) -> None:
    async with a_stack(tmp_path) as stack:
        well = await compared(stack, days_ago=3)
        wrong = await compared(stack, days_ago=61)
        over = await compared(stack, days_ago=1)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), over=over)
    assert_fires("GatewayPricesOld", tmp_path, trial)


async def compared(stack: Stack, *, days_ago: int) -> Page:
    """With that as the day of the price table."""
    before, prices = stack.service.rules, stack.state.parent / "config" / "prices.yaml"
    day = datetime.fromtimestamp(stack.service._clock.now() - days_ago * DAYS, UTC).date()
    lines = (
        f"as_of: {day}" if line.startswith("as_of: ") else line for line in prices.read_text().splitlines()
    )
    prices.write_text("\n".join(lines) + "\n")
    stack.service.reload_soon()
    await eventually(lambda: stack.service.rules is not before)
    return page(stack)


async def test_books_that_differ_fire_and_so_does_a_comparison_that_is_not_made(tmp_path: Path) -> None:
    written = tmp_path / "gateway.prom"
    clock = MovableClock()

    async def comparison() -> Page:
        run = await reconciled(stack, "--metrics-file", str(written))
        assert run.code in (0, 1)
        text = written.read_text()
        stamps = page_of(text, at=0.0)
        return replace(stamps, at=value(stamps, "gateway_reconcile_compared_timestamp_seconds"))

    async with a_stack(tmp_path, clock=clock) as stack:
        await some_traffic(stack)
        agrees = await comparison()
        await edit(stack, do="drop", message_id=stack.simulator.bill.lines[3].message_id)
        differs = await comparison()

    assert_fires(
        "GatewayReconcileDiffers",
        tmp_path,
        Trial(quiet=(agrees, agrees), wrong=(agrees, differs), over=agrees),
    )
    later = {name: number + 3 * DAYS for name, number in agrees.values.items() if "timestamp" in name}
    trial = Trial(
        quiet=(agrees, agrees),
        wrong=(agrees, agrees),
        over=replace(agrees, values=agrees.values | later),
        every=300,
        lasts=2 * DAYS + 3_600 + 600,
    )
    assert_fires("GatewayReconcileMissing", tmp_path, trial)
