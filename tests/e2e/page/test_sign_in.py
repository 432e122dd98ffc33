"""Getting in: with the admin token only, for a while, and with forms of the page itself only."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio
from aiohttp import web
from playwright.async_api import Browser, Page, expect

from gateway.adapters.clock import SystemClock
from gateway.adapters.sign_outs import MemorySignOuts
from gateway.page import session_key
from gateway.settings.identity import SignInSettings
from gateway.web.page.session import Role, Sessions
from tests.e2e.page.conftest import IN_MEMORY, TOKEN, WITH_TOKEN
from tests.support.browser import a_tab
from tests.support.clock import ShiftedClock
from tests.support.stack import Stack, a_stack

pytestmark = pytest.mark.asyncio(loop_scope="package")


async def sign_in(page: Page, token: str = TOKEN, name: str = "Ada Lovelace") -> None:
    await page.get_by_label("Your name").fill(name)
    await page.get_by_label("Admin token").fill(token)
    await page.get_by_role("button", name="Sign in").click()


@pytest_asyncio.fixture(loop_scope="package")
async def client() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield session


async def test_signs_in_with_the_token_goes_where_it_was_led_and_out_again(
    browser: Browser, guarded: Stack
) -> None:
    async with a_tab(browser, guarded.service.admin_url) as tab:
        await tab.page.goto("/page/keys?workspace=demo")
        await expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()
        await sign_in(tab.page)
        await expect(tab.page).to_have_url(re.compile(r"/page/keys\?workspace=demo$"))
        await expect(tab.page.get_by_role("banner")).to_contain_text("Ada Lovelace")
        (cookie,) = await tab.page.context.cookies()
        assert (cookie["httpOnly"], cookie["sameSite"], cookie["expires"]) == (True, "Strict", -1)

        await tab.page.get_by_role("button", name="Sign out").click()
        await tab.page.goto("/page/keys")
        await expect(tab.page.get_by_role("heading", name="Sign in")).to_be_visible()


async def test_a_wrong_token_opens_nothing(browser: Browser, guarded: Stack) -> None:
    async with a_tab(browser, guarded.service.admin_url) as tab:
        await tab.page.goto("/")
        await sign_in(tab.page, token="guessed")

        await expect(tab.page.get_by_role("alert")).to_have_text("This is not the admin token.")
        await expect(tab.page.get_by_label("Your name")).to_have_value("Ada Lovelace")
        await expect(tab.page.get_by_label("Admin token")).to_have_value("")
        assert await tab.page.context.cookies() == []


async def test_tokens_cannot_be_tried_for_long(client: aiohttp.ClientSession, guarded: Stack) -> None:
    base = guarded.service.admin_url
    statuses: list[int] = []
    while 429 not in statuses and len(statuses) < 20:
        form = {"name": "Ada", "token": f"guess {len(statuses)}"}
        async with client.post(f"{base}/page/sign-in", data=form, headers={"origin": base}) as answer:
            statuses.append(answer.status)

    assert set(statuses[:-1]) == {401}
    assert statuses[-1] == 429
    assert await _session(client, base), "who has the token is not locked out by who has not"


async def test_a_copied_cookie_is_worth_nothing_once_its_owner_signed_out(
    client: aiohttp.ClientSession, guarded: Stack
) -> None:
    base = guarded.service.admin_url
    cookie = await _session(client, base)
    async with client.get(f"{base}/page/keys", headers={"cookie": cookie}) as answer:
        page = await answer.text()
    form = {"form_token": _form_token(page)}
    await _post(client, f"{base}/page/sign-out", form, cookie)

    async with client.get(f"{base}/page/keys", headers={"cookie": cookie}, allow_redirects=False) as answer:
        assert answer.status == 303
        assert answer.headers["location"].startswith("/page/sign-in")


@pytest.mark.parametrize("idle", [True, False])
async def test_a_session_ends_when_it_is_idle_and_when_it_is_old(
    client: aiohttp.ClientSession, tmp_path: Path, idle: bool
) -> None:
    clock = ShiftedClock()
    async with a_stack(tmp_path, environ=WITH_TOKEN, settings=IN_MEMORY, clock=clock) as stack:
        base = stack.service.admin_url
        cookie = await _session(client, base)
        for _ in range(1 if idle else 13):
            clock.jump(3_700 if idle else 3_400)
            headers = {"cookie": cookie}
            async with client.get(f"{base}/page/keys", headers=headers, allow_redirects=False) as answer:
                status = answer.status
                cookie = answer.headers.get("set-cookie", cookie).partition(";")[0]
            if status != 200:
                break
        assert status == 303, "idle for an hour, or twelve hours old"


@pytest.mark.parametrize("tampered", ["body", "mac", "nothing", "no dot"])
async def test_a_cookie_that_was_not_signed_here_opens_nothing(
    client: aiohttp.ClientSession, guarded: Stack, tampered: str
) -> None:
    base = guarded.service.admin_url
    name, _, value = (await _session(client, base)).partition("=")
    body, _, mac = value.partition(".")
    values = {"body": f"{body[:-2]}AA.{mac}", "mac": f"{body}.{mac[:-2]}00", "nothing": "", "no dot": body}
    headers = {"cookie": f"{name}={values[tampered]}"}
    async with client.get(f"{base}/page/keys", headers=headers, allow_redirects=False) as answer:
        assert answer.status == 303


@pytest.mark.parametrize(
    ("headers", "form_token"),
    [
        ({"origin": "https://evil.example"}, True),
        ({"origin": "null"}, True),
        ({}, True),
        ({"origin": "SELF", "sec-fetch-site": "cross-site"}, True),
        ({"origin": "SELF"}, False),
    ],
)
async def test_only_a_form_of_the_page_itself_changes_anything(
    client: aiohttp.ClientSession, guarded: Stack, headers: dict[str, str], form_token: bool
) -> None:
    base = guarded.service.admin_url
    cookie = await _session(client, base)
    async with client.get(f"{base}/page/keys/new", headers={"cookie": cookie}) as answer:
        token = _form_token(await answer.text())
    form = {"name": "forged", "workspace": "demo", "lifetime": "30"}
    form |= {"form_token": token if form_token else "0" * 64}
    sent = {name: base if value == "SELF" else value for name, value in headers.items()}
    url = f"{base}/page/keys/new"
    async with client.post(url, data=form, headers={"cookie": cookie, **sent}) as answer:
        assert answer.status == 403
    assert all(record.name != "forged" for record in guarded.service.rules.keyring.records())


async def test_a_viewer_sees_everything_and_changes_nothing(
    client: aiohttp.ClientSession, guarded: Stack
) -> None:
    base = guarded.service.admin_url
    sessions = Sessions(
        session_key(guarded.service.rules.prefix_secret, TOKEN, None),
        MemorySignOuts(),
        idle_seconds=60.0,
        longest_seconds=60.0,
        secure=False,
    )
    response, now = web.Response(), SystemClock().now()
    session = sessions.begin_session(
        response, id="of-a-test", subject="Grace", by="by a test", role=Role.VIEWER, at=now
    )
    headers = {"cookie": f"{sessions.cookie}={response.cookies[sessions.cookie].value}", "origin": base}
    for path in ("/page/keys", "/page/budgets/limit?limit=month&subject=demo", "/page/changes"):
        async with client.get(base + path, headers=headers) as answer:
            page = await answer.text()
            assert answer.status == 200
            assert "Grace" in page
            assert page.count("<form") == page.count('method="get"') + 1, "filters, and signing out"
    form = {"form_token": sessions.form_token(session), "name": "mine", "workspace": "demo", "lifetime": "30"}
    async with client.post(f"{base}/page/keys/new", data=form, headers=headers) as answer:
        assert answer.status == 403


async def test_other_rules_on_who_may_sign_in_end_all_sessions() -> None:
    """A session holds its role, which those rules may not give any longer."""
    one, other = (
        SignInSettings(issuer="https://login.test", client_id="gw", editors={"groups": (group,)})
        for group in ("platform", "finance")
    )
    keys = {session_key(b"secret", TOKEN, rules) for rules in (None, one, other)}

    assert len(keys) == 3
    assert session_key(b"secret", TOKEN, one) in keys


async def test_without_a_token_the_page_answers_its_own_address_only(
    client: aiohttp.ClientSession, stack: Stack
) -> None:
    url = f"{stack.service.admin_url}/page/keys"
    async with client.get(url) as answer:
        assert answer.status == 200
    async with client.get(url, headers={"host": "rebound.example"}) as answer:
        assert answer.status == 403
        assert "workspace" not in (await answer.text())


async def test_the_admin_api_takes_no_session_and_the_page_no_bearer_token(
    client: aiohttp.ClientSession, guarded: Stack
) -> None:
    base = guarded.service.admin_url
    cookie = await _session(client, base)
    async with client.get(f"{base}/v1/budgets", headers={"cookie": cookie}) as answer:
        assert answer.status == 401
    bearer = {"authorization": f"Bearer {TOKEN}"}
    async with client.get(f"{base}/page/keys", headers=bearer, allow_redirects=False) as answer:
        assert answer.status == 303


async def test_behind_https_the_cookie_is_for_https_only(
    client: aiohttp.ClientSession, tmp_path: Path
) -> None:
    settings = f"{IN_MEMORY}page: {{public_url: 'https://gateway.example.com'}}\n"
    async with a_stack(tmp_path, environ=WITH_TOKEN, settings=settings) as stack:
        form = {"name": "Ada", "token": TOKEN, "next": "//evil.example"}
        async with client.post(
            f"{stack.service.admin_url}/page/sign-in",
            data=form,
            headers={"origin": "https://gateway.example.com"},
            allow_redirects=False,
        ) as answer:
            assert answer.status == 303
            assert answer.headers["location"] == "/page"
            assert answer.headers["set-cookie"].startswith("__Host-cgw_session=")
            assert "Secure" in answer.headers["set-cookie"]


async def _post(client: aiohttp.ClientSession, url: str, form: dict[str, str], cookie: str = "") -> str:
    origin = url.partition("/page/")[0]
    headers = {"origin": origin, **({"cookie": cookie} if cookie else {})}
    async with client.post(url, data=form, headers=headers, allow_redirects=False) as answer:
        assert answer.status == 303, await answer.text()
        return answer.headers["set-cookie"]


async def _session(client: aiohttp.ClientSession, base: str) -> str:
    cookie = await _post(client, f"{base}/page/sign-in", {"name": "Ada", "token": TOKEN})
    return cookie.partition(";")[0]


def _form_token(page: str) -> str:
    found = re.search(r'name="form_token" value="([0-9a-f]{64})"', page)
    assert found is not None
    return found[1]
