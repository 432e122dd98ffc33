"""`POST /v1/prewarm`: warm the prompts of a request, one after another, and say of each what became of it.

The answer begins as soon as the prompts are understood: one JSON line for each that is done, then a summary.
When the client leaves, no further prompt is warmed. How a prompt is warmed, who pays and how fast it may go
is the business of the callable that is given.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections.abc import AsyncGenerator, Callable, Collection, Sequence

from aiohttp import web

from gateway.core.prompt_lines import (
    MAX_PROMPTS,
    MAX_PROMPTS_BYTES,
    LineProblem,
    PromptLine,
    WarmedPrompt,
    read_prompt_lines,
)
from gateway.core.warmup import WarmState
from gateway.web.admin_api import AdminError, Operation
from gateway.web.admin_body import body_of
from gateway.web.openapi import NDJSON, Answer, Description, Money, Parameter

log = logging.getLogger(__name__)

Warm = Callable[[str, str, Sequence[PromptLine]], AsyncGenerator[WarmedPrompt, None]]
"""From workspace, name and prompts to what becomes of each. Closed early it warms no more. Raises nothing."""

MAX_AT_ONCE = 4
"""Requests that hold prompts in memory at the same time."""
BODY_SECONDS = 300.0
SHOWN_PROBLEMS = 5
NAME = r"^[a-z0-9][a-z0-9_-]{0,62}$"


class PromptAnswer(Answer):
    """What became of one prompt."""

    line: int
    """Number of its line in the request, from 1."""
    model: str
    warm: bool
    """Whether the prompt is in the cache now."""
    state: WarmState
    reason: str
    """A sentence on what became of it, and why."""
    read_tokens: int
    """Of the prompt, found in the cache."""
    written_tokens: int
    """Of the prompt, put into the cache."""
    cost: Money
    exchange_id: str | None
    """By which the ledger and the log know the warm-up; null where none was sent."""


class Summary(Answer):
    """Of all prompts of the request. The last line of a complete answer."""

    prompts: int
    warm: int
    read_tokens: int
    written_tokens: int
    cost: Money


class PrewarmLine(Answer):
    """One line: `prompt` as each is done, `summary` at the end."""

    prompt: PromptAnswer | None = None
    summary: Summary | None = None


def prewarm_operations(*, warm: Warm, workspaces: Callable[[], Collection[str]]) -> list[Operation]:
    """`workspaces` are those there are now."""
    busy = 0

    async def prewarm(request: web.Request) -> web.StreamResponse:
        nonlocal busy
        workspace = _workspace(request, workspaces())
        name = request.query.get("name", "asked")
        if not re.fullmatch(NAME, name):
            raise AdminError(
                400, "`name` is up to 63 lower-case letters, digits, - and _, as nightly-report."
            )
        if busy >= MAX_AT_ONCE:
            raise AdminError(429, f"{busy} such requests are being worked on; try again when one has ended.")
        busy += 1
        try:
            prompts = await _read_prompts(request)
            async with contextlib.aclosing(warm(workspace, name, prompts)) as outcomes:
                return await _stream(request, outcomes)
        finally:
            busy -= 1

    return [Operation(method="POST", path="/v1/prewarm", respond=prewarm, description=_DESCRIPTION)]


_DESCRIPTION = Description(
    id="prewarm",
    summary="Warm prompts, and say of each what became of it.",
    text="Each prompt is sent upstream once, generating nothing, and is charged to the workspace's "
    "`warming_per_day`. One line of JSON comes for each prompt as it is done, then one with the summary; an "
    "answer without a summary was cut short. What is in the cache already is read, which prolongs its life.",
    parameters=(
        Parameter(name="workspace", description="Whose prompts they are.", required=True),
        Parameter(name="name", description="By which reports know them; `asked` without it.", pattern=NAME),
    ),
    takes=NDJSON,
    takes_text="A body of /v1/messages on each line, exactly as the requests will send it that are to read "
    'the entry, or `{"body": {...}, "headers": {"anthropic-beta": "..."}}`. '
    f"Up to {MAX_PROMPTS:,} lines and {MAX_PROMPTS_BYTES >> 20} MiB.",
    gives=NDJSON,
    answer=PrewarmLine,
    errors={
        400: "A line cannot be understood; nothing was warmed.",
        403: "The admin plane has no token, and the caller is not on the same machine.",
        404: "There is no such workspace.",
        408: "The prompts did not arrive in time.",
        413: "More bytes than one request may hold.",
        429: "Too many such requests at once.",
    },
)


def _workspace(request: web.Request, known: Collection[str]) -> str:
    workspace = request.query.get("workspace", "")
    if not workspace:
        raise AdminError(400, "Say whose prompts they are, as ?workspace=NAME.")
    if workspace not in known:
        raise AdminError(404, f"There is no workspace of this name; there are: {', '.join(sorted(known))}.")
    return workspace


async def _read_prompts(request: web.Request) -> Sequence[PromptLine]:
    data = await body_of(
        request,
        most_bytes=MAX_PROMPTS_BYTES,
        seconds=BODY_SECONDS,
        too_large=f"More than {MAX_PROMPTS_BYTES >> 20} MiB of prompts; send them in several requests.",
    )
    prompts, problems = await asyncio.to_thread(read_prompt_lines, data)
    if problems:
        raise AdminError(400, _said(problems))
    return prompts


def _said(problems: Sequence[LineProblem]) -> str:
    shown = " ".join(str(problem).rstrip(".") + "." for problem in problems[:SHOWN_PROBLEMS])
    more = len(problems) - SHOWN_PROBLEMS
    return f"Nothing was warmed. {shown}" + (f" And {more} more." if more > 0 else "")


async def _stream(request: web.Request, outcomes: AsyncGenerator[WarmedPrompt, None]) -> web.StreamResponse:
    answer = web.StreamResponse(headers={"content-type": NDJSON, "cache-control": "no-store"})
    await answer.prepare(request)
    done: list[WarmedPrompt] = []
    try:
        async for warmed in outcomes:
            done.append(warmed)
            await answer.write(_line(PrewarmLine(prompt=_answer_of(warmed))))
        await answer.write(_line(PrewarmLine(summary=_summary_of(done))))
        await answer.write_eof()
    except ConnectionError:
        log.info("who asked for prompts to be warmed has left after %d of them", len(done))
    return answer


def _summary_of(done: Sequence[WarmedPrompt]) -> Summary:
    return Summary(
        prompts=len(done),
        warm=sum(each.is_warm for each in done),
        read_tokens=sum(each.outcome.read_tokens for each in done),
        written_tokens=sum(each.outcome.written_tokens for each in done),
        cost=Money.of(sum(each.outcome.cost_nanousd for each in done)),
    )


def _line(line: PrewarmLine) -> bytes:
    return line.model_dump_json(exclude_unset=True).encode() + b"\n"


def _answer_of(warmed: WarmedPrompt) -> PromptAnswer:
    outcome = warmed.outcome
    return PromptAnswer(
        line=warmed.prompt.number,
        model=warmed.prompt.model,
        warm=warmed.is_warm,
        state=outcome.state,
        reason=outcome.reason,
        read_tokens=outcome.read_tokens,
        written_tokens=outcome.written_tokens,
        cost=Money.of(outcome.cost_nanousd),
        exchange_id=outcome.exchange_id,
    )
