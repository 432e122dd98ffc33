"""What the running gateway decides over HTTP is what a replay of its recording decides."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from anthropic import AsyncAnthropic

from gateway.replay.trace import TraceFile
from gateway.replay.verify import verify
from tests.support.clock import ShiftedClock
from tests.support.stack import a_stack

MODEL = "claude-opus-5-5"
TOOLS: Any = [
    {"name": f"tool_{at}", "description": "Finds orders. " * 40, "input_schema": {"type": "object"}}
    for at in range(5)
]


def prose(seed: object, words: int) -> str:
    dice = random.Random(str(seed))
    return " ".join(dice.choices(("order", "parcel", "account", "refund", "question"), k=words))


async def test_a_replay_of_its_recording_decides_as_the_gateway_did(tmp_path: Path) -> None:
    recording = tmp_path / "traffic.jsonl.gz"
    settings = f"placement: {{policy: learned, recording: {recording}}}\nwarming: {{keep_alive: false}}\n"
    clock, dice = ShiftedClock(), random.Random(7)
    conversations: list[list[Any]] = [[] for _ in range(5)]
    read = 0
    async with a_stack(tmp_path / "gateway", settings=settings, clock=clock) as stack:
        async with AsyncAnthropic(base_url=stack.url, api_key=stack.keys["demo"], max_retries=0) as client:
            for turn in range(40):
                clock.jump(dice.choice((2.0, 20.0, 90.0, 280.0, 700.0, 3_000.0)))
                which = dice.randrange(len(conversations))
                messages = conversations[which]
                messages.append({"role": "user", "content": prose((which, turn), 200)})
                answer = await client.messages.create(
                    model=MODEL,
                    max_tokens=50,
                    system=prose(which % 2, 900),
                    tools=TOOLS,
                    messages=messages,
                )
                messages.append({"role": "assistant", "content": answer.content})
                read += answer.usage.cache_read_input_tokens or 0
        await stack.service.stop()

    verdict = verify([TraceFile(recording)])

    assert verdict.first is None
    assert (verdict.compared, verdict.different) == (40, 0)
    assert read > 0
