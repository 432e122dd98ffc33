"""Traps of the API that lie in the prompt: what may be inserted, which bytes must stay, who shares a cache.

The numbers are those of the checklist in `tests/test_traps.py`.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.e2e.whole.calls import ASK, LONG, MODEL, call, received, without_insertions
from tests.support.bodies import claude_code_body
from tests.support.stack import Stack

HISTORY: list[Any] = [
    {"role": "user", "content": [{"type": "text", "text": "First question. " * 300}]},
    {
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "Let me see.", "signature": "c2lnbmF0dXJl/+8="},
            {"type": "text", "text": "An answer."},
        ],
    },
    {"role": "user", "content": [{"type": "text", "text": "Second question."}]},
]


def of(answer: Any, name: str) -> int:
    return int(answer.json["usage"][name])


async def test_trap_02_claude_codes_own_breakpoints_go_up_untouched(stack: Stack) -> None:
    body = json.dumps(claude_code_body(turns=2) | {"model": MODEL}).encode()
    await call(stack, body)

    assert b"cache_control" in body
    assert received(stack) == [body]


async def test_trap_08_a_string_and_its_one_block_array_read_each_others_cache(stack: Stack) -> None:
    written = await call(stack, {**ASK, "system": LONG})
    read = await call(stack, {**ASK, "system": [{"type": "text", "text": LONG}]})

    assert of(written, "cache_creation_input_tokens") > 1_000
    assert of(read, "cache_read_input_tokens") == of(written, "cache_creation_input_tokens")


async def test_trap_09_of_a_conversation_with_signed_thinking_nothing_changes_but_breakpoints(
    stack: Stack,
) -> None:
    sent = json.dumps({**ASK, "system": LONG, "messages": HISTORY}).encode()
    answer = await call(stack, sent)

    assert answer.status == 200
    (up,) = received(stack)
    assert up != sent
    assert without_insertions(up) == sent
    assert "cache_control" not in json.loads(up)["messages"][1]["content"][0]


async def test_trap_10_two_workspaces_of_one_upstream_read_one_cache(stack: Stack) -> None:
    """No policy, date, id or name of the gateway's own enters the prompt: it would part their caches."""
    body = {**ASK, "model": "claude-haiku-5-5", "system": LONG}
    written = await call(stack, body, key="demo")
    read = await call(stack, body, key="small")

    first, second = received(stack)
    assert first == second
    assert without_insertions(first) == json.dumps(body).encode()
    assert of(read, "cache_read_input_tokens") == of(written, "cache_creation_input_tokens") > 1_000


async def test_trap_17_a_lone_surrogate_goes_up_as_it_came_beside_breakpoints(stack: Stack) -> None:
    sent = json.dumps({**ASK, "system": LONG}).encode().replace(b"Say", b"\\ud83d Say \xc3\xa9 \\u00e9")
    await call(stack, sent)

    (up,) = received(stack)
    assert b"cache_control" in up
    assert without_insertions(up) == sent


async def test_trap_18_a_warm_up_is_read_by_the_real_call_and_by_a_repeated_call(
    stack: Stack,
) -> None:
    tools = [{"name": "look", "description": LONG, "input_schema": {"type": "object"}}]
    body = {**ASK, "tools": tools, "system": LONG}
    warmed = await call(stack, {**body, "max_tokens": 0})
    real = await call(stack, body)
    again = await call(stack, body, headers=[("x-stainless-retry-count", "1")])

    assert of(real, "cache_read_input_tokens") >= of(warmed, "cache_creation_input_tokens") > 1_000
    first, second = received(stack)[1:]
    assert without_insertions(first) == without_insertions(second) == json.dumps(body).encode()
    assert of(again, "cache_read_input_tokens") >= of(real, "cache_read_input_tokens")


@pytest.mark.parametrize("model", ["claude-haiku-4-5", "claude-haiku-4-5-20251001"])
async def test_trap_19_the_model_goes_up_as_the_client_named_it(model: str, stack: Stack) -> None:
    """Alias and dated name may be two caches; which one a client uses is its own choice."""
    answer = await call(stack, {**ASK, "model": model})

    assert answer.status == 200
    assert json.loads(received(stack)[0])["model"] == model


async def test_trap_20_the_list_of_betas_is_the_clients_on_every_turn(stack: Stack) -> None:
    betas = "token-efficient-tools-2025-02-19,  fine-grained-tool-streaming-2025-05-14"
    for path in ("/v1/messages", "/v1/messages", "/v1/messages?beta=true"):
        await call(stack, {**ASK, "system": LONG}, path=path, headers=[("anthropic-beta", betas)])

    assert [request.header("anthropic-beta") for request in stack.simulator.requests] == [betas] * 3


async def test_trap_21_both_halves_of_a_beta_reach_upstream(stack: Stack) -> None:
    edits = {"edits": [{"type": "clear_tool_uses_20250919"}]}
    sent = json.dumps({**ASK, "context_management": edits, "new_field": [1.0, 1e2]}).encode()
    await call(stack, sent, headers=[("anthropic-beta", "context-management-2025-06-27"), ("x-new", "1")])

    (request,) = stack.simulator.requests
    assert request.body == sent
    assert request.header("anthropic-beta") == "context-management-2025-06-27"
    assert request.header("x-new") == "1"


async def test_trap_22_a_workspace_goes_one_way_and_shares_no_cache_with_another_upstream(
    stack: Stack,
) -> None:
    body = {**ASK, "system": LONG}
    written = await call(stack, body, headers=[("x-claude-code-session-id", "one")])
    read = await call(stack, body, headers=[("x-claude-code-session-id", "two")])
    other = await call(stack, body, key="other")

    assert [request.workspace for request in stack.simulator.requests] == [
        "wrkspc_1",
        "wrkspc_1",
        "wrkspc_2",
    ]
    assert of(read, "cache_read_input_tokens") == of(written, "cache_creation_input_tokens") > 1_000
    assert of(other, "cache_read_input_tokens") == 0


async def test_trap_23_a_client_cannot_choose_the_upstream_workspace(stack: Stack) -> None:
    answer = await call(stack, ASK, headers=[("anthropic-workspace-id", "wrkspc_2")])

    assert answer.headers["anthropic-workspace-id"] == "wrkspc_1"
    assert stack.simulator.requests[0].header("anthropic-workspace-id") is None


@pytest.mark.parametrize("workspace", ["demo", "other"])
async def test_trap_25_a_key_in_both_headers_is_replaced_by_exactly_one_credential(
    workspace: str, stack: Stack
) -> None:
    """Clients whose key comes from a script send it twice."""
    key = stack.keys[workspace]
    answer = await call(stack, ASK, key=workspace, headers=[("authorization", f"Bearer {key}")])

    assert answer.status == 200
    request = stack.simulator.requests[0]
    assert [request.header("authorization"), request.header("x-api-key")] == (
        ["Bearer sk-test-upstream-canary", None] if workspace == "demo" else [None, "sk-test-other"]
    )
    assert key not in repr((request.headers, request.body))


async def test_trap_32_a_clients_warm_up_is_a_success_with_nothing_in_it(stack: Stack) -> None:
    answer = await call(stack, {**ASK, "system": LONG, "max_tokens": 0})

    assert (answer.status, answer.json["content"], answer.json["stop_reason"]) == (200, [], "max_tokens")
    (total,) = await stack.books()
    assert (total.failed, total.refused) == (0, 0)
    assert total.cost_nanousd == stack.simulator.bill.total_nanousd > 0


async def test_trap_65_a_token_counting_body_goes_up_as_it_came(stack: Stack) -> None:
    marked = [{"type": "text", "text": LONG, "cache_control": {"type": "ephemeral"}}]
    plain = json.dumps({"model": MODEL, "system": LONG, "messages": HISTORY}).encode()
    sent = json.dumps({"model": MODEL, "system": marked, "messages": HISTORY}).encode()
    answers = [await call(stack, body, path="/v1/messages/count_tokens") for body in (plain, sent)]

    assert [answer.status for answer in answers] == [200, 200]
    assert received(stack) == [plain, sent]


async def test_a_retry_that_redeems_a_credit_carries_the_refused_calls_breakpoints(stack: Stack) -> None:
    """Otherwise it is a 400: `cache_control` counts as a part of the request that was refused."""
    beta = [("anthropic-beta", "fallback-credit-2026-07-01")]
    refused = {**ASK, "system": LONG, "messages": HISTORY}
    await call(stack, refused, headers=beta)
    partial = {"role": "assistant", "content": [{"type": "text", "text": "Partial. " * 900}]}
    retried = refused | {
        "model": "claude-opus-4-8",
        "messages": [*HISTORY, partial],
        "fallback_credit_token": "sk-test-credit",
    }
    await call(stack, retried, headers=beta)

    first, second = (json.loads(body) for body in received(stack))
    assert b"cache_control" in received(stack)[0]
    assert second["system"] == first["system"]
    assert second["messages"] == [*first["messages"], partial]
