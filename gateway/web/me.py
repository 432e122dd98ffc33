"""`GET /v1/me`: what a key can ask about itself, with itself as the credential: who it is, its limits and
what is left of them, what it has spent, whether it is frozen, whom to ask.

Of limits that it shares with others it learns what a refusal would tell it: the amount and what is left. What
others spent of it, who they are and what was written about them is never among it.
"""

from __future__ import annotations

from collections import OrderedDict

from aiohttp import web

from gateway.core.adjustments import freeze_message
from gateway.core.bucket import Verdict
from gateway.core.errors import StoreUnavailable, Unauthenticated
from gateway.core.forecast import runs_out_at
from gateway.core.limits import Period, Scope, Unit
from gateway.core.principal import Principal, find_credential
from gateway.core.rules import Rules
from gateway.ports import BudgetStore, Clock
from gateway.web.admin_api import AdminError, Operation, answer_json
from gateway.web.budget_view import InForce, Quantity, bound_to, counted, instant, left_of, peek_all, stated
from gateway.web.openapi import Answer, Description

PER_SECOND = 1.0
"""How often one key may ask, and all callers without a good one together."""
AT_ONCE = 20.0
REMEMBERED = 10_000
"""Keys whose asking is counted; who asked longest ago is forgotten first."""


class KeyAnswer(Answer):
    """The key that asks."""

    id: str
    name: str
    last4: str
    """Its last characters."""
    expires_at: str | None


class OwnLimitAnswer(Answer):
    """A limit that binds the key's calls."""

    limit: str
    scope: str
    """Who shares it: all keys of the organisation, team or workspace; of `key`, nobody."""
    shared: bool
    """A pool that others of its scope draw on too."""
    unit: str
    period: str
    mode: str
    """Of `shadow`, nothing is refused."""
    models: list[str]
    """Globs of models that it counts; all where empty."""
    amount: Quantity
    left: Quantity
    rebuilding: bool
    """Whether the counter is being computed anew: `left` says nothing meanwhile, and its text is "?"."""
    resets_at: str | None
    runs_out_at: str | None
    """When it is spent, if spending goes on as it has on average since its window began."""
    contact: str


class SpendAnswer(Answer):
    """What was spent in a window, as the limit counts it that knows."""

    whose: str
    """`key`, or `workspace` where no limit counts the key by itself."""
    limit: str
    spent: Quantity
    """Of a limit whose counter is being computed anew, the text is "?"."""
    until: str | None
    """When the window ends."""


class MeAnswer(Answer):
    """What a key can know of itself."""

    at: str
    organisation: str
    team: str
    workspace: str
    key: KeyAnswer
    models: list[str]
    """Globs of models that it may use; all where empty."""
    frozen: str | None
    """Why no call is taken at the moment, and whom to ask; null where calls are taken."""
    limits: list[OwnLimitAnswer]
    today: SpendAnswer | None
    """Null where no limit of dollars per day counts all of it."""
    this_month: SpendAnswer | None
    """Null where no limit of dollars per month counts all of it."""
    contact: str
    """Whom to ask for more."""


def me_operations(in_force: InForce, *, budgets: BudgetStore, clock: Clock) -> list[Operation]:
    """Open to whoever has a key."""
    turns = Turns()

    async def me(request: web.Request) -> web.Response:
        rules, at = in_force.rules, clock.now()
        try:
            principal = rules.keyring.identify(find_credential(request.raw_headers), at)
        except Unauthenticated as error:
            turns.take("", clock.monotonic())
            raise AdminError(401, error.message) from None
        except StoreUnavailable as error:
            raise AdminError(503, error.message) from None
        turns.take(principal.key_id, clock.monotonic())
        bound = bound_to(rules, [principal])
        return answer_json(
            _answer_of(rules, principal, await peek_all(budgets, [b.limit for b in bound]), at)
        )

    return [Operation(method="GET", path="/v1/me", respond=me, description=_DESCRIPTION, open=True)]


class Turns:
    """How often somebody may still ask. Per replica."""

    def __init__(self, *, at_once: float = AT_ONCE, per_second: float = PER_SECOND) -> None:
        self._at_once, self._per_second = at_once, per_second
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, who: str, now: float) -> None:
        """Raises `AdminError` where it was too often."""
        left, since = self._left.pop(who, (self._at_once, now))
        left = min(left + max(now - since, 0.0) * self._per_second, self._at_once)
        # A refusal takes nothing: who goes on asking gets an answer when it is time all the same.
        self._left[who] = (left - 1.0 if left >= 1.0 else left, now)
        if len(self._left) > REMEMBERED:
            self._left.popitem(last=False)
        if left < 1.0:
            raise AdminError(429, "This is asked too often; once in a second is enough.")


_DESCRIPTION = Description(
    id="me",
    summary="Who the caller is, what it may spend and has spent, and whom to ask.",
    text="With a key of this gateway, as apps send it, instead of the admin token. All numbers are of all "
    "replicas. Of limits that are shared it says what is left, not who spent the rest.",
    answer=MeAnswer,
    errors={429: "Asked too often.", 503: "A store does not answer."},
    with_key=True,
)


def _answer_of(rules: Rules, principal: Principal, verdicts: list[Verdict], at: float) -> MeAnswer:
    record = rules.keyring.record(principal.key_id)
    freeze = rules.freezes.of(principal)
    contacts = (verdict.bound.limit.contact for verdict in verdicts if verdict.bound.limit.contact)
    return MeAnswer(
        at=stated(at),
        organisation=principal.organisation,
        team=principal.team,
        workspace=principal.workspace,
        key=KeyAnswer(
            id=principal.key_id,
            name=principal.key_name,
            last4=record.last4 if record else "",
            expires_at=instant(record.expires_at if record else None),
        ),
        models=list(rules.workspaces[principal.workspace].models),
        frozen=freeze_message(freeze) if freeze else None,
        limits=[_limit_of(verdict, at) for verdict in verdicts],
        today=_spent_in(Period.CALENDAR_DAY, verdicts),
        this_month=_spent_in(Period.CALENDAR_MONTH, verdicts),
        contact=next(contacts, "whoever runs this gateway"),
    )


def _limit_of(verdict: Verdict, at: float) -> OwnLimitAnswer:
    limit = verdict.bound.limit
    return OwnLimitAnswer(
        limit=limit.id,
        scope=limit.scope,
        shared=limit.shared,
        unit=limit.unit,
        period=limit.period,
        mode=limit.mode,
        models=list(limit.models),
        amount=Quantity.of(limit.amount, limit.unit),
        left=left_of(verdict),
        rebuilding=verdict.rebuilding,
        resets_at=instant(verdict.reset_at),
        runs_out_at=instant(runs_out_at(verdict, at)),
        contact=limit.contact,
    )


def _spent_in(period: Period, verdicts: list[Verdict]) -> SpendAnswer | None:
    """Of the key's own limit where there is one, else of its workspace's."""
    for scope in (Scope.KEY, Scope.WORKSPACE):
        for verdict in verdicts:
            limit = verdict.bound.limit
            counts_all = limit.unit is Unit.NANOUSD and not limit.models and not limit.shared
            if counts_all and limit.period is period and limit.scope is scope:
                return SpendAnswer(
                    whose=scope,
                    limit=limit.id,
                    spent=counted(verdict, verdict.spent),
                    until=instant(verdict.reset_at),
                )
    return None
