"""Warm-ups through the real pipeline, in a world of fakes: what goes up, who pays, when nothing is sent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.core.errors import UpstreamUnreachable
from gateway.core.headers import value_of
from gateway.core.ids import WorkspaceId
from gateway.core.rules import ClientMarks, PlacementMode
from gateway.core.warmup import WarmCause, WarmRequest, WarmState
from gateway.workers.prewarmer import OVER_BUDGET_SECONDS
from gateway.workers.warm_pace import LONGEST_SECONDS
from tests.support.fakes import CREDENTIAL, KEY, MODEL, Played, a_body
from tests.support.warming import NEITHER, READ, WROTE, Warming, refused


async def test_trap_32_an_empty_answer_is_a_success_and_reaches_nobody(tmp_path: Path) -> None:
    warming = Warming(tmp_path, WROTE)
    outcome = await warming.warm()
    record = warming.world.seen.records[0]

    assert (outcome.state, outcome.written_tokens, outcome.read_tokens) == (WarmState.WARMED, 4_000, 0)
    assert outcome.exchange_id == record.id
    assert record.principal is not None
    assert record.principal.key_id == "warming:demo"
    assert record.cost is not None
    # 5 x $4 uncached and 4,000 x $5 written, per million
    assert outcome.cost_nanousd == record.cost.total_nanousd == 5 * 4_000 + 4_000 * 5_000
    assert await warming.budget_spent() == outcome.cost_nanousd
    assert await warming.world.spent_nanousd() == outcome.cost_nanousd, "and the workspace's own, too"
    assert warming.told == [(WarmCause.ASKED, WarmState.WARMED)]


async def test_trap_29_goes_up_as_real_calls_do(tmp_path: Path) -> None:
    warming = Warming(tmp_path, WROTE)
    beta = (b"anthropic-beta", b"one-2026-01-01")
    await warming.warm(headers=[beta, (b"x-api-key", b"sk-test-app"), (b"user-agent", b"app/1")], stream=True)
    (request,) = warming.world.upstream.requests
    (body,) = warming.sent()

    assert request.target == "/v1/messages"
    assert value_of(request.headers, b"anthropic-version") == b"2023-06-01"
    assert value_of(request.headers, b"anthropic-beta") == beta[1]
    assert value_of(request.headers, b"user-agent") is None
    assert [value for _, value in request.headers].count(b"Bearer " + CREDENTIAL) == 1
    assert body["max_tokens"] == 0
    assert "stream" not in body
    assert "cache_control" in json.dumps(body["messages"][1]), "up to the question"
    assert len(body["messages"]) == 3


@pytest.mark.parametrize("marks", ClientMarks)
async def test_trap_18_nothing_is_added_to_what_a_warm_up_carries(tmp_path: Path, marks: ClientMarks) -> None:
    warming = Warming(tmp_path, WROTE, WROTE)
    warming.change(client_marks=marks)
    body = a_body()
    body["system"] = [{"type": "text", "text": body["system"], "cache_control": {"type": "ephemeral"}}]
    await warming.warm(body)
    carried = json.dumps(warming.sent()[0]).count("cache_control")
    await warming.world.call(body=body)
    real = json.dumps(warming.sent()[1]).count("cache_control")

    assert carried == real
    assert not warming.world.failed_observers


async def test_says_where_all_was_warm_already(tmp_path: Path) -> None:
    outcome = await Warming(tmp_path, READ).warm()

    assert (outcome.state, outcome.read_tokens) == (WarmState.ALREADY_WARM, 4_000)


async def test_says_where_upstream_cached_nothing(tmp_path: Path) -> None:
    warming = Warming(tmp_path, NEITHER)
    outcome = await warming.warm()

    assert outcome.state is WarmState.FAILED
    assert "minimum" in outcome.reason
    assert warming.prewarmer.report() == ()
    assert warming.prewarmer.book.totals()[WarmCause.ASKED].cost_nanousd == outcome.cost_nanousd > 0


async def test_trap_30_what_cannot_be_warmed_is_never_sent(tmp_path: Path) -> None:
    warming = Warming(tmp_path)
    outcomes = [
        await warming.warm(thinking={"type": "enabled", "budget_tokens": 1_024}),
        await warming.warm(output_config={"format": {"type": "json_schema"}}),
        await warming.warm({"model": MODEL, "messages": "?"}),
        await warming.warm([]),
    ]

    assert [outcome.state for outcome in outcomes] == [WarmState.NOT_WARMABLE] * 4
    assert all(outcome.reason.endswith(".") and outcome.exchange_id is None for outcome in outcomes)
    assert warming.world.seen.records == []


@pytest.mark.parametrize(
    ("changed", "state"),
    [
        ({"placement": PlacementMode.SHADOW}, WarmState.SKIPPED),
        ({"placement": PlacementMode.OFF}, WarmState.SKIPPED),
        ({"warming_nanousd_per_day": 0}, WarmState.OVER_BUDGET),
        ({"models": ("claude-haiku-*",)}, WarmState.REFUSED),
    ],
)
async def test_warms_for_workspaces_that_want_it_only(
    tmp_path: Path, changed: dict[str, Any], state: WarmState
) -> None:
    warming = Warming(tmp_path)
    warming.change(**changed)

    assert (await warming.warm()).state is state
    assert warming.sent() == []


async def test_sends_nothing_over_budget_or_while_going_away(tmp_path: Path) -> None:
    warming = Warming(tmp_path)
    caller = warming.world.rules.keyring.identify(KEY, warming.world.clock.now())
    body = a_body(system="word " * 900_000)  # more than $5.00 to write
    assert (await warming.warm(body)).state is WarmState.OVER_BUDGET
    assert not warming.prewarmer.may_renew(caller), "nor is anything kept alive for a while"
    warming.world.clock.advance(OVER_BUDGET_SECONDS)
    assert warming.prewarmer.may_renew(caller)
    warming.busy = True
    assert (await warming.warm()).state is WarmState.SKIPPED
    warming.busy = False
    warming.prewarmer.close()
    assert (await warming.warm()).state is WarmState.SKIPPED
    assert warming.sent() == []
    assert await warming.world.open_reservations() == 0


async def test_an_unknown_workspace_is_refused(tmp_path: Path) -> None:
    request = WarmRequest(workspace=WorkspaceId("nobody"), body=b"{}", cause=WarmCause.ASKED)

    assert (await Warming(tmp_path).prewarmer.warm(request)).state is WarmState.REFUSED


async def test_trap_31_backs_off_for_as_long_as_upstream_says(tmp_path: Path) -> None:
    warming = Warming(tmp_path, refused(429, headers=[(b"retry-after", b"7")]), WROTE)
    first, second = await warming.warm(), await warming.warm()

    assert (first.state, first.retry_after_seconds) == (WarmState.REFUSED, 7.0)
    assert second.state is WarmState.SKIPPED
    assert second.retry_after_seconds == pytest.approx(7.0)
    warming.world.clock.advance(7.0)
    assert (await warming.warm()).state is WarmState.WARMED
    assert len(warming.sent()) == 2


@pytest.mark.parametrize(
    "answer",
    [
        refused(429, error_code="enforced_spend_limit_reached"),
        refused(429, headers=[(b"retry-after", b"9")], error_code="contract_spend_limit_reached"),
        refused(400, "You have reached your specified workspace API usage limits. ..."),
        refused(402),
    ],
)
async def test_trap_51_a_spend_cap_opens_a_circuit_for_warm_ups(tmp_path: Path, answer: Played) -> None:
    warming = Warming(tmp_path, answer, WROTE)
    outcome = await warming.warm()

    assert (outcome.state, outcome.retry_after_seconds) == (WarmState.REFUSED, LONGEST_SECONDS)
    assert "spend cap" in outcome.reason
    warming.world.clock.advance(LONGEST_SECONDS - 1)
    assert (await warming.warm()).state is WarmState.SKIPPED
    warming.world.clock.advance(1)
    assert (await warming.warm()).state is WarmState.WARMED


async def test_an_ordinary_400_pauses_nothing(tmp_path: Path) -> None:
    warming = Warming(tmp_path, refused(400, "messages: no"), WROTE)
    outcome = await warming.warm()

    assert (outcome.state, outcome.retry_after_seconds) == (WarmState.REFUSED, None)
    assert "messages: no" not in outcome.reason, "upstream's words may quote the prompt"
    assert (await warming.warm()).state is WarmState.WARMED


async def test_no_answer_is_a_failure_that_pays_what_may_have_been_billed(tmp_path: Path) -> None:
    lost = Played(error=UpstreamUnreachable("lost", request_sent=True))
    warming = Warming(tmp_path, lost)
    outcome = await warming.warm()

    assert outcome.state is WarmState.FAILED
    assert outcome.cost_nanousd > 0
    assert await warming.budget_spent() == outcome.cost_nanousd


async def test_says_when_nobody_read_what_was_warmed(tmp_path: Path) -> None:
    warming = Warming(tmp_path, *[WROTE] * 6)
    outcomes = [await warming.warm() for _ in range(6)]

    assert ["Nobody read it" in outcome.reason for outcome in outcomes] == [False] * 5 + [True]
