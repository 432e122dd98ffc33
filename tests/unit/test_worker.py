"""A worker's place among others: what is its own, and what is shared."""

from __future__ import annotations

from gateway.core.worker import Worker, admin_socket, hub_socket


def a_worker(number: int) -> Worker:
    return Worker(number=number, count=3, folder="/run/gateway-x", listening=7)


def test_sockets_of_workers_are_all_different_but_for_the_hub() -> None:
    workers = [a_worker(number) for number in range(3)]
    paths = {path for each in workers for path in (each.admin_socket, each.live_socket)}

    assert len(paths) == 6
    assert {each.hub_socket for each in workers} == {hub_socket("/run/gateway-x")}
    assert workers[1].admin_socket == admin_socket("/run/gateway-x", 1)


def test_each_asks_the_others_and_not_itself() -> None:
    one, two, three = (a_worker(number) for number in range(3))

    assert one.other_live_sockets == (two.live_socket, three.live_socket)
    assert two.other_live_sockets == (one.live_socket, three.live_socket)


def test_the_first_keeps_the_name_of_a_file_that_each_needs() -> None:
    assert [a_worker(number).own_name("seen.jsonl") for number in range(3)] == [
        "seen.jsonl",
        "seen.jsonl.1",
        "seen.jsonl.2",
    ]
    assert [a_worker(number).is_first for number in range(3)] == [True, False, False]
