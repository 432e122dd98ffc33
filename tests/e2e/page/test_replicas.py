"""Several replicas on one Redis are one gateway to whoever looks at the page, and signs out of it."""

from __future__ import annotations

import asyncio
import json
import re
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from playwright.async_api import Browser, expect
from redis.asyncio import Redis

from tests.e2e.page.conftest import MODEL, TOKEN, WITH_TOKEN, ask
from tests.support.browser import a_tab
from tests.support.process import ROOT
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_stack

pytestmark = pytest.mark.asyncio(loop_scope="package")

SETTINGS = "store: {kind: redis}\nprefixes: {secret: {env: PREFIX_SECRET}}\n"
ON_DISK = "store: {kind: sqlite}\n"


@dataclass
class Ground:
    redis: RedisServer
    folder: Path
    running: AsyncExitStack

    async def replica(self, name: str, *, guarded: bool = False) -> Stack:
        environ = {
            "REDIS_URL": self.redis.url,
            "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more",
            **(WITH_TOKEN if guarded else {}),
        }
        return await self.running.enter_async_context(
            a_stack(self.folder / name, environ=environ, settings=SETTINGS)
        )

    async def listeners(self, count: int) -> list[str]:
        """The names of so many replicas, once they all listen."""
        deadline = time.monotonic() + 30
        async with Redis.from_url(self.redis.url) as redis:
            while len(found := await redis.pubsub_channels("{cgw}:live:*")) < count:
                assert time.monotonic() < deadline, "they do not listen"
                await asyncio.sleep(0.02)
        return [each.decode().rpartition(":live:")[2] for each in found if isinstance(each, bytes)]


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with RedisServer(tmp_path / "redis") as server:
        yield server


@pytest_asyncio.fixture(loop_scope="package")
async def ground(redis: RedisServer, tmp_path: Path) -> AsyncIterator[Ground]:
    async with AsyncExitStack() as running:
        yield Ground(redis, tmp_path, running)


@asynccontextmanager
async def a_silent_replica(redis: RedisServer, name: str) -> AsyncIterator[None]:
    async with Redis.from_url(redis.url) as client, client.pubsub() as hearing:
        await hearing.subscribe(f"{{cgw}}:live:{name}")
        await hearing.get_message(timeout=10)
        yield


async def test_live_requests_of_all_replicas_are_seen_at_each_with_the_name_of_theirs(
    browser: Browser, ground: Ground
) -> None:
    one, two = await ground.replica("one"), await ground.replica("two")
    await ground.listeners(2)
    for stack in (one, two):
        assert await ask(stack, stack.keys["demo"]) == 200
    names = set()
    for stack in (one, two):
        async with a_tab(browser, stack.service.admin_url) as tab:
            await tab.page.goto("/page/live")
            await expect(tab.page.get_by_text("What all replicas of the gateway serve now")).to_be_visible()
            ended = tab.page.get_by_role("region", name="Ended in the last ten minutes", exact=True)
            rows = ended.locator("tbody tr").filter(has_text=MODEL)
            async with asyncio.timeout(30):  # settlement runs behind the answer
                while await rows.count() < 2:
                    await tab.page.reload()
            names.add(frozenset(await rows.locator("td:last-child").all_inner_texts()))
            assert (await tab.page.evaluate("document.documentElement.scrollWidth")) <= 1360
    ((first, second),) = names
    assert first != second


async def test_a_replica_that_is_silent_is_named_on_the_page_and_in_the_terminal(
    browser: Browser, ground: Ground
) -> None:
    stack = await ground.replica("one")
    (name,) = await ground.listeners(1)
    async with a_silent_replica(ground.redis, "node-7/0bad"), a_tab(browser, stack.service.admin_url) as tab:
        await tab.page.goto("/page/live")
        notice = tab.page.get_by_role("status").filter(has_text="node-7/0bad")
        await expect(notice).to_have_text("node-7/0bad does not answer: its calls are missing here.")
        told = json.loads(await _top(stack, "--json"))
        plain = await _top(stack, "--once")

    assert (told["replicas"], told["missing"]) == (
        [name],
        ["node-7/0bad does not answer: its calls are missing."],
    )
    assert "node-7/0bad does not answer: its calls are missing." in plain


async def test_who_signs_out_at_one_replica_is_signed_out_at_all(ground: Ground) -> None:
    one, two = await ground.replica("one", guarded=True), await ground.replica("two", guarded=True)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        cookie = await _sign_in(client, one)
        copy = cookie.replace(_port(one), _port(two))  # browsers reach both under one name
        assert await _is_signed_in(client, two, copy), "a session holds at all replicas"
        other = (await _sign_in(client, two)).replace(_port(two), _port(one))
        await _sign_out(client, one, cookie)

        assert not await _is_signed_in(client, one, cookie)
        assert not await _is_signed_in(client, two, copy)
        assert await _is_signed_in(client, one, other), "somebody else's"


async def test_where_the_others_cannot_be_told_who_signs_out_is_told_so(ground: Ground) -> None:
    stack = await ground.replica("one", guarded=True)
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        cookie, another = await _sign_in(client, stack), await _sign_in(client, stack)
        ground.redis.stop()
        assert await _is_signed_in(client, stack, cookie), "the page is for such times"
        page = await _sign_out(client, stack, cookie, status=503)

        assert "This browser is signed out. The other workers and replicas could not be told" in page
        assert not await _is_signed_in(client, stack, cookie)
        assert await _is_signed_in(client, stack, another)


async def test_signing_out_outlives_the_process(tmp_path: Path) -> None:
    """So do sessions; and of several workers another one answers when the first has died."""
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as client:
        async with a_stack(tmp_path, environ=WITH_TOKEN, settings=ON_DISK) as stack:
            kept, left = await _sign_in(client, stack), await _sign_in(client, stack)
            await _sign_out(client, stack, left)
        async with a_stack(tmp_path, environ=WITH_TOKEN, settings=ON_DISK) as again:
            assert await _is_signed_in(client, again, kept)
            assert not await _is_signed_in(client, again, left)


async def _top(stack: Stack, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "top", "--url", stack.service.admin_url, *arguments),
        cwd=ROOT,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    said, _ = await asyncio.wait_for(process.communicate(), 120)
    assert process.returncode == 0
    return said.decode()


def _port(stack: Stack) -> str:
    return stack.service.admin_url.rpartition(":")[2]


async def _sign_in(client: aiohttp.ClientSession, stack: Stack) -> str:
    base = stack.service.admin_url
    form = {"name": "Ada", "token": TOKEN}
    headers = {"origin": base}
    url = f"{base}/page/sign-in"
    async with client.post(url, data=form, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 303, await answer.text()
        return answer.headers["set-cookie"].partition(";")[0]


async def _sign_out(client: aiohttp.ClientSession, stack: Stack, cookie: str, status: int = 303) -> str:
    base = stack.service.admin_url
    headers = {"origin": base, "cookie": cookie}
    url = f"{base}/page/sign-out"
    async with client.post(url, data={"form_token": ""}, headers=headers, allow_redirects=False) as answer:
        text = await answer.text()
        assert answer.status == status, text
        gone = re.search(r'^cgw_session\w*="";.*Max-Age=0', answer.headers["set-cookie"])
        assert gone, "the browser forgets it"
        return text


async def _is_signed_in(client: aiohttp.ClientSession, stack: Stack, cookie: str) -> bool:
    url = f"{stack.service.admin_url}/page/keys"
    async with client.get(url, headers={"cookie": cookie}, allow_redirects=False) as answer:
        await answer.read()
        return answer.status == 200
