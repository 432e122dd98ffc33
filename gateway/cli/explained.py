"""What `gateway explain` has to say about one body, as values: the decisions of the running gateway's code.

How it is printed is in `explain.py`. Nothing here reads files or sends anything.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.comparison import compare
from gateway.core.headers import Headers
from gateway.core.ids import KeyId
from gateway.core.limits import BoundLimit
from gateway.core.misses import Miss
from gateway.core.other_models import other_models
from gateway.core.placement import PlacementPolicy
from gateway.core.plan import Plan, estimate_plan, place_call, read_call, wants_placement
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.principal import Principal
from gateway.core.prompt_reader import read_prompt
from gateway.core.refusal import show_amount
from gateway.core.rules import Rules, Workspace
from gateway.core.typical import block_tokens
from gateway.core.usage import Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelShown:
    asked: str
    known: bool
    minimum_cacheable_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementShown:
    mode: str
    reason: str
    client_breakpoints: int
    added_bytes: int
    read_tokens: int
    """Expected; 0 by rule, which expects nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockShown:
    block: int
    level: str
    role: str
    type: str
    bytes: int
    prefix_tokens: int
    prefix_key: str
    client_ttl: str | None
    breakpoint: str | None
    reason: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EstimateShown:
    mode: str
    input_tokens: int
    output_tokens: int
    usd: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitShown:
    id: str
    scope: str
    amount: str
    period: str
    mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class MissShown:
    cause: str
    block: int
    where: str
    byte: int | None
    exact: bool
    looks_like: str
    tokens: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Explained:
    """All of it, in the order in which it is printed."""

    workspace: str
    model: ModelShown
    placement: PlacementShown
    blocks: tuple[BlockShown, ...]
    estimate: EstimateShown
    limits: tuple[LimitShown, ...]
    compared: bool
    """Whether there was another body to compare with."""
    misses: tuple[MissShown, ...]
    """Why what is known, or what the other body wrote, cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """As whom and with what to look at a body."""

    rules: Rules
    workspace: Workspace
    policy: PlacementPolicy
    """A fresh one: what it knows in the end is what it was shown here."""
    at: float
    headers: Headers = ()
    seconds_after: float = 60.0
    """How long before `at` the other body was sent."""


def explain_body(body: bytes, asking: Asking, previous: bytes | None = None) -> Explained:
    """What the gateway would do with `body`, if `previous` is all that it was asked before. Raises
    `BadRequest`."""
    if previous is not None:
        _send(previous, asking)
    plan, rules, workspace = _plan(body, asking, "explain", asking.at), asking.rules, asking.workspace
    estimate = estimate_plan(plan, rules=rules, workspace=workspace, at=asking.at)
    nobody = Principal(
        workspace=workspace.id,
        key_id=KeyId("any"),
        key_name="",
        organisation=workspace.organisation,
        team=workspace.team,
    )
    names = (plan.prompt.model, *other_models(plan.prompt))
    limits = rules.limits.binding_any(nobody, (rules.models.canonical(name) or name for name in names))
    return Explained(
        workspace=workspace.id,
        model=ModelShown(
            asked=plan.prompt.model,
            known=plan.facts.known,
            minimum_cacheable_tokens=plan.facts.minimum_cacheable_tokens,
        ),
        placement=PlacementShown(
            mode=workspace.placement.value,
            reason=plan.failure or plan.placement.reason,
            client_breakpoints=plan.prompt.client_marks,
            added_bytes=sum(map(len, plan.pieces)) - len(body),
            read_tokens=plan.placement.read_tokens,
        ),
        blocks=_blocks(plan, asking),
        estimate=EstimateShown(
            mode=workspace.estimate.value,
            input_tokens=estimate.input_tokens,
            output_tokens=estimate.output_tokens,
            usd=f"{estimate.nanousd / 1e9:.9f}",
        ),
        limits=tuple(map(_limit, limits)),
        compared=previous is not None,
        misses=_misses(plan, asking, previous),
    )


def _send(body: bytes, asking: Asking) -> None:
    """Tell the policy of a call that was served, and billed as it expected."""
    at = asking.at - asking.seconds_after
    placement = _plan(body, asking, "previous", at).placement
    read, short, long = placement.read_tokens, placement.write_5m_tokens, placement.write_1h_tokens
    usage = Usage(
        uncached_input_tokens=max(0, placement.prompt_tokens - read - short - long),
        cache_read_tokens=read,
        cache_write_5m_tokens=short,
        cache_write_1h_tokens=long,
    )
    asking.policy.answered("previous", at)
    asking.policy.billed("previous", usage, at)


def _plan(body: bytes, asking: Asking, call_id: str, at: float) -> Plan:
    rules, workspace, policy, headers = asking.rules, asking.workspace, asking.policy, asking.headers
    wanted = wants_placement(headers, rules, workspace)
    reading = read_call(body, rules=rules, workspace=workspace, policy=policy, headers=headers, wanted=wanted)
    return place_call(
        reading,
        rules=rules,
        workspace=workspace,
        policy=policy,
        call_id=call_id,
        at=at,
        headers=headers,
        wanted=wanted,
    )


def _blocks(plan: Plan, asking: Asking) -> tuple[BlockShown, ...]:
    prompt, secret = plan.prompt, asking.rules.prefix_secret
    scope = cache_scope(secret=secret, workspace=asking.workspace.id, prompt=prompt, headers=asking.headers)
    keys = prefix_keys(prompt, scope)
    tokens = block_tokens(prompt, plan.facts)
    points = {point.block: point for point in plan.placement.breakpoints}
    return tuple(
        BlockShown(
            block=index,
            level=block.level.value,
            role=block.role,
            type=block.type,
            bytes=block.end - block.start,
            prefix_tokens=tokens[index],
            prefix_key=keys[index].hex(),
            client_ttl=block.ttl.value if block.ttl else None,
            breakpoint=points[index].ttl.value if index in points else None,
            reason=points[index].reason if index in points else None,
        )
        for index, block in enumerate(prompt.blocks)
    )


def _misses(plan: Plan, asking: Asking, previous: bytes | None) -> tuple[MissShown, ...]:
    """By both texts, where both are at hand, and otherwise what the policy found."""
    found: tuple[Miss, ...] = ()
    if previous is not None:
        ends = block_tokens(plan.prompt, plan.facts)
        found = compare(
            read_prompt(previous), plan.prompt, ends, previous_headers=asking.headers, headers=asking.headers
        )
    if not found and plan.placement.miss is not None:
        found = (plan.placement.miss,)
    return tuple(
        MissShown(
            cause=miss.cause.value,
            block=miss.block,
            where=miss.where,
            byte=miss.byte,
            exact=miss.exact,
            looks_like=str(miss.looks_like),
            tokens=miss.tokens,
            reason=miss.reason,
        )
        for miss in found
    )


def _limit(bound: BoundLimit) -> LimitShown:
    limit = bound.limit
    return LimitShown(
        id=limit.id,
        scope=limit.scope.value,
        amount=show_amount(limit.amount, limit.unit),
        period=limit.period.value.removeprefix("calendar_"),
        mode=limit.mode.value,
    )
