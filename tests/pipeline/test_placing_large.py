"""Bodies of megabytes: read beside the loop, one after the other; and not at all where they go on with what
was read before. What they come to is the same."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from msgspec import structs

from gateway.adapters.no_peers import NoPeers
from gateway.core.exchange import Hold
from gateway.core.ids import WorkspaceId
from gateway.core.plan import Plan
from gateway.core.prompt import PAUSE_EVERY
from gateway.core.recent import RecentBodies
from gateway.core.rule_policy import RulePolicy
from gateway.placing import OFFLOAD_BYTES, Flights, Placing
from tests.support.clock import FakeClock
from tests.support.fakes import World, a_body


class Counting(ThreadPoolExecutor):
    """Knows how many pieces of work it was given, and how many at most at once."""

    def __init__(self) -> None:
        super().__init__(8)
        self.given = self.under_way = self.most = 0

    def submit(self, work: Callable[..., Any], /, *args: Any, **more: Any) -> Future[Any]:
        self.given += 1
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        future = super().submit(work, *args, **more)
        future.add_done_callback(self._over)
        return future

    def _over(self, _: Future[Any]) -> None:
        self.under_way -= 1


def large(said: str, *more: str) -> bytes:
    parts = (said + "x" * OFFLOAD_BYTES, "yes", *more)
    messages = [{"role": ("user", "assistant")[at % 2], "content": part} for at, part in enumerate(parts)]
    return json.dumps(a_body(messages=messages)).encode()


async def planned(
    tmp_path: Path, *turns: list[bytes], pauses: Callable[[], Callable[[], None]] | None = None
) -> tuple[list[Plan], Counting]:
    """The plans of all bodies: those of a turn at once, one turn after the other."""
    executor, world = Counting(), World(tmp_path)
    asyncio.get_running_loop().set_default_executor(executor)
    placing = Placing(
        RulePolicy(),
        FakeClock(),
        peers=NoPeers(),
        flights=Flights(),
        hold_seconds=0.0,
        recent=RecentBodies(1 << 26),
        pauses=pauses,
    )
    workspace = world.rules.workspaces[WorkspaceId("demo")]

    def plan(body: bytes, at: int) -> Any:
        call = structs.replace(world.make_call(body), id=f"c{at}")
        return placing.plan(call, body, world.rules, workspace, Hold())

    found = []
    for bodies in turns:
        found += await asyncio.gather(*[plan(body, at) for at, body in enumerate(bodies)])
    return found, executor


async def test_several_are_read_in_a_thread_one_after_the_other(tmp_path: Path) -> None:
    _, executor = await planned(tmp_path, [large(f"question {at}") for at in range(5)])

    assert (executor.given, executor.most) == (5, 1)


async def test_what_goes_on_is_read_at_once_and_comes_to_the_same(tmp_path: Path) -> None:
    later = large("question", "and", "then")
    (_, went_on), executor = await planned(tmp_path, [large("question")], [later])
    (alone,), _ = await planned(tmp_path, [later])

    assert executor.given == 1
    assert went_on.prompt.shared_messages == 2
    assert structs.replace(went_on.prompt, shared_messages=0) == alone.prompt
    assert went_on.placement == alone.placement
    assert b"".join(went_on.pieces) == b"".join(alone.pieces)


async def test_much_that_is_new_is_read_in_a_thread_again(tmp_path: Path) -> None:
    _, executor = await planned(tmp_path, [large("question")], [large("question", "z" * (OFFLOAD_BYTES + 1))])

    assert executor.given == 2


async def test_who_reads_in_a_thread_pauses_and_finds_the_same(tmp_path: Path) -> None:
    """At each few messages: whether it is time is for the pause to say."""
    paused: list[int] = []
    body = large("question", *["and", "then"] * 20)

    def pauses() -> Callable[[], None]:
        return lambda: paused.append(threading.get_ident())

    (found,), _ = await planned(tmp_path, [body], pauses=pauses)
    assert len(paused) >= len(range(0, 42, PAUSE_EVERY))
    assert threading.get_ident() not in paused

    (alone,), _ = await planned(tmp_path, [body])
    assert found.prompt == alone.prompt
    assert found.placement == alone.placement

    paused.clear()
    await planned(tmp_path, [json.dumps(a_body()).encode()], pauses=pauses)
    assert paused == []
