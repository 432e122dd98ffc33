from __future__ import annotations

from gateway.core.planner.ledger import MAX_PROMISES, Account, Bounds

BOUNDS = Bounds(opening=100.0, share=0.01, open_share=0.02)


def test_refuses_what_would_lose_more_than_the_opening() -> None:
    account = Account()

    assert account.may_stake(100.0, 0.0, BOUNDS, 0.0)
    assert not account.may_stake(101.0, 0.0, BOUNDS, 0.0)


def test_stakes_in_flight_count_as_lost() -> None:
    account = Account()
    account.stake(60.0, 0.0, 0.0, 300.0)

    assert not account.may_stake(60.0, 0.0, BOUNDS, 0.0)


def test_what_may_be_lost_grows_with_the_input() -> None:
    account = Account()
    account.settle(0.0, plain=100_000.0, cost=100_000.0)

    assert account.may_stake(1_000.0, 0.0, BOUNDS, 0.0)
    assert not account.may_stake(1_001.0, 0.0, BOUNDS, 0.0)


def test_savings_can_be_staked_again() -> None:
    account = Account()
    account.settle(0.0, plain=1_000.0, cost=200.0)

    assert account.may_stake(900.0, 0.0, BOUNDS, 0.0)


def test_promise_holds_until_it_expires_and_no_longer() -> None:
    account = Account(plain=100_000.0)
    account.stake(900.0, 900.0, now=0.0, until=300.0)

    assert account.may_stake(1_000.0, 0.0, BOUNDS, 299.0)
    assert not account.may_stake(1_000.0, 0.0, BOUNDS, 300.0)


def test_promises_are_worth_a_share_of_the_input_at_most() -> None:
    account = Account(plain=100_000.0)
    account.stake(50_000.0, 50_000.0, now=0.0, until=300.0)

    assert not account.may_stake(0.0, 0.0, BOUNDS, 1.0)


def test_promise_is_never_more_than_the_premium() -> None:
    account = Account()
    account.stake(10.0, 1e9, now=0.0, until=300.0)

    assert account.promised == 10.0


def test_promises_are_bounded_in_number() -> None:
    account = Account()
    for _ in range(MAX_PROMISES + 10):
        account.stake(1.0, 1.0, now=0.0, until=300.0)

    assert account.promised == MAX_PROMISES


def test_unbilled_request_gives_its_stake_back() -> None:
    account = Account()
    account.stake(60.0, 0.0, 0.0, 300.0)
    account.settle(60.0, plain=0.0, cost=0.0)

    assert (account.at_stake, account.saved, account.plain) == (0.0, 0.0, 0.0)


def test_promises_that_ended_make_room_for_others() -> None:
    account = Account()
    for at in range(2 * MAX_PROMISES):
        account.stake(1.0, 1.0, now=float(at), until=at + 10.0)

    assert account.promised == 10.0


def test_what_is_staked_is_money() -> None:
    account = Account()
    account.settle(0.0, plain=10e6, cost=2e6)

    assert account.may_stake(8.0e6, 0.0, BOUNDS, 0.0)
    assert not account.may_stake(8.0e6, 0.0, BOUNDS, 0.0, price=10.0)
    account.stake(60.0, 0.0, 0.0, 300.0, price=10.0)
    assert account.at_stake == 600.0
    account.settle(60.0, plain=100.0, cost=125.0, price=10.0)
    assert (account.at_stake, account.plain) == (0.0, 10e6 + 1_000.0)
