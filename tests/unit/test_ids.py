"""Ids of exchanges."""

from __future__ import annotations

from gateway.core.ids import ReservationId, exchange_id, exchange_of


def test_ids_of_later_milliseconds_are_greater_whatever_their_random_part() -> None:
    ids = [
        exchange_id(at, bits) for at in (0.0, 1_763_843_000.1, 1_763_843_000.102) for bits in (0, 2**64 - 1)
    ]
    assert ids == sorted(ids)
    assert {len(each) for each in ids} == {30}


def test_ids_of_one_millisecond_differ_in_their_random_part() -> None:
    assert exchange_id(1_763_843_000.1, 1) != exchange_id(1_763_843_000.1, 2)


def test_the_exchange_of_a_reservation_is_known_whatever_was_added_to_its_id() -> None:
    exchange = exchange_id(1_763_843_000.1, 1)

    for added in ("", "-late", "-again-2", "-again-1-counted"):
        assert exchange_of(ReservationId(f"{exchange}{added}")) == exchange
