"""Usage, cost and basis of a finished exchange."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.bucket import Amounts, Reservation
from gateway.core.estimate import Estimate
from gateway.core.exchange import Basis, Closing
from gateway.core.ids import ReservationId
from gateway.core.limits import BoundLimit, Limit, Mode, Period, Scope, Unit
from gateway.core.settlement import ONE_REQUEST, Settlement, afterwards, late_id, settle_exchange
from gateway.core.usage import Report, Usage
from tests.support.fakes import MODEL, make_rules

ESTIMATED = Usage(uncached_input_tokens=1_000, output_tokens=500)
ESTIMATE = Estimate(amounts=Amounts(requests=1, input_tokens=1_000), usage=ESTIMATED, bounded=True)
REPORTED = Usage(uncached_input_tokens=10, cache_read_tokens=90, cache_write_5m_tokens=5, output_tokens=7)


def settle(
    tmp_path: Path,
    *,
    closing: Closing = Closing.SETTLE,
    basis: Basis = Basis.REPORTED,
    report: Report | None = None,
) -> Settlement:
    rules = make_rules(tmp_path, {})
    return settle_exchange(
        closing=closing,
        basis=basis,
        report=report,
        estimate=ESTIMATE,
        facts=rules.models.facts(MODEL),
        model=MODEL,
        prices=rules.prices,
        at=1_795_000_000.0,
        seconds=1.0,
    )


def test_settles_on_what_was_reported(tmp_path: Path) -> None:
    settled = settle(tmp_path, report=Report(message_id="msg_1", usage=REPORTED, complete=True))

    assert (settled.usage, settled.basis) == (REPORTED, Basis.REPORTED)
    assert settled.amounts.requests == 1
    assert settled.cost is not None
    assert settled.amounts.nanousd == settled.cost.total_nanousd


def test_trap_64_reads_do_not_count_as_input_tokens(tmp_path: Path) -> None:
    settled = settle(tmp_path, report=Report(message_id="msg_1", usage=REPORTED, complete=True))

    assert settled.amounts.input_tokens == 10 + 5
    assert settled.amounts.prompt_tokens == REPORTED.prompt_tokens > 15


def test_a_complete_answer_without_usage_is_settled_on_the_estimate(tmp_path: Path) -> None:
    settled = settle(tmp_path, report=Report(complete=True))

    assert (settled.usage, settled.basis) == (ESTIMATED, Basis.ESTIMATED)


def test_a_stream_of_which_only_the_end_could_be_read_is_settled_on_the_estimate(tmp_path: Path) -> None:
    """Without `message_start` the input is unknown: nothing would be booked for it."""
    settled = settle(tmp_path, report=Report(usage=REPORTED, complete=True))

    assert (settled.usage, settled.basis) == (ESTIMATED, Basis.ESTIMATED)


def test_what_could_not_be_read_in_full_is_marked_as_guessed(tmp_path: Path) -> None:
    settled = settle(tmp_path, report=Report(message_id="m", usage=REPORTED, complete=True, parse_errors=1))

    assert settled.basis is Basis.PARTIAL


def test_a_stream_that_never_said_its_output_is_settled_on_the_text_that_was_seen(tmp_path: Path) -> None:
    report = Report(message_id="m", usage=REPORTED, ended=True, output_text_bytes=280_000)
    settled = settle(tmp_path, report=report)

    assert settled.basis is Basis.PARTIAL
    assert settled.amounts.output_tokens >= 50_000


def test_a_name_of_upstreams_own_is_priced_as_the_model_that_was_asked_for(tmp_path: Path) -> None:
    def cost(name: str) -> int:
        report = Report(message_id="m", model=name, usage=replace(REPORTED, model=name), complete=True)
        return settle(tmp_path, report=report).amounts.nanousd

    assert cost("prod-deployment") == cost(MODEL)


def test_calls_that_nobody_meters_say_so(tmp_path: Path) -> None:
    settled = settle_exchange(
        closing=Closing.SETTLE,
        basis=Basis.REPORTED,
        report=None,
        estimate=None,
        facts=None,
        model=None,
        prices=make_rules(tmp_path, {}).prices,
        at=1.8e9,
        seconds=1.0,
    )

    assert (settled.basis, settled.cost, settled.amounts) == (Basis.UNMETERED, None, Amounts(requests=1))


def test_spend_of_a_store_that_was_away_is_charged_without_asking() -> None:
    limit = Limit(id="l", scope=Scope.KEY, unit=Unit.NANOUSD, amount=1, period=Period.CALENDAR_DAY)
    bound = BoundLimit(limit=limit, bucket_id="b")
    made = Reservation(id=ReservationId("r"), limits=(bound,), amounts=Amounts(nanousd=1), lease_seconds=9.0)
    later = afterwards(made, Amounts(nanousd=7))

    assert (later.id, later.amounts.nanousd, later.limits[0].bucket_id) == ("r-late", 7, "b")
    assert later.limits[0].limit.mode is Mode.SHADOW


def test_a_report_that_is_not_complete_is_partial(tmp_path: Path) -> None:
    settled = settle(tmp_path, report=Report(message_id="msg_1", usage=REPORTED))

    assert settled.basis is Basis.PARTIAL


def test_trap_41_an_abort_is_booked_at_least_at_the_text_that_was_seen(tmp_path: Path) -> None:
    report = Report(message_id="msg_1", usage=REPORTED, output_text_bytes=10_000)
    settled = settle(tmp_path, basis=Basis.PARTIAL, report=report)

    assert settled.usage is not None
    assert settled.usage.output_tokens > 1_000


def test_trap_40_an_error_that_is_all_there_was_costs_nothing(tmp_path: Path) -> None:
    settled = settle(tmp_path, report=Report(error_type="overloaded_error"))

    assert settled == Settlement(usage=None, cost=None, amounts=ONE_REQUEST, basis=Basis.NONE)


def test_what_upstream_rejected_is_one_request_and_costs_nothing(tmp_path: Path) -> None:
    settled = settle(tmp_path, closing=Closing.COUNT, report=Report(error_type="not_found_error"))

    assert settled == Settlement(usage=None, cost=None, amounts=ONE_REQUEST, basis=Basis.NONE)


@pytest.mark.parametrize(
    "seen",
    [{"message_id": "msg_1"}, {"has_content": True}, {"parse_errors": 1}, {"usage": REPORTED}],
    ids=str,
)
def test_trap_40_an_error_behind_anything_else_is_booked(tmp_path: Path, seen: dict[str, Any]) -> None:
    settled = settle(tmp_path, report=Report(error_type="overloaded_error", **seen))

    assert settled.basis is Basis.ESTIMATED


def test_what_was_released_costs_nothing(tmp_path: Path) -> None:
    settled = settle(tmp_path, closing=Closing.RELEASE, report=Report(message_id="msg_1", usage=REPORTED))

    assert settled == Settlement(usage=None, cost=None, amounts=Amounts(), basis=Basis.NONE)


def test_trap_55_amounts_are_the_sum_over_iterations(tmp_path: Path) -> None:
    looped = Usage(uncached_input_tokens=1, output_tokens=1, iterations=(REPORTED, REPORTED))
    settled = settle(tmp_path, report=Report(message_id="msg_1", usage=looped, complete=True))

    assert (settled.amounts.input_tokens, settled.amounts.output_tokens) == (30, 14)


def test_what_is_booked_late_has_one_id_however_often_that_is_asked() -> None:
    assert late_id(late_id(ReservationId("gw_1"))) == late_id(ReservationId("gw_1")) == "gw_1-late"
