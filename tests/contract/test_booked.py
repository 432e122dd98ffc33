"""What a reconciliation reads of the ledger's file: sums by what sets entries apart."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from msgspec.structs import replace

from gateway.adapters.booked import BookedDays, read_booked
from gateway.adapters.ledger import Ledger
from gateway.core.errors import ConfigError
from gateway.core.exchange import Basis, ExchangeRecord, Timings
from gateway.core.pricing import Cost
from gateway.core.reconcile_cells import Amount, Kind, Relayed
from gateway.core.usage import Usage
from tests.support.records import a_record

DAY = date(2026, 11, 18)


def at(hour: int, minute: int = 0, second: int = 0) -> float:
    return datetime(2026, 11, 18, hour, minute, second, tzinfo=UTC).timestamp()


def read(folder: Path, *records: ExchangeRecord, recent_at: float = at(23, 59, 59)) -> BookedDays:
    path = folder / "ledger.sqlite3"
    ledger = Ledger(path)
    for number, record in enumerate(records):
        ledger.observe(replace(record, id=f"e{number}"))
    ledger.close()
    return read_booked(
        path,
        start_ms=round(at(0) * 1000),
        end_ms=round(at(0) * 1000) + 86_400_000,
        recent_ms=round(recent_at * 1000),
        model_of=str.upper,
    )


NOON = a_record(received_at=at(12))


def test_entries_that_are_alike_are_one_sum(tmp_path: Path) -> None:
    found = read(tmp_path, NOON, NOON, a_record(received_at=at(12) + 86_400))
    (booked,) = found.booked

    assert (booked.day, booked.route, booked.model, booked.tier) == (
        DAY,
        "direct",
        "CLAUDE-TEST-1",
        "standard",
    )
    assert booked.entries == 2
    assert booked.amounts[Kind.CACHE_READ] == Amount(18_000, booked.amounts[Kind.CACHE_READ].nanousd)
    assert booked.amounts[Kind.CACHE_READ].nanousd == 5_400_002
    assert booked.most_nanousd == 2 * 40_000_000
    assert booked.prices == {"claude-test-1@2026-01-01 "}
    assert found.relayed == ()


def test_each_flag_is_a_sum_of_its_own(tmp_path: Path) -> None:
    part = Usage(output_tokens=1, model="claude-test-1")
    batch = Usage(output_tokens=1, service_tier="batch")
    records = [
        NOON,
        replace(NOON, basis=Basis.PARTIAL),
        replace(NOON, basis=Basis.ESTIMATED),
        replace(NOON, cost=Cost(price_id="free")),
        replace(NOON, usage=replace(NOON.usage or part, iterations=(part,))),
        replace(NOON, usage=batch),
        replace(NOON, received_at=at(0, 0, 30)),
        replace(NOON, received_at=at(22), timings=Timings(total_seconds=7_199.0)),
        replace(NOON, received_at=at(20)),
    ]
    booked = read(tmp_path, *records, recent_at=at(19)).booked

    assert sum(one.entries for one in booked) == len(records)
    assert [one.entries for one in booked if one.guessed] == [2]
    assert [one.entries for one in booked if one.not_charged] == [1]
    assert [one.entries for one in booked if one.iterated] == [1]
    assert [one.entries for one in booked if one.tier == "batch"] == [1]
    assert [one.entries for one in booked if one.may_be_previous_day] == [1]
    assert [one.entries for one in booked if one.may_be_next_day] == [1]
    assert [one.entries for one in booked if one.recent] == [1, 1]


def test_calls_without_usage_are_counted_and_refusals_are_not(tmp_path: Path) -> None:
    unmetered = replace(NOON, basis=Basis.UNMETERED, usage=None, cost=None)
    found = read(
        tmp_path,
        replace(unmetered, endpoint="batches"),
        replace(unmetered, endpoint="batches", method="GET"),
        replace(unmetered, endpoint="other"),
        replace(unmetered, endpoint="files"),
        replace(NOON, basis=Basis.NONE, usage=None, cost=None),
    )

    assert found.booked == ()
    assert found.relayed == (Relayed(day=DAY, route="direct", batches=1, other=1),)


def test_batches_are_counted_until_they_are_booked(tmp_path: Path) -> None:
    created = replace(NOON, id="gw_1", endpoint="batches", basis=Basis.PENDING, usage=None, cost=None)
    ledger = Ledger(tmp_path / "ledger.sqlite3")
    for record in (created, replace(created, id="gw_2"), replace(NOON, id="gw_2-0", endpoint="batches")):
        ledger.observe(record)
    ledger.close()
    found = read(tmp_path)

    assert found.relayed == (Relayed(day=DAY, route="direct", batches=1),)
    assert sum(one.entries for one in found.booked) == 1


def test_a_missing_file_is_explained(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_booked(tmp_path / "no.sqlite3", start_ms=0, end_ms=1, recent_ms=0, model_of=str)
