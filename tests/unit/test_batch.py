"""What a batch may cost, and which limits it counts against."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.batch import (
    BatchPlan,
    binding_limits,
    read_batch,
    settle_batch_call,
)
from gateway.core.errors import BadRequest, Forbidden
from gateway.core.estimate import estimate_spend
from gateway.core.exchange import Basis, Closing
from gateway.core.ids import WorkspaceId
from gateway.core.limits import Limit, Limits, Period, Scope, Unit
from gateway.core.plan import UNPLACED
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import EstimateMode, Rules, UnknownModels, Workspace
from tests.support.fakes import KEY, make_rules

OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-5-5"
AT = 1_800_000_000.0
MARK = {"cache_control": {"type": "ephemeral", "ttl": "1h"}}


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return make_rules(tmp_path, {})


@pytest.fixture
def demo(rules: Rules) -> Workspace:
    return rules.workspaces[WorkspaceId("demo")]


def params(model: str = OPUS, **changed: Any) -> dict[str, Any]:
    return {"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": "Hi"}], **changed}


def body(*items: Any) -> bytes:
    return json.dumps(
        {"requests": [{"custom_id": f"i{n}", "params": each} for n, each in enumerate(items)]}
    ).encode()


def plan(rules: Rules, workspace: Workspace, *items: Any) -> BatchPlan:
    return read_batch(body(*items), rules=rules, workspace=workspace, at=AT)


@pytest.mark.parametrize("mode", list(EstimateMode))
def test_each_item_is_estimated_as_a_call_at_half_the_price(
    mode: EstimateMode, rules: Rules, demo: Workspace
) -> None:
    workspace = replace(demo, estimate=mode)
    marked = params(HAIKU, system=[{"type": "text", "text": "Brief. " * 500, **MARK}])
    items = [params(), params(), marked]
    expected = 0
    for item in items:
        prompt = read_prompt(json.dumps(item).encode())
        facts = rules.models.facts(prompt.model)
        single = estimate_spend(
            prompt,
            UNPLACED,
            facts,
            rules.prices,
            mode=mode,
            at=AT,
            output_cap_tokens=workspace.output_cap_tokens,
        )
        expected += rules.prices.cost(single.usage, model=prompt.model, at=AT, batch=True).total_nanousd

    found = plan(rules, workspace, *items)
    assert (found.items, found.estimate.nanousd, found.cost.total_nanousd) == (3, expected, expected)
    assert found.estimate.amounts.requests == 3
    assert found.estimate.amounts.concurrent == 0
    assert found.estimate.bounded == (mode is EstimateMode.STRICT)
    assert sorted(found.models) == [HAIKU, OPUS]
    assert sum(share.cost.total_nanousd for share in found.shares) == expected


def test_what_nothing_bounds_is_named_with_its_item(rules: Rules, demo: Workspace) -> None:
    strict = replace(demo, estimate=EstimateMode.STRICT)
    found = plan(rules, strict, params(), params(mcp_servers=[{"type": "url", "url": "https://a.test"}]))
    assert not found.estimate.bounded
    assert all(reason.startswith("i1: ") for reason in found.estimate.unbounded_by)


def test_models_are_permitted_item_by_item(rules: Rules, demo: Workspace) -> None:
    only_haiku = replace(demo, models=("claude-haiku-*",))
    assert plan(rules, only_haiku, params(HAIKU)).models == (HAIKU,)
    with pytest.raises(Forbidden, match=r"claude-haiku.*In this batch: i1, i2, i3, i4, i5, and others\."):
        plan(rules, only_haiku, params(HAIKU), *[params(OPUS)] * 8)


def test_models_that_items_name_besides_are_permitted_and_bound_too(rules: Rules, demo: Workspace) -> None:
    advisor = {"type": "advisor_20260301", "name": "advisor", "model": OPUS}
    item = params(HAIKU, tools=[advisor])
    with pytest.raises(Forbidden, match=r"claude-haiku.*In this batch: i1\."):
        plan(rules, replace(demo, models=("claude-haiku-*",)), params(HAIKU), item)

    day = Limit(
        id="opus",
        scope=Scope.WORKSPACE,
        unit=Unit.NANOUSD,
        amount=1000,
        period=Period.CALENDAR_DAY,
        models=(OPUS,),
    )
    limited, principal = replace(rules, limits=Limits((day,))), rules.keyring.identify(KEY, AT)
    bound = binding_limits(limited, principal, plan(rules, demo, item), ())
    assert [each.limit.id for each in bound] == ["opus"]
    assert binding_limits(limited, principal, plan(rules, demo, params(HAIKU)), ()) == ()


def test_a_model_without_a_price_is_refused_where_rules_say_so(rules: Rules, demo: Workspace) -> None:
    refusing = replace(rules, unknown_models=UnknownModels.REFUSE)
    with pytest.raises(Forbidden, match="i0"):
        plan(refusing, demo, params("claude-next-9"))
    assert plan(rules, demo, params("claude-next-9")).cost.fallback


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"params": params()}, "custom_id"),
        ({"custom_id": "a b", "params": params()}, "custom_id"),
        ({"custom_id": "x" * 65, "params": params()}, "custom_id"),
        ({"custom_id": "a"}, r"requests\.1 \(a\).*params"),
        ({"custom_id": "a", "params": []}, r"requests\.1 \(a\)"),
    ],
)
def test_an_item_that_cannot_be_read_is_named(item: Any, said: str, rules: Rules, demo: Workspace) -> None:
    good = {"custom_id": "good", "params": params()}
    with pytest.raises(BadRequest, match=said):
        read_batch(json.dumps({"requests": [good, item]}).encode(), rules=rules, workspace=demo, at=AT)


def test_an_item_without_a_model_is_left_to_upstream_which_tells_of_it_in_the_results(
    rules: Rules, demo: Workspace
) -> None:
    """It costs nothing there, and the others of the batch are worked through."""
    alone = plan(rules, demo, params())
    found = plan(rules, demo, params(), {"max_tokens": 1}, {**params(), "model": None})

    assert (found.items, found.estimate.amounts.requests) == (3, 3)
    assert found.cost == alone.cost
    assert found.models == (OPUS,)


def test_counts_against_dollars_and_windows_but_not_against_rates(rules: Rules, demo: Workspace) -> None:
    kinds = [
        ("dollars-hour", Unit.NANOUSD, Period.HOUR, ()),
        ("dollars-month", Unit.NANOUSD, Period.CALENDAR_MONTH, ()),
        ("requests-minute", Unit.REQUESTS, Period.MINUTE, ()),
        ("tokens-minute", Unit.INPUT_TOKENS, Period.MINUTE, ()),
        ("tokens-day", Unit.OUTPUT_TOKENS, Period.CALENDAR_DAY, ()),
        ("haiku-day", Unit.NANOUSD, Period.CALENDAR_DAY, (HAIKU,)),
        ("sonnet-day", Unit.NANOUSD, Period.CALENDAR_DAY, ("claude-sonnet-*",)),
    ]
    limits = Limits(
        tuple(
            Limit(id=name, scope=Scope.WORKSPACE, unit=unit, amount=1000, period=period, models=models)
            for name, unit, period, models in kinds
        )
    )
    limited = replace(rules, limits=limits)
    principal = rules.keyring.identify(KEY, AT)
    bound = binding_limits(limited, principal, plan(rules, demo, params(), params(HAIKU)), ())
    assert sorted(each.limit.id for each in bound) == [
        "dollars-hour",
        "dollars-month",
        "haiku-day",
        "tokens-day",
    ]


@pytest.mark.parametrize(
    ("closing", "kept", "basis"),
    [
        (Closing.SETTLE, True, Basis.PENDING),
        (Closing.SETTLE, False, Basis.ESTIMATED),
        (Closing.RELEASE, False, Basis.NONE),
    ],
)
def test_its_creation_is_booked_only_where_it_could_not_be_kept(
    closing: Closing, kept: bool, basis: Basis, rules: Rules, demo: Workspace
) -> None:
    found = plan(rules, demo, params())
    settled = settle_batch_call(closing, found, kept=kept)
    assert settled.basis is basis
    assert settled.cost == (found.cost if basis is Basis.ESTIMATED else None)


def test_other_calls_about_batches_are_free() -> None:
    settled = settle_batch_call(Closing.SETTLE, None, kept=False)
    assert (settled.basis, settled.cost, settled.amounts.requests) == (Basis.NONE, None, 1)
