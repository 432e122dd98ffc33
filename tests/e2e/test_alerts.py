"""Alerts to people through a running gateway: a budget that is spent, who was frozen; once over all replicas,
and not lost with one of them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import aiohttp
from typer.testing import CliRunner

from gateway.cli import app
from gateway.settings.gateway import LEDGER_FILE
from gateway.tasks import TaskSet
from tests.e2e.whole.calls import ASK, call
from tests.support.clock import ShiftedClock
from tests.support.ledgers import KEY, write
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_simulator, a_stack
from tests.support.webhook_receiver import HANG, SECRET, Receiver, a_receiver
from tests.support.weeks import NOW, a_call, seven_weeks

LIMITS = """\
contact: lena
defaults:
  - {id: day, scope: workspace, unit: usd, amount: $0.00004, per: day, mode: shadow, comment: test}
"""
SHARED = """\
store: {kind: redis}
placement: {policy: rules}
prefixes: {secret: {env: PREFIX_SECRET}}
"""
TARGETS = """\
alerts:
  targets:
    people: {format: slack, url: {env: SLACK_URL}}
    books: {format: webhook, url: {env: HOOK_URL}, secret: {env: HOOK_SECRET}, workspaces: [demo]}
    others: {format: slack, url: {env: OTHER_URL}, workspaces: [other]}
"""
ONE = "alerts: {targets: {people: {format: slack, url: {env: SLACK_URL}}}}\n"


def environ_of(receiver: Receiver, **more: str) -> Mapping[str, str]:
    return {
        "SLACK_URL": f"{receiver.url}/services/T-canary/B-canary",
        "OTHER_URL": f"{receiver.url}/others",
        "HOOK_URL": f"{receiver.url}/hook?key=canary",
        "HOOK_SECRET": SECRET,
        "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more",
        **more,
    }


async def spend(stack: Stack, key: str = "demo") -> None:
    """One call, settled."""
    answer = await call(stack, ASK, key=key)
    assert answer.status == 200
    async with asyncio.timeout(30):
        while stack.service.pipeline.open_reservations():  # noqa: ASYNC110 - there is no event for it
            await asyncio.sleep(0.005)


async def alerted(stack: Stack) -> None:
    await stack.service.alerts.look()
    await stack.service.alerts.deliver()


async def admin(stack: Stack, method: str, path: str, status: int = 200, **how: Any) -> Any:
    async with (
        aiohttp.ClientSession(stack.service.admin_url) as session,
        session.request(method, path, **how) as answer,
    ):
        found = await answer.json()
        assert answer.status == status, found
        return found


async def test_a_budget_that_is_spent_is_told_once_to_who_wants_to_know(tmp_path: Path) -> None:
    async with (
        a_receiver() as receiver,
        a_stack(tmp_path, settings=TARGETS, limits=LIMITS, environ=environ_of(receiver)) as stack,
    ):
        await alerted(stack)
        assert receiver.received == []
        await spend(stack)
        await alerted(stack)
        await alerted(stack)

        hook, slack = sorted(receiver.received, key=lambda each: each.path)
        assert slack.path == "/services/T-canary/B-canary"
        assert "Workspace demo has spent" in slack.json["text"]
        assert "gateway budget grant day" in slack.json["text"]
        assert "contact: lena" in slack.json["text"]
        assert "x-gateway-signature" not in slack.headers
        assert hook.is_signed()
        assert not hook.is_signed("sk-test-another-secret")
        told = hook.json
        assert (told["kind"], told["workspace"], told["contact"]) == ("threshold", "demo", "lena")
        assert told["amounts"]["limit_nanousd"] == 40_000
        assert told["amounts"]["spent_nanousd"] >= 40_000
        assert told["facts"]["top cause"].startswith("key ")
        assert hook.headers["x-gateway-alert-id"] == told["id"]


async def test_no_alert_holds_a_prompt_a_key_or_the_url_it_went_to(tmp_path: Path, caplog: Any) -> None:
    async with (
        a_receiver() as receiver,
        a_stack(tmp_path, settings=TARGETS, limits=LIMITS, environ=environ_of(receiver)) as stack,
    ):
        receiver.script += [500, 404]
        await spend(stack)
        await alerted(stack)
        log = await admin(stack, "GET", "/v1/alerts")
        said = caplog.text + json.dumps(log) + "".join(each.body.decode() for each in receiver.received)

        assert "did not arrive" in caplog.text
        assert "canary" not in said
        assert stack.keys["demo"] not in said
        assert SECRET not in said
        assert ASK["messages"][0]["content"] not in said


async def test_a_receiver_that_fails_is_tried_again_and_one_that_refuses_is_not(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with (
        a_receiver() as receiver,
        a_stack(tmp_path, settings=ONE, limits=LIMITS, environ=environ_of(receiver), clock=clock) as stack,
    ):
        receiver.script += [500, 503]
        await spend(stack)
        await alerted(stack)
        (waiting,) = (await admin(stack, "GET", "/v1/alerts"))["alerts"]
        assert waiting["deliveries"][0]["state"] == "waiting"
        assert waiting["next_attempt_at"] is not None
        await alerted(stack)
        assert len(receiver.received) == 1  # not before its time
        clock.jump(60)
        await alerted(stack)
        clock.jump(600)
        await alerted(stack)

        assert len(receiver.received) == 3
        (told,) = (await admin(stack, "GET", "/v1/alerts"))["alerts"]
        assert told["next_attempt_at"] is None
        delivery = told["deliveries"][0]
        assert (delivery["state"], delivery["attempts"], delivery["said"]) == ("delivered", 3, "status 200")
        _, page = stack.service.metrics.render("text/plain")
        assert b'gateway_alert_deliveries_total{outcome="retried",target="people"} 2.0' in page
        assert b'gateway_alert_deliveries_total{outcome="delivered",target="people"} 1.0' in page


async def test_two_replicas_on_one_redis_tell_once_and_another_takes_over(tmp_path: Path) -> None:
    clock = ShiftedClock()
    async with a_receiver() as receiver:
        with RedisServer(tmp_path / "redis") as redis:
            simulator = a_simulator(clock=clock)
            await simulator.start()
            environ = environ_of(receiver, REDIS_URL=redis.url)

            def replica(name: str) -> Any:
                return a_stack(
                    tmp_path / name,
                    settings=SHARED + ONE,
                    limits=LIMITS,
                    environ=environ,
                    clock=clock,
                    simulator=simulator,
                )

            async with replica("one") as one, replica("two") as two:
                await spend(one)
                await asyncio.gather(alerted(one), alerted(two))
                await asyncio.gather(alerted(one), alerted(two))
                assert len(receiver.received) == 1

                # one of them takes the next alert, and dies while it sends
                body = {"scope": "workspace", "subject": "demo", "reason": "A loop", "by": "lena"}
                await admin(two, "POST", "/v1/freezes", json=body)
                receiver.script.append(HANG)
                receiver.arrived.clear()
                await one.service.alerts.look()
                dying = TaskSet()
                dying.spawn(one.service.alerts.deliver(), "dying")
                await asyncio.wait_for(receiver.arrived.wait(), 30)
                await dying.drain(0.0)
                await alerted(two)
                assert len(receiver.received) == 2  # its lease holds
                clock.jump(200)
                await alerted(two)
                assert len(receiver.received) == 3
                texts = [each.json["text"] for each in receiver.received]
                assert texts[1] == texts[2] != texts[0]
                log = (await admin(two, "GET", "/v1/alerts"))["alerts"]
                assert [alert["deliveries"][0]["state"] for alert in log] == ["delivered", "delivered"]
            await simulator.stop()


async def test_who_is_frozen_and_unfrozen_is_told_with_the_reason(tmp_path: Path) -> None:
    async with (
        a_receiver() as receiver,
        a_stack(tmp_path, settings=ONE, limits=LIMITS, environ=environ_of(receiver)) as stack,
    ):
        body = {"scope": "workspace", "subject": "demo", "reason": "A loop <!channel>", "by": "lena"}
        made = await admin(stack, "POST", "/v1/freezes", json=body)
        await alerted(stack)
        query = {"reason": "It is over", "by": "max"}
        await admin(stack, "DELETE", f"/v1/freezes/{made['id']}", params=query)
        await alerted(stack)
        await alerted(stack)

        first, second = (each.json["text"] for each in receiver.received)
        assert "Workspace demo is frozen" in first
        assert "A loop &lt;!channel&gt;" in first
        assert f"gateway budget unfreeze {made['id']}" in first
        assert "not frozen any more" in second
        assert "by: max" in second


async def test_targets_that_are_added_while_it_runs_are_told(tmp_path: Path) -> None:
    async with (
        a_receiver() as receiver,
        a_stack(tmp_path, limits=LIMITS, environ=environ_of(receiver)) as stack,
    ):
        await spend(stack)
        await alerted(stack)
        generation = stack.service.rules.generation
        file = tmp_path / "config/gateway.yaml"
        file.write_text(file.read_text() + ONE)
        stack.service.reload_soon()
        async with asyncio.timeout(30):
            while stack.service.rules.generation == generation:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        await alerted(stack)

        assert len(receiver.received) == 1


async def test_a_limit_of_a_key_is_told_by_the_keys_name(tmp_path: Path) -> None:
    limits = """\
defaults:
  - {id: key-day, scope: key, unit: usd, amount: $0.00004, per: day, mode: shadow, warn_at: [0.01],
     comment: test}
"""
    async with (
        a_receiver() as receiver,
        a_stack(tmp_path, settings=ONE, limits=limits, environ=environ_of(receiver)) as stack,
    ):
        await spend(stack)
        await alerted(stack)

        (told,) = receiver.received
        assert "Key demo of workspace demo has spent 1% of its $0.000040" in told.json["text"]


async def test_what_the_books_say_is_told_with_its_cause(tmp_path: Path) -> None:
    clock = ShiftedClock()
    clock.jump(NOW - clock.now())
    settings = "ledger: {key: {env: LEDGER_KEY}}\npage: {enabled: false}\n" + ONE
    (tmp_path / "state").mkdir()
    changed = [a_call(number, NOW - 900 + 60 * number, read=False) for number in range(5)]
    write(tmp_path / "state" / LEDGER_FILE, [*seven_weeks(), *changed])
    async with (
        a_receiver() as receiver,
        a_stack(
            tmp_path, settings=settings, environ=environ_of(receiver, LEDGER_KEY=KEY.decode()), clock=clock
        ) as stack,
    ):
        for _ in range(2):
            await stack.service.alerts.look_at_spend()
            await stack.service.alerts.deliver()

        (told,) = receiver.received
        assert "Workspace search reads 0% of its prompts from the cache" in told.json["text"]
        assert "likely cause: prompts changed" in told.json["text"]


async def test_commands_show_the_log_and_send_a_test(tmp_path: Path) -> None:
    async with (
        a_receiver() as receiver,
        a_stack(tmp_path, settings=TARGETS, limits=LIMITS, environ=environ_of(receiver)) as stack,
    ):

        async def alerts(*arguments: str) -> tuple[int, str]:
            command = ["alerts", *arguments, "--url", stack.service.admin_url]
            ran = await asyncio.to_thread(CliRunner().invoke, app, command, catch_exceptions=False)
            return ran.exit_code, ran.stdout + ran.stderr

        assert "No alerts" in (await alerts("log"))[1]
        assert await alerts("test", "others") == (0, "  -> others: delivered after 1 attempt (status 200)\n")
        receiver.script += [404, 404, 404]
        code, said = await alerts("test")
        assert code == 1
        assert said.count("failed after 1 attempt (status 404)") == 3
        code, said = await alerts("test", "nobody")
        assert code == 1
        assert "no target 'nobody'" in said
        code, said = await alerts("log", "--json")
        assert [each["kind"] for each in json.loads(said)["alerts"]] == ["test", "test"]
        assert "This is a test" in (await alerts("log"))[1]
