"""Bodies of any size and number of blocks, none of which begins like another; and conversations that grow."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import count

from tests.support.bodies import MODEL, agent_body, dump, prose, single

_NUMBERS = count()
_TURN_BYTES = 3_000
"""What an agent's turn adds: a call of a tool and its result."""


def new_bodies(size: int, how_many: int) -> list[bytes]:
    """An agent's requests of about `size` bytes, each with a system prompt and a question of its own."""
    return [_agent(size) for _ in range(how_many)]


def growing(size: int, turns: int) -> list[bytes]:
    """One conversation from about `size` bytes on; each body is the one before and one turn."""
    if size < 8_000:
        return [_small(size, turn) for turn in range(turns)]
    whole = json.loads(_agent(size))
    bodies = []
    for turn in range(turns):
        use = f"toolu_more_{turn:020d}"
        call = {"type": "tool_use", "id": use, "name": "tool_1", "input": {"path": f"/more/{turn}.py"}}
        result = {"type": "tool_result", "tool_use_id": use, "content": prose(_TURN_BYTES - 500, turn)}
        bodies.append(dump(whole))
        whole["messages"] += [{"role": "assistant", "content": [call]}, {"role": "user", "content": [result]}]
    return bodies


def in_blocks(size: int, blocks: int, how_many: int) -> list[bytes]:
    """Bodies of `size` bytes in so many messages of one block each, none like another."""
    each = max(size // blocks - 70, 20)
    bodies = []
    for _ in range(how_many):
        number = next(_NUMBERS)
        messages = [
            {
                "role": "assistant" if index % 2 else "user",
                "content": [{"type": "text", "text": f"{number}.{index}. {prose(each, index)}"[:each]}],
            }
            for index in range(blocks)
        ]
        bodies.append(dump({"model": MODEL, "max_tokens": 1_000, "messages": messages}))
    return bodies


def longer_in_blocks(size: int, blocks: int, turns: int) -> list[bytes]:
    """One conversation: `in_blocks`, and two blocks more at each turn."""
    (first,) = in_blocks(size, blocks, 1)
    return list(_longer(first, turns))


def _longer(first: bytes, turns: int) -> Iterator[bytes]:
    assert first.endswith(b"]}")
    yield first
    for turn in range(1, turns):
        said = [{"role": role, "content": [{"type": "text", "text": prose(400, turn)}]} for role in _ROLES]
        first = first[:-2] + b"," + dump(said)[1:-1] + b"]}"
        yield first


_ROLES = ("assistant", "user")


def _agent(size: int) -> bytes:
    if size < 8_000:
        return _small(size, next(_NUMBERS))
    number = next(_NUMBERS)
    turns = max(2, min(300, size // 6_000))
    tools = 20 if size >= 60_000 else 2
    body = agent_body(size=size - 4_000, turns=turns, tools=tools, stream=False)
    body["system"][0]["text"] = f"Number {number}. {body['system'][0]['text'][: size // 4]}"
    body["messages"][0]["content"][0]["text"] = f"Question {number}. {prose(600, number)}"
    return dump(body)


def _small(size: int, number: int) -> bytes:
    return dump(single(f"{number}. {prose(max(size - 110, 20), number)}"))
