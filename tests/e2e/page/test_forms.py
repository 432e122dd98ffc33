"""What forms and links of the page do: sent twice, a form does it once; no link says what was not done."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from tests.e2e.page.conftest import IN_MEMORY, WITH_TOKEN, ask
from tests.support.stack import Stack, a_stack

pytestmark = pytest.mark.asyncio(loop_scope="package")

LIMIT = "/page/budgets/limit?limit=month&subject=demo"
MANY = 1_100


@pytest_asyncio.fixture(loop_scope="package")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


class Tab:
    """A browser without its looks: pages as text, forms with the hidden fields that they came with."""

    def __init__(self, client: aiohttp.ClientSession, stack: Stack) -> None:
        self.client, self.base = client, stack.service.admin_url

    async def get(self, path: str) -> tuple[int, str]:
        async with self.client.get(self.base + path) as answer:
            return answer.status, await answer.text()

    async def hidden(self, path: str, action: str) -> dict[str, str]:
        """The hidden fields of the form that goes there."""
        _, page = await self.get(path)
        form = next(part for part in page.split("<form")[1:] if f'action="{action}"' in part)
        return dict(
            re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', form.split("</form>")[0])
        )

    async def post(self, action: str, form: dict[str, str]) -> tuple[int, str, str]:
        headers = {"origin": self.base}
        url = self.base + action
        async with self.client.post(url, data=form, headers=headers, allow_redirects=False) as answer:
            return answer.status, await answer.text(), answer.headers.get("location", "")


@pytest.mark.parametrize(
    ("action", "fields"),
    [
        ("/page/budgets/granted", {"amount": "$5.00"}),
        ("/page/budgets/set", {"amount": "$70.00"}),
    ],
)
async def test_a_change_that_is_sent_twice_is_made_once(
    client: aiohttp.ClientSession, stack: Stack, action: str, fields: dict[str, str]
) -> None:
    tab = Tab(client, stack)
    form = {**await tab.hidden(LIMIT, action), **fields, "reason": "quarter end", "by": "Ada"}
    assert [(await tab.post(action, form))[0] for _ in range(2)] == [303, 303]
    assert len(stack.service._in_force.adjustments) == 1

    other = {**form, "amount": "$9.00"}
    status, page, _ = await tab.post(action, other)
    assert (status, "another adjustment" in page) == (409, True)
    again = re.findall(r'name="id" value="([^"]+)"', page)
    assert form["id"] not in again, "the form can be sent again, as another one"


async def test_a_freeze_that_is_sent_twice_is_made_once(client: aiohttp.ClientSession, stack: Stack) -> None:
    tab = Tab(client, stack)
    action = "/page/changes/freeze"
    form = {**await tab.hidden("/page/changes", action), "scope": "workspace", "subject": "demo"}
    form |= {"reason": "a loop", "by": "Ada"}
    status, asked, _ = await tab.post(action, form)
    assert (status, "1 workspace" in asked) == (200, True)
    assert stack.service._in_force.adjustments == ()

    assert [(await tab.post(action, {**form, "sure": "yes"}))[0] for _ in range(2)] == [303, 303]
    assert len(stack.service._in_force.adjustments) == 1


async def test_a_freeze_that_was_taken_back_is_not_said_to_be_made_when_its_form_is_sent_again(
    client: aiohttp.ClientSession, stack: Stack
) -> None:
    tab = Tab(client, stack)
    freeze, back = "/page/changes/freeze", "/page/changes/take-back"
    form = {**await tab.hidden("/page/changes", freeze), "scope": "workspace", "subject": "demo"}
    form |= {"reason": "a loop", "by": "Ada", "sure": "yes"}
    assert (await tab.post(freeze, form))[0] == 303
    fields = await tab.hidden(f"{back}?id={form['id']}", back)
    assert (await tab.post(back, {**fields, "reason": "over", "by": "Ada"}))[0] == 303

    status, page, _ = await tab.post(freeze, form)

    assert (status, "was taken back" in page) == (409, True)


async def test_a_freeze_of_nobody_is_told_before_it_is_asked_whether_one_is_sure(
    client: aiohttp.ClientSession, stack: Stack
) -> None:
    tab = Tab(client, stack)
    action = "/page/changes/freeze"
    form = {**await tab.hidden("/page/changes", action), "scope": "team", "subject": "demo"}
    status, page, _ = await tab.post(action, {**form, "reason": "a loop", "by": "Ada"})

    assert (status, "There is no team" in page) == (404, True)


async def test_a_key_form_that_is_sent_twice_makes_one_key_and_shows_it_both_times(
    client: aiohttp.ClientSession, stack: Stack
) -> None:
    """A browser shows the answer to the second click only."""
    tab = Tab(client, stack)
    form = {**await tab.hidden("/page/keys/new", "/page/keys/new"), "name": "bot", "workspace": "demo"}
    form["lifetime"] = "30"
    before = len(stack.service.rules.keyring)
    pages = [(await tab.post("/page/keys/new", form))[1] for _ in range(2)]
    first, second = (re.findall(r"cgw_\w{47}", page)[0] for page in pages)

    assert first == second
    assert len(stack.service.rules.keyring) == before + 1
    assert await ask(stack, first) == 200
    _, page, _ = await tab.post("/page/keys/new", {**form, "name": "another"})
    assert re.findall(r"cgw_\w{47}", page)[0] != first

    fields = await tab.hidden(f"/page/keys/revoke?id={first[4:12]}", "/page/keys/revoke")
    assert (await tab.post("/page/keys/revoke", fields))[0] == 303
    assert (await tab.post("/page/keys/new", form))[0] == 409
    assert await ask(stack, first) == 401


@pytest.mark.parametrize(
    "path",
    [
        f"{LIMIT}&done=granted",
        "/page/changes?done=frozen",
        "/page/keys?revoked=AAAAAAAA",
        "/page/changes?done=frozen.0123456789abcdef0123456789abcdef",
    ],
)
async def test_a_link_cannot_say_that_something_was_done(
    client: aiohttp.ClientSession, stack: Stack, path: str
) -> None:
    status, page = await Tab(client, stack).get(path)

    assert status == 200
    assert 'class="notice good"' not in page


async def test_too_many_limits_for_one_answer_leave_the_form_that_narrows_them(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    many = "".join(f"  ws{number:04}: {{upstream: default}}\n" for number in range(MANY))
    workspaces = f"workspaces:\n  demo: {{upstream: default}}\n  other: {{upstream: other}}\n{many}"
    limits = (
        "defaults:\n  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, comment: test}\n"
    )
    async with a_stack(tmp_path, workspaces=workspaces, limits=limits, settings=IN_MEMORY) as stack:
        tab = Tab(client, stack)
        status, page = await tab.get("/page/budgets")
        assert (status, "name a workspace" in page, '<form class="filters"' in page) == (400, True, True)
        assert (await tab.get("/page/budgets?workspace=ws0007"))[0] == 200


@pytest.mark.parametrize("header", ["x-forwarded-for", "forwarded", "via", "x-real-ip"])
async def test_the_page_is_not_for_whom_a_proxy_asks(
    client: aiohttp.ClientSession, stack: Stack, header: str
) -> None:
    url = f"{stack.service.admin_url}/page/keys"
    async with client.get(url, headers={header: "203.0.113.7"}) as answer:
        assert answer.status == 403


async def test_two_gateways_on_one_host_have_cookies_of_their_own(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    """Cookies do not know ports."""
    settings = IN_MEMORY + "page: {public_url: 'http://gateway.test:9091'}\n"
    async with a_stack(tmp_path, environ=WITH_TOKEN, settings=settings) as stack:
        tab = Tab(client, stack)
        headers = {"origin": "http://gateway.test:9091"}
        form = {"name": "Ada", "token": WITH_TOKEN["ADMIN_TOKEN"]}
        url = f"{tab.base}/page/sign-in"
        async with client.post(url, data=form, headers=headers, allow_redirects=False) as answer:
            assert answer.headers["set-cookie"].startswith("cgw_session_9091=")
