"""What the gateway intends for one Messages body: read, place, estimate. Pure; `gateway explain` prints it.

Caching does no harm: whatever goes wrong between reading and placing, the plan carries the client's own
bytes and says so. A body that cannot be read is the client's to mend, and raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from traceback import extract_tb

from gateway.core.edit import apply_placement
from gateway.core.estimate import Estimate, estimate_spend
from gateway.core.headers import Headers, value_of
from gateway.core.models import ModelFacts
from gateway.core.placement import Placement, PlacementPolicy, check_placement
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.prompt import Prompt, read_prompt
from gateway.core.rules import PlacementMode, Rules, Workspace

UNPLACED = Placement(reason="placement is off")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The decisions for one body. `pieces` is what goes upstream, to be written without joining."""

    prompt: Prompt
    facts: ModelFacts
    placement: Placement
    """As decided; in shadow mode it is not applied."""
    pieces: tuple[bytes | memoryview, ...]
    failure: str | None
    """Why planning was given up, for the log; the client's bytes go through."""

    @property
    def continues_thread(self) -> bool:
        """Whether it appends to a message thread that upstream keeps; such a call can be made once only."""
        start, end = self.prompt.fields.get("thread", (0, 0))
        return b"previous_message_id" in self.prompt.body[start:end]


def plan_call(
    body: bytes,
    *,
    rules: Rules,
    workspace: Workspace,
    policy: PlacementPolicy,
    headers: Headers,
    wanted: bool = True,
) -> Plan:
    """Read `body` and decide its breakpoints. `wanted` is False where the request is of a kind that is never
    edited. Raises `BadRequest` where the body cannot be a Messages call."""
    prompt = read_prompt(body)
    facts = rules.models.facts(prompt.model)
    placement, failure = UNPLACED, None
    pieces: tuple[bytes | memoryview, ...] = (body,)
    wanted = wanted and workspace.placement is not PlacementMode.OFF and not _opts_out(headers, rules)
    if wanted:
        try:
            placement = _place(prompt, facts, rules, workspace, policy, headers)
            if workspace.placement is PlacementMode.ON:
                pieces = apply_placement(prompt, placement)
        except Exception as error:  # the one place where any bug of planning must not become a failed call
            placement, failure = Placement(reason="planning failed"), _what_failed(error)
            pieces = (body,)
    return Plan(prompt=prompt, facts=facts, placement=placement, pieces=pieces, failure=failure)


def _what_failed(error: Exception) -> str:
    """Type and place, for the log. The message only of our own guard: that of a decoding error, for one,
    repeats what it could not decode, and logs hold no content."""
    place = extract_tb(error.__traceback__)[-1]
    said = f": {error}" if isinstance(error, AssertionError) else ""
    return f"{type(error).__name__} in {Path(place.filename).name}, line {place.lineno}{said}"


def _opts_out(headers: Headers, rules: Rules) -> bool:
    value = value_of(headers, rules.placement_header.encode())
    return value is not None and value.strip().lower() == b"off"


def estimate_plan(plan: Plan, *, rules: Rules, workspace: Workspace, at: float) -> Estimate:
    """What the plan may cost at most, as far as the workspace's mode promises. Raises on a bug: money is at
    stake, so a call that cannot be estimated is not sent."""
    return estimate_spend(
        plan.prompt,
        plan.placement,
        plan.facts,
        rules.prices,
        mode=workspace.estimate,
        at=at,
        output_cap_tokens=workspace.output_cap_tokens,
    )


def _place(
    prompt: Prompt,
    facts: ModelFacts,
    rules: Rules,
    workspace: Workspace,
    policy: PlacementPolicy,
    headers: Headers,
) -> Placement:
    scope = cache_scope(secret=rules.prefix_secret, workspace=workspace.id, prompt=prompt, headers=headers)
    keys = prefix_keys(prompt, scope)
    placement = policy.plan(prompt, keys, facts, workspace)
    problem = check_placement(prompt, placement)
    if problem is not None:
        raise AssertionError(problem)
    return placement
