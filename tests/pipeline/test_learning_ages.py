"""What is watched grows older on a gateway that nobody calls: who calls first need not wait for that."""

from __future__ import annotations

import asyncio

from gateway.adapters.no_peers import NoPeers
from gateway.core.learned_estimates import LearnedEstimates
from gateway.core.planner import PlannerOptions
from gateway.core.planner.reuse import AGES
from gateway.learning import AGE_SECONDS, Learning
from gateway.placing import Flights
from gateway.tasks import TaskSet
from tests.support.clock import FakeClock

EVEN = (0.5,) * AGES


async def test_what_is_watched_grows_older_while_nobody_calls() -> None:
    clock, loops = FakeClock(), TaskSet()
    learning = Learning(
        PlannerOptions(),
        secret=b"secret",
        holdout_share=0.0,
        shared=False,
        peers=NoPeers(),
        shelf=None,
        recording=None,
        flights=Flights(),
        clock=clock,
        replica="r",
        estimates=LearnedEstimates(),
    )
    await learning.start()
    learning.run(loops)
    reuse = learning.policy.planner.reuse
    reuse.watch(1, (3,), clock.now())
    await asyncio.sleep(0)

    for _ in range(round(60 / AGE_SECONDS)):
        clock.advance(AGE_SECONDS)
        for _ in range(3):  # the loop does its work, and sleeps again
            await asyncio.sleep(0)
    aged = reuse.hazards((3,), EVEN)

    assert aged[0] < 0.5  # it came through the first 15 seconds without an access
    assert aged[1] < 0.5  # and through half a minute more
    assert aged[3] == 0.5
    await loops.drain(0.0)
    await learning.close()
