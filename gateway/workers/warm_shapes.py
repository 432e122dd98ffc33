"""From what is asked for to a warm-up that is ready to be sent, or the reason why there is none. No IO."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.errors import BadRequest
from gateway.core.headers import Headers, value_of
from gateway.core.kept import NEEDED_HEADERS, KeptPrompt
from gateway.core.placement import Breakpoint
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import Rules, Workspace
from gateway.core.warm_body import warm_up_body
from gateway.core.warmup import WarmCause, WarmOutcome, WarmRequest, WarmState, plan_warm_up

_VERSION = (b"anthropic-version", b"2023-06-01")
_TARGET = "/v1/messages"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shaped:
    """A warm-up that is ready to be sent."""

    workspace: Workspace
    prompt: Prompt
    upto: int
    marks: tuple[Breakpoint, ...]
    body: bytes
    headers: Headers
    target: str
    cause: WarmCause
    name: str = ""
    lives_seconds: float = 0.0
    """How much longer the entry lives without it, where that is known."""


def shape_asked(request: WarmRequest, rules: Rules) -> Shaped | WarmOutcome:
    """The warm-up of a prompt that a person or a schedule names."""
    workspace = rules.workspaces.get(request.workspace)
    if workspace is None:
        return WarmOutcome(state=WarmState.REFUSED, reason=f"There is no workspace {request.workspace}.")
    try:
        prompt = read_prompt(request.body)
        planned = plan_warm_up(prompt, rules.models.facts(prompt.model), workspace)
        if planned.why_not is not None:
            return _not_warmable(planned.why_not, prompt.model)
        body = warm_up_body(prompt, planned.upto, planned.marks)
    except (BadRequest, ValueError) as error:
        return _not_warmable(str(error))
    headers = [line for line in request.headers if line[0] in NEEDED_HEADERS]
    if value_of(headers, _VERSION[0]) is None:
        headers.append(_VERSION)
    return Shaped(
        workspace=workspace,
        prompt=prompt,
        upto=planned.upto,
        marks=planned.marks,
        body=body,
        headers=headers,
        target=_TARGET,
        cause=request.cause,
        name=request.name,
    )


def shape_kept(
    kept: KeptPrompt, rules: Rules, *, upto: int, marks: Sequence[Breakpoint], lives_seconds: float
) -> Shaped | WarmOutcome:
    """The warm-up that keeps an entry of an earlier call alive."""
    workspace = rules.workspaces.get(kept.workspace)
    if workspace is None or upto > kept.upto:
        reason = "Its workspace is gone, or not enough of its prompt was kept."
        return WarmOutcome(state=WarmState.SKIPPED, reason=reason)
    try:
        prompt = read_prompt(kept.body)
        body = warm_up_body(prompt, upto, marks)
    except (BadRequest, ValueError) as error:
        return _not_warmable(str(error))
    return Shaped(
        workspace=workspace,
        prompt=prompt,
        upto=upto,
        marks=tuple(marks),
        body=body,
        headers=kept.headers,
        target=kept.target,
        cause=WarmCause.KEEP_ALIVE,
        lives_seconds=lives_seconds,
    )


def _not_warmable(reason: str, model: str = "") -> WarmOutcome:
    return WarmOutcome(state=WarmState.NOT_WARMABLE, reason=reason, model=model)
