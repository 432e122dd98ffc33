"""Budgets that people change while the gateway runs, over sockets: what a grant, an override and a freeze do
to calls, what is told of them, and what a key is told of itself."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import AsyncMock

import pytest

from gateway.core.errors import StoreUnavailable
from tests.e2e.whole.calls import ASK, call
from tests.support.adjusting import PROMISED_SECONDS, Adjusting, adjusting, overridden_at_once
from tests.support.clock import ShiftedClock, mid_month
from tests.support.elapsed import elapsed
from tests.support.stack import a_stack

TOKEN = "an-admin-token-for-tests"
WORKSPACES = """\
workspaces:
  demo: {upstream: default, team: blue}
  other: {upstream: other, organisation: canary-organisation, team: canary-team}
  small: {upstream: default, models: [claude-haiku-*]}
  poor: {upstream: default, team: blue}
  shadow: {upstream: default}
"""
LIMITS = """\
contact: budgets@example.com
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, comment: canary-comment}
  - {id: day, scope: key, unit: usd, amount: $20.00, per: day, comment: test}
  - {id: rate, scope: key, unit: requests, amount: 600, per: minute, comment: test}
  - {id: users, scope: tag, tag: x-team, unit: requests, amount: 100, per: day, comment: test}
  - {id: pool, scope: workspace, subjects: [demo, other], shared: true, unit: usd, amount: $70.00, per: week,
     comment: test}
overrides:
  - {limit: month, subject: poor, amount: $0.000001, comment: canary-comment}
"""
MADE = {"reason": "canary-reason", "by": "lena"}
POOR = {"limit": "month", "subject": "poor", **MADE}


@pytest.fixture
def clock() -> ShiftedClock:
    return mid_month()


@pytest.fixture
async def running(tmp_path: Path, clock: ShiftedClock) -> AsyncIterator[Adjusting]:
    async with (
        a_stack(tmp_path, limits=LIMITS, workspaces=WORKSPACES, clock=clock) as stack,
        adjusting(stack, token=TOKEN) as running,
    ):
        yield running


async def status_of(running: Adjusting, key: str = "poor") -> int:
    return (await call(running.stack, ASK, key=key)).status


async def shown(running: Adjusting, **query: str) -> dict[str, Any]:
    """Limits by id, of which each is there once."""
    budgets = (await running.send("GET", "/v1/budgets", query=query))["budgets"]
    assert len({each["limit"] for each in budgets}) == len(budgets)
    return {each["limit"]: each for each in budgets}


async def settled(running: Adjusting, key: str) -> Any:
    """What `/v1/me` tells a key once its calls are booked, which nobody waits for."""
    begun = time.monotonic()
    while (me := await running.me(key))["this_month"]["spent"]["value"] == 0:
        assert time.monotonic() - begun < 30
        await asyncio.sleep(0.05)
    return me


async def test_a_refused_call_passes_after_a_grant_and_is_refused_again_after_its_end(
    running: Adjusting, clock: ShiftedClock
) -> None:
    assert await status_of(running) == 429

    until = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.now() + 600))
    made = await running.send("POST", "/v1/grants", {**POOR, "amount": "$1.00", "until": until})
    assert await status_of(running) == 200
    assert made["ends_at"] == until

    clock.jump(600)
    with elapsed() as took:
        while await status_of(running) == 200:
            assert took.seconds < PROMISED_SECONDS
            await asyncio.sleep(0.1)
    entry = (await running.send("GET", "/v1/adjustments"))["entries"][0]
    assert (entry["id"], entry["taken_back"]) == (made["id"], None), "it ended, and nobody took it back"


async def test_a_grant_ends_with_the_window_that_it_begins_in(
    running: Adjusting, clock: ShiftedClock
) -> None:
    body = {"limit": "day", "subject": "demo", **MADE, "amount": "$1.00"}
    key_id = (await running.me("demo"))["key"]["id"]
    body["subject"] = key_id
    later = time.strftime("%Y-%m-%d", time.gmtime(clock.now() + 5 * 86_400))

    made = await running.send("POST", "/v1/grants", {**body, "until": later})
    unsaid = await running.send("POST", "/v1/grants", body)

    midnight = (await running.me("demo"))["today"]["until"]
    assert made["ends_at"] == unsaid["ends_at"] == midnight


async def test_a_grant_for_later_holds_from_then_on(running: Adjusting, clock: ShiftedClock) -> None:
    begins = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.now() + 3_600))
    await running.send("POST", "/v1/grants", {**POOR, "amount": "$1.00", "begins": begins})
    assert await status_of(running) == 429

    clock.jump(3_600)
    await running.refresh()

    assert await status_of(running) == 200


async def test_an_override_takes_the_place_of_the_one_before_and_leaves_what_was_spent(
    running: Adjusting,
) -> None:
    first = await running.send("POST", "/v1/overrides", {**POOR, "amount": "$3.00"})
    assert await status_of(running) == 200
    second = await running.send("POST", "/v1/overrides", {**POOR, "amount": "$2.00"})
    spent = (await settled(running, "poor"))["this_month"]["spent"]["value"]

    budget = (await shown(running, workspace="poor", limit="month"))["month"]
    assert (budget["amount"]["text"], budget["configured"]["value"]) == ("$2.00", 1_000)
    assert (budget["spent"]["value"], budget["set_aside"]["value"]) == (spent, 0)
    assert budget["left"]["value"] == 2_000_000_000 - spent
    assert [each["id"] for each in budget["adjustments"]] == [second["id"]]
    replaced = (await running.send("GET", "/v1/adjustments"))["entries"][0]
    assert (replaced["id"], replaced["taken_back"]["reason"]) == (
        first["id"],
        f"Replaced by {second['id']}.",
    )

    await running.send("DELETE", f"/v1/overrides/{second['id']}", query={"by": "lena", "reason": "over"})
    assert await status_of(running) == 429


async def test_a_new_configuration_keeps_what_was_adjusted(running: Adjusting, tmp_path: Path) -> None:
    await running.send("POST", "/v1/grants", {**POOR, "amount": "$1.00"})
    await running.send("POST", "/v1/freezes", {"scope": "workspace", "subject": "small", **MADE})
    limits = tmp_path / "config" / "limits.yaml"
    limits.write_text(limits.read_text().replace("$0.000001", "$0.25"))

    running.stack.service.reload_soon()
    begun = time.monotonic()
    while (budget := (await shown(running, workspace="poor"))["month"])["configured"]["text"] != "$0.25":
        assert time.monotonic() - begun < 30
        await asyncio.sleep(0.05)

    assert budget["amount"]["text"] == "$1.25"
    assert await status_of(running, "small") == 403


async def test_a_frozen_caller_is_refused_in_the_apis_shape_and_others_are_not(running: Adjusting) -> None:
    body = {"scope": "team", "subject": "blue", "reason": "The key leaked", "by": "lena"}
    made = await running.send("POST", "/v1/freezes", body)

    refused = await call(running.stack, ASK)

    assert (refused.status, refused.headers["x-gateway-error"]) == (403, "frozen")
    assert refused.headers["x-should-retry"] == "false"
    assert refused.json["error"]["type"] == "permission_error"
    assert "Team blue is frozen" in refused.json["error"]["message"]
    assert "The key leaked. Ask lena" in refused.json["error"]["message"]
    assert await status_of(running, "other") == 200
    for query, told in (({}, [made]), ({"workspace": "demo"}, [made]), ({"workspace": "other"}, [])):
        assert (await running.send("GET", "/v1/budgets", query=query))["freezes"] == told
    assert (await running.me("demo"))["frozen"] == refused.json["error"]["message"]
    await running.send("DELETE", f"/v1/freezes/{made['id']}", query={"by": "ann", "reason": "new key"})
    assert await status_of(running, "demo") == 200


async def test_history_tells_who_did_what_and_why_newest_first(running: Adjusting) -> None:
    made = await running.send("POST", "/v1/grants", {**POOR, "amount": "$1.00"})
    await running.send("DELETE", f"/v1/grants/{made['id']}", query={"by": "ann", "reason": "too much"})
    again = await running.send("DELETE", f"/v1/grants/{made['id']}", query={"by": "bob", "reason": "me too"})
    freeze = {"scope": "workspace", "subject": "small", **MADE}
    await running.send("POST", "/v1/freezes", freeze)

    first = await running.send("GET", "/v1/adjustments", query={"limit": "2"})
    second = await running.send(
        "GET", "/v1/adjustments", query={"limit": "2", "before": str(first["next_before"])}
    )

    entries = [*first["entries"], *second["entries"]]
    assert [(each["kind"], each["taken_back"] is not None) for each in entries] == [
        ("freeze", False),
        ("grant", True),
        ("grant", False),
    ]
    assert entries[1] == again, "who took it back first is who did"
    assert entries[1]["taken_back"]["by"] == "ann"
    assert entries[2] == made
    assert (made["by"], made["via"], made["reason"]) == ("lena", "by the admin token", "canary-reason")
    assert second["next_before"] is None


async def test_the_same_request_sent_again_happens_once(running: Adjusting) -> None:
    body = {**POOR, "amount": "$1.00", "id": "a-grant-of-mine"}
    made = await running.send("POST", "/v1/grants", body)

    assert await running.send("POST", "/v1/grants", body) == made
    refused = await running.send("POST", "/v1/grants", {**body, "amount": "$2.00"}, status=409)
    assert "another adjustment" in refused["error"]["message"]
    assert len((await running.send("GET", "/v1/adjustments"))["entries"]) == 1


async def test_a_grant_is_the_same_when_sent_again_with_its_dates_until_it_has_ended(
    running: Adjusting, clock: ShiftedClock
) -> None:
    at = [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(clock.now() + ahead)) for ahead in (600, 1_200)]
    dated = {**POOR, "amount": "$1.00", "id": "with-dates", "begins": at[0], "until": at[1]}
    plain = {**POOR, "amount": "$1.00", "id": "without-dates"}
    made = [await running.send("POST", "/v1/grants", each) for each in (dated, plain)]

    for other in ({"until": at[1]}, {"begins": at[0]}):
        await running.send("POST", "/v1/grants", {**plain, **other}, status=409)
    clock.jump(900)
    assert [await running.send("POST", "/v1/grants", each) for each in (dated, plain)] == made

    clock.jump(31 * 86_400)
    refused = await running.send("POST", "/v1/grants", plain, status=409)
    assert "has ended; send this with another id" in refused["error"]["message"]


async def test_an_id_that_was_taken_back_makes_nothing_again_and_says_so(running: Adjusting) -> None:
    amount, freeze = {**POOR, "amount": "$1.00"}, {"scope": "workspace", "subject": "demo", **MADE}
    for kind, said in (("overrides", amount), ("grants", amount), ("freezes", freeze)):
        body = {**said, "id": f"one-of-{kind}"}
        await running.send("POST", f"/v1/{kind}", body)
        await running.send("DELETE", f"/v1/{kind}/one-of-{kind}", query={"by": "ann", "reason": "over"})
        refused = await running.send("POST", f"/v1/{kind}", body, status=409)
        assert "was taken back; send this with another id" in refused["error"]["message"]


async def test_of_overrides_that_are_made_at_once_the_last_in_the_log_stands(
    running: Adjusting, monkeypatch: pytest.MonkeyPatch
) -> None:
    last = await overridden_at_once(monkeypatch, [running], POOR, ["$2.00", "$3.00", "$4.00"])

    budget = (await shown(running, workspace="poor", limit="month"))["month"]
    assert (budget["adjustments"], budget["amount"]) == ([last], last["amount"])


async def test_an_override_that_is_sent_again_ends_what_the_first_time_had_begun(
    running: Adjusting, monkeypatch: pytest.MonkeyPatch
) -> None:
    await running.send("POST", "/v1/overrides", {**POOR, "amount": "$2.00"})
    body = {**POOR, "amount": "$3.00", "id": "one-of-mine"}
    with monkeypatch.context() as patch:
        patch.setattr(running.store, "take_back", AsyncMock(side_effect=StoreUnavailable("away")))
        await running.send("POST", "/v1/overrides", body, status=503)

    made = await running.send("POST", "/v1/overrides", body)

    budget = (await shown(running, workspace="poor", limit="month"))["month"]
    assert (budget["adjustments"], budget["amount"]["text"]) == ([made], "$3.00")


async def test_every_limit_is_shown_with_whom_it_binds(running: Adjusting) -> None:
    everybody = await running.send("GET", "/v1/budgets")
    demo = await shown(running, workspace="demo", tag="x-team:red")

    rows = {(each["limit"], each["subject"]) for each in everybody["budgets"]}
    assert {("month", "demo"), ("month", "other"), ("pool", ""), ("warming", "warming:demo")} <= rows
    assert not any(limit in ("day", "rate", "users") for limit, _ in rows), "keys and tags are many"
    assert list(demo) == ["month", "day", "rate", "users", "pool", "warming"]
    assert (demo["users"]["subject"], demo["pool"]["organisation"]) == ("red", "")
    assert demo["rate"]["left"] == {"value": 600, "text": "600 requests"}
    by_team = await running.send("GET", "/v1/budgets", query={"team": "blue", "limit": "month"})
    assert [each["subject"] for each in by_team["budgets"]] == ["demo", "poor"]
    key_id = (await running.me("demo"))["key"]["id"]
    assert (await shown(running, key=key_id))["day"]["subject"] == key_id


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("grants", {}, 400, "`reason`: say why"),
        ("grants", {**POOR, "reason": "two\nlines"}, 400, "`reason`: say why"),
        ("grants", {**POOR, "by": ""}, 400, "`by`: say who"),
        ("grants", {**POOR, "amount": 3}, 400, "write for example $250.00"),
        ("grants", {**POOR, "amount": "$0.00"}, 400, "nothing changes nothing"),
        ("grants", {**POOR, "amount": "$1", "until": "tomorrow"}, 400, "2026-11-30T18:00:00Z"),
        ("grants", {**POOR, "amount": "$1", "until": "2999-01-01T00:00:00"}, 400, "no time zone"),
        ("grants", {**POOR, "amount": "$1", "until": "2020-01-01"}, 400, "before it begins"),
        ("grants", {**POOR, "amount": "$1", "id": "x"}, 400, "`id`: 8 to 64"),
        ("grants", {**POOR, "amount": "$1", "untill": "x"}, 400, "no field `untill`"),
        ("grants", {**POOR, "limit": "rate", "amount": 1}, 404, "no key 'poor'"),
        ("overrides", {**POOR, "limit": "week", "amount": "$1"}, 404, "there are: day, month, pool"),
        ("overrides", {**POOR, "subject": "rich", "amount": "$1"}, 404, "there are: demo, other"),
        ("overrides", {**POOR, "subject": "", "amount": "$1"}, 400, "one for each workspace"),
        ("overrides", {**POOR, "limit": "pool", "amount": "$1"}, 400, "one pool"),
        ("overrides", {**POOR, "amount": "$9,999,999.00"}, 400, "more than can be counted"),
        ("freezes", {**MADE, "scope": "tag", "subject": "x"}, 400, "one of organisation, team"),
        ("freezes", {**MADE, "scope": "key", "subject": "nokey000"}, 404, "no key 'nokey000'"),
        ("freezes", ["no object"], 400, "Send an object of JSON"),
    ],
)
async def test_a_change_that_cannot_be_made_says_what_to_write(
    running: Adjusting, path: str, body: Mapping[str, Any], status: int, message: str
) -> None:
    answer = await running.send("POST", f"/v1/{path}", body, status=status)

    assert message in answer["error"]["message"]
    assert (await running.send("GET", "/v1/adjustments"))["entries"] == []


async def test_questions_that_cannot_be_answered_say_why(running: Adjusting) -> None:
    for path, query, status, message in (
        ("budgets", {"workspace": "rich"}, 404, "no workspace 'rich'"),
        ("budgets", {"workspaces": "demo"}, 400, "no parameter 'workspaces'"),
        ("budgets", {"tag": "alice"}, 400, "?tag=x-user:alice"),
        ("adjustments", {"limit": "0"}, 400, "from 1 to 200"),
        ("adjustments", {"before": "x"}, 400, "whole number"),
    ):
        answer = await running.send("GET", f"/v1/{path}", status=status, query=query)
        assert message in answer["error"]["message"]
    for path in ("grants/unknown0", "freezes/unknown0"):
        answer = await running.send("DELETE", f"/v1/{path}", status=404, query={"by": "me", "reason": "why"})
        assert "of this id" in answer["error"]["message"]


async def test_a_key_is_told_of_itself_and_of_nobody_else(running: Adjusting) -> None:
    for key in ("demo", "other"):
        assert await status_of(running, key) == 200
    other = (await running.me("other"))["key"]["id"]
    for body in (POOR, {"limit": "month", "subject": "other", **MADE}):
        await running.send("POST", "/v1/grants", {**body, "amount": "$3.25"})
    await running.send("POST", "/v1/freezes", {"scope": "key", "subject": other, **MADE})

    me = await settled(running, "demo")

    assert (me["workspace"], me["team"], me["key"]["name"]) == ("demo", "blue", "demo")
    assert me["key"]["last4"] == running.stack.keys["demo"][-4:]
    assert [each["limit"] for each in me["limits"]] == ["month", "day", "rate", "pool"]
    assert (me["today"]["whose"], me["this_month"]["whose"]) == ("key", "workspace")
    assert me["today"]["spent"] == me["this_month"]["spent"]
    assert me["contact"] == "budgets@example.com"
    text = json.dumps(me)
    canaries = [name for name in ("canary", "poor", "small", "shadow", "lena", other) if name in text]
    assert canaries == []
    assert "other" not in [each for each in me.values() if isinstance(each, str)]
    assert not any(key in text for key in running.stack.keys.values())
    pool = next(each for each in me["limits"] if each["limit"] == "pool")
    assert "spent" not in pool, "what others took of it is theirs to know"


async def test_no_other_credential_opens_what_a_key_is_told_nor_a_key_anything_else(
    running: Adjusting,
) -> None:
    unknown = [await running.me(key, status=401) for key in ("unknown", "expired", "nonsense", TOKEN)]

    assert all(answer == unknown[0] for answer in unknown)
    running.token = running.stack.keys["demo"]
    for path in ("budgets", "adjustments"):
        await running.send("GET", f"/v1/{path}", status=401)
    await running.send("POST", "/v1/grants", {**POOR, "amount": "$1.00"}, status=401)


async def test_who_asks_too_often_is_told_so_and_others_are_answered(running: Adjusting) -> None:
    for _ in range(20):
        await running.me("demo")
        await running.me("unknown", status=401)

    await running.me("demo", status=429)
    await running.me("unknown", status=429)
    await running.me("small")


async def test_the_document_describes_what_is_sent_and_all_it_refers_to_is_there(running: Adjusting) -> None:
    document = await running.send("GET", "/v1/openapi.json")

    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    referred = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert referred <= set(schemas)
    grant = document["paths"]["/v1/grants"]["post"]
    body = grant["requestBody"]["content"]["application/json"]["schema"]["$ref"].rpartition("/")[2]
    assert schemas[body]["required"] == ["reason", "by", "limit", "amount"]
    taking_back = document["paths"]["/v1/grants/{id}"]["delete"]["parameters"]
    assert [(each["name"], each["in"]) for each in taking_back] == [
        ("id", "path"),
        ("by", "query"),
        ("reason", "query"),
    ]
    assert document["paths"]["/v1/me"]["get"]["security"] == [{"virtual_key": []}]
