"""The lifecycle table: complete, without ways out of an end, closing each reservation once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest

from gateway.core.bucket import Amounts, Reservation
from gateway.core.exchange import TRANSITIONS, Basis, Closing, Event, Exchange, State, Step
from gateway.core.ids import ReservationId
from gateway.core.pricing import Cost

OPEN_STATES = {State.RECEIVED, State.ADMITTED, State.RELAYING}

IMPOSSIBLE = {
    # nothing is sent before admission
    (State.RECEIVED, Event.UPSTREAM_REJECTED),
    (State.RECEIVED, Event.NO_ANSWER),
    (State.RECEIVED, Event.RESPONSE_BEGAN),
    (State.RECEIVED, Event.RESPONSE_ENDED),
    (State.RECEIVED, Event.UPSTREAM_GONE),
    # admitted once; a response begins before it ends or breaks
    (State.ADMITTED, Event.ADMITTED),
    (State.ADMITTED, Event.RESPONSE_ENDED),
    (State.ADMITTED, Event.UPSTREAM_GONE),
    # after the head it is neither refused nor unsent, and it began already
    (State.RELAYING, Event.REFUSED),
    (State.RELAYING, Event.ADMITTED),
    (State.RELAYING, Event.NEVER_REACHED),
    (State.RELAYING, Event.NO_ANSWER),
    (State.RELAYING, Event.RESPONSE_BEGAN),
}


def _paths(state: State = State.RECEIVED, steps: tuple[Step, ...] = ()) -> Iterator[tuple[Step, ...]]:
    ways = [step for (start, _), step in TRANSITIONS.items() if start is state]
    if not ways:
        yield steps
    for step in ways:
        yield from _paths(step.next, (*steps, step))


def _an_exchange(state: State = State.RECEIVED) -> Exchange:
    return Exchange(
        id="e1", endpoint="messages", method="POST", received_at=1000.0, started=50.0, state=state
    )


def test_every_event_in_an_open_state_is_in_the_table_or_impossible() -> None:
    pairs = set(product(OPEN_STATES, Event))

    assert pairs == set(TRANSITIONS) | IMPOSSIBLE
    assert not set(TRANSITIONS) & IMPOSSIBLE


def test_an_end_has_no_way_out() -> None:
    assert {start for start, _ in TRANSITIONS} == OPEN_STATES
    for state in set(State) - OPEN_STATES:
        exchange = _an_exchange(state)
        assert exchange.over
        for event in Event:
            with pytest.raises(KeyError):
                exchange.apply(event)


def test_every_state_and_event_can_happen() -> None:
    assert set(State) - {State.RECEIVED} == {step.next for path in _paths() for step in path}
    assert set(Event) == {event for _, event in TRANSITIONS}


def test_every_path_ends_and_closes_the_reservation_exactly_once() -> None:
    paths = list(_paths())

    assert len(paths) == 12
    for path in paths:
        *before, last = (step.closing for step in path)
        assert set(before) <= {Closing.OPEN}
        assert last in (Closing.RELEASE, Closing.SETTLE)


def test_only_what_is_settled_has_a_basis() -> None:
    for step in TRANSITIONS.values():
        assert (step.closing is Closing.SETTLE) == (step.basis is not Basis.NONE)


def test_nothing_that_was_relayed_to_the_end_is_settled_on_a_guess() -> None:
    step = TRANSITIONS[State.RELAYING, Event.RESPONSE_ENDED]

    assert step.basis is Basis.REPORTED
    assert {step.basis for step in TRANSITIONS.values() if step.next is State.CUT_BY_UPSTREAM} == {
        Basis.PARTIAL
    }


def test_what_may_have_reached_upstream_is_never_released() -> None:
    """Releasing it would let budgets be evaded by hanging up."""
    for event in (Event.CLIENT_GONE, Event.NO_ANSWER):
        assert TRANSITIONS[State.ADMITTED, event].closing is Closing.SETTLE


def test_an_impossible_event_is_a_broken_invariant_and_changes_nothing() -> None:
    exchange = _an_exchange()

    with pytest.raises(KeyError):
        exchange.apply(Event.RESPONSE_ENDED)
    assert exchange.state is State.RECEIVED
    assert not exchange.over


def test_the_record_counts_as_overrun_what_exceeds_the_reservation() -> None:
    exchange = _an_exchange()
    exchange.reservation = Reservation(
        id=ReservationId("e1"), limits=(), amounts=Amounts(nanousd=100), lease_seconds=60
    )
    exchange.cost = Cost(output_nanousd=130)

    assert exchange.record(51.0).overrun_nanousd == 0, "the store never said yes"
    exchange.reserved = True
    assert exchange.record(51.0).overrun_nanousd == 30
    exchange.cost = Cost(output_nanousd=99)
    assert exchange.record(51.0).overrun_nanousd == 0


def test_timings_keep_the_clients_the_gateways_and_upstreams_time_apart() -> None:
    exchange = _an_exchange()
    exchange.body_read_at, exchange.first_sent_at, exchange.sent_at = 50.5, 50.75, 51.0
    exchange.head_at, exchange.first_byte_at = 53.0, 53.25

    timings = exchange.record(60.0).timings

    assert timings.total_seconds == 10.0
    assert timings.body_read_seconds == 0.5
    assert timings.overhead_seconds == 0.25
    assert timings.upstream_first_byte_seconds == 2.0
    assert timings.first_token_seconds == 3.25


def test_timings_of_a_call_that_was_refused_at_once() -> None:
    timings = _an_exchange().record(50.25).timings

    assert timings.total_seconds == 0.25
    assert timings.overhead_seconds == 0.25
    assert timings.upstream_first_byte_seconds is None
    assert timings.first_token_seconds is None
