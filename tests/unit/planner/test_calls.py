from __future__ import annotations

from gateway.core.planner.calls import MAX_REMEMBERED, Calls


def test_call_has_its_number_until_it_ends() -> None:
    calls = Calls()
    number = calls.number("a")

    assert calls.number("a") == number
    assert (calls.find("a"), calls.call(number)) == (number, "a")
    assert calls.end("a") == number
    assert (calls.find("a"), calls.call(number), calls.end("a"), len(calls)) == (None, None, None, 0)


def test_numbers_are_never_given_twice() -> None:
    calls = Calls()
    first = calls.number("a")
    calls.end("a")

    assert calls.number("a") != first


def test_kept_call_is_remembered_after_its_end() -> None:
    calls = Calls()
    number = calls.number("a")
    calls.keep(number, "a")
    calls.end("a")

    assert calls.kept(number) == "a"
    assert calls.kept(number + 1) is None


def test_kept_calls_are_bounded_and_those_asked_for_stay() -> None:
    calls = Calls()
    for number in range(MAX_REMEMBERED):
        calls.keep(number, str(number))
    calls.kept(0)
    calls.keep(MAX_REMEMBERED, "new")

    assert calls.kept(0) == "0"
    assert calls.kept(1) is None
