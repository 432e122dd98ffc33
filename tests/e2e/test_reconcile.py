"""`gateway reconcile` end to end: traffic through the gateway, the simulator's reports of it, and what is
said when somebody tampers with them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import aiohttp
import pytest

from gateway.adapters.clock import SystemClock
from gateway.sim.answers import Scripted
from gateway.sim.credentials import Credentials
from gateway.sim.faults import Fault, FaultKind, Match
from tests.e2e.whole.calls import ASK, MODEL, call, eventually
from tests.support.reconciling import DAY, MovableClock, edit, reconciled, some_traffic
from tests.support.stack import UPSTREAM_CREDENTIAL, Stack, a_stack

BOTH = pytest.mark.parametrize("generation", ["analytics", "older"])


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock()


@pytest.fixture
async def stack(tmp_path: Path, clock: MovableClock) -> AsyncIterator[Stack]:
    async with a_stack(tmp_path, clock=clock) as running:
        yield running


@BOTH
async def test_honest_books_agree_to_the_nano_dollar(stack: Stack, generation: str) -> None:
    await some_traffic(stack)
    said = await reconciled(stack, "--reports", generation)

    assert said.code == 0, said.text
    assert said.json["verdict"] == "agrees"
    assert said.causes == {}
    assert said.json["ours"] == said.json["theirs"]
    assert said.json["ours"]["usd"] == f"{stack.simulator.bill.total_nanousd / 1e9:.9f}" != "0.000000000"
    assert {row["account"] for row in said.json["rows"]} == {"default", "other"}
    kinds = {row["kind"] for row in said.json["rows"]}
    assert kinds == {"uncached_input", "cache_read", "cache_write_5m", "output"}


async def test_an_organisation_without_the_newer_reports_is_asked_for_the_older(stack: Stack) -> None:
    await some_traffic(stack)
    gone = Fault(
        kind=FaultKind.STATUS, status=404, times=None, match=Match(path="/v1/organizations/analytics")
    )
    stack.simulator.faults.add(gone)

    assert (await reconciled(stack)).code == 0
    assert (await reconciled(stack, "--reports", "analytics")).code == 2


async def test_upstreams_of_which_nobody_said_whose_they_are_are_compared_as_a_sum(stack: Stack) -> None:
    await some_traffic(stack)
    said = await reconciled(stack, accounts=())

    assert said.code == 0
    assert {row["account"] for row in said.json["rows"]} == {"default+other"}


async def test_api_keys_tell_accounts_of_one_workspace_apart(stack: Stack) -> None:
    await some_traffic(stack)
    credentials = (UPSTREAM_CREDENTIAL, "sk-test-other")
    ids = [Credentials(None).key_id(authorization=None, api_key=text) for text in credentials]
    by_key = ("--account", f"default={ids[0]}", "--account", f"other={ids[1]}")
    said = await reconciled(stack, accounts=by_key)
    older = await reconciled(stack, "--reports", "older", accounts=by_key)

    assert said.code == 0
    assert said.causes == {}
    assert older.code == 2
    assert "API keys" in older.text


@BOTH
async def test_a_call_that_they_lost_is_unexplained(stack: Stack, generation: str) -> None:
    await some_traffic(stack)
    await edit(stack, do="drop")
    said = await reconciled(stack, "--reports", generation)
    lost = stack.simulator.bill.lines[-1]

    assert said.code == 1
    assert said.causes == {}
    assert ("output", -lost.usage["output_tokens"]) in said.unexplained()
    (row,) = (row for row in said.json["rows"] if row["kind"] == "output" and not row["agrees"])
    assert row["account"] == "other"


@BOTH
async def test_a_call_that_they_counted_twice_is_unexplained(stack: Stack, generation: str) -> None:
    await some_traffic(stack)
    await edit(stack, do="double", message_id=stack.simulator.bill.lines[3].message_id)
    said = await reconciled(stack, "--reports", generation)

    assert said.code == 1
    output = stack.simulator.bill.lines[3].usage["output_tokens"]
    assert ("output", output) in said.unexplained()


@BOTH
async def test_another_price_is_named(stack: Stack, generation: str) -> None:
    await some_traffic(stack)
    await edit(stack, do="price", model=MODEL, token_type="output_tokens", factor="1.5")
    said = await reconciled(stack, "--reports", generation, "--tolerance", "$0.00")

    assert said.code == 1
    assert said.unexplained() == []
    assert set(said.causes) == {"price"}
    rows = [row for row in said.json["rows"] if not row["agrees"]]
    assert {(row["model"], row["kind"]) for row in rows} == {(MODEL, "output")}
    assert "$20 here, $30 there" in rows[0]["explanations"][0]["note"]


async def test_a_difference_within_the_tolerance_is_no_reason_to_look(stack: Stack) -> None:
    await some_traffic(stack)
    await edit(stack, do="price", model=MODEL, token_type="output_tokens", factor="1.001")

    assert (await reconciled(stack, "--tolerance", "$0.01")).code == 0
    assert (await reconciled(stack, "--tolerance", "$0.000000001")).code == 1


@BOTH
async def test_a_call_around_midnight_is_found_on_the_other_day(
    stack: Stack, clock: MovableClock, generation: str
) -> None:
    await some_traffic(stack)
    clock.set(f"{DAY}T23:59:40")
    await call(stack, ASK)
    moved = stack.simulator.bill.lines[-1]
    midnight = datetime(2026, 11, 19, tzinfo=UTC).timestamp()
    await edit(stack, do="move", at=midnight + 1)
    said = await reconciled(stack, "--reports", generation)

    assert said.code == 0
    assert set(said.causes) == {"midnight"}
    assert said.causes["midnight"]["tokens"] == -moved.usage["input_tokens"] - moved.usage["output_tokens"]
    both = await reconciled(stack, "--reports", generation, last="2026-11-19")
    assert both.code == 0
    assert both.causes["midnight"] == {"tokens": 0, "usd": "0.000000000"}


async def test_a_call_at_noon_that_they_count_a_day_later_is_not_excused(stack: Stack) -> None:
    await some_traffic(stack)
    await edit(stack, do="move", at=datetime(2026, 11, 19, 12, tzinfo=UTC).timestamp())

    assert (await reconciled(stack)).code == 1


@BOTH
@pytest.mark.parametrize(
    ("workspace", "model", "account"),
    [("wrkspc_9", MODEL, "wrkspc_9"), ("wrkspc_1", "claude-sonnet-5-5", "default")],
)
async def test_traffic_by_another_way_is_named(
    stack: Stack, generation: str, workspace: str, model: str, account: str
) -> None:
    await some_traffic(stack)
    usage = {"input_tokens": 70_000, "server_tool_use": {"web_search_requests": 3}}
    await edit(stack, do="foreign", workspace=workspace, model=model, usage=usage)
    said = await reconciled(stack, "--reports", generation)

    assert said.code == 0
    assert set(said.causes) == {"other_traffic"}
    assert said.causes["other_traffic"]["tokens"] == 70_000
    foreign = [row for row in said.json["rows"] if row["explanations"]]
    assert {(row["account"], row["kind"]) for row in foreign} == {
        (account, "uncached_input"),
        (account, "web_search"),
    }


async def test_with_one_upstream_asked_for_others_are_left_out(stack: Stack) -> None:
    await some_traffic(stack)
    await edit(stack, do="foreign", workspace="wrkspc_9", model=MODEL, usage={"input_tokens": 5})
    said = await reconciled(stack, "--upstream", "other")

    assert said.code == 0
    assert said.causes == {}
    assert {row["account"] for row in said.json["rows"]} == {"other"}


async def test_traffic_of_a_known_model_in_a_shared_account_is_unexplained(stack: Stack) -> None:
    await some_traffic(stack)
    await edit(stack, do="foreign", workspace="wrkspc_1", model=MODEL, usage={"input_tokens": 70_000})
    said = await reconciled(stack)

    assert said.code == 1
    assert said.unexplained() == [("uncached_input", 70_000)]


@BOTH
async def test_what_is_too_recent_for_the_reports_is_no_difference(
    stack: Stack, clock: MovableClock, generation: str
) -> None:
    today = datetime.fromtimestamp(SystemClock().now(), UTC)
    clock.set(today.replace(tzinfo=None).isoformat())
    await edit(stack, do="foreign", workspace="wrkspc_9", model=MODEL, usage={"output_tokens": 1}, at=1.0)
    await some_traffic(stack)
    for line in stack.simulator.bill.lines[1:]:
        await edit(stack, do="drop", message_id=line.message_id)
    day = today.date().isoformat()
    said = await reconciled(stack, "--reports", generation, first=day, last=day)

    assert said.code == 0
    assert set(said.causes) == {"too_recent"}


@BOTH
async def test_guessed_usage_is_told_from_wrong_usage(stack: Stack, generation: str) -> None:
    """The answer is lost on its way: upstream billed it, the gateway books what it had set aside."""
    await some_traffic(stack)
    stack.simulator.faults.add(Fault(kind=FaultKind.CUT, at_event=3))
    with pytest.raises(aiohttp.ClientPayloadError):
        await call(stack, {**ASK, "model": "claude-haiku-4-5"})
    said = await reconciled(stack, "--reports", generation)

    assert said.code == 0, said.text
    assert set(said.causes) == {"guessed"}
    assert said.unexplained() == []


async def test_refusals_that_cost_nothing_agree(stack: Stack) -> None:
    await some_traffic(stack)
    details = {"type": "refusal", "category": "cyber"}
    stack.simulator.script.add(Scripted(content=[], stop_reason="refusal", stop_details=details))
    await call(stack, ASK)
    counted = await reconciled(stack)
    await edit(stack, do="drop")
    not_counted = await reconciled(stack)

    assert (counted.code, counted.causes) == (0, {})
    assert not_counted.code == 0
    assert not_counted.causes["not_charged"]["usd"] == "0.000000000"


@BOTH
async def test_batches_are_named(stack: Stack, generation: str) -> None:
    await some_traffic(stack)
    batch = {"requests": [{"custom_id": "one", "params": ASK}]}
    created = await call(stack, batch, path="/v1/messages/batches")
    assert created.status == 200
    await call(stack, path=f"/v1/messages/batches/{created.json['id']}", method="GET")
    await eventually(lambda: len(stack.simulator.bill.lines) == 6)
    said = await reconciled(stack, "--reports", generation)

    assert said.code == 0
    assert set(said.causes) == {"batches"}
    batched = stack.simulator.bill.lines[-1].usage
    assert said.causes["batches"]["tokens"] == batched["input_tokens"] + batched["output_tokens"]


async def test_iterations_of_another_model_are_found_under_it(stack: Stack) -> None:
    await some_traffic(stack)
    parts = [
        {"type": "message", "model": MODEL, "input_tokens": 100, "output_tokens": 10},
        {"type": "fallback_message", "model": "claude-haiku-4-5", "input_tokens": 500, "output_tokens": 20},
    ]
    stack.simulator.script.add(Scripted(content="Said.", usage={"iterations": parts}))
    await call(stack, ASK)
    said = await reconciled(stack)

    assert said.code == 0, said.text
    assert set(said.causes) <= {"iterations"}
    assert said.causes["iterations"]["tokens"] == 0


async def test_rounding_in_the_reports_is_no_difference(stack: Stack) -> None:
    await some_traffic(stack)
    await edit(stack, do="round", decimals=2)
    said = await reconciled(stack, "--tolerance", "$0.00")

    assert said.code == 0
    assert set(said.causes) == {"rounding"}


async def test_entries_rounded_up_one_by_one_are_no_difference(stack: Stack) -> None:
    """A price of 6.05 cents per million and per token leaves fractions of a nano-dollar."""
    usage = {"inference_geo": "us", "cache_creation_input_tokens": 0}
    stack.simulator.script.add(Scripted(content="Said.", usage={**usage, "input_tokens": 333}, times=3))
    for _ in range(3):
        await call(stack, {**ASK, "model": "claude-haiku-5-5"})
    said = await reconciled(stack, "--tolerance", "$0.00")

    assert said.code == 0, said.text
    assert set(said.causes) <= {"rounding"}
