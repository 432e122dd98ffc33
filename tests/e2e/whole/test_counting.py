"""Upstream counts a prompt before a call is refused that may fit: through real sockets and the simulator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.e2e.whole.calls import ASK, call
from tests.e2e.whole.test_traps_money import one_limit
from tests.support.stack import Stack, a_stack

PROMPT = "0123456789" * 10_000
"""About 35,700 tokens by its bytes; upstream counts 32,500."""
BODY: dict[str, Any] = {**ASK, "max_tokens": 1, "messages": [{"role": "user", "content": PROMPT}]}
BETWEEN = one_limit("34000", unit="input_tokens", per="day")


def workspaces(mode: str) -> str:
    return f"workspaces:\n  demo: {{upstream: default, placement: off, {mode}}}\n"


def counts(stack: Stack) -> int:
    return sum("count_tokens" in item.target for item in stack.simulator.requests)


async def refused(folder: Path, mode: str, limits: str = BETWEEN) -> tuple[bool, int]:
    """Whether the call was refused, and how often upstream was asked to count."""
    async with a_stack(folder, limits=limits, workspaces=workspaces(mode)) as stack:
        answer = await call(stack, BODY)
        assert answer.status in (200, 402, 429)
        return answer.status != 200, counts(stack)


async def test_a_call_that_fits_by_upstreams_count_is_not_refused(tmp_path: Path) -> None:
    assert await refused(tmp_path, "count_tokens: near_limit") == (False, 1)


async def test_a_call_that_was_counted_is_set_aside_and_charged(tmp_path: Path) -> None:
    async with a_stack(tmp_path, limits=BETWEEN, workspaces=workspaces("count_tokens: near_limit")) as stack:
        first, second = [(await call(stack, BODY)).status for _ in range(2)]

        assert (first, second) == (200, 429)
        assert counts(stack) == 1


async def test_nobody_is_asked_to_count_unless_it_is_wanted(tmp_path: Path) -> None:
    assert await refused(tmp_path, "count_tokens: never") == (True, 0)


async def test_a_strict_workspace_does_not_go_by_a_count(tmp_path: Path) -> None:
    mode = "count_tokens: near_limit, estimate: strict"
    limits = one_limit("60000", unit="input_tokens", per="day")  # a token for each of 100,000 bytes
    assert await refused(tmp_path, mode, limits) == (True, 0)


async def test_a_call_of_which_not_even_half_fits_is_refused_at_once(tmp_path: Path) -> None:
    limits = one_limit("9000", unit="input_tokens", per="day")
    assert await refused(tmp_path, "count_tokens: near_limit", limits) == (True, 0)


async def test_a_call_that_does_not_fit_by_the_count_either_is_refused(tmp_path: Path) -> None:
    limits = one_limit("30000", unit="input_tokens", per="day")
    assert await refused(tmp_path, "count_tokens: near_limit", limits) == (True, 1)


async def test_a_call_that_fits_is_not_counted(tmp_path: Path) -> None:
    limits = one_limit("40000", unit="input_tokens", per="day")
    assert await refused(tmp_path, "count_tokens: near_limit", limits) == (False, 0)
