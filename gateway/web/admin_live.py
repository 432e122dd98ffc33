"""`GET /v1/live`: the calls that are open, and those that ended in the last minutes, of all workers and
all replicas on one Redis. Numbers and names, never content. The page and `gateway top` show the same."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict

from aiohttp import web

from gateway.core.live import Live, LiveCall
from gateway.ports import Clock
from gateway.web.admin_api import AdminError, Operation, answer_json
from gateway.web.budget_view import stated
from gateway.web.openapi import Answer, Description, Parameter

MAX_SHOWN = 500
FILTERS = ("workspace", "key", "model")

ReadLive = Callable[[], Awaitable[Live]]
"""Raises nothing."""


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
    replica: str
    """Which one serves it, or did: its host, and four digits that another start of it has not."""


class LiveAnswer(Answer):
    """What the gateway does now."""

    at: str
    open: list[LiveCallAnswer]
    """The longest first; 500 at most."""
    ended: list[LiveCallAnswer]
    """In the last ten minutes, the last first; 500 at most."""
    whole_since: str
    """What ended after this instant is all there, however many calls there were."""
    left_out: int
    """Open calls that are not listed: a replica tells another of 200 calls."""
    replicas: list[str]
    """Whose calls these are; the one that answered first."""
    silent: list[str]
    """Replicas that are there and did not answer in time: their calls are missing."""
    trouble: str | None
    """Why other replicas could not be asked."""


def live_operations(read: ReadLive, clock: Clock) -> list[Operation]:
    """What runs, as JSON."""

    async def live(request: web.Request) -> web.Response:
        found = await read()
        calls = chosen(found.told.calls, request.query)
        opened = [call for call in calls if call.open]
        ended = [call for call in calls if not call.open]
        whole_since = found.told.whole_since
        if len(ended) > MAX_SHOWN:
            whole_since = max(whole_since, ended[MAX_SHOWN].ended_at)
        return answer_json(
            LiveAnswer(
                at=stated(clock.now()),
                open=[_answer(call) for call in opened[:MAX_SHOWN]],
                ended=[_answer(call) for call in ended[:MAX_SHOWN]],
                whole_since=stated(math.ceil(whole_since)),
                left_out=found.told.left_out + max(0, len(opened) - MAX_SHOWN),
                replicas=list(found.replicas),
                silent=list(found.silent),
                trouble=found.trouble or None,
            )
        )

    return [Operation(method="GET", path="/v1/live", respond=live, description=_DESCRIPTION)]


_DESCRIPTION = Description(
    id="live",
    summary="The calls that are open, and those that ended in the last ten minutes.",
    text=(
        "Of all replicas that share a Redis, each of which tells of 200 calls at most; otherwise of the one "
        "that is asked. Numbers and names, never content: no prompt, no answer."
    ),
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
    ]


def _answer(call: LiveCall) -> LiveCallAnswer:
    fields = asdict(call)
    return LiveCallAnswer(**{**fields, "received_at": stated(call.received_at)})
