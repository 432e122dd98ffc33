"""The admin plane, put together: probes, metrics, the admin API and the page, on the parts of a replica."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gateway.adapters.replicas_live import ReplicasLive
from gateway.alerting import Alerts
from gateway.core.limits import Mode, OnStoreFailure
from gateway.core.worker import Worker
from gateway.identity import Identity
from gateway.page import PageParts, open_page
from gateway.page_books import PageBooks
from gateway.planes import listen_admin
from gateway.ports import AdjustmentStore, Clock, KeyStore
from gateway.rules_in_force import RulesInForce
from gateway.settings.load import Settings
from gateway.settings.secrets import admin_token, metrics_token
from gateway.spending import Spending
from gateway.stores import open_sign_outs
from gateway.warming import Warming
from gateway.web.admin import Render
from gateway.web.admin_budgets import budget_operations
from gateway.web.admin_counters import counter_operations
from gateway.web.admin_live import live_operations
from gateway.web.admin_server import AdminServer
from gateway.web.admission import Admission
from gateway.web.health import Conditions


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminParts:
    """What it shows and changes."""

    in_force: RulesInForce
    keys: KeyStore
    adjustments: AdjustmentStore
    spending: Spending
    warming: Warming
    live: ReplicasLive
    books: PageBooks
    alerts: Alerts
    identity: Identity
    clock: Clock


async def open_admin_plane(
    settings: Settings,
    parts: AdminParts,
    *,
    render: Render,
    started: Callable[[], bool],
    draining: Callable[[], bool],
    new_id: Callable[[], str],
    worker: Worker | None = None,
) -> tuple[AdminServer, str]:
    """The plane as it listens, and its URL. Raises OSError where the address is taken."""
    file, budgets, clock = settings.gateway, parts.spending.budgets, parts.clock
    token = admin_token(file, settings.environ)
    admission = Admission(token, clock.monotonic, metrics_token=metrics_token(file, settings.environ))
    shown = PageParts(
        in_force=parts.in_force,
        keys=parts.keys,
        adjustments=parts.adjustments,
        budgets=budgets,
        clock=clock,
        live=parts.live,
        money=parts.books.screens(),
    )
    return await listen_admin(
        file,
        conditions=Conditions(
            started=started,
            draining=draining,
            unread=parts.in_force.unread,
            store_needed=lambda: any(
                limit.mode is Mode.ENFORCE and limit.on_store_failure is OnStoreFailure.REFUSE
                for limit in parts.in_force.rules.limits.all
            ),
            ping_store=budgets.ping,
        ),
        render=render,
        admission=admission,
        page=open_page(
            file,
            shown,
            admission=admission,
            token=token,
            sign_outs=open_sign_outs(file, settings),
            provider=parts.identity.sign_in(settings),
        ),
        operations=[
            *parts.warming.operations(),
            *live_operations(parts.live.live, clock),
            *budget_operations(parts.in_force, parts.adjustments, budgets, clock),
            *counter_operations(parts.spending.auditing, clock),
            *parts.alerts.operations(new_id),
        ],
        worker=worker,
    )
