"""Entries of what the store presumed."""

from __future__ import annotations

from gateway.core.bucket import Amounts, Payer, Presumed
from gateway.core.entry import entry_of
from gateway.core.ids import ReservationId
from gateway.core.presumed import Unsettled, lost_record, presumed_record

PAYER = Payer(
    received_at_ms=1_790_000_000_123,
    organisation="org",
    workspace="w",
    key_id="k",
    route="default",
    model="claude-test-1",
    endpoint="messages",
    tags=(("x-team", "south"),),
)


def test_an_entry_says_whose_it_is_and_that_nobody_reported_it() -> None:
    entry = entry_of(presumed_record(Presumed(reservation_id=ReservationId("r"), payer=PAYER, nanousd=60)))

    assert entry.id == "r:presumed"
    assert (entry.organisation, entry.workspace, entry.key_id) == ("org", "w", "k")
    assert (entry.route, entry.model, entry.endpoint) == ("default", "claude-test-1", "messages")
    assert (entry.state, entry.basis, entry.status) == ("lost", "presumed", 0)
    assert entry.received_at_ms == 1_790_000_000_123
    assert entry.reservation_id == "r"
    assert entry.tags == '{"x-team": "south"}'
    assert (entry.output_nanousd, entry.counterfactual_nanousd) == (60, 60)


def test_what_is_taken_back_is_an_entry_below_zero_of_the_same_day() -> None:
    back = Presumed(reservation_id=ReservationId("r"), payer=PAYER, nanousd=-60, taken_back=True)
    entry = entry_of(presumed_record(back))

    assert (entry.id, entry.output_nanousd) == ("r:corrected", -60)
    assert entry.received_at_ms == 1_790_000_000_123


def test_a_call_whose_process_died_is_an_entry_of_its_own_of_what_was_set_aside() -> None:
    lost = Unsettled(
        reservation_id=ReservationId("x-again-1"),
        amounts=Amounts(requests=1, input_tokens=7, prompt_tokens=9, output_tokens=5, nanousd=60),
        payer=PAYER,
        ended_at=1_790_000_002.123,
        degraded=True,
    )
    entry = entry_of(lost_record(lost))

    assert (entry.id, entry.reservation_id) == ("x", "x-again-1")
    assert (entry.state, entry.basis, entry.store_degraded) == ("lost", "estimated", 1)
    assert (entry.uncached_input_tokens, entry.cache_read_tokens, entry.output_tokens) == (7, 2, 5)
    assert (entry.output_nanousd, entry.estimated_nanousd, entry.overrun_nanousd) == (60, 60, 0)
    assert (entry.received_at_ms, entry.total_seconds) == (1_790_000_000_123, 2.0)
