"""The admin API over sockets: what it answers, whom it refuses, and that its document is true."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

import pytest
from aiohttp.test_utils import TestClient

from gateway.core.budget_reading import BudgetReading
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.prompt_lines import MAX_PROMPTS_BYTES, PromptLine, WarmedPrompt
from gateway.core.schedule import Firing, FiringState, Schedule, ScheduleStatus
from gateway.core.warming_book import WarmedPrefix, WarmingTotals
from gateway.core.warmup import WarmCause, WarmOutcome, WarmState
from gateway.web.admin import admin_app
from gateway.web.admin_api import FORWARDING
from gateway.web.admin_prewarm import MAX_AT_ONCE, prewarm_operations
from gateway.web.admin_warming import WarmingStatus, warming_operations
from gateway.web.admission import Admission
from gateway.web.health import Conditions

BODY = b'{"model":"claude-opus-5-5","messages":[{"role":"user","content":"warmup"}]}'
TOKEN = "an-admin-token-for-tests"
Client = TestClient[Any, Any]
Serve = Callable[..., Awaitable[Client]]


class Asked:
    """Warms at once, or when it is let; knows what it was asked for."""

    def __init__(self) -> None:
        self.lists: list[tuple[str, str, Sequence[PromptLine]]] = []
        self.warmed = 0
        self.closed = asyncio.Event()
        self.free = asyncio.Semaphore(1_000)
        """One for each prompt that may be warmed."""

    async def warm(
        self, workspace: str, name: str, prompts: Sequence[PromptLine]
    ) -> AsyncGenerator[WarmedPrompt, None]:
        self.lists.append((workspace, name, prompts))
        try:
            for prompt in prompts:
                await self.free.acquire()
                self.warmed += 1
                state = WarmState.WARMED if self.warmed == 1 else WarmState.OVER_BUDGET
                yield WarmedPrompt(
                    prompt,
                    WarmOutcome(
                        state=state,
                        reason="As it is.",
                        written_tokens=5_000,
                        cost_nanousd=31_250_000,
                        exchange_id="gw_1" if state is WarmState.WARMED else None,
                    ),
                )
        finally:
            self.closed.set()


async def _status() -> WarmingStatus:
    schedule = Schedule(
        name="morning", cron="45 8 * * *", timezone="Europe/Berlin", workspace="demo", prompts="p.jsonl"
    )
    firing = Firing(schedule="morning", due_at=0.0, state=FiringState.DONE, reason="1 of 1 prompts are warm.")
    prefix = WarmedPrefix(
        key=PrefixKey(b"\x01" * 16),
        workspace=WorkspaceId("demo"),
        model="claude-opus-5-5",
        cause=WarmCause.SCHEDULE,
        name="morning",
        tokens=5_000,
        warm_ups=6,
        cost_nanousd=40,
        reads=1,
        bridged=1,
        saved_nanousd=31,
        warm_until=300.0,
        unread_runs=5,
    )
    budget = BudgetReading(
        limit="warming", workspace="demo", unit="nanousd", amount=10, used=12, reset_at=86_400.0
    )
    return WarmingStatus(
        at=1.0,
        prefixes=[prefix],
        totals={WarmCause.SCHEDULE: WarmingTotals(warm_ups=6, cost_nanousd=40)},
        schedules=[ScheduleStatus(schedule=schedule, next_at=27_900.0, last=firing)],
        budgets=[budget],
    )


async def _serves() -> None:
    return None


@pytest.fixture
def asked() -> Asked:
    return Asked()


@pytest.fixture
def serve(aiohttp_client: Any, asked: Asked) -> Serve:
    async def start(
        *,
        token: str | None = None,
        loopback: bool = True,
        status: Callable[[], Awaitable[WarmingStatus]] = _status,
    ) -> Client:
        operations = [
            *prewarm_operations(warm=asked.warm, workspaces=lambda: ["demo", "other"]),
            *warming_operations(status),
        ]
        conditions = Conditions(
            started=lambda: True, draining=lambda: False, store_needed=lambda: False, ping_store=_serves
        )
        app = admin_app(
            conditions=conditions,
            render=lambda accept: ("text/plain", b""),
            admission=Admission(token, lambda: 0.0),
            operations=operations,
            loopback=loopback,
            version="1.2.3",
        )
        client: Client = await aiohttp_client(app)
        return client

    return start


async def _message(answer: Any) -> str:
    error = (await answer.json())["error"]
    assert error["status"] == answer.status
    return str(error["message"])


async def test_each_prompt_has_its_line_and_the_last_line_adds_up(serve: Serve, asked: Asked) -> None:
    client = await serve()
    answer = await client.post("/v1/prewarm?workspace=demo&name=nightly", data=BODY + b"\n" + BODY)
    first, second, end = [json.loads(line) for line in (await answer.text()).splitlines()]

    assert answer.status == 200
    assert answer.content_type == "application/x-ndjson"
    assert [(workspace, name) for workspace, name, _ in asked.lists] == [("demo", "nightly")]
    assert [prompt.body for prompt in asked.lists[0][2]] == [BODY, BODY]
    assert first["prompt"] == {
        "line": 1,
        "model": "claude-opus-5-5",
        "warm": True,
        "state": "warmed",
        "reason": "As it is.",
        "read_tokens": 0,
        "written_tokens": 5_000,
        "cost": {"nanousd": 31_250_000, "usd": "0.031250000"},
        "exchange_id": "gw_1",
    }
    assert (second["prompt"]["warm"], second["prompt"]["state"]) == (False, "over_budget")
    assert second["prompt"]["exchange_id"] is None
    assert end["summary"]["cost"]["nanousd"] == 62_500_000
    assert (end["summary"]["prompts"], end["summary"]["warm"]) == (2, 1)


@pytest.mark.parametrize(
    ("query", "data", "status", "message"),
    [
        ("", BODY, 400, "Say whose prompts they are"),
        ("?workspace=nobody", BODY, 404, "there are: demo, other"),
        ("?workspace=demo&name=Not%20this", BODY, 400, "`name` is"),
        ("?workspace=demo", b"", 400, "holds no prompts"),
        ("?workspace=demo", BODY + b"\n{", 400, "Nothing was warmed. line 2: The request body is not valid"),
        ("?workspace=demo", b"{\n" * 7, 400, "And 2 more."),
    ],
)
async def test_what_cannot_be_understood_warms_nothing(
    serve: Serve, asked: Asked, query: str, data: bytes, status: int, message: str
) -> None:
    client = await serve()
    answer = await client.post("/v1/prewarm" + query, data=data)

    assert answer.status == status
    assert message in await _message(answer)
    assert asked.lists == []


async def test_more_bytes_than_may_be_held_are_refused(serve: Serve, asked: Asked) -> None:
    async def endless() -> AsyncGenerator[bytes, None]:
        for _ in range((MAX_PROMPTS_BYTES >> 20) + 1):
            yield b" " * (1 << 20)

    client = await serve()
    answer = await client.post("/v1/prewarm?workspace=demo", data=endless())

    assert answer.status == 413
    assert asked.lists == []


async def test_it_stops_when_the_client_leaves(serve: Serve, asked: Asked) -> None:
    client = await serve()
    asked.free = asyncio.Semaphore(0)
    answer = await client.post("/v1/prewarm?workspace=demo", data=(BODY + b"\n") * 500)
    asked.free.release()
    await answer.content.readline()
    answer.close()
    async with asyncio.timeout(40):
        while not asked.closed.is_set():
            asked.free.release()
            await asyncio.sleep(0.01)

    assert asked.warmed < 50


async def test_only_so_many_lists_are_held_at_once(serve: Serve, asked: Asked) -> None:
    client = await serve()
    asked.free = asyncio.Semaphore(0)
    held = [await client.post("/v1/prewarm?workspace=demo", data=BODY) for _ in range(MAX_AT_ONCE)]
    refused = await client.post("/v1/prewarm?workspace=demo", data=BODY)
    for _ in range(10):
        asked.free.release()

    assert refused.status == 429
    assert "try again" in await _message(refused)
    for answer in held:
        assert b"summary" in await answer.read()
    assert (await client.post("/v1/prewarm?workspace=demo", data=BODY)).status == 200


async def test_status_says_what_warming_cost_and_brought(serve: Serve) -> None:
    client = await serve()
    answer = await client.get("/v1/warming")
    status = await answer.json()

    assert answer.headers["cache-control"] == "no-store"
    assert status["workspaces"] == [
        {
            "workspace": "demo",
            "budget": {"nanousd": 10, "usd": "0.000000010"},
            "used": {"nanousd": 12, "usd": "0.000000012"},
            "left": {"nanousd": -2, "usd": "-0.000000002"},
            "resets_at": "1970-01-02T00:00:00Z",
        }
    ]
    (schedule,) = status["schedules"]
    assert (schedule["next_at"], schedule["last"]["state"]) == ("1970-01-01T07:45:00Z", "done")
    (prefix,) = status["prefixes"]
    assert prefix["prefix"] == "01" * 16
    assert prefix["profit"] == {"nanousd": -9, "usd": "-0.000000009"}
    assert prefix["unread"] is True
    assert [(total["cause"], total["cost"]["nanousd"]) for total in status["totals"]] == [("schedule", 40)]


async def test_a_store_that_is_away_is_said(serve: Serve) -> None:
    async def away() -> WarmingStatus:
        raise StoreUnavailable("Redis did not answer.")

    client = await serve(status=away)
    answer = await client.get("/v1/warming")

    assert answer.status == 503
    assert "Redis did not answer" in await _message(answer)


async def test_what_spends_needs_a_token_on_a_public_listener(serve: Serve, asked: Asked) -> None:
    client = await serve(loopback=False)
    refused = await client.post("/v1/prewarm?workspace=demo", data=BODY)

    assert refused.status == 403
    assert "listen.admin_token" in await _message(refused)
    assert asked.lists == []
    for path in ("/v1/warming", "/v1/openapi.json"):
        refused = await client.get(path)
        assert refused.status == 403, "what the page shows nobody, the API tells nobody"
        assert "listen.admin_token" in await _message(refused)
    assert (await client.get("/metrics")).status == 200
    assert (await client.get("/livez")).status == 200


@pytest.mark.parametrize("name", FORWARDING)
async def test_what_a_proxy_passes_on_is_not_from_this_machine(serve: Serve, asked: Asked, name: str) -> None:
    """nginx rewrites Host to the address that it asks: what is left is what it says of the client."""
    client = await serve()
    headers = {name: "203.0.113.7"}

    assert (await client.post("/v1/prewarm?workspace=demo", data=BODY, headers=headers)).status == 403
    assert (await client.get("/v1/warming", headers=headers)).status == 403
    assert (await client.get("/metrics", headers=headers)).status == 200
    assert asked.lists == []


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"host": "evil.example:9090"}, {"origin": "null"}]
)
async def test_no_web_page_spends_anything_without_a_token(
    serve: Serve, asked: Asked, headers: dict[str, str]
) -> None:
    """Neither by a request across sites, nor by a name of its own that resolves to this machine."""
    client = await serve()
    refused = await client.post("/v1/prewarm?workspace=demo", data=BODY, headers=headers)

    assert refused.status == 403
    assert asked.lists == []


async def test_with_a_token_every_route_asks_for_it_and_any_listener_will_do(serve: Serve) -> None:
    client = await serve(token=TOKEN, loopback=False)
    authorised = {"authorization": f"Bearer {TOKEN}"}

    for method, path in [
        ("POST", "/v1/prewarm?workspace=demo"),
        ("GET", "/v1/warming"),
        ("GET", "/v1/openapi.json"),
    ]:
        assert (await client.request(method, path, data=BODY)).status == 401
        assert (await client.request(method, path, data=BODY, headers=authorised)).status == 200


async def test_the_document_describes_exactly_the_routes_that_are_served(serve: Serve) -> None:
    client = await serve()
    document = await (await client.get("/v1/openapi.json")).json()
    served = {
        (route.method, resource.canonical)
        for resource in client.app.router.resources()
        for route in resource
        if resource.canonical.startswith("/v1/")
    }

    assert document["openapi"] == "3.1.0"
    assert document["info"]["version"] == "1.2.3"
    described = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    assert described == served


async def test_answers_are_what_the_document_says(serve: Serve) -> None:
    client = await serve()
    document = await (await client.get("/v1/openapi.json")).json()
    warming = await (await client.get("/v1/warming")).json()
    lines = await (await client.post("/v1/prewarm?workspace=demo", data=BODY)).text()
    refusal = await (await client.post("/v1/prewarm", data=BODY)).json()

    _agrees(document, _schema(document, "/v1/warming", "get", "200", "application/json"), warming)
    line_schema = _schema(document, "/v1/prewarm", "post", "200", "application/x-ndjson")
    for line in lines.splitlines():
        _agrees(document, line_schema, json.loads(line))
    _agrees(document, _schema(document, "/v1/prewarm", "post", "400", "application/json"), refusal)


def _schema(document: Any, path: str, method: str, status: str, content: str) -> Any:
    return document["paths"][path][method]["responses"][status]["content"][content]["schema"]


_KINDS = {dict: "object", list: "array", str: "string", int: "integer", bool: "boolean", type(None): "null"}


def _agrees(document: Any, schema: Any, value: Any) -> None:
    """As much of JSON Schema as the document uses; a keyword that is not understood here fails."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        _agrees(document, document["components"]["schemas"][name], value)
        return
    if "anyOf" in schema:
        wanted = [each for each in schema["anyOf"] if (each.get("type") == "null") == (value is None)]
        assert len(wanted) == 1
        _agrees(document, wanted[0], value)
        return
    known = {"type", "title", "description", "properties", "required", "items", "enum", "default"}
    assert schema.keys() <= known, schema.keys() - known
    assert _KINDS[type(value)] == schema["type"], (schema, value)
    assert value in schema.get("enum", [value])
    if schema["type"] == "array":
        for item in value:
            _agrees(document, schema["items"], item)
    if schema["type"] == "object":
        assert set(schema.get("required", ())) <= value.keys() <= schema["properties"].keys()
        for name, item in value.items():
            _agrees(document, schema["properties"][name], item)
