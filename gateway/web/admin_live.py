"""`GET /v1/live`: the calls that are open on this replica, in all its workers, and those that ended in the
last minutes. Numbers and names, never content. The page and `gateway top` show the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from aiohttp import web

from gateway.core.live import LiveCall
from gateway.ports import Clock
from gateway.web.admin_api import AdminError, Operation, answer_json
from gateway.web.budget_view import stated
from gateway.web.openapi import Answer, Description, Parameter

MAX_SHOWN = 500
FILTERS = ("workspace", "key", "model")

Calls = Callable[[], Awaitable[Sequence[LiveCall]]]
"""Those that are open, the longest first; then those that ended, the last first."""


class LiveCallAnswer(Answer):
    """One call. Of an open one tokens are what is expected; of an ended one what was billed."""

    id: str
    received_at: str
    duration_seconds: float
    """So far, of an open one."""
    open: bool
    organisation: str
    workspace: str
    key_id: str
    key_name: str
    endpoint: str
    model: str
    streaming: bool
    state: str
    status: int
    """What the client got; 0 while it got nothing."""
    error_code: str | None
    prompt_tokens: int | None
    read_tokens: int
    write_tokens: int
    output_tokens: int | None
    """Null while the call is open: upstream says it at the end."""
    response_bytes: int
    """Sent to the client so far."""
    cost_nanousd: int | None
    """Null where nothing was billed, or not yet."""
    set_aside_nanousd: int
    """What may be spent at most."""
    cohort: str | None
    """Whose breakpoints it went out with."""
    breakpoints: int
    """That the gateway added."""
    miss: str | None
    """Why something known could not be read."""
    reason: str
    """Why the breakpoints are where they are, or why there are none."""


class LiveAnswer(Answer):
    """What this replica does now."""

    at: str
    open: list[LiveCallAnswer]
    """The longest first."""
    ended: list[LiveCallAnswer]
    """In the last ten minutes, the last first; the last 500 at most."""


def live_operations(calls: Calls, clock: Clock) -> list[Operation]:
    """What runs, as JSON."""

    async def live(request: web.Request) -> web.Response:
        found = chosen(await calls(), request.query)
        return answer_json(
            LiveAnswer(
                at=stated(clock.now()),
                open=[_answer(call) for call in found if call.open],
                ended=[_answer(call) for call in found if not call.open],
            )
        )

    return [Operation(method="GET", path="/v1/live", respond=live, description=_DESCRIPTION)]


_DESCRIPTION = Description(
    id="live",
    summary="The calls that are open on this replica, and those that ended in the last ten minutes.",
    text="Of this replica only. Numbers and names, never content: no prompt, no answer.",
    parameters=tuple(
        Parameter(name=name, description=f"Only calls of this {name}{' id' if name == 'key' else ''}.")
        for name in FILTERS
    ),
    answer=LiveAnswer,
    errors={400: "A parameter cannot be understood."},
)


def chosen(calls: Sequence[LiveCall], query: Mapping[str, str]) -> list[LiveCall]:
    """Those that a query asks for. Raises `AdminError` for a parameter that there is not."""
    if unknown := [name for name in query if name not in FILTERS]:
        raise AdminError(400, f"There is no parameter {unknown[0][:100]!r}; there are: {', '.join(FILTERS)}.")
    asked = {name: query.get(name, "") for name in FILTERS}
    return [
        call
        for call in calls
        if asked["workspace"] in ("", call.workspace)
        and asked["key"] in ("", call.key_id)
        and asked["model"] in ("", call.model)
    ][: 2 * MAX_SHOWN]


def _answer(call: LiveCall) -> LiveCallAnswer:
    fields = asdict(call)
    return LiveCallAnswer(**{**fields, "received_at": stated(call.received_at)})
