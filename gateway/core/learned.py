"""The policy that learns: `planner/` behind the gateway's own values.

Here a body becomes a question, a decision becomes a placement, and reported usage becomes experience. What is
decided, and on what grounds, is the planner's. Prompts whose whole text is not in the body, and those that
carry breakpoints of the client's, go by rule, and the planner only learns from them.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.ids import PrefixKey
from gateway.core.models import ModelFacts
from gateway.core.placement import (
    MINIMUM_MARGIN,
    Breakpoint,
    Occasion,
    Placement,
    block_tokens,
    has_server_tools,
)
from gateway.core.planner import Kind, Planner, PlannerOptions, Prices, Question, Reported, compact_key
from gateway.core.prompt import TTL, Block, Level, Prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import PlacementMode, Workspace
from gateway.core.usage import Usage


class LearnedPolicy:
    """`PlacementPolicy` that knows what was reused. Not safe for threads; no call blocks."""

    needs_keys = True

    def __init__(self, options: PlannerOptions | None = None) -> None:
        self.planner = Planner(options or PlannerOptions(warming=False))
        self._by_rule = RulePolicy()
        self._ids: dict[str, int] = {}
        self._shadowed: set[str] = set()
        self._last_id = 0
        self._now = 0.0

    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion,
    ) -> Placement:
        """As `PlacementPolicy.plan`."""
        elsewhere = "thread" in prompt.fields or prompt.max_tokens in (0, None) or not prompt.blocks
        by_rule: Placement | None = None
        if elsewhere or prompt.client_marks or has_server_tools(prompt):
            by_rule = self._by_rule.plan(prompt, keys, facts, workspace, occasion)
            if elsewhere:
                return by_rule
        question = Question(
            self._id_of(occasion.call_id),
            compact_key(occasion.scope),
            [compact_key(key) for key in keys],
            block_tokens(prompt, facts),
            bytes(_kind(block) for block in prompt.blocks),
            Prices(
                read=occasion.prices.read,
                write_5m=occasion.prices.write_5m,
                write_1h=occasion.prices.write_1h,
                minimum_tokens=int(facts.minimum_cacheable_tokens * MINIMUM_MARGIN),
            ),
            unmarkable=frozenset(
                at for at, block in enumerate(prompt.blocks) if not (block.may_be_marked and block.in_prefix)
            ),
            fixed=None if by_rule is None else _fixed(prompt, by_rule),
            warmable=False,
        )
        decision = self.planner.plan(question, self._at(occasion.at), may_wait=occasion.may_wait)
        if decision.wait_for is not None:
            leader = next((call for call, number in self._ids.items() if number == decision.wait_for), None)
            return Placement(reason=decision.reason, wait_for=leader)
        if workspace.placement is PlacementMode.SHADOW:
            self._shadowed.add(occasion.call_id)
        if by_rule is not None:
            return by_rule
        points = tuple(Breakpoint(mark.block, TTL(mark.ttl), mark.reason) for mark in decision.marks)
        why = decision.reason if decision.miss is None else f"{decision.reason}; {decision.miss.reason}"
        return Placement(breakpoints=points, reason=why)

    def answered(self, call_id: str, at: float) -> None:
        """The head of a good answer came: what the call wrote can be read from now on."""
        number = self._ids.get(call_id)
        if number is not None:
            self.planner.answered(number, self._at(at))

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        """The call's usage is known. In shadow mode the decision was not sent, and plays on as expected."""
        number = self._ids.pop(call_id, None)
        if number is None:
            return
        shadowed = call_id in self._shadowed
        self._shadowed.discard(call_id)
        reported = Reported(
            usage.uncached_input_tokens,
            usage.cache_read_tokens,
            usage.cache_write_5m_tokens,
            usage.cache_write_1h_tokens,
        )
        self.planner.billed(number, None if shadowed else reported, self._at(at))

    def failed(self, call_id: str, at: float) -> None:
        """The call was not served: it wrote and refreshed nothing."""
        self._shadowed.discard(call_id)
        number = self._ids.pop(call_id, None)
        if number is not None:
            self.planner.failed(number)

    def _id_of(self, call_id: str) -> int:
        number = self._ids.get(call_id)
        if number is None:
            self._last_id += 1
            number = self._ids[call_id] = self._last_id
        return number

    def _at(self, instant: float) -> float:
        """The planner's time must not go back, as a wall clock may."""
        self._now = max(self._now, instant)
        return self._now


def _kind(block: Block) -> Kind:
    if block.level is Level.TOOLS:
        return Kind.TOOLS
    if block.level is Level.SYSTEM:
        return Kind.SYSTEM
    return Kind.ASSISTANT if block.role == "assistant" else Kind.USER


def _fixed(prompt: Prompt, by_rule: Placement) -> tuple[tuple[int, bool], ...]:
    """What will be on the wire: the client's own breakpoints and those added by rule."""
    marks = {at: block.ttl is TTL.ONE_HOUR for at, block in enumerate(prompt.blocks) if block.marks}
    marks |= {point.block: point.ttl is TTL.ONE_HOUR for point in by_rule.breakpoints}
    if prompt.automatic_ttl is not None:
        last = max((at for at, block in enumerate(prompt.blocks) if block.may_be_marked), default=None)
        if last is not None:
            marks[last] = prompt.automatic_ttl is TTL.ONE_HOUR
    return tuple(sorted(marks.items()))
