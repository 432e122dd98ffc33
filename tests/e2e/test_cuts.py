"""A cut at every event of a stream, inside events, and at offsets of plain answers and of requests, from
either side; between the gateway and its store as well. Whatever it is, each call is booked once, as its bill
says or marked as a guess within its bound; counters are the ledger's sum, and nothing stays open."""

from __future__ import annotations

import asyncio
import gc
import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CoroutineType

import pytest

from tests.support.chaos_proxy import ChaosProxy, Cut, Spoil, Spoils
from tests.support.cuts import EVENT_END, HEAD_END, Between, Case, between_proxies, booked, fault_in
from tests.support.process import ROOT
from tests.support.redis_server import RedisServer

EVENTS = 11
"""Of the stream that is cut: message_start, a block's start, ping, five deltas, its stop, message_delta,
message_stop."""
CUTS = (Cut.FIN, Cut.RESET, Cut.HALF_CLOSE)
OFFSETS = (0, 1, 9, 40)
"""Within a head: its first bytes, its status, its headers."""


def test_every_cut_leaves_the_books_right_and_nothing_open(tmp_path: Path) -> None:
    gc.collect()
    before = _descriptors()
    cases = [*streams_cut(), *plain_answers_cut(), *requests_cut(), *answers_corrupted()]
    asyncio.run(_cut_and_compare(tmp_path, cases))

    gc.collect()
    assert _descriptors() <= before


async def _cut_and_compare(folder: Path, cases: list[Case]) -> None:
    # So many reservations at one instant are no matter of cuts: a store that cannot be slow.
    async with between_proxies(folder, settings="store: {kind: memory}\n") as between:
        tasks = _tasks()
        clean = await between.play([Case(name="whole"), Case(name="plain", stream=False)])
        assert clean.seen["whole"][1].count(EVENT_END) == EVENTS

        ends = await between.play(cases)
        await between.at_rest()
        spent, set_aside = await between.counted()
        assert _tasks() - tasks == Counter()
        await between.stack.service.stop()
    entries = booked(between.stack.state)
    bill = between.bill()

    names = Counter(entry.name for entry in entries)
    assert names == Counter(case.name for case in cases) + Counter(("whole", "plain"))
    assert [fault for entry in entries if (fault := fault_in(entry, bill[entry.name]))] == []
    assert (spent, set_aside) == (sum(entry.nanousd for entry in entries), 0)
    assert {entry.basis for entry in entries} == {"reported", "partial", "estimated"}
    told_whole = [name for name, (status, body, whole) in ends.seen.items() if whole and status == 200]
    cut_upstream = {case.name for case in cases if case.upstream.cut_at is not None and not _at_end(case)}
    assert [name for name in told_whole if name in cut_upstream] == []


def streams_cut() -> Iterator[Case]:
    """Before each event and within it, by either end."""
    for event in range(EVENTS + 1):
        for how in CUTS:
            for inside in (0, 12):
                if event == EVENTS and inside:
                    continue
                after, occurrence = (EVENT_END, event) if event else (HEAD_END, 1)
                spoil = Spoil(after=after, occurrence=occurrence, cut_at=inside, cut=how)
                place = f"{how.value}-{event}-{inside}"
                yield Case(name=f"upstream-{place}", upstream=spoil)
                if how is not Cut.HALF_CLOSE:  # a client gets what the proxy passes: the same as an end
                    yield Case(name=f"client-{place}", client=_copy(spoil))


def plain_answers_cut() -> Iterator[Case]:
    for how in CUTS:
        for offset in OFFSETS:
            spoil = Spoil(cut_at=offset, cut=how)
            yield Case(name=f"head-{how.value}-{offset}", stream=False, upstream=spoil)
            yield Case(name=f"head-client-{how.value}-{offset}", stream=False, client=_copy(spoil))
        for offset in (0, 1, 150, 300):
            spoil = Spoil(after=HEAD_END, cut_at=offset, cut=how)
            yield Case(name=f"body-{how.value}-{offset}", stream=False, upstream=spoil)
            yield Case(name=f"body-client-{how.value}-{offset}", stream=False, client=_copy(spoil))


def requests_cut() -> Iterator[Case]:
    """On the way upstream: in the rest of the head, before the body, within it, before its last bytes."""
    for how in (Cut.FIN, Cut.RESET):
        for offset in (0, 30):
            yield Case(name=f"sending-{how.value}-{offset}", sending=Spoil(cut_at=offset, cut=how))
        for offset in (0, 60):
            spoil = Spoil(after=HEAD_END, cut_at=offset, cut=how)
            yield Case(name=f"sending-body-{how.value}-{offset}", sending=spoil)


def answers_corrupted() -> Iterator[Case]:
    """One byte of the head, of the framing, of an event's JSON."""
    for offset in (0, 9, 200):
        yield Case(name=f"corrupt-head-{offset}", upstream=Spoil(corrupt_at=offset))
    for offset in (0, 1, 3, 30, 60):
        for event in (1, 4, EVENTS - 2):
            spoil = Spoil(after=EVENT_END, occurrence=event, corrupt_at=offset)
            yield Case(name=f"corrupt-{event}-{offset}", upstream=spoil)


@pytest.mark.timeout(300)
async def test_a_store_that_is_cut_or_spoilt_at_any_byte_costs_no_money(tmp_path: Path) -> None:
    """Every other connection to it is cut at a byte of its replies, or of what is sent, or gets a reply with
    a wrong byte in it. (A wrong byte in what is sent is another order; no store could tell.)"""
    plan: list[Spoils] = [
        *((Spoil(), Spoil(cut_at=at, cut=how)) for at in (0, 1, 5, 60, 200, 500, 900) for how in CUTS[:2]),
        *((Spoil(cut_at=at), Spoil()) for at in (1, 10, 200, 700, 1500)),
        *((Spoil(), Spoil(corrupt_at=at)) for at in (0, 2, 40, 130, 260, 520, 800)),
    ]
    begun = 0

    def each(number: int) -> Spoils:
        turn, odd = divmod(number - begun, 2)
        return plan[turn] if begun and odd and turn < len(plan) else (Spoil(), Spoil())

    with RedisServer(tmp_path / "redis") as server:
        async with ChaosProxy(server.port, each=each) as to_store:
            environ = {"REDIS_URL": f"redis://127.0.0.1:{to_store.port}/0"}
            settings = "store: {kind: redis, prefix: cuts}\nplacement: {share: false}\n"
            async with between_proxies(tmp_path, settings=settings, environ=environ) as between:
                begun = to_store.connections
                names = await _until_used_up(
                    between, server, lambda: to_store.connections - begun, 2 * len(plan)
                )
                spent, set_aside = await between.counted()
                await between.stack.service.stop()
    entries = {entry.name: entry for entry in booked(between.stack.state)}
    bill = between.bill()

    assert len(entries) == len(names)
    assert [fault for name, entry in entries.items() if (fault := fault_in(entry, bill[name]))] == []
    assert {entry.basis for entry in entries.values()} <= {"reported", "none"}
    assert (spent, set_aside) == (sum(entry.nanousd for entry in entries.values()), 0)


async def _until_used_up(
    between: Between, server: RedisServer, connections: Callable[[], int], wanted: int
) -> list[str]:
    """Calls, four at a time, until so many connections to the store were made."""
    names: list[str] = []
    async with asyncio.timeout(120):
        while connections() < wanted:
            await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", "normal")
            some = [Case(name=f"call-{len(names) + number:04}", stream=False) for number in range(4)]
            await between.play(some)
            names += (case.name for case in some)
    # Some that are to be spoilt may lie idle still; while they last, one is tried a second.
    await asyncio.to_thread(server.command, "CLIENT", "KILL", "TYPE", "normal")
    await between.at_rest(60)
    return names


def _copy(spoil: Spoil) -> Spoil:
    return Spoil(after=spoil.after, occurrence=spoil.occurrence, cut_at=spoil.cut_at, cut=spoil.cut)


def _at_end(case: Case) -> bool:
    """Whether all of the stream had come before it was cut."""
    return case.upstream.after == EVENT_END and case.upstream.occurrence == EVENTS


def _tasks() -> Counter[str]:
    """Those that run the gateway's own code, by what they run."""
    running = (task.get_coro() for task in asyncio.all_tasks())
    return Counter(
        coroutine.__qualname__
        for coroutine in running
        if isinstance(coroutine, CoroutineType)
        and coroutine.cr_code.co_filename.startswith(str(ROOT / "gateway"))
        and not coroutine.cr_code.co_filename.startswith(str(ROOT / "gateway/sim"))
    )


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))
