"""Traffic of every kind through a whole gateway, so that its metrics have something to show."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

import aiohttp

from gateway.core.ids import WorkspaceId
from gateway.core.warmup import WarmCause, WarmRequest, WarmState
from gateway.sim.faults import Fault, FaultKind
from tests.e2e.whole.calls import ASK, MODEL, call
from tests.support.stack import Stack

SYSTEM = "You are brief and kind. " * 700


def question(number: int, system: str = SYSTEM, **more: Any) -> dict[str, Any]:
    text = f"Question {number}: what of item {number * 7919}?"
    return {**ASK, "max_tokens": 5, "system": system, "messages": [{"role": "user", "content": text}], **more}


async def teach(stack: Stack) -> None:
    """That prompts of this kind are shared: from then on calls are held for each other."""
    for number in range(12):
        assert (await call(stack, question(number))).status == 200


async def one_of_each(stack: Stack, round_: int) -> None:
    """Hits, misses, a herd, streams, refusals, faults of upstream, a warm-up, a batch."""
    await _cached(stack, round_)
    await _herd(stack, round_)
    await _refused(stack)
    body = json.dumps(question(0, SYSTEM + f"Warm {round_}.")).encode()
    request = WarmRequest(workspace=WorkspaceId("demo"), body=body, cause=WarmCause.ASKED, name="morning")
    outcome = await stack.service.warming.prewarmer.warm(request)
    # In the second round upstream has just asked to be left alone.
    assert outcome.state is (WarmState.SKIPPED if round_ else WarmState.WARMED), outcome
    assert (await call(stack, question(5, SYSTEM + "Warm 0."))).status == 200
    item = {"custom_id": "a", "params": question(1)}
    assert (await call(stack, {"requests": [item]}, path="/v1/messages/batches")).status == 200
    await _failing_upstream(stack)


async def _cached(stack: Stack, round_: int) -> None:
    for number in range(3):
        assert (await call(stack, question(number, stream=True))).status == 200
    assert (await call(stack, question(1), key="shadow")).status == 200
    changed = question(1, f"It is {round_} o'clock. {SYSTEM}")
    assert (await call(stack, changed)).status == 200
    stack.simulator.cache.clear()
    assert (await call(stack, question(2))).status == 200
    marked = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral", "ttl": "1h"}}]
    assert (await call(stack, question(1, system=marked))).status == 200  # type: ignore[arg-type]
    assert (await call(stack, question(1, model="claude-of-tomorrow"))).status in (200, 404)
    body = {"model": MODEL, "messages": ASK["messages"]}
    assert (await call(stack, body, path="/v1/messages/count_tokens")).status == 200


async def _herd(stack: Stack, round_: int) -> None:
    """Twelve that share a cold prefix, while the first of them gets no answer yet."""
    stack.simulator.faults.add(Fault(kind=FaultKind.STALL, seconds=1.0))
    cold = SYSTEM + f"Answer as in round {round_}."
    await asyncio.gather(*(call(stack, question(number, cold)) for number in range(12)))


async def _refused(stack: Stack) -> None:
    assert (await call(stack, ASK, key="poor")).status == 429
    assert (await call(stack, ASK, key="unknown")).status == 401
    assert (await call(stack, b"{")).status == 400


async def _failing_upstream(stack: Stack) -> None:
    for status in (500, 429, 529, 401):
        stack.simulator.faults.add(Fault(kind=FaultKind.STATUS, status=status, times=8))
        for _ in range(8):
            assert (await call(stack, ASK)).status == status
    stack.simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=2))
    with suppress(aiohttp.ClientPayloadError):
        await call(stack, {**ASK, "stream": True})
    stack.simulator.faults.clear()
