"""The lifecycle table: complete, without ways out of an end, closing each reservation once."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.bucket import Amounts, Reservation
from gateway.core.errors import (
    BadRequest,
    ClientGone,
    Draining,
    StoreUnavailable,
    UpstreamCut,
    UpstreamTimeout,
    UpstreamUnreachable,
)
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
    assert set(State) - {State.RECEIVED, State.LOST} == {step.next for path in _paths() for step in path}
    assert set(Event) == {event for _, event in TRANSITIONS}


def test_every_path_ends_and_closes_the_reservation_exactly_once() -> None:
    paths = list(_paths())

    assert len(paths) == 15
    for path in paths:
        *before, last = (step.closing for step in path)
        assert set(before) <= {Closing.OPEN}
        assert last in (Closing.RELEASE, Closing.COUNT, Closing.SETTLE)


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


NOT_SENT = UpstreamUnreachable("no connection", request_sent=False)
SENT = UpstreamTimeout("silent", request_sent=True)


@pytest.mark.parametrize(
    ("state", "status", "maybe_billed", "error", "end", "closing"),
    [
        (State.RECEIVED, 0, False, BadRequest("no"), State.REFUSED, Closing.RELEASE),
        (State.RECEIVED, 0, False, StoreUnavailable("away"), State.REFUSED, Closing.RELEASE),
        (State.RECEIVED, 0, False, ClientGone(), State.CUT_BY_CLIENT, Closing.RELEASE),
        (State.ADMITTED, 0, False, NOT_SENT, State.FAILED, Closing.RELEASE),
        (State.ADMITTED, 0, True, NOT_SENT, State.FAILED, Closing.SETTLE),
        (State.ADMITTED, 0, True, SENT, State.FAILED, Closing.SETTLE),
        (State.ADMITTED, 0, False, Draining("going"), State.REFUSED, Closing.RELEASE),
        (State.ADMITTED, 0, True, BadRequest("body"), State.FAILED, Closing.SETTLE),
        (State.ADMITTED, 0, False, ClientGone(), State.CUT_BY_CLIENT, Closing.SETTLE),
        (State.ADMITTED, 0, False, ZeroDivisionError(), State.FAILED, Closing.SETTLE),
        (State.RELAYING, 200, False, ClientGone(), State.CUT_BY_CLIENT, Closing.SETTLE),
        (State.RELAYING, 200, False, GeneratorExit(), State.CUT_BY_CLIENT, Closing.SETTLE),
        (State.RELAYING, 200, False, UpstreamCut("cut"), State.CUT_BY_UPSTREAM, Closing.SETTLE),
        (State.RELAYING, 529, False, ClientGone(), State.ANSWERED, Closing.COUNT),
    ],
)
def test_what_ends_an_exchange_early_is_settled_where_it_may_have_cost(
    state: State, status: int, maybe_billed: bool, error: BaseException, end: State, closing: Closing
) -> None:
    exchange = _an_exchange(state)
    exchange.status, exchange.maybe_billed = status, maybe_billed
    exchange.interrupted(error)

    assert (exchange.state, exchange.closing) == (end, closing)


@given(
    state=st.sampled_from(sorted(OPEN_STATES)),
    status=st.sampled_from([200, 400, 529]),
    maybe_billed=st.booleans(),
    errors=st.lists(
        st.sampled_from([BadRequest("no"), ClientGone(), NOT_SENT, SENT, UpstreamCut("cut"), ValueError()]),
        min_size=1,
    ),
)
def test_whatever_goes_wrong_first_ends_it_and_nothing_later_changes_that(
    state: State, status: int, maybe_billed: bool, errors: list[BaseException]
) -> None:
    exchange = _an_exchange(state)
    exchange.status, exchange.maybe_billed = status, maybe_billed
    exchange.interrupted(errors[0])
    ended = (exchange.state, exchange.closing, exchange.basis, exchange.error_code)
    for error in errors[1:]:
        exchange.interrupted(error)

    assert exchange.over
    assert exchange.closing in (Closing.RELEASE, Closing.COUNT, Closing.SETTLE)
    assert ended == (exchange.state, exchange.closing, exchange.basis, exchange.error_code)
    if state is State.ADMITTED and maybe_billed:
        assert exchange.closing is Closing.SETTLE


def test_errors_are_recorded_by_their_code_and_a_client_that_left_by_none() -> None:
    codes = {}
    for error in (BadRequest("no"), RuntimeError("a bug"), ClientGone()):
        exchange = _an_exchange()
        exchange.interrupted(error)
        codes[type(error).__name__] = exchange.record(51.0).error_code

    assert codes == {"BadRequest": "bad_request", "RuntimeError": "internal_error", "ClientGone": None}


def test_the_record_counts_as_overrun_what_a_call_cost_beyond_its_estimate_without_the_store() -> None:
    exchange = _an_exchange()
    exchange.reservation = Reservation(
        id=ReservationId("r"), limits=(), amounts=Amounts(nanousd=70), lease_seconds=60
    )
    exchange.cost = Cost(output_nanousd=100)
    exchange.store_degraded = True

    assert exchange.record(51.0).overrun_nanousd == 30


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
