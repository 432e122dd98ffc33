"""`GET /v1/budgets`: every limit, how it stands, what adjusts it, when it runs out. And all that changes
budgets and says of them, put together for whoever builds the admin plane."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Iterable, Iterator, Mapping

from aiohttp import web
from msgspec.structs import replace

from gateway.core.adjustments import Freeze, Freezes, FreezeScope
from gateway.core.claims import is_subject
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import Scope
from gateway.core.principal import Principal, is_warming, warming_principal
from gateway.core.rules import Rules
from gateway.ports import AdjustmentStore, BudgetStore, Clock
from gateway.web.admin_adjustments import adjustment_operations
from gateway.web.admin_api import AdminError, Operation, answer_json
from gateway.web.budget_view import (
    AdjustmentAnswer,
    Bound,
    BudgetAnswer,
    InForce,
    adjustment_answer,
    bound_to,
    budget_answers,
    peek_all,
    stated,
)
from gateway.web.me import me_operations
from gateway.web.openapi import Answer, Description, Parameter

MAX_BUDGETS = 1_000
"""Limits in one answer; whoever has more names a workspace, or reads pages."""
FILTERS = ("organisation", "team", "workspace", "key", "limit", "tag")


class BudgetsAnswer(Answer):
    """How limits stand."""

    at: str
    budgets: list[BudgetAnswer]
    """In the order of limits.yaml."""
    next_skip: int | None
    """The `skip` of the next page; null where this is all, or the last one."""
    freezes: list[AdjustmentAnswer]
    """What stops calls of those that were asked for."""


def new_adjustment_id() -> str:
    # Short enough to be typed; there are thousands of them, not billions.
    return f"adj_{secrets.token_hex(6)}"


def budget_operations(
    in_force: InForce,
    store: AdjustmentStore,
    budgets: BudgetStore,
    clock: Clock,
    *,
    new_id: Callable[[], str] = new_adjustment_id,
) -> list[Operation]:
    """All that the admin plane offers about budgets. `new_id` gives the ids of adjustments."""

    async def show(request: web.Request) -> web.Response:
        asked, skip = _asked(request.query)
        return answer_json(await read_budgets(in_force, budgets, asked, clock.now(), skip=skip))

    return [
        Operation(method="GET", path="/v1/budgets", respond=show, description=_DESCRIPTION),
        *adjustment_operations(in_force, store=store, clock=clock, new_id=new_id),
        *me_operations(in_force, budgets=budgets, clock=clock),
    ]


async def read_budgets(
    in_force: InForce, budgets: BudgetStore, asked: Mapping[str, str], at: float, *, skip: int | None = None
) -> BudgetsAnswer:
    """How limits stand, of those that `asked` names: some of `FILTERS`, empty where all are meant. More than
    `MAX_BUDGETS` are given in pages only, to whoever says how many to `skip`. Raises `AdminError`."""
    asked = {name: asked.get(name, "") for name in FILTERS}
    rules = in_force.rules  # all as of one moment, whatever changes meanwhile
    configured, adjustments = in_force.configured, in_force.adjustments
    tags = (_tag(asked["tag"]),) if asked["tag"] else ()
    principals = _principals(rules, asked, at)
    found = bound_to(rules, principals, tags)
    wanted = [bound for bound in found if _is_wanted(bound, asked)]
    if skip is None and len(wanted) > MAX_BUDGETS:
        raise AdminError(
            400, f"That is {len(wanted):,} limits; name a workspace, as ?workspace=NAME, or a ?limit=ID."
        )
    end = (skip or 0) + MAX_BUDGETS
    more, wanted = len(wanted) > end, wanted[skip or 0 : end]
    verdicts = await peek_all(budgets, [bound.limit for bound in wanted])
    # Some hundred milliseconds for as many as there may be, which would stall every stream.
    answers = await asyncio.to_thread(budget_answers, configured, adjustments, wanted, verdicts, at)
    freezes = [
        adjustment_answer(freeze)
        for freeze in adjustments
        if isinstance(freeze, Freeze)
        and (not any(asked.values()) or _stops_one(freeze, principals))
        and (not is_subject(asked["key"]) or asked["workspace"] or freeze.scope is FreezeScope.KEY)
    ]
    return BudgetsAnswer(at=stated(at), budgets=answers, next_skip=end if more else None, freezes=freezes)


_DESCRIPTION = Description(
    id="budgets",
    summary="Every limit: its amount, what adjusts it, what is spent, set aside and left, when it runs out.",
    text="Amounts are of all replicas; adjustments as this replica knows them, at most three seconds old. "
    "Limits of keys are among them where a workspace or a key is named, those of tags where a value is.",
    parameters=(
        Parameter(name="organisation", description="Only what binds calls of this organisation."),
        Parameter(name="team", description="Only what binds calls of this team."),
        Parameter(
            name="workspace", description="Only what binds calls of this workspace, its keys included."
        ),
        Parameter(
            name="key",
            description="Only what binds calls of the key with this id. Of a subject of tokens, as "
            "token:people:alice, its own limits in each organisation; all that binds it where its workspace "
            "is named too.",
        ),
        Parameter(name="limit", description="Only the limit of this id."),
        Parameter(name="tag", description="Limits of this tag too, as x-user:alice."),
        Parameter(
            name="skip",
            description="For pages of 1,000: how many to leave out first. 0, then `next_skip` of the page "
            "before. Without it more than that are refused, so that nobody takes a part for the whole.",
            pattern="^[0-9]{1,9}$",
        ),
    ),
    answer=BudgetsAnswer,
    errors={
        400: "A parameter cannot be understood, or it would be too many limits for one answer.",
        404: "There is no such organisation, team, workspace or key.",
        503: "The store of budgets does not answer.",
    },
)


def _asked(query: Mapping[str, str]) -> tuple[dict[str, str], int | None]:
    known = (*FILTERS, "skip")
    if unknown := [name for name in query if name not in known]:
        raise AdminError(400, f"There is no parameter {unknown[0]!r}; there are: {', '.join(known)}.")
    skip = query.get("skip")
    if skip is not None and not (skip.isdecimal() and skip.isascii() and len(skip) <= 9):
        raise AdminError(400, "Write skip as a number, as ?skip=0.")
    return {name: query.get(name, "") for name in FILTERS}, None if skip is None else int(skip)


def _tag(text: str) -> tuple[str, str]:
    name, colon, value = text.partition(":")
    if not colon or not name or not value:
        raise AdminError(400, "Write a tag as its header and value, as ?tag=x-user:alice.")
    return name.lower(), value


def _principals(rules: Rules, asked: Mapping[str, str], at: float) -> list[Principal]:
    """Whoever is asked for: of each workspace one that is nobody, the gateway itself, and its keys where it
    or one of them is named. A subject of tokens may be of any workspace. Raises `AdminError` where there
    is no such one."""

    def is_asked(principal: Principal) -> bool:
        return (
            asked["organisation"] in ("", principal.organisation)
            and asked["team"] in ("", principal.team)
            and asked["workspace"] in ("", principal.workspace)
        )

    if is_subject(asked["key"]):
        nobodies = (each for each in _workspaces(rules) if not is_warming(each))
        found = [replace(each, key_id=KeyId(asked["key"])) for each in nobodies if is_asked(each)]
    elif asked["key"]:
        keys = [each for each in _keys(rules, at) if each.key_id == asked["key"]]
        found = [each for each in keys if is_asked(each)]
    else:
        found = [each for each in _workspaces(rules) if is_asked(each)]
        if asked["workspace"]:
            found += [each for each in _keys(rules, at) if is_asked(each)]
    if not found and any(asked[name] for name in ("organisation", "team", "workspace", "key")):
        given = ", ".join(f"{name} {asked[name]!r}" for name in FILTERS[:4] if asked[name])
        raise AdminError(404, f"There is no {given} here; `gateway config check` shows which there are.")
    return found


def _workspaces(rules: Rules) -> Iterator[Principal]:
    for workspace in rules.workspaces.values():
        yield Principal(
            workspace=workspace.id,
            key_id=KeyId(""),
            key_name="",
            organisation=workspace.organisation,
            team=workspace.team,
        )
        yield warming_principal(WorkspaceId(workspace.id), workspace.organisation, workspace.team)


def _keys(rules: Rules, at: float) -> Iterator[Principal]:
    return rules.keyring.principals(at)


def _stops_one(freeze: Freeze, principals: Iterable[Principal]) -> bool:
    only = Freezes((freeze,))
    return any(only.of(principal) for principal in principals)


def _is_wanted(bound: Bound, asked: Mapping[str, str]) -> bool:
    limit, subject = bound.limit.limit, bound.limit.subject
    if asked["limit"] not in ("", limit.id):
        return False
    if is_subject(asked["key"]) and not asked["workspace"] and (limit.scope is not Scope.KEY or limit.shared):
        return False  # its workspace is not known, so neither is what else binds it
    if limit.scope is not Scope.KEY or limit.shared:
        return True
    # Of nobody's key, and of defaults for keys as they would bind the gateway itself.
    nobody = Principal(workspace=WorkspaceId(""), key_id=KeyId(subject), key_name="")
    return bool(subject) and (not is_warming(nobody) or subject in limit.subjects)
