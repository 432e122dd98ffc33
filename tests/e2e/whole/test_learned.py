"""The policy that learns, in the running gateway: it finds out what is read again, and what is not."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from anthropic import AsyncAnthropic

from gateway.sim.pacing import Pacing
from tests.support.stack import Stack, a_stack

MODEL = "claude-opus-5-5"
LEARNED = {"GATEWAY_PLACEMENT__POLICY": "learned"}
CALL_ID = "x-gateway-exchange-id"
SYSTEM = "You are brief and kind. " * 600


def prose(seed: object, words: int) -> str:
    dice = random.Random(str(seed))
    return " ".join(dice.choices(("order", "parcel", "account", "refund", "question"), k=words))


@pytest.fixture
async def learned(tmp_path: Path) -> AsyncIterator[Stack]:
    async with a_stack(tmp_path, environ=LEARNED, pacing=Pacing(first_byte_seconds=0.3)) as stack:
        yield stack


def client_of(stack: Stack) -> AsyncAnthropic:
    return AsyncAnthropic(base_url=stack.url, api_key=stack.keys["demo"], max_retries=0)


async def test_conversations_read_what_earlier_turns_wrote(learned: Stack) -> None:
    read = total = 0
    async with client_of(learned) as client:
        for conversation in range(3):
            messages: list[Any] = []
            for turn in range(5):
                text = prose((conversation, turn), 150)
                messages.append({"role": "user", "content": text})
                answer = await client.messages.create(
                    model=MODEL, max_tokens=60, system=SYSTEM, messages=messages
                )
                messages.append({"role": "assistant", "content": answer.content})
                usage = answer.usage
                read += usage.cache_read_input_tokens or 0
                total += usage.input_tokens + (usage.cache_read_input_tokens or 0)
                total += usage.cache_creation_input_tokens or 0

    assert read > 0.6 * total


@pytest.mark.parametrize("split", [False, True])
async def test_nobody_can_tell_what_another_workspace_has_sent(tmp_path: Path, split: bool) -> None:
    """What a client is told is the same whether or not another workspace ever sent its system prompt."""
    preamble, secret = prose("common", 40), prose("the secret", 2_000)

    def body(system: str, question: str) -> dict[str, Any]:
        parts = [preamble, system] if split else [preamble + system]
        blocks = [{"type": "text", "text": part} for part in parts]
        messages = [{"role": "user", "content": question}]
        return {"model": MODEL, "max_tokens": 9, "system": blocks, "messages": messages}

    async def told(stack: Stack, workspace: str, call: dict[str, Any]) -> dict[str, str]:
        headers = {"x-api-key": stack.keys[workspace], "anthropic-version": "2023-06-01"}
        async with aiohttp.ClientSession() as session:
            url = f"{stack.url}/v1/messages"
            async with session.post(url, json=call, headers=headers) as answer:
                assert answer.status == 200
                await answer.read()
                ours = {name.lower(): value for name, value in answer.headers.items()}
                return {name: ours[name] for name in ours if name.startswith("x-gateway") and name != CALL_ID}

    both = []
    for elsewhere in (False, True):
        async with a_stack(tmp_path / str(elsewhere), environ=LEARNED) as stack:
            if elsewhere:
                await told(stack, "other", body(secret, "zero"))
            systems = (prose("mine", 1_500), secret, secret, prose("yet another", 1_900))
            both.append([await told(stack, "demo", body(system, "one")) for system in systems])

    assert both[0] == both[1]
    assert all("placed" in headers["x-gateway-cache"] for headers in both[0])


async def test_a_herd_on_a_cold_prefix_writes_it_once(learned: Stack) -> None:
    async with client_of(learned) as client:

        async def ask(number: int, system: str) -> None:
            await client.messages.create(
                model=MODEL,
                max_tokens=1,
                system=system,
                messages=[{"role": "user", "content": prose(number, 20)}],
            )

        for number in range(12):  # it is learned that this system prompt is shared
            await ask(number, SYSTEM)
        before = len(learned.simulator.requests)
        learned.simulator.cache.clear()
        await asyncio.gather(*(ask(100 + number, SYSTEM + "Now in French.") for number in range(30)))

    writes = [
        request
        for request in learned.simulator.requests[before:]
        if (request.usage or {}).get("cache_creation_input_tokens", 0) > 1_000
    ]
    assert len(writes) <= 1, "one leads, the others wait for its first byte and read"
