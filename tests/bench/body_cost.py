"""What reading, digesting and placing a body costs: `python -m tests.bench.body_cost`. Not for pytest."""

from __future__ import annotations

import json
from collections.abc import Callable
from time import perf_counter

from gateway.core.edit import apply_placement
from gateway.core.ids import WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.placement import check_placement
from gateway.core.prefix import cache_scope, key_chain, prefix_keys
from gateway.core.prompt_reader import read_prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Workspace
from tests.support.bodies import agent_body, claude_code_body, dump, large_body, spaced

FACTS = ModelFacts(id="bench", minimum_cacheable_tokens=512, bytes_per_token=3.5)
WORKSPACE = Workspace(id=WorkspaceId("bench"), organisation="default", upstream="default")


def micros(work: Callable[[], object], rounds: int) -> float:
    """The median time of one call, in microseconds."""
    times = []
    for _ in range(rounds):
        began = perf_counter()
        work()
        times.append(perf_counter() - began)
    return sorted(times)[len(times) // 2] * 1e6


def measure(name: str, body: bytes, rounds: int) -> None:
    prompt = read_prompt(body)
    scope = cache_scope(secret=b"bench", workspace=WORKSPACE.id, prompt=prompt)
    keys = prefix_keys(prompt, scope)
    placement = RulePolicy().plan(prompt, keys, FACTS, WORKSPACE)
    chain, same = key_chain(prompt, scope), bytes(bytearray(body))

    again = read_prompt(same, prompt)

    def whole() -> object:
        read = read_prompt(body)
        known = prefix_keys(read, cache_scope(secret=b"bench", workspace=WORKSPACE.id, prompt=read))
        placed = RulePolicy().plan(read, known, FACTS, WORKSPACE)
        assert check_placement(read, placed) is None
        return apply_placement(read, placed)

    steps: dict[str, Callable[[], object]] = {
        "read": lambda: read_prompt(body),
        "keys": lambda: prefix_keys(prompt, scope),
        "scope": lambda: cache_scope(secret=b"bench", workspace=WORKSPACE.id, prompt=prompt),
        "plan": lambda: RulePolicy().plan(prompt, keys, FACTS, WORKSPACE),
        "check": lambda: check_placement(prompt, placement),
        "apply": lambda: apply_placement(prompt, placement),
        "all": whole,
        "read again": lambda: read_prompt(same, prompt),
        "keys again": lambda: key_chain(again, scope, chain),
        "json.loads": lambda: json.loads(body),
    }
    costs = "  ".join(f"{step} {micros(work, rounds):8.1f}" for step, work in steps.items())
    print(f"{name:24} {len(body):9} B {len(prompt.blocks):4} blocks  {costs}")


if __name__ == "__main__":
    print("microseconds, median of repeated calls")
    measure("agent", dump(agent_body(size=132_000)), 300)
    measure("agent, spaced JSON", spaced(agent_body(size=132_000)), 300)
    measure("claude code", dump(claude_code_body()), 300)
    measure("2 MB, 900 blocks", dump(large_body()), 60)
    measure("2 MB, few blocks", dump(agent_body(turns=8, tools=4, size=2_000_000)), 60)
