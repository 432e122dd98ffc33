"""What `gateway demo` plays: three workspaces as organisations have them, by the official SDK.

A coding agent (long prompts that grow, tools, streams), a support assistant (many short conversations on one
system prompt), and a summariser (one call per document, where caching has nothing to gain). Deterministic for
a seed; the texts mean nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from anthropic import AsyncAnthropic

WORDS = tuple(
    re.findall(
        r"\w+",
        "request answer module return value index cache token reader writer stream error handle queue retry "
        "client order invoice refund parcel delivery account balance question report figure quarter margin",
    )
)


@dataclass(frozen=True, slots=True)
class Workload:
    """One workspace's part: so many conversations of so many turns."""

    workspace: str
    what: str
    model: str
    conversations: int
    turns: int
    budget: str


WORKLOADS = (
    Workload("coding", "agent with tools, streamed", "claude-opus-5-5", 4, 10, "$5.00"),
    Workload("support", "short chats, one system prompt", "claude-sonnet-5-5", 14, 3, "$1.00"),
    Workload("summaries", "one call per document", "claude-haiku-5-5", 24, 1, "$0.25"),
)


async def play(
    workload: Workload, number: int, client: AsyncAnthropic, seed: int, done: Callable[[], None]
) -> None:
    """One conversation; calls `done` after each of its calls."""
    dice = random.Random(f"{seed}/{workload.workspace}/{number}")  # noqa: S311 - reproducible, not secret
    play_one = {"coding": _agent, "support": _chat, "summaries": _summary}[workload.workspace]
    await play_one(workload, client, dice, done)


async def _agent(
    workload: Workload, client: AsyncAnthropic, dice: random.Random, done: Callable[[], None]
) -> None:
    tools = _tools(12)
    system = "You work on a code base. " + _prose(random.Random("coding"), 2_500)  # noqa: S311
    messages: list[Any] = [
        {"role": "user", "content": f"Mend the failing test. use the tool_3 tool. {_prose(dice, 80)}"}
    ]
    for turn in range(workload.turns):
        async with client.messages.stream(
            model=workload.model, max_tokens=1_500, system=system, tools=tools, messages=messages
        ) as stream:
            answer = await stream.get_final_message()
        done()
        calls = [block for block in answer.content if block.type == "tool_use"]
        messages.append({"role": "assistant", "content": answer.content})
        results: list[Any] = [
            {"type": "tool_result", "tool_use_id": call.id, "content": _prose(dice, 700)} for call in calls
        ]
        results.append({"type": "text", "text": f"Then use the tool_{turn % 12} tool."})
        messages.append({"role": "user", "content": results})


async def _chat(
    workload: Workload, client: AsyncAnthropic, dice: random.Random, done: Callable[[], None]
) -> None:
    system = "You answer customers of a shop. " + _prose(random.Random("support"), 2_000)  # noqa: S311
    messages: list[Any] = []
    for turn in range(workload.turns):
        messages.append({"role": "user", "content": _prose(dice, 60) + " Answer in 80 words."})
        if turn % 2:
            async with client.messages.stream(
                model=workload.model, max_tokens=400, system=system, messages=messages
            ) as stream:
                content: list[Any] = list((await stream.get_final_message()).content)
        else:
            answer = await client.messages.create(
                model=workload.model, max_tokens=400, system=system, messages=messages
            )
            content = list(answer.content)
        done()
        messages.append({"role": "assistant", "content": content})


async def _summary(
    workload: Workload, client: AsyncAnthropic, dice: random.Random, done: Callable[[], None]
) -> None:
    document = _prose(dice, 1_500)
    await client.messages.create(
        model=workload.model,
        max_tokens=300,
        messages=[{"role": "user", "content": f"Summarise in 60 words:\n\n{document}"}],
    )
    done()


def _tools(count: int) -> list[Any]:
    dice = random.Random("tools")  # noqa: S311
    return [
        {
            "name": f"tool_{number}",
            "description": _prose(dice, 60),
            "input_schema": {
                "type": "object",
                "properties": {"path": {"type": "string", "description": _prose(dice, 12)}},
                "required": ["path"],
            },
        }
        for number in range(count)
    ]


def _prose(dice: random.Random, words: int) -> str:
    return " ".join(dice.choices(WORDS, k=words))
