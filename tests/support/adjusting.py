"""A stack whose budgets can be changed while it runs: the admin API of adjustments, and the loop that takes
them over every few seconds, on a gateway that listens on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp
import pytest

from gateway.core.adjustments import Adjustment, LogEntry
from gateway.planes import listen_admin
from gateway.ports import AdjustmentStore
from gateway.stores import open_adjustments
from gateway.tasks import TaskSet
from gateway.web.admin_budgets import budget_operations
from gateway.web.admission import Admission
from gateway.web.health import Conditions
from gateway.workers.periodic import every
from tests.support.stack import Stack

REFRESH_SECONDS = 2.0
PROMISED_SECONDS = 3.0
"""Within which a change holds on every replica."""


@dataclass(kw_only=True)
class Adjusting:
    """`url` is the admin plane's; `token` its token, if it has one."""

    stack: Stack
    store: AdjustmentStore
    url: str
    token: str | None

    async def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        query: Mapping[str, str] | None = None,
        status: int = 200,
    ) -> Any:
        """The answer, which has this status."""
        headers = {"authorization": f"Bearer {self.token}"} if self.token else {}
        async with (
            aiohttp.ClientSession() as session,
            session.request(method, self.url + path, json=body, params=query, headers=headers) as answer,
        ):
            found = await answer.json()
            assert answer.status == status, found
            return found

    async def me(self, key: str, *, status: int = 200) -> Any:
        """What `/v1/me` tells the key of this name, or this text."""
        headers = {"authorization": f"Bearer {self.stack.keys.get(key, key)}"}
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{self.url}/v1/me", headers=headers) as answer,
        ):
            found = await answer.json()
            assert answer.status == status, found
            return found

    async def refresh(self) -> None:
        """Take over at once what the loop takes over within three seconds."""
        service = self.stack.service
        await service._in_force.refresh_adjustments(self.store, service._clock.now())


@asynccontextmanager
async def adjusting(stack: Stack, *, token: str | None = None) -> AsyncIterator[Adjusting]:
    service, loops, numbers = stack.service, TaskSet(), count(1)
    in_force, clock, settings = service._in_force, service._clock, service._settings
    store = open_adjustments(settings.gateway, settings)

    async def refresh() -> None:
        await in_force.refresh_adjustments(store, clock.now())

    async def ping() -> None:
        return

    admin, url = await listen_admin(
        settings.gateway,
        conditions=Conditions(started=lambda: True, draining=bool, store_needed=bool, ping_store=ping),
        render=lambda accept: ("text/plain", b""),
        admission=Admission(token, clock.monotonic),
        operations=budget_operations(
            in_force, store, service.spending.budgets, clock, new_id=lambda: f"adj_test_{next(numbers)}"
        ),
    )
    loops.spawn(every(REFRESH_SECONDS, refresh, name="adjustments", clock=clock), "adjustments")
    try:
        yield Adjusting(stack=stack, store=store, url=url, token=token)
    finally:
        await loops.drain(0.0)
        await admin.close()
        await store.close()


async def overridden_at_once(
    patch: pytest.MonkeyPatch, replicas: Sequence[Adjusting], limit: Mapping[str, str], amounts: Sequence[str]
) -> Any:
    """An override for each of these amounts, from one replica after the other; all are in the log before any
    of them goes on. The last of them, as the log has it."""
    added = asyncio.Barrier(len(amounts))
    for store in {id(each.store): each.store for each in replicas}.values():

        async def add(
            made: Adjustment, add: Callable[[Adjustment], Awaitable[LogEntry]] = store.add
        ) -> LogEntry:
            entry = await add(made)
            await added.wait()
            return entry

        patch.setattr(store, "add", add)
    async with asyncio.TaskGroup() as senders:
        for number, amount in enumerate(amounts):
            body = {**limit, "amount": amount, "id": f"override-{number}"}
            senders.create_task(replicas[number % len(replicas)].send("POST", "/v1/overrides", body))
    entries = (await replicas[0].send("GET", "/v1/adjustments"))["entries"]
    return next(each for each in entries if each["taken_back"] is None)
