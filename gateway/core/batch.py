"""What a message batch may cost, read from its body; what is kept of it until it has ended. Pure.

An item is read and estimated as a call of its own, at the price of batches; no breakpoints are placed in it,
and its bytes pass unchanged. Where items stand is `batch_items.py`'s, what became of them
`batch_results.py`'s. Sources: batch processing and pricing pages, 2026-08-21.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.core.batch_items import Body, batch_items, item_members
from gateway.core.batch_shares import Share, ShareSum, sorted_shares, total_cost, total_usage
from gateway.core.bucket import Amounts, Held
from gateway.core.errors import BadRequest, Forbidden
from gateway.core.estimate import Estimate, estimate_spend
from gateway.core.exchange import Basis, Closing
from gateway.core.limits import BoundLimit, Tags, Unit
from gateway.core.other_models import other_models
from gateway.core.permission import permit_model
from gateway.core.plan import UNPLACED
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.prompt_reader import NoModel, read_prompt
from gateway.core.rules import Rules, Workspace
from gateway.core.settlement import ONE_REQUEST, Settlement
from gateway.core.spans import read_string

LEASE_SECONDS = 26 * 3600.0
"""A batch ends within a day of its creation; its reservation holds longer, whoever goes away meanwhile."""
RESULTS_SECONDS = 29 * 86_400.0
"""So long after its creation a batch's results can be had."""
REST_ITEMS = 25
"""After so many items, of about a millisecond together, a pause is offered."""
NAMED_ITEMS = 5
"""So many items are named in a refusal at most."""
_CUSTOM_ID = re.compile(r"[a-zA-Z0-9_-]{1,64}")


def _go_on() -> None:
    return


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchPlan:
    """What one batch may cost: an estimate for all of it, and its parts by model, dearest first."""

    items: int
    estimate: Estimate
    cost: Cost
    shares: tuple[Share, ...]
    other_models: tuple[str, ...] = ()
    """What items may come to besides the models that they ask for."""

    @property
    def models(self) -> tuple[str, ...]:
        return tuple(share.model for share in self.shares)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a batch turned out to cost; written down before anything is booked."""

    basis: Basis
    ended_at: float
    amounts: Amounts
    shares: tuple[Share, ...]
    ledger: str
    """The one ledger that books it: of several replicas each has its own."""
    at: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KeptBatch:
    """A batch that upstream accepted and that is not booked yet. Holds no content and no credential. Instants
    are epoch seconds."""

    id: str
    """Upstream's."""
    exchange_id: str
    principal: Principal
    route: str
    version_headers: tuple[tuple[str, str], ...]
    """By which the API's behaviour was chosen, and is to be chosen for its questions."""
    tags: tuple[tuple[str, str], ...]
    created_at: float
    items: int
    presumed: tuple[Share, ...]
    presumed_amounts: Amounts
    reservation_id: str | None
    """None where no limit bound it."""
    held: Held | None = None
    """How it is held, for whoever settles it; None where its id says it all."""
    next_at: float
    """When it is looked at again."""
    misses: int = 0
    """Looks in a row at which upstream did not know it."""
    settled: Settled | None = None
    revision: int = 0
    """Counts its changes, so that of two replicas one alone makes each."""


def read_batch(
    body: Body,
    *,
    rules: Rules,
    workspace: Workspace,
    at: float,
    rest: Callable[[], None] = _go_on,
) -> BatchPlan:
    """Read a batch and estimate it. A small item takes some 40 µs, and the interpreter is held for no longer
    than reading one item takes: meant for a thread, which lets others have their turn in `rest`.

    Raises `BadRequest` where the body or an item cannot be read, naming the item; `Forbidden` where the
    workspace may not use the model of some, naming these.
    """
    reading = _Reading(rules, workspace, at)
    whole = memoryview(body)
    for index, (start, end) in enumerate(batch_items(body)):
        reading.take(index, bytes(whole[start:end]))
        if index % REST_ITEMS == 0:
            rest()
    return reading.plan()


def binding_limits(rules: Rules, principal: Principal, plan: BatchPlan, tags: Tags) -> tuple[BoundLimit, ...]:
    """The limits that a batch counts against: dollars of any period, and all limits of calendar windows.

    Rates of requests and tokens, and calls at a time, do not bind it: the API keeps rates of their own for
    batches, and works them through at its own pace (rate limits page, 2026-08-21). A limit for some models
    counts the whole of a batch in which one of them occurs: never too little.
    """
    models = (rules.models.canonical(model) or model for model in (*plan.models, *plan.other_models))
    return tuple(
        each
        for each in rules.limits.binding_any(principal, models, tags)
        if each.limit.unit is Unit.NANOUSD or each.limit.period.is_calendar
    )


def settle_batch_call(closing: Closing, plan: BatchPlan | None, *, kept: bool) -> Settlement:
    """What a call about batches is booked as. One that created a batch (`plan`): nothing yet where the batch
    is `kept`, as its cost is booked once it has ended; all that was set aside where its id is not known, or
    could not be kept. All others are free."""
    if closing is not Closing.SETTLE or plan is None:
        amounts = ONE_REQUEST if closing.counts else Amounts()
        return Settlement(usage=None, cost=None, amounts=amounts, basis=Basis.NONE)
    if kept:
        return Settlement(usage=None, cost=None, amounts=plan.estimate.amounts, basis=Basis.PENDING)
    return Settlement(
        usage=plan.estimate.usage,
        cost=plan.cost,
        amounts=plan.estimate.amounts,
        basis=Basis.ESTIMATED,
    )


class _Reading:
    """One batch as far as it has been read."""

    def __init__(self, rules: Rules, workspace: Workspace, at: float) -> None:
        self._rules = rules
        self._workspace = workspace
        self._at = at
        self._items = 0
        self._sums: dict[str, ShareSum] = {}
        self._amounts = dict.fromkeys(Amounts.__struct_fields__, 0)
        self._others: dict[str, None] = {}
        self._refused: dict[str, list[str]] = {}
        self._refusals: dict[str, Forbidden | None] = {}
        self._unbounded: dict[str, None] = {}
        self._bounded = True

    def take(self, index: int, item: bytes) -> None:
        self._items += 1
        where = f"requests.{index}"
        try:
            members, _ = item_members(item, "an item")
            custom_id = read_string(members.get("custom_id"))
            if _CUSTOM_ID.fullmatch(custom_id) is None:
                raise BadRequest("It needs a `custom_id` of up to 64 letters, digits, - and _.")
            where = f"requests.{index} ({custom_id})"
            if (params := members.get("params")) is None:
                raise BadRequest("It has no `params`.")
            prompt = read_prompt(bytes(params))
            others = other_models(prompt)
        except NoModel:  # upstream takes the batch and tells of it in the results, at no cost
            self._amounts["requests"] += 1
            return
        except BadRequest as error:
            raise BadRequest(f"{where}: {error.message}") from None
        refused = [model for model in (prompt.model, *others) if self._is_refused(model, custom_id)]
        if refused:
            return
        self._others |= dict.fromkeys(others)
        estimate = estimate_spend(
            prompt,
            UNPLACED,
            self._rules.models.facts(prompt.model),
            self._rules.prices,
            mode=self._workspace.estimate,
            at=self._at,
            output_cap_tokens=self._workspace.output_cap_tokens,
        )
        cost = self._rules.prices.cost(estimate.usage, model=prompt.model, at=self._at, batch=True)
        for name in self._amounts:
            self._amounts[name] += getattr(estimate.amounts, name)
        self._bounded &= estimate.bounded
        if len(self._unbounded) < NAMED_ITEMS:
            self._unbounded |= dict.fromkeys(f"{custom_id}: {why}" for why in estimate.unbounded_by)
        sums = self._sums.get(prompt.model)
        if sums is None:
            sums = self._sums[prompt.model] = ShareSum(prompt.model)
        sums.add(estimate.usage, cost)

    def plan(self) -> BatchPlan:
        for model, refusal in self._refusals.items():
            if refusal is not None:
                named = self._refused[model]
                more = ", and others" if len(named) > NAMED_ITEMS else ""
                raise Forbidden(f"{refusal.message} In this batch: {', '.join(named[:NAMED_ITEMS])}{more}.")
        shares = sorted_shares(self._sums.values())
        cost = total_cost(shares)
        estimate = Estimate(
            # Nothing is under way while a batch is: it takes no place among the calls at a time.
            amounts=replace(Amounts(**self._amounts), concurrent=0, nanousd=cost.total_nanousd),
            usage=total_usage(shares),
            bounded=self._bounded,
            unbounded_by=tuple(self._unbounded),
        )
        others = tuple(self._others)
        return BatchPlan(items=self._items, estimate=estimate, cost=cost, shares=shares, other_models=others)

    def _is_refused(self, model: str, custom_id: str) -> bool:
        if model not in self._refusals:
            try:
                permit_model(model, self._workspace, self._rules)
                self._refusals[model] = None
            except Forbidden as error:
                self._refusals[model] = error
                self._refused[model] = []
        if self._refusals[model] is None:
            return False
        if len(self._refused[model]) <= NAMED_ITEMS:
            self._refused[model].append(custom_id)
        return True
