"""`/v1/overrides`, `/v1/grants`, `/v1/freezes`: what people change while the gateway runs; `/v1/adjustments`:
who did what and why.

Each takes effect on the replica that answers at once, on the others within three seconds. What an adjustment
does is `core/adjustments.py`; nothing here decides about a call.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import TypeVar

from aiohttp import web

from gateway.core.adjustments import (
    MAX_IN_FORCE,
    Adjustment,
    Author,
    Freeze,
    FreezeScope,
    Grant,
    LogEntry,
    Override,
    TakenBack,
    Target,
    ends_at,
    limit_of,
)
from gateway.core.claims import is_subject
from gateway.core.errors import StoreUnavailable, TooManyAdjustments
from gateway.core.limits import Limit, Scope
from gateway.core.rules import Rules
from gateway.ports import AdjustmentStore, Clock
from gateway.web.adjustment_bodies import (
    FreezeBody,
    GrantBody,
    OverrideBody,
    begins_and_ends,
    page_in,
    said_in,
    taken_back_in,
)
from gateway.web.admin_api import AUTHENTICATED, AdminError, Operation, Respond, answer_json
from gateway.web.admin_body import MAX_JSON_BYTES
from gateway.web.budget_view import AdjustmentAnswer, InForce, entry_answer
from gateway.web.openapi import Answer, Description, Parameter

T = TypeVar("T")

SHOWN = 10
"""Names of what there is instead, in an error."""


class HistoryAnswer(Answer):
    """A page of the audit trail, newest first. One entry when an adjustment is made, another when it is taken
    back."""

    entries: list[AdjustmentAnswer]
    next_before: int | None
    """For `before` of the next page; null at the end."""


def adjustment_operations(
    in_force: InForce,
    *,
    store: AdjustmentStore,
    clock: Clock,
    new_id: Callable[[], str],
) -> list[Operation]:
    """What changes budgets, and the audit trail."""
    changes = Changes(in_force, store, clock, new_id)

    async def override(request: web.Request) -> web.Response:
        body = await said_in(request, OverrideBody)
        return _answer(await changes.override(body, via=request[AUTHENTICATED]))

    async def grant(request: web.Request) -> web.Response:
        body = await said_in(request, GrantBody)
        return _answer(await changes.grant(body, via=request[AUTHENTICATED]))

    async def freeze(request: web.Request) -> web.Response:
        body = await said_in(request, FreezeBody)
        return _answer(await changes.freeze(body, via=request[AUTHENTICATED]))

    def taking_back(kind: type[Adjustment]) -> Respond:
        async def take_back(request: web.Request) -> web.StreamResponse:
            by, reason = taken_back_in(request.query)
            author = Author(name=by, via=request[AUTHENTICATED])
            return _answer(await changes.take_back(request.match_info["id"], author, reason, kind=kind))

        return take_back

    async def history(request: web.Request) -> web.Response:
        before, at_most = page_in(request.query)
        entries = await changes.history(before=before, at_most=at_most)
        last = entries[-1].number if entries else 1
        answers = [entry_answer(entry) for entry in entries]
        return answer_json(HistoryAnswer(entries=answers, next_before=last if last > 1 else None))

    return [
        Operation(method="GET", path="/v1/adjustments", respond=history, description=_HISTORY),
        Operation(method="POST", path="/v1/overrides", respond=override, description=_OVERRIDE),
        Operation(method="POST", path="/v1/grants", respond=grant, description=_GRANT),
        Operation(method="POST", path="/v1/freezes", respond=freeze, description=_FREEZE),
        *(
            Operation(
                method="DELETE",
                path=f"/v1/{kind.__name__.lower()}s/{{id}}",
                respond=taking_back(kind),
                description=_taking_back(kind),
            )
            for kind in (Override, Grant, Freeze)
        ),
    ]


_ERRORS = {
    400: "Something in the body cannot be understood; the message says what, and how to write it.",
    403: "The admin plane has no token, and the caller is not on the same machine.",
    404: "There is no such limit or subject.",
    408: "The body did not arrive in time.",
    409: "The id is another adjustment's, or that of one taken back or ended; the limit does not bind the "
    "subject; or too many adjustments are in force.",
    413: f"The body has more than {MAX_JSON_BYTES:,} bytes.",
    503: "The store of adjustments does not answer; nothing was changed, or the same request can be sent "
    "again with the same id.",
}
_HISTORY = Description(
    id="adjustments",
    summary="Who changed what and why, newest first. Nothing is ever deleted from it.",
    parameters=(
        Parameter(
            name="limit", description="How many entries, up to 200; 50 without it.", pattern="^[0-9]+$"
        ),
        Parameter(name="before", description="`next_before` of the page before.", pattern="^[0-9]+$"),
    ),
    answer=HistoryAnswer,
    errors={400: "A parameter is no number.", 503: "The store of adjustments does not answer."},
)
_OVERRIDE = Description(
    id="override",
    summary="Give one subject another amount of a limit, until it is taken back.",
    text="What was spent stays spent. It takes the place of an override that was made before, which is "
    "taken back, and of one in limits.yaml. Holds on every replica within three seconds.",
    takes="application/json",
    takes_text="Send the same `id` again where an answer got lost: nothing happens twice.",
    takes_model=OverrideBody,
    answer=AdjustmentAnswer,
    errors=_ERRORS,
)
_GRANT = Description(
    id="grant",
    summary="Give one subject more of a limit for a while.",
    text="Grants add up, and add to overrides. Of a limit per day, week or month it ends with the window "
    "that it begins in at the latest, so that it is given once; for more in each window make an override. "
    "It ends on every replica within three seconds of `until`.",
    takes="application/json",
    takes_text="Send the same `id` again where an answer got lost: nothing happens twice.",
    takes_model=GrantBody,
    answer=AdjustmentAnswer,
    errors=_ERRORS,
)
_FREEZE = Description(
    id="freeze",
    summary="Take no new calls of an organisation, team, workspace or key, until that is taken back.",
    text="Calls are refused with status 403 and the API's `permission_error`, which names the reason and "
    "whom to ask; answers that are under way end normally. Holds on every replica within three seconds.",
    takes="application/json",
    takes_text="Send the same `id` again where an answer got lost: nothing happens twice.",
    takes_model=FreezeBody,
    answer=AdjustmentAnswer,
    errors=_ERRORS,
)


def _taking_back(kind: type[Adjustment]) -> Description:
    name = kind.__name__.lower()
    return Description(
        id=f"take_back_{name}",
        summary=f"Take back this {name}.",
        text="It stays in the audit trail, with who took it back and why. A second time changes nothing.",
        parameters=(
            Parameter(name="id", description=f"Of the {name}.", required=True, place="path"),
            Parameter(name="by", description="Who takes it back, for the audit trail.", required=True),
            Parameter(name="reason", description="Why, for the audit trail.", required=True),
        ),
        answer=AdjustmentAnswer,
        errors={status: _ERRORS[status] for status in (400, 403, 503)} | {404: f"There is no such {name}."},
    )


class Changes:
    """Makes adjustments and takes them back: in force on this replica when a method returns. `via` says how
    it is known that whoever asks may. Methods raise `AdminError`."""

    def __init__(
        self,
        in_force: InForce,
        store: AdjustmentStore,
        clock: Clock,
        new_id: Callable[[], str],
    ) -> None:
        self._in_force = in_force
        self._store = store
        self._clock = clock
        self._new_id = new_id

    async def override(self, body: OverrideBody, *, via: str) -> LogEntry:
        """Another amount. One that was made before for the same limit and subject is taken back."""
        limit = self._limit(body.limit, body.subject)
        target, amount = _target(limit, body.subject), self._amount(limit, body.amount)
        made_id, by = body.id or self._new_id(), Author(name=body.by, via=via)
        entry = await self._keep(
            lambda at: Override(id=made_id, target=target, amount=amount, reason=body.reason, by=by, at=at)
        )
        # Of one that is sent again too: the first time may have failed before it came to this.
        await self._replace_others(entry, target)
        return await self._taken_over(entry)

    async def grant(self, body: GrantBody, *, via: str) -> LogEntry:
        """Some more, for a while."""
        limit = self._limit(body.limit, body.subject)
        extra = self._amount(limit, body.amount)
        if extra < 1:
            raise AdminError(400, "A grant of nothing changes nothing; say how much more it is to be.")
        made_id = body.id or self._new_id()

        def make(at: float) -> Grant:
            from_at, until_at = begins_and_ends(body, limit, at)
            return Grant(
                id=made_id,
                target=_target(limit, body.subject),
                extra=extra,
                from_at=from_at,
                until_at=until_at,
                reason=body.reason,
                by=Author(name=body.by, via=via),
                at=at,
            )

        return await self._taken_over(await self._keep(make))

    def check_freeze(self, body: FreezeBody) -> None:
        """Raises `AdminError` where there is nobody that it would stop."""
        known = members_of(self._in_force.rules, body.scope)
        if body.subject not in known and not _is_token_subject(body.scope, body.subject):
            raise AdminError(404, f"There is no {body.scope} {body.subject!r}{_those(known)}.")

    async def freeze(self, body: FreezeBody, *, via: str) -> LogEntry:
        """No new calls."""
        self.check_freeze(body)
        made_id, by = body.id or self._new_id(), Author(name=body.by, via=via)
        entry = await self._keep(
            lambda at: Freeze(
                id=made_id, scope=body.scope, subject=body.subject, reason=body.reason, by=by, at=at
            )
        )
        return await self._taken_over(entry)

    async def take_back(
        self, adjustment_id: str, author: Author, reason: str, *, kind: type[Adjustment] | None = None
    ) -> LogEntry:
        """Take one back, of this kind where it is said. The first time counts."""
        found = await self.find(adjustment_id, kind=kind)
        taken_back = TakenBack(reason=reason, by=author, at=self._clock.now())
        entry = await _reached(self._store.take_back(found.adjustment.id, taken_back))
        assert entry is not None  # nothing is ever removed
        return await self._taken_over(entry)

    async def find(self, adjustment_id: str, *, kind: type[Adjustment] | None = None) -> LogEntry:
        """How an adjustment stands."""
        found = await _reached(self._store.find(adjustment_id))
        if found is None or (kind is not None and not isinstance(found.adjustment, kind)):
            raise AdminError(404, f"There is no {kind.__name__.lower() if kind else 'change'} of this id.")
        return found

    async def history(self, *, before: int | None, at_most: int) -> tuple[LogEntry, ...]:
        """The audit trail, newest first."""
        return await _reached(self._store.history(before=before, at_most=at_most))

    def _limit(self, limit_id: str, subject: str) -> Limit:
        """The limit as configured. Raises `AdminError` where there is none, or it does not bind the
        subject."""
        limits, rules = self._in_force.configured, self._in_force.rules
        named = [limit for limit in limits.all if limit.id == limit_id]
        if not named:
            ids = {limit.id for limit in limits.all}
            raise AdminError(404, f"There is no limit {limit_id!r}{_those(ids)}.")
        scope = named[0].scope
        if named[0].shared and subject:
            raise AdminError(
                400, f"Limit {limit_id!r} is one pool for all that it binds; leave the subject out."
            )
        if not named[0].shared and not subject and not named[0].require:
            raise AdminError(400, f"Limit {limit_id!r} is one for each {scope}; say whose is meant.")
        known = members_of(rules, scope) | {each for limit in named for each in limit.subjects}
        anybody = scope is Scope.TAG or _is_token_subject(scope, subject)
        if not anybody and subject and subject not in known:
            raise AdminError(404, f"There is no {scope} {subject!r}{_those(known)}.")
        found = limit_of(limits, limit_id, subject)
        if found is None:
            raise AdminError(
                409,
                f"Limit {limit_id!r} does not bind {subject!r}: limits.yaml has another one in its place.",
            )
        return found

    def _amount(self, limit: Limit, amount: str | int) -> int:
        try:
            return self._in_force.read_amount(limit, amount)
        except ValueError as error:
            raise AdminError(400, f"`amount` of limit {limit.id!r}: {error}.") from None

    async def _keep(self, make: Callable[[float], Adjustment]) -> LogEntry:
        """Add what a request asks for at an instant; what the same request made before is there already.
        Raises `AdminError` where its id stands for something else, or for what does not hold any longer."""
        made = make(self._clock.now())
        try:
            entry = await _reached(self._store.add(made))
        except TooManyAdjustments:
            raise AdminError(
                409,
                f"{MAX_IN_FORCE} adjustments are in force, which is as many as there may be. Take some "
                "back, and write what is meant to last into limits.yaml.",
            ) from None
        known = entry.adjustment
        if known == made:
            return entry
        if not _says_the_same(known, make(known.at)):  # of then: dates may follow from the instant
            raise AdminError(
                409,
                f"The id {made.id!r} is that of another adjustment, made before; send this with another id.",
            )
        found = await self.find(made.id)
        if found.taken_back is not None or ends_at(known) <= made.at:
            over = "has ended" if found.taken_back is None else "was taken back"
            raise AdminError(409, f"What was made with the id {made.id!r} {over}; send this with another id.")
        return entry

    async def _replace_others(self, entry: LogEntry, target: Target) -> None:
        """Those before it in the log only: of two that are made at once the later one stands."""
        made, now = entry.adjustment, self._clock.now()
        standing = await _reached(self._store.load(now))
        of_it = [each.id for each in standing if isinstance(each, Override) and each.target == target]
        for other in of_it:
            if other != made.id and (await self.find(other)).number < entry.number:
                replaced = TakenBack(reason=f"Replaced by {made.id}.", by=made.by, at=now)
                await _reached(self._store.take_back(other, replaced))

    async def _taken_over(self, entry: LogEntry) -> LogEntry:
        await self._in_force.refresh_adjustments(self._store, self._clock.now())
        return entry


def _answer(entry: LogEntry) -> web.Response:
    return answer_json(entry_answer(entry))


def _says_the_same(one: Adjustment, other: Adjustment) -> bool:
    """Whether they differ in nothing but by whom and why they were made."""
    return replace(one, by=other.by, reason=other.reason) == other


def _target(limit: Limit, subject: str) -> Target:
    return Target(limit=limit.id, subject=subject, scope=limit.scope, unit=limit.unit, period=limit.period)


def members_of(rules: Rules, scope: Scope | FreezeScope) -> set[str]:
    """Those that are known of a scope; of tags nobody knows."""
    match scope.value:
        case "organisation":
            return {workspace.organisation for workspace in rules.workspaces.values()}
        case "team":
            return {workspace.team for workspace in rules.workspaces.values() if workspace.team}
        case "workspace":
            return {str(workspace) for workspace in rules.workspaces}
        case "key":
            return {str(record.id) for record in rules.keyring.records()}
    return set()


def _is_token_subject(scope: Scope | FreezeScope, subject: str) -> bool:
    """Whether it is a caller by token: nobody knows all of them beforehand."""
    return scope.value == "key" and is_subject(subject)


def _those(known: Collection[str]) -> str:
    """The end of a sentence on what there is instead."""
    if not known:
        return "; there is none"
    more = f" and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return f"; there are: {', '.join(sorted(known)[:SHOWN])}{more}"


async def _reached(answer: Awaitable[T]) -> T:
    try:
        return await answer
    except StoreUnavailable as error:
        raise AdminError(503, f"The adjustments cannot be reached: {error.message}") from None
