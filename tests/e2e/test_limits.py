"""Limits as apps meet them: through the official SDK, on real sockets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anthropic
import pytest
from anthropic import AsyncAnthropic

from gateway.sim.pacing import Pacing
from tests.support.clock import ShiftedClock
from tests.support.stack import a_stack

MODEL = "claude-opus-5-5"
LIMITS = """\
contact: "#ai-budget"
defaults:
  - {id: requests, scope: key, unit: requests, amount: 2, per: minute, comment: test}
  - {id: output, scope: key, unit: output_tokens, amount: 100k, per: minute, comment: test}
  - {id: day, scope: key, unit: usd, amount: $5.00, per: day, comment: test}
  - {id: input, scope: key, unit: input_tokens, cache_reads: counted, amount: 10M, per: day, comment: test}
"""


def limits_of(headers: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """Limit and remaining by family; each reset is an instant from now on."""
    found: dict[str, tuple[int, int]] = {}
    for family in ("requests", "tokens", "input-tokens", "output-tokens"):
        stem = f"anthropic-ratelimit-{family}"
        reset = datetime.fromisoformat(headers[f"{stem}-reset"])
        assert reset.tzinfo == UTC and reset.microsecond == 0
        found[family] = (int(headers[f"{stem}-limit"]), int(headers[f"{stem}-remaining"]))
    return found


async def test_the_sdk_reads_how_the_callers_own_limits_stand(tmp_path: Path) -> None:
    async with (
        a_stack(tmp_path, limits=LIMITS, clock=ShiftedClock()) as stack,
        AsyncAnthropic(base_url=stack.url, api_key=stack.keys["demo"], max_retries=0) as client,
    ):
        answers = [
            await client.messages.with_raw_response.create(
                model=MODEL, max_tokens=1_000, messages=[{"role": "user", "content": "Hello"}]
            )
            for _ in range(2)
        ]
        first, second = (limits_of(answer.headers) for answer in answers)
        with pytest.raises(anthropic.RateLimitError) as refused:
            await client.messages.create(
                model=MODEL, max_tokens=1_000, messages=[{"role": "user", "content": "Hello"}]
            )
        refusal = refused.value

    assert (first["requests"], second["requests"]) == ((2, 1), (2, 0))
    assert first["output-tokens"] == first["tokens"] == (100_000, 99_000)
    assert first["input-tokens"][0] == 10_000_000
    assert limits_of(refusal.response.headers)["requests"] == (2, 0)
    assert int(refusal.response.headers["retry-after"]) in range(1, 31)
    assert refusal.response.headers["x-should-retry"] == "true"
    assert refusal.type == "rate_limit_error"
    assert refusal.response.headers["x-gateway-limit"] == "requests"
    assert "ask #ai-budget" in refusal.message


async def test_callers_without_such_limits_get_upstreams(tmp_path: Path) -> None:
    money = "defaults: [{id: day, scope: key, unit: usd, amount: $5.00, per: day, comment: test}]\n"
    async with (
        a_stack(tmp_path, limits=money) as stack,
        AsyncAnthropic(base_url=stack.url, api_key=stack.keys["demo"], max_retries=0) as client,
    ):
        answer = await client.messages.with_raw_response.create(
            model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
        )

    assert limits_of(answer.headers)["requests"][0] == 10_000  # of the simulated organisation


async def test_the_sdk_does_not_try_again_what_waiting_does_not_help(tmp_path: Path) -> None:
    spent = "defaults: [{id: day, scope: key, unit: usd, amount: $0.000001, per: day, comment: test}]\n"
    async with (
        a_stack(tmp_path, limits=spent) as stack,
        AsyncAnthropic(base_url=stack.url, api_key=stack.keys["demo"], max_retries=2) as client,
    ):
        with pytest.raises(anthropic.RateLimitError) as refused:
            await client.messages.create(
                model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "Hello"}]
            )
        refusal = refused.value
        (total,) = await stack.books()

    assert "retry-after" not in refusal.response.headers
    assert refusal.response.headers["x-should-retry"] == "false"
    assert (total.requests, total.refused) == (1, 1)


async def test_a_stream_holds_its_place_until_it_ends(tmp_path: Path) -> None:
    at_once = "defaults: [{id: at-once, scope: key, unit: concurrent, amount: 1, comment: test}]\n"
    ask: Any = {"model": MODEL, "messages": [{"role": "user", "content": "Hello"}]}
    async with (
        a_stack(tmp_path, limits=at_once, pacing=Pacing(events_per_second=20)) as stack,
        AsyncAnthropic(base_url=stack.url, api_key=stack.keys["demo"], max_retries=0) as client,
    ):
        async with client.messages.stream(max_tokens=300, **ask) as stream:
            await anext(stream.text_stream)
            with pytest.raises(anthropic.RateLimitError) as refused:
                await client.messages.create(max_tokens=9, **ask)
        retrying = client.with_options(max_retries=2)
        answer = await retrying.messages.create(max_tokens=9, **ask)

    headers = refused.value.response.headers
    assert (headers["retry-after"], headers["x-should-retry"]) == ("1", "true")
    assert "1 request at a time" in refused.value.message
    assert answer.type == "message"


async def test_a_strict_workspace_says_why_it_refuses_what_nothing_bounds(tmp_path: Path) -> None:
    workspaces = "workspaces: {demo: {estimate: strict}, other: {estimate: strict, unbounded: allow}}\n"
    search: Any = {"type": "web_search_20260209", "name": "web_search", "max_uses": 1}
    ask: Any = {"model": MODEL, "max_tokens": 9, "messages": [{"role": "user", "content": "Hello"}]}
    money = "defaults: [{id: day, scope: workspace, unit: usd, amount: $50.00, per: day, comment: test}]\n"
    async with a_stack(tmp_path, limits=money, workspaces=workspaces) as stack:
        async with AsyncAnthropic(base_url=stack.url, api_key=stack.keys["demo"]) as client:
            with pytest.raises(anthropic.BadRequestError, match="the API runs tools for it") as refused:
                await client.messages.create(tools=[search], **ask)
            bounded = await client.messages.create(**ask)
        async with AsyncAnthropic(base_url=stack.url, api_key=stack.keys["other"]) as client:
            allowed = await client.messages.create(tools=[search], **ask)

    assert refused.value.response.headers["x-gateway-error"] == "unbounded"
    error = refused.value.response.json()
    assert (error["type"], error["error"]["type"]) == ("error", "invalid_request_error")
    assert bounded.type == allowed.type == "message"
