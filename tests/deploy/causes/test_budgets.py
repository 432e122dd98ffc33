"""What the alerts on budgets are about, caused for real: each fires on what was exposed."""

from __future__ import annotations

from pathlib import Path

from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import Principal
from gateway.sim.answers import Scripted
from tests.e2e.whole.calls import ASK, call, eventually
from tests.support.alert_trial import Page, Trial, assert_fires, booked, page, value
from tests.support.budgets import reservation
from tests.support.clock import mid_month
from tests.support.stack import Stack, a_stack

USED, OF_MONTH = "gateway_budget_used_usd", {"limit": "month", "workspace": "demo"}


def a_month(usd: float) -> str:
    limit = f"id: month, scope: workspace, unit: usd, amount: ${usd:.6f}, per: month, comment: test"
    return f"defaults:\n  - {{{limit}}}\n"


async def settled(stack: Stack, calls: int = 1) -> Page:
    """After so many calls that are booked, with gauges that know of them."""
    for number in range(calls):
        assert (await call(stack, {**ASK, "metadata": {"user_id": f"{number}"}})).status == 200
    await booked(stack)
    await stack.service.spending._read_gauges()
    return page(stack)


async def limited(stack: Stack, usd: float) -> Page:
    """With another amount for the month."""
    before = stack.service.rules
    (stack.state.parent / "config" / "limits.yaml").write_text(a_month(usd))
    stack.service.reload_soon()
    await eventually(lambda: stack.service.rules is not before)
    await stack.service.spending._read_gauges()
    return page(stack)


async def test_a_month_that_is_spent_to_nine_tenths_fires_and_ends_when_it_is_raised(tmp_path: Path) -> None:
    async with a_stack(tmp_path, limits=a_month(50.0), clock=mid_month()) as stack:
        well = await settled(stack, 3)
        used = value(well, USED, **OF_MONTH)
        wrong = await limited(stack, used / 0.9)
        over = await limited(stack, used / 0.5)

    assert_fires(
        "GatewayBudgetNearlySpent", tmp_path, Trial(quiet=(well, well), wrong=(well, wrong), over=over)
    )


async def test_a_month_that_is_spent_fires_also_where_the_last_call_does_not_fit(tmp_path: Path) -> None:
    async with a_stack(tmp_path, limits=a_month(50.0), clock=mid_month()) as stack:
        well = await settled(stack, 3)
        used = value(well, USED, **OF_MONTH)
        spent = await limited(stack, used / 1.01)
        nearly = await limited(stack, used / 0.95)
        assert (await call(stack, {**ASK, "max_tokens": 30_000})).status == 429
        refusing = await booked(stack)
        over = await limited(stack, 50.0)

    for trial in (
        Trial(quiet=(well, well), wrong=(well, spent), over=over),
        Trial(quiet=(nearly, nearly), wrong=(nearly, refusing), over=over),
    ):
        assert_fires("GatewayBudgetSpent", tmp_path, trial)


async def test_a_pace_that_leaves_hours_of_a_month_fires(tmp_path: Path) -> None:
    """A call a minute, and 200 of them are left; then nobody calls."""
    async with a_stack(tmp_path, limits=a_month(50.0), clock=mid_month()) as stack:
        await settled(stack)
        first = await settled(stack)
        second = await settled(stack)
        each = value(second, USED, **OF_MONTH) - value(first, USED, **OF_MONTH)
        well = await limited(stack, value(second, USED, **OF_MONTH) + 200 * each)
        wrong = await settled(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), growing=frozenset({USED}))
    assert_fires("GatewayBudgetBurning", tmp_path, trial)


async def test_half_a_month_s_money_spent_in_nine_days_fires(tmp_path: Path) -> None:
    async with a_stack(tmp_path, limits=a_month(50.0), clock=mid_month()) as stack:
        well = await settled(stack, 3)
        used = value(well, USED, **OF_MONTH)
        wrong = await limited(stack, used / 0.5)
        over = await limited(stack, used / 0.1)

    name = "gateway_budget_runs_out_timestamp_seconds"
    days = (value(wrong, name, **OF_MONTH) - wrong.at) / 86_400
    assert 9 <= days <= 10, "what was spent in nine days and a half is left for as long"
    assert_fires("GatewayBudgetForecast", tmp_path, Trial(quiet=(well, well), wrong=(well, wrong), over=over))


async def test_answers_that_cost_more_than_was_set_aside_fire(tmp_path: Path) -> None:
    """A loop of server tools reads and writes more than any number in the request says."""
    async with a_stack(tmp_path) as stack:
        start = page(stack)
        well = await settled(stack)
        loop = {"input_tokens": 400_000, "output_tokens": 5_000}
        stack.simulator.script.add(Scripted(content="Said.", usage=loop))
        wrong = await settled(stack)

    trial = Trial(quiet=(start, well), wrong=(well, wrong), once=True)
    assert_fires("GatewaySettlementsOverrun", tmp_path, trial)


async def test_what_a_dead_replica_had_set_aside_fires(tmp_path: Path) -> None:
    """It reserved, and nobody renews that any more."""
    clock = mid_month()
    async with a_stack(tmp_path, clock=clock) as stack:
        well = await settled(stack)
        demo = Principal(
            workspace=WorkspaceId("demo"), key_id=KeyId("a"), key_name="a", organisation="default"
        )
        (limit,) = stack.service.rules.limits.binding(demo, "")
        lost = reservation("of the dead", limit, nanousd=1_000_000, lease_seconds=60)
        await stack.service.spending.budgets.reserve(lost)
        clock.jump(120.0)
        await stack.service.spending._sweeping.turn()
        wrong = page(stack)

    trial = Trial(quiet=(well, well), wrong=(well, wrong), once=True)
    assert_fires("GatewayReservationsExpired", tmp_path, trial)
