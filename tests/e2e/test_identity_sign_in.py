"""Signing in to the page at an identity provider, over real sockets and with real signatures."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from aiohttp import web

from gateway.adapters.clock import SystemClock
from tests.support.stack import Stack, a_stack
from tests.support.tokens import TokenIssuer

SECRET = "sk-test-oidc/client+secret"
PUBLIC = "http://gateway.test"
"""How browsers are told to come back; the tests call the listener itself."""


@dataclass
class Provider:
    """A small one. `changed` are claims of the tokens that it gives, `breaks` what is wrong with it."""

    url: str = ""
    changed: dict[str, object] = field(default_factory=dict)
    breaks: str = ""
    discovered: int = 0
    """How often its discovery document was read."""
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    asked: list[dict[str, str]] = field(default_factory=list)

    @property
    def signer(self) -> TokenIssuer:
        return TokenIssuer(url=self.url, number=1 if self.breaks == "signature" else 0)

    def authorise(self, url: str) -> str:
        """What a person does who signs in: the code and state to come back with."""
        query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
        code = f"code-{len(self.codes)}"
        self.codes[code] = query
        return code

    async def discovery(self, _request: web.Request) -> web.Response:
        self.discovered += 1
        if self.breaks == "down":
            return web.Response(status=500)
        document = {
            "issuer": "https://evil.test" if self.breaks == "issuer" else self.url,
            "authorization_endpoint": f"{self.url}/authorise",
            "token_endpoint": "http://login.test/token" if self.breaks == "http" else f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
        }
        return web.json_response(document)

    async def keys(self, _request: web.Request) -> web.Response:
        return web.Response(body=TokenIssuer().keys(), content_type="application/json")

    async def token(self, request: web.Request) -> web.Response:
        form = {name: str(value) for name, value in (await request.post()).items()}
        self.asked.append(form | {"authorization": request.headers.get("authorization", "")})
        begun = self.codes.pop(form["code"], None)
        digest = hashlib.sha256(form["code_verifier"].encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
        if begun is None or begun["code_challenge"] != challenge:
            return web.json_response({"error": "invalid_grant"}, status=400)
        claims: dict[str, object] = {
            "aud": begun["client_id"],
            "nonce": begun["nonce"],
            "email": "ada@example.com",
            "groups": ["platform"],
            **self.changed,
        }
        token = self.signer.token(SystemClock().now(), **claims)  # type: ignore[arg-type]
        return web.json_response({"id_token": token, "access_token": "unused", "token_type": "Bearer"})


@asynccontextmanager
async def a_provider() -> AsyncIterator[Provider]:
    provider = Provider()
    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", provider.discovery)
    app.router.add_get("/keys", provider.keys)
    app.router.add_post("/token", provider.token)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    provider.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield provider
    finally:
        await runner.cleanup()


@dataclass
class Browser:
    """Cookies by hand, so that tests can take them away."""

    session: aiohttp.ClientSession
    url: str

    async def get(self, path: str, status: int = 200) -> tuple[str, Any]:
        async with self.session.get(self.url + path, allow_redirects=False) as answer:
            text = await answer.text()
            assert answer.status == status, text
            return text, answer.headers

    async def begin(self, wanted: str = "/page/keys") -> str:
        _, headers = await self.get(f"/page/oidc/begin?next={wanted}", 303)
        return str(headers["location"])


def state_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["state"][0]


WITH_TOKEN = {
    "GATEWAY_LISTEN__ADMIN_TOKEN": "{env: ADMIN_TOKEN}",
    "ADMIN_TOKEN": "sk-test-admin-token-of-the-page",
}


@asynccontextmanager
async def a_page(tmp_path: Path, provider: Provider) -> AsyncIterator[tuple[Browser, Stack]]:
    settings = f"""
page:
  public_url: {PUBLIC}
  sign_in:
    issuer: {provider.url}
    client_id: gateway
    client_secret: {{env: OIDC_SECRET}}
    editors: {{groups: [platform]}}
    viewers: {{groups: [staff]}}
"""
    jar = aiohttp.CookieJar(unsafe=True)
    async with (
        a_stack(tmp_path, settings=settings, environ={"OIDC_SECRET": SECRET, **WITH_TOKEN}) as stack,
        aiohttp.ClientSession(cookie_jar=jar) as session,
    ):
        yield Browser(session, stack.service.admin_url), stack


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with a_provider() as provider:
        yield provider


async def test_somebody_signs_in_and_sees_the_page_under_their_name(
    tmp_path: Path, provider: Provider
) -> None:
    async with a_page(tmp_path, provider) as (browser, _):
        _, headers = await browser.get("/page/keys", 303)
        assert headers["location"].startswith("/page/sign-in")
        text, _ = await browser.get("/page/sign-in")
        assert "/page/oidc/begin" in text

        url = await browser.begin()
        asked = parse_qs(urlsplit(url).query)
        assert asked["redirect_uri"] == [f"{PUBLIC}/page/oidc/back"]
        text, headers = await browser.get(
            f"/page/oidc/back?code={provider.authorise(url)}&state={state_of(url)}"
        )
        assert re.search(r'http-equiv="refresh" content="0;url=/page/keys"', text)
        cookies = headers.getall("set-cookie")
        assert any(each.startswith("cgw_session=") and "SameSite=Strict" in each for each in cookies)

        text, _ = await browser.get("/page/keys")
        assert "ada@example.com" in text
        (form,) = provider.asked
        basic = base64.b64decode(form["authorization"].removeprefix("Basic ")).decode()
        assert basic == "gateway:sk-test-oidc%2Fclient%2Bsecret"
        assert "client_secret" not in form


@pytest.mark.parametrize(("groups", "may_edit"), [(["platform"], True), (["staff"], False)])
async def test_a_role_comes_from_claims(
    tmp_path: Path, provider: Provider, groups: list[str], may_edit: bool
) -> None:
    provider.changed["groups"] = groups
    async with a_page(tmp_path, provider) as (browser, _):
        url = await browser.begin()
        await browser.get(f"/page/oidc/back?code={provider.authorise(url)}&state={state_of(url)}")
        text, _ = await browser.get("/page/keys")

        assert ("viewer</span>" not in text) is may_edit


@pytest.mark.parametrize(
    ("changed", "breaks", "status"),
    [
        ({"groups": ["others"]}, "", 403),
        ({"nonce": "another"}, "", 403),
        ({"aud": "another"}, "", 403),
        ({"iss": "https://evil.test"}, "", 403),
        ({"exp": 1}, "", 403),
        ({}, "signature", 403),
    ],
)
async def test_an_id_token_that_does_not_hold_lets_nobody_in(
    tmp_path: Path, provider: Provider, changed: dict[str, object], breaks: str, status: int
) -> None:
    provider.changed, provider.breaks = changed, breaks
    async with a_page(tmp_path, provider) as (browser, _):
        url = await browser.begin()
        back = f"/page/oidc/back?code={provider.authorise(url)}&state={state_of(url)}"
        await browser.get(back, status)

        await browser.get("/page/keys", 303)


@pytest.mark.parametrize("breaks", ["issuer", "http"])
async def test_a_discovery_document_that_is_not_the_issuers_is_not_used(
    tmp_path: Path, provider: Provider, breaks: str
) -> None:
    provider.breaks = breaks
    async with a_page(tmp_path, provider) as (browser, _):
        await browser.get("/page/oidc/begin", 503)


async def test_the_way_back_is_for_the_browser_that_began_it(tmp_path: Path, provider: Provider) -> None:
    """Otherwise somebody could be signed in as another person, by a link."""
    async with a_page(tmp_path, provider) as (browser, _):
        url = await browser.begin()
        code = provider.authorise(url)
        await browser.get(f"/page/oidc/back?code={code}&state=another", 400)
        await browser.get(f"/page/oidc/back?code={code}", 400)
        await browser.get(f"/page/oidc/back?code={code}&state={state_of(url)}&state=x", 400)
        await browser.get(f"/page/oidc/back?error=access_denied&state={state_of(url)}", 403)
        browser.session.cookie_jar.clear()
        await browser.get(f"/page/oidc/back?code={code}&state={state_of(url)}", 400)
        forged = base64.urlsafe_b64encode(json.dumps(["s", "n", "v", "/page", 2e9]).encode()).decode()
        browser.session.cookie_jar.update_cookies({"cgw_oidc": f"{forged}.{'0' * 64}"})
        await browser.get(f"/page/oidc/back?code={code}&state=s", 400)

        assert provider.asked == []


async def test_a_code_works_once_and_leads_to_no_other_site(tmp_path: Path, provider: Provider) -> None:
    async with a_page(tmp_path, provider) as (browser, _):
        url = await browser.begin("https://evil.test/")
        back = f"/page/oidc/back?code={provider.authorise(url)}&state={state_of(url)}"
        text, _ = await browser.get(back)
        assert "evil" not in text

        await browser.get(back, 400)  # the attempt is over, and so is its cookie


async def test_a_provider_that_is_down_is_not_asked_by_everybody(tmp_path: Path, provider: Provider) -> None:
    """Anybody can begin to sign in."""
    provider.breaks = "down"
    async with a_page(tmp_path, provider) as (browser, _):
        await asyncio.gather(*(browser.get("/page/oidc/begin", 503) for _ in range(10)))
        assert provider.discovered == 1
