"""A retry that redeems a fallback credit carries the breakpoints of the call that was refused."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.headers import Headers
from gateway.core.ids import WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.placement import Occasion, Placement, check_placement
from gateway.core.pricing import Factors
from gateway.core.prompt_reader import read_prompt
from gateway.core.redeeming import LIFETIME_SECONDS, MAX_KEPT, RedeemingPolicy
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import PlacementMode, Workspace
from tests.support.bodies import conversation, dump

AT = 1.8e9
CACHES = ModelFacts(id="a", minimum_cacheable_tokens=1, bytes_per_token=3.0)
NEVER_CACHES = ModelFacts(id="b", minimum_cacheable_tokens=10**9, bytes_per_token=3.0)
"""By itself the policy gives its prompts no breakpoint."""
GRANTS = ((b"anthropic-beta", b"x, fallback-credit-2026-07-01"),)
SPACE = Workspace(id=WorkspaceId("w"), organisation="o", upstream="u")
CALL = conversation(1, 2, 3)
RETRY = CALL | {"model": "claude-opus-5", "fallback_credit_token": "sk-test-token"}


def plan(
    policy: RedeemingPolicy,
    body: dict[str, Any],
    facts: ModelFacts,
    *,
    headers: Headers = GRANTS,
    space: Workspace = SPACE,
    at: float = AT,
) -> Placement:
    prompt = read_prompt(dump(body))
    occasion = Occasion(call_id="c", at=at, scope=b"", prices=Factors(0.1, 1.25, 2.0), headers=headers)
    placement = policy.plan(prompt, (), facts, space, occasion)
    assert check_placement(prompt, placement) is None
    return placement


def continued(body: dict[str, Any]) -> dict[str, Any]:
    longer = deepcopy(body)
    longer["messages"].append({"role": "assistant", "content": "The partial answer"})
    return longer


@pytest.mark.parametrize(
    "retry", [RETRY, continued(RETRY), RETRY | {"fallback_credit_token": {"token": "t"}}]
)
@pytest.mark.parametrize("beta", [b"fallback-credit-2026-06-01", b"a,server-side-fallback-2026-07-01"])
def test_a_retry_gets_the_breakpoints_of_the_refused_call_on_any_model(
    retry: dict[str, Any], beta: bytes
) -> None:
    policy, headers = RedeemingPolicy(RulePolicy()), ((b"anthropic-beta", beta),)
    first = plan(policy, CALL, CACHES, headers=headers)

    assert first.breakpoints
    assert plan(policy, retry, NEVER_CACHES, headers=headers).breakpoints == first.breakpoints


def test_a_retry_gets_none_where_the_refused_call_got_none() -> None:
    policy = RedeemingPolicy(RulePolicy())
    plan(policy, CALL, CACHES)
    plan(policy, CALL, NEVER_CACHES)

    assert plan(policy, RETRY, CACHES).breakpoints == ()


@pytest.mark.parametrize(
    "changed",
    [
        {"system": "another"},
        {"tools": []},
        {"messages": CALL["messages"][:-1]},
        {"messages": [{"role": "user", "content": "another"}, *CALL["messages"][1:]]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_a_retry_of_an_unknown_call_goes_as_it_was_sent(changed: dict[str, Any]) -> None:
    policy = RedeemingPolicy(RulePolicy())
    plan(policy, CALL, CACHES)

    assert plan(policy, RETRY | changed, CACHES).breakpoints == ()


def test_nothing_is_known_of_another_workspace_nor_after_a_while() -> None:
    policy = RedeemingPolicy(RulePolicy())
    plan(policy, CALL, CACHES)

    assert plan(policy, RETRY, CACHES, space=replace(SPACE, id=WorkspaceId("v"))).breakpoints == ()
    assert plan(policy, RETRY, CACHES, at=AT + LIFETIME_SECONDS).breakpoints == ()


def test_in_shadow_mode_nothing_was_sent_that_could_be_repeated() -> None:
    policy = RedeemingPolicy(RulePolicy())
    assert plan(policy, CALL, CACHES, space=replace(SPACE, placement=PlacementMode.SHADOW)).breakpoints

    assert plan(policy, RETRY, CACHES).breakpoints == ()


def test_calls_without_a_token_are_the_other_policys() -> None:
    policy = RedeemingPolicy(RulePolicy())

    assert plan(policy, RETRY | {"fallback_credit_token": None}, CACHES, headers=()).breakpoints
    assert plan(policy, RETRY, CACHES).breakpoints == ()


def test_keeps_a_bounded_number_of_calls() -> None:
    policy = RedeemingPolicy(RulePolicy())
    plan(policy, CALL, CACHES)
    for number in range(MAX_KEPT):
        plan(policy, CALL | {"system": f"{number} " + "x" * 50}, CACHES)

    assert plan(policy, RETRY, CACHES).breakpoints == ()
