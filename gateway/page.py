"""The page, put together: its screens with what each of them shows and changes. What they look like is in
`web/page/`."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

from aiohttp import web

import gateway
from gateway.adapters.replicas_live import ReplicasLive
from gateway.core.adjustments import Freeze, FreezeScope
from gateway.core.limits import Scope
from gateway.core.principal import RANDOM_BYTES, KeyRecord
from gateway.planes import split_address
from gateway.ports import AdjustmentStore, BudgetStore, Clock, KeyStore
from gateway.rules_in_force import RulesInForce
from gateway.settings.gateway import GatewayFile
from gateway.settings.identity import SignInSettings
from gateway.web.admin_adjustments import Changes, members_of
from gateway.web.admin_api import is_loopback
from gateway.web.admin_budgets import BudgetsAnswer, new_adjustment_id, read_budgets
from gateway.web.admission import Admission
from gateway.web.page.app import page_app
from gateway.web.page.budgets import Budgets, budgets_screens
from gateway.web.page.changes import changes_screens
from gateway.web.page.keys import Keys, keys_screens
from gateway.web.page.live import live_screens
from gateway.web.page.oidc import BEGIN, Provider, SigningInElsewhere
from gateway.web.page.rendering import Screen, make_page
from gateway.web.page.session import Sessions, SignOuts
from gateway.web.page.signing_in import Way, inside, signing_in_screens

SESSION_ID_BYTES = 24


@dataclass(frozen=True, slots=True, kw_only=True)
class PageParts:
    """What the screens are about."""

    in_force: RulesInForce
    keys: KeyStore
    adjustments: AdjustmentStore
    budgets: BudgetStore
    clock: Clock
    live: ReplicasLive
    money: Sequence[Screen]
    """Of `page_books.py`."""


def open_page(
    file: GatewayFile,
    parts: PageParts,
    *,
    admission: Admission,
    token: str | None,
    sign_outs: SignOuts,
    provider: Provider | None = None,
) -> web.Application | None:
    """What the admin plane shows to browsers; None where that is switched off. `token` is what `admission`
    asks for: sessions end when it changes. `sign_outs` are closed with it."""
    if not file.page.enabled:
        return None
    host, port = split_address(file.listen.admin)
    public_url = file.page.public_url
    # Replicas behind one name share their sessions, whatever ports they have themselves.
    seen_at = port if public_url is None else urlsplit(public_url).port
    key = session_key(parts.in_force.rules.prefix_secret, token, file.page.sign_in)
    sessions = Sessions(
        key,
        sign_outs,
        idle_seconds=file.page.idle,
        longest_seconds=file.page.longest,
        secure=public_url is not None and public_url.startswith("https:"),
        port=seen_at,
    )
    ways: list[Way] = []
    elsewhere: list[Screen] = []
    if provider is not None and file.page.sign_in is not None:
        ways.append(Way(file.page.sign_in.title, BEGIN))
        elsewhere = SigningInElsewhere(
            provider,
            sessions,
            key=key,
            public_url=public_url or "",
            clock=parts.clock,
            new_secret=_new_session_id,
            inside=inside,
            port=seen_at,
        ).screens()
    signing_in = signing_in_screens(
        sessions, admission=admission, clock=parts.clock, new_session_id=_new_session_id, ways=ways
    )
    page = make_page(
        [*_screens(parts, key), *signing_in, *elsewhere],
        clock=parts.clock,
        timezone=file.page.timezone,
        version=gateway.__version__,
        new_id=new_adjustment_id,
    )
    app = page_app(
        page,
        sessions,
        loopback=is_loopback(host),
        signing_in=admission.asks or bool(ways),
        public_url=public_url,
    )
    app.on_cleanup.append(lambda _: sign_outs.close())
    return app


def _screens(parts: PageParts, key: bytes) -> list[Screen]:
    """In the order of the navigation."""
    keys, budgets = _keys(parts, key), _budgets(parts)
    in_force = parts.in_force

    def freezes() -> list[Freeze]:
        return [each for each in in_force.adjustments if isinstance(each, Freeze)]

    return [
        *parts.money,
        *budgets_screens(budgets),
        *changes_screens(
            budgets.changes,
            freezes,
            lambda scope: members_of(in_force.rules, scope),
            lambda scope, subject: _stopped(parts, scope, subject),
        ),
        *keys_screens(keys, parts.clock),
        *live_screens(parts.live.live, keys.workspaces),
    ]


def _stopped(parts: PageParts, scope: FreezeScope, subject: str) -> tuple[int, int]:
    """How many workspaces and keys a freeze would stop."""
    rules = parts.in_force.rules
    if scope is FreezeScope.KEY:
        return 0, 1
    stopped = {
        workspace.id
        for workspace in rules.workspaces.values()
        if subject
        == {
            FreezeScope.ORGANISATION: workspace.organisation,
            FreezeScope.TEAM: workspace.team,
            FreezeScope.WORKSPACE: workspace.id,
        }[scope]
    }
    keys = rules.keyring.principals(parts.clock.now())
    return len(stopped), sum(each.workspace in stopped for each in keys)


def _budgets(parts: PageParts) -> Budgets:
    in_force, clock = parts.in_force, parts.clock

    async def read(asked: Mapping[str, str]) -> BudgetsAnswer:
        return await read_budgets(in_force, parts.budgets, asked, clock.now())

    def names() -> Mapping[str, Collection[str]]:
        scopes = (Scope.ORGANISATION, Scope.TEAM, Scope.WORKSPACE)
        return {scope.value: sorted(members_of(in_force.rules, scope)) for scope in scopes}

    changes = Changes(in_force, parts.adjustments, clock, new_adjustment_id)
    return Budgets(read=read, names=names, changes=changes)


def _keys(parts: PageParts, key: bytes) -> Keys:
    in_force, store = parts.in_force, parts.keys

    async def put(record: KeyRecord) -> None:
        await store.put(record)
        await in_force.refresh_keys(store)

    async def revoke(record: KeyRecord, at: float, by: str) -> None:
        if not await store.revoke(record.id, at, by):
            # Declared in workspaces.yaml, or of this process only: the store's word on it counts more.
            await store.put(replace(record, revoked_at=at, revoked_by=by))
        await in_force.refresh_keys(store)

    return Keys(
        records=lambda: tuple(in_force.rules.keyring.records()),
        workspaces=lambda: [str(name) for name in in_force.rules.workspaces],
        last_used=lambda: parts.live.last_used,
        put=put,
        revoke=revoke,
        secret_of=lambda form: hashlib.shake_256(
            hmac.new(key, b"a key of a form\0" + form.encode("utf-8", "replace"), hashlib.sha512).digest()
        ).digest(RANDOM_BYTES),
    )


def session_key(prefix_secret: bytes, token: str | None, sign_in: SignInSettings | None) -> bytes:
    """Replicas that share a store share it. Another token ends all sessions, and so do other rules on who
    may sign in as what: a session holds its role, which may not be given any longer."""
    rules = hashlib.sha256(sign_in.model_dump_json().encode() if sign_in else b"").digest()
    said = b"sessions of the page\0" + rules + (token or "").encode()
    return hmac.new(prefix_secret, said, hashlib.sha256).digest()


def _new_session_id() -> str:
    return secrets.token_urlsafe(SESSION_ID_BYTES)
