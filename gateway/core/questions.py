"""What the planner is asked about a call, from its prompt or from another replica's news; and the news of it.

Decisions come back as placements. Only digests, lengths and counts pass here; nothing is decided.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache

from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.news import Sent, pack_keys, unpack_keys
from gateway.core.placement import MINIMUM_MARGIN, Breakpoint, Occasion, Placement
from gateway.core.planner import Decision, Prices, Question, Reported, compact_key, compact_keys
from gateway.core.prompt import TTL, Prompt
from gateway.core.typical import block_tokens
from gateway.core.usage import Usage

Marks = tuple[tuple[int, bool], ...]
"""Breakpoints: block, and whether 1h."""


def question_of(
    number: int,
    prompt: Prompt,
    keys: Sequence[PrefixKey],
    facts: ModelFacts,
    workspace: WorkspaceId,
    occasion: Occasion,
    *,
    fixed: Marks | None,
    decided: bool,
    warmable: bool,
    warm_up: bool,
    otherwise: Marks | None = None,
) -> Question:
    """One of this replica's own calls."""
    return Question(
        number,
        compact_key(occasion.scope),
        account_of(workspace),
        compact_keys(keys),
        block_tokens(prompt, facts),
        prompt.outline.kinds,
        _prices(facts, occasion),
        unmarkable=prompt.outline.unmarkable,
        fixed=fixed,
        decided=decided,
        warmable=warmable,
        warm_up=warm_up,
        price=occasion.price,
        otherwise=otherwise,
        own=otherwise or (),
    )


def question_heard(number: int, sent: Sent) -> Question | None:
    """What another replica asked itself; None where it makes no sense."""
    blocks = len(sent.ends)
    if len(sent.keys) != 8 * blocks or len(sent.kinds) != blocks:
        return None
    for at, _ in (*sent.marks, *(sent.planned or ()), *sent.own):
        if not 0 <= at < blocks:
            return None
    return Question(
        number,
        sent.scope,
        account_of(WorkspaceId(sent.workspace)),
        unpack_keys(sent.keys),
        sent.ends,
        sent.kinds,
        _prices_heard(sent.prices),
        unmarkable=frozenset(sent.unmarkable),
        fixed=sent.marks,
        own=sent.own,
        known_at=_known_at(sent, blocks),
        decided=sent.decided,
        warmable=False,
        warm_up=sent.warm_up,
        price=sent.price,
    )


def _known_at(sent: Sent, blocks: int) -> tuple[int, ...]:
    """The sender's, and the breakpoints among what it knew; none where they make no sense."""
    known = sent.known
    if not known or known[0] < 0 or known[-1] >= blocks or list(known) != sorted(known):
        return ()
    marked = {at for at, _ in (*sent.marks, *(sent.planned or ())) if at <= known[-1]}
    return tuple(sorted(marked.union(known)))


@lru_cache(maxsize=64)
def _prices_heard(prices: tuple[float, float, float, int]) -> Prices:
    read, write_5m, write_1h, minimum = prices
    return Prices(read=read, write_5m=write_5m, write_1h=write_1h, minimum_tokens=minimum)


def sent_of(
    question: Question,
    marks: tuple[tuple[int, bool], ...],
    model: str,
    workspace: WorkspaceId,
    occasion: Occasion,
    *,
    planned: Marks | None = None,
    holdout: bool = False,
    by_rule: bool = False,
    held: float = 0.0,
    known: tuple[int, ...] = (),
) -> Sent:
    prices = question.prices
    return Sent(
        call=occasion.call_id,
        at=occasion.at,
        workspace=workspace,
        model=model,
        scope=question.scope,
        keys=pack_keys(question.keys),
        ends=tuple(question.ends),
        kinds=question.kinds,
        marks=marks,
        prices=(prices.read, prices.write_5m, prices.write_1h, prices.minimum_tokens),
        unmarkable=tuple(sorted(question.unmarkable)),
        decided=question.decided,
        warm_up=question.warm_up,
        warmable=question.warmable,
        planned=planned,
        holdout=holdout,
        price=question.price,
        by_rule=by_rule,
        held=held,
        known=known,
        own=question.own if question.decided else (),
    )


def on_the_wire(prompt: Prompt, added: Sequence[Breakpoint]) -> tuple[tuple[int, bool], ...]:
    """The client's own breakpoints and those that are added."""
    marks = {at: prompt.blocks[at].ttl is TTL.ONE_HOUR for at in prompt.outline.marked}
    marks |= {point.block: point.ttl is TTL.ONE_HOUR for point in added}
    if prompt.automatic_ttl is not None:
        last = max((at for at, block in enumerate(prompt.blocks) if block.may_be_marked), default=None)
        if last is not None:
            marks[last] = prompt.automatic_ttl is TTL.ONE_HOUR
    return tuple(sorted(marks.items()))


def placement_of(question: Question, decision: Decision, given: Placement | None, held: str) -> Placement:
    """What was decided; or what was `given`, with what the planner expects of it. `held` says how the call
    was held, if it was."""
    if given is None:
        points = tuple([Breakpoint(mark.block, TTL(mark.ttl), mark.reason) for mark in decision.marks])
        missed = "" if decision.miss is None else f"; not read: {decision.miss.reason}"
        reason, holdout = f"{held}{decision.reason}{missed}", False
    else:
        points, reason, holdout = given.breakpoints, given.reason, given.holdout
    return Placement(
        breakpoints=points,
        reason=reason,
        prompt_tokens=question.ends[-1],
        read_tokens=decision.read_tokens,
        write_5m_tokens=decision.write_5m_tokens,
        write_1h_tokens=decision.write_1h_tokens,
        miss=decision.miss,
        holdout=holdout,
        keep_upto=decision.keep_upto,
    )


def reported_of(usage: Usage) -> Reported:
    return Reported(
        usage.uncached_input_tokens,
        usage.cache_read_tokens,
        usage.cache_write_5m_tokens,
        usage.cache_write_1h_tokens,
    )


@lru_cache(maxsize=4096)
def account_of(workspace: WorkspaceId) -> int:
    """The key of a workspace's account: the same in every replica, and never 0."""
    return compact_key(hashlib.sha256(workspace.encode()).digest())


def _prices(facts: ModelFacts, occasion: Occasion) -> Prices:
    return Prices(
        read=occasion.prices.read,
        write_5m=occasion.prices.write_5m,
        write_1h=occasion.prices.write_1h,
        minimum_tokens=int(facts.minimum_cacheable_tokens * MINIMUM_MARGIN),
    )
