"""What looking for changes costs: CPU on the steady path and of a close look, memory at the bound. Run it.

    python -m tests.bench.changes_cost

Bodies are an agent's, of 130 kB. Timed with the process's own CPU clock; the parsing and the prefix keys of
a body, which every call needs anyway, are given for comparison.
"""

from __future__ import annotations

import copy
import gc
import random
import time
import tracemalloc
from collections.abc import Sequence
from typing import Any

from gateway.core.changes import DEFAULT_CAPACITY_BYTES, Changes
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from tests.support.bodies import agent_body, dump, prose

WORKSPACE = WorkspaceId("bench")
ROUNDS = 200


class Asked:
    def __init__(self, body: dict[str, Any], workspace: WorkspaceId = WORKSPACE) -> None:
        self.data = dump(body)
        self.prompt: Prompt = read_prompt(self.data)
        self.keys: Sequence[PrefixKey] = self.digest(workspace)
        self.ends = [block.end // 4 for block in self.prompt.blocks]
        self.workspace = workspace

    def digest(self, workspace: WorkspaceId) -> Sequence[PrefixKey]:
        scope = cache_scope(secret=b"bench", workspace=workspace, prompt=self.prompt)
        return prefix_keys(self.prompt, scope)

    def look(self, changes: Changes, known_to: int, now: float) -> float:
        """Microseconds of the look."""
        began = time.process_time_ns()
        changes.look(
            self.prompt,
            self.keys,
            self.ends,
            workspace=self.workspace,
            read_at=known_to,
            known_to=known_to,
            now=now,
        )
        return (time.process_time_ns() - began) / 1_000


def median(taken: list[float]) -> float:
    return sorted(taken)[len(taken) // 2]


def steady() -> float:
    """A conversation's next turn, two blocks longer."""
    body = agent_body(turns=60, tools=20, size=130_000)
    taken = []
    for _ in range(ROUNDS // 20):
        changes = Changes(b"bench")
        known_to = -1
        for turn in range(40, 60):
            asked = Asked({**body, "messages": body["messages"][: 2 * turn + 1]})
            microseconds = asked.look(changes, known_to, float(turn))
            if turn > 40:
                taken.append(microseconds)
            known_to = len(asked.keys) - 1
    return median(taken)


def one_shot() -> float:
    """A known head, and a question that was never asked."""
    changes, taken = Changes(b"bench"), []
    for number in range(ROUNDS):
        body = agent_body(turns=0, tools=20, size=130_000)
        body["messages"][0]["content"] = prose(4_000, number)
        asked = Asked(body)
        taken.append(asked.look(changes, len(asked.keys) - 2 if number else -1, 60.0 * number))
    return median(taken[1:])


def changed(head_bytes: int, seconds: float) -> float:
    """A head of that size with another instant in it on every request, so many seconds apart."""
    changes, taken = Changes(b"bench"), []
    for number in range(ROUNDS):
        body = agent_body(turns=0, tools=20, size=1)
        half = prose((head_bytes - 34_000) // 2)
        body["system"] = [{"type": "text", "text": f"{half} It is 2026-11-22T10:{number:05d}Z. {half}"}]
        taken.append(Asked(body).look(changes, 19, seconds * number))
    return median(taken[ROUNDS // 2 :])


def memory() -> tuple[int, int]:
    """Bytes at the bound, as reckoned and as traced."""
    calls = []
    for number in range(3_000):
        body = agent_body(turns=8, tools=6, size=16_000)
        body["system"] = [{"type": "text", "text": random.Random(number).randbytes(2_000).hex()}]
        body["messages"][0]["content"] = prose(2_000 + number, number)
        calls.append(Asked(copy.deepcopy(body), WorkspaceId(f"w{number % 300}")))
        calls[-1].data = b""
    gc.collect()
    tracemalloc.start()
    changes = Changes(b"bench")
    for number, asked in enumerate(calls):
        asked.look(changes, -1, 10.0 * number)
    gc.collect()
    traced = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return changes.size_bytes, traced


def main() -> None:
    asked = Asked(agent_body(turns=40, tools=20, size=130_000))
    rounds = []
    for _ in range(ROUNDS):
        began = time.process_time_ns()
        read_prompt(asked.data)
        asked.digest(WORKSPACE)
        rounds.append((time.process_time_ns() - began) / 1_000)
    print(f"reading 130 kB and its prefix keys: {median(rounds):7.1f} us")
    print(f"steady, next turn:                  {steady():7.1f} us")
    print(f"known head, new question:           {one_shot():7.1f} us")
    print(f"changed head of 130 kB:             {changed(130_000, 60.0):7.1f} us")
    print(f"changed head of 50 kB:              {changed(50_000, 60.0):7.1f} us")
    print(f"the same, every 10 ms:              {changed(50_000, 0.01):7.1f} us")
    reckoned, traced = memory()
    print(f"memory at the bound of {DEFAULT_CAPACITY_BYTES:,}: {reckoned:,} reckoned, {traced:,} traced")


if __name__ == "__main__":
    main()
