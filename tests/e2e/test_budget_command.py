"""`gateway budget`, as people and scripts run it, through a running gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.cli import app
from gateway.web import admin_budgets
from tests.e2e.whole.calls import ASK, call
from tests.support.adjusting import Adjusting, adjusting
from tests.support.stack import a_stack

TOKEN = "an-admin-token-for-tests"
WHO = ("--by", "lena", "-r", "Demo [bold]day[/]")


@dataclass(frozen=True, slots=True)
class Ran:
    code: int
    out: str
    err: str


@dataclass(frozen=True, slots=True)
class Ground:
    running: Adjusting

    async def budget(self, *arguments: str, environ: Mapping[str, str] | None = None) -> Ran:
        """In this process, beside the gateway, since starting another takes a second each time."""
        variables = {"GATEWAY_ADMIN_TOKEN": TOKEN} if environ is None else environ
        ran = await asyncio.to_thread(
            CliRunner().invoke,
            app,
            ["budget", *arguments, "--url", self.running.url],
            env=variables,
            catch_exceptions=False,
        )
        return Ran(ran.exit_code, ran.stdout, ran.stderr)

    async def json(self, *arguments: str) -> Any:
        ran = await self.budget(*arguments, "--json")
        assert ran.code == 0, ran.err
        return json.loads(ran.out)

    async def status(self) -> int:
        return (await call(self.running.stack, ASK, key="poor")).status


@pytest.fixture
async def ground(tmp_path: Path) -> AsyncIterator[Ground]:
    async with a_stack(tmp_path) as stack, adjusting(stack, token=TOKEN) as running:
        yield Ground(running)


async def test_what_is_set_and_granted_shows_with_who_did_it_and_why(ground: Ground) -> None:
    assert await ground.status() == 429
    done = await ground.budget("set", "month", "$2.00", "-s", "poor", *WHO)
    assert done.code == 0
    assert "month of workspace poor set to $2.00, by lena: Demo [bold]day[/]." in done.out
    granted = await ground.json("grant", "month", "$1.50", "-s", "poor", "--until", "4h", *WHO)
    assert await ground.status() == 200

    shown = await ground.budget("show", "-w", "poor", "--limit", "month")

    (row,) = [line for line in shown.out.splitlines() if "workspace poor" in line and "month " in line[:7]]
    assert row.split()[:5] == ["month", "workspace", "poor", "month", "$3.50*"]
    sentences = [line for line in shown.out.splitlines() if "by lena: Demo [bold]day[/]." in line]
    assert len(sentences) == 2
    begins, ends = granted["begins_at"], granted["ends_at"]
    assert begins < ends <= "2999"


async def test_more_limits_than_one_answer_has_are_shown_in_pages_and_never_as_a_part(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = await ground.json("show")
    monkeypatch.setattr(admin_budgets, "MAX_BUDGETS", 3)

    paged = await ground.json("show")
    refused = await ground.running.send("GET", "/v1/budgets", status=400)
    first = await ground.running.send("GET", "/v1/budgets", query={"skip": "0"})
    beyond = await ground.running.send("GET", "/v1/budgets", query={"skip": "999"})

    def names(answer: Any) -> list[tuple[str, str]]:
        return [(each["limit"], each["subject"]) for each in answer["budgets"]]

    assert names(paged) == names(whole)
    assert len(names(whole)) > 6
    assert paged["next_skip"] is None
    assert (names(first), first["next_skip"]) == (names(whole)[:3], 3)
    assert (names(beyond), beyond["next_skip"]) == ([], None)
    assert "name a workspace" in refused["error"]["message"]
    await ground.running.send("GET", "/v1/budgets", query={"skip": "-1"}, status=400)


async def test_while_counters_are_computed_anew_nobody_is_told_that_nothing_was_spent(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(GuardedBudgets, "is_rebuilding", property(lambda _: True))
    shown = await ground.budget("show", "-w", "demo")
    said = await ground.running.me("demo")

    assert "being computed anew from the ledgers; ask again in some seconds." in shown.out
    (row,) = [line.split() for line in shown.out.splitlines() if "workspace demo" in line]
    assert row[:8] == ["month", "workspace", "demo", "month", "$50.00", "?", "?", "?"]
    money = {each["limit"]: each["left"]["text"] for each in said["limits"] if each["rebuilding"]}
    assert money == {"month": "?"}
    assert said["this_month"]["spent"]["text"] == "?"


async def test_what_is_frozen_is_refused_until_it_is_unfrozen(ground: Ground) -> None:
    await ground.budget("set", "month", "$2.00", "-s", "poor", *WHO)
    frozen = await ground.json("freeze", "workspace", "poor", *WHO)
    assert await ground.status() == 403

    done = await ground.budget("unfreeze", frozen["id"], "--by", "ann", "-r", "It is over")

    assert "workspace poor frozen, by lena" in done.out
    assert "Taken back by ann: It is over." in done.out
    assert await ground.status() == 200


async def test_anything_can_be_taken_back_by_its_id_and_history_tells_all(ground: Ground) -> None:
    made = [
        await ground.json("set", "month", "$2.00", "-s", "poor", *WHO),
        await ground.json("grant", "month", "$1.00", "-s", "demo", *WHO),
        await ground.json("freeze", "workspace", "small", *WHO),
    ]
    for each in made:
        assert (await ground.budget("undo", each["id"], "--by", "ann", "-r", "Over")).code == 0

    history = await ground.budget("history")
    page = await ground.json("history", "--last", "4")

    assert await ground.status() == 429
    assert history.out.count("took back: ") == 3
    assert history.out.count("Demo [bold]day[/]") == 3
    assert [each["taken_back"] is not None for each in page["entries"]] == [True, True, True, False]
    older = await ground.budget("history", "--before", str(page["next_before"]))
    assert older.out.count("lena") == 2
    assert "Older ones" not in older.out


async def test_what_cannot_be_done_says_why_and_fails_with_one(ground: Ground) -> None:
    for arguments, message in (
        (
            ("set", "week", "$2.00", "-s", "poor", *WHO),
            "There is no limit 'week'; there are: month, warming.",
        ),
        (("grant", "month", "5", "-s", "poor", *WHO), "write for example $250.00"),
        (("freeze", "key", "nokey000", *WHO), "There is no key 'nokey000'"),
        (("undo", "unknown0", *WHO), "has the id 'unknown0'. `gateway budget history` shows the ids."),
        (("show", "-w", "rich"), "There is no workspace 'rich'"),
    ):
        ran = await ground.budget(*arguments)
        assert (ran.code, message in ran.err) == (1, True), ran
    ran = await ground.budget("show", environ={"GATEWAY_ADMIN_TOKEN": ""})
    assert (ran.code, "needs its admin token: put it into GATEWAY_ADMIN_TOKEN" in ran.err) == (1, True)
    ran = await ground.budget("show", environ={"GATEWAY_ADMIN_TOKEN": "wrong"})
    assert (ran.code, "refuses the admin token in GATEWAY_ADMIN_TOKEN" in ran.err) == (1, True)


async def test_a_command_that_is_wrong_fails_with_two_and_sends_nothing(ground: Ground) -> None:
    for arguments in (
        ("set", "month", "$2.00", "-s", "poor"),
        ("grant", "month", "$2.00", "-s", "poor", "--until", "soon", *WHO),
        ("freeze", "tag", "alice", *WHO),
        ("undo", "../keys", *WHO),
    ):
        assert (await ground.budget(*arguments)).code == 2
    assert (await ground.json("history"))["entries"] == []


async def test_nobody_at_the_address_is_said_so() -> None:
    ran = await asyncio.to_thread(
        CliRunner().invoke, app, ["budget", "show", "--url", "http://127.0.0.1:9"], catch_exceptions=False
    )

    assert ran.exit_code == 1
    assert "No gateway answers at http://127.0.0.1:9 (Connection refused)" in ran.stderr


async def test_where_apps_call_is_told_from_the_admin_plane(ground: Ground) -> None:
    ran = await asyncio.to_thread(
        CliRunner().invoke, app, ["budget", "show", "--url", ground.running.stack.service.data_url]
    )

    assert ran.exit_code == 1
    assert "is where apps call" in ran.stderr
