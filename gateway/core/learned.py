"""The policy that learns: `planner/` behind the gateway's own values.

Here a body becomes a question, a decision becomes a placement, and reported usage becomes experience, whether
of this replica's calls or, from their news, of others'. What is decided, and on what grounds, is the
planner's. Prompts that carry breakpoints of the client's and those for which the API runs tools go by rule,
as far as the bound on what may be lost allows what is added, and the planner learns from them; so it does
from warm-ups, of which it only learns what they wrote. Calls of message threads, and those far too short to
be cached, get nothing and teach nothing.

Replicas that tell each other their news keep equal accounts: each counts every call of a workspace once, its
own as it is planned and others' as they are heard, so that what trying may lose is bounded for all of them
together, but for what is decided in the instant that news travel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from msgspec.structs import replace

from gateway.core.changes import Changes, greater_miss
from gateway.core.given import given_placement, is_warm_up
from gateway.core.hearing import Hearing
from gateway.core.ids import PrefixKey
from gateway.core.models import ModelFacts
from gateway.core.news import Answered, Billed, Failed, News, Warmed
from gateway.core.placement import Breakpoint, Occasion, Placement
from gateway.core.planner import Decision, Planner, PlannerOptions, Question, Warm, Why, snapshot
from gateway.core.planner.calls import Calls
from gateway.core.planner.instants import Instants
from gateway.core.planner.values import FIVE_MINUTES_SECONDS, ONE_HOUR_SECONDS
from gateway.core.prompt import TTL, Prompt
from gateway.core.questions import (
    on_the_wire,
    placement_of,
    question_of,
    reported_of,
    sent_of,
)
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import PlacementMode, Workspace
from gateway.core.typical import block_tokens
from gateway.core.usage import Usage
from gateway.core.warmup import why_not_warmable

FAR_TOO_SHORT = 1.5
"""A prompt below the model's minimum by this factor can hardly be cached, nor its next turn: nothing is
learned of it. Nearer to the minimum, conversations teach how those go on that outgrow it: with 1.0 in its
place a recorded trace of chats cost 4% more."""
HELD_SECONDS = 0.05
"""A call that asked with claims and comes back later than this was held by whoever had them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmUp:
    """Send the prompt of an earlier call again, up to a block and with `max_tokens: 0`, to give its entry one
    more lifetime. Either `warmed` or `not_warmed` is told in the end."""

    call_id: str
    upto: int
    marks: tuple[Breakpoint, ...]
    """Instead of all others in that prompt."""
    key: int
    """Compact key of the prefix that is kept."""
    tokens: int
    """That it is expected to read."""
    chance: float
    """Estimated chance that a call reads the entry in the lifetime that it is given."""
    cost: float
    """Expected, in units of one uncached input token."""
    reason: str
    warm: Warm = field(repr=False)
    """The planner's own."""


@dataclass(frozen=True, slots=True)
class _Asked:
    """A call that was not let go at once, and what it takes to ask again without reading it anew."""

    prompt: Prompt
    question: Question
    decision: Decision
    """The first."""
    at: float


class LearnedPolicy:
    """`PlacementPolicy` that knows what was reused. Not safe for threads; no call blocks."""

    needs_keys = True

    def __init__(
        self,
        options: PlannerOptions,
        *,
        tell: Callable[[News], None] | None = None,
        claims: bool = False,
        holdout_share: float = 0.0,
        changes: Changes | None = None,
    ) -> None:
        """`tell` gets the news of this replica's own calls, in the order of time, and must neither block nor
        raise. `claims`: whether cold prefixes are claimed over several replicas. `changes` looks for
        what sets a prompt apart from one that was cached."""
        self.planner = Planner(options)
        self._by_rule = RulePolicy()
        self._tell = tell
        self._claims = claims
        self._holdout_share = holdout_share
        self._changes = changes
        self._calls = Calls()
        self._asked: dict[str, _Asked] = {}
        """Calls that were not let go at once."""
        self._shadowed: set[str] = set()
        self._hearing = Hearing(self.planner, self._calls)
        self._time = Instants()

    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion,
    ) -> Placement:
        """As `PlacementPolicy.plan`. A call whose placement says neither whom to wait for nor what to claim
        counts as sent; until then nothing is learned of it."""
        if prompt.max_tokens is None or not prompt.blocks or "thread" in prompt.fields:
            return self._by_rule.plan(prompt, keys, facts, workspace, occasion)
        shadow = workspace.placement is PlacementMode.SHADOW
        given: Placement | None = None
        asked = self._asked.get(occasion.call_id)
        if asked is not None and asked.prompt is prompt:
            question = asked.question
        else:
            given = given_placement(
                prompt, keys, facts, workspace, occasion, holdout_share=self._holdout_share
            )
            if given is None and _far_too_short(prompt, facts):
                return self._by_rule.plan(prompt, keys, facts, workspace, occasion)
            question = self._question(prompt, keys, facts, workspace, occasion, given)
        now = self._time.at(occasion.at)
        decision = self._decide(question, occasion, now, send=not shadow)
        if decision.wait_for is not None or decision.claims:
            self._asked.setdefault(occasion.call_id, _Asked(prompt, question, decision, now))
            return self._not_yet(decision)
        if given is not None and decision.why is Why.LOSS_BOUND:
            given = Placement(reason=decision.reason)
            question = replace(question, fixed=question.otherwise, decided=False)
        if self._changes is not None and not question.warm_up:
            miss = self._changes.look(
                prompt,
                keys,
                question.ends,
                workspace=workspace.id,
                headers=occasion.headers,
                read_at=decision.read_at,
                known_to=decision.known_to,
                now=now,
                minimum_tokens=question.prices.minimum_tokens,
            )
            greatest = greater_miss(miss, decision.miss)
            if greatest is not decision.miss:
                decision = replace(decision, miss=greatest)
        if decision.keep_upto is not None:
            self._calls.keep(question.id, occasion.call_id)
        self._asked.pop(occasion.call_id, None)
        held = 0.0 if asked is None else now - asked.at
        reason = "" if asked is None else _of_holding(asked.decision, decision, held)
        placement = placement_of(question, decision, given, reason)
        if shadow and (given is None or given.breakpoints):
            self._shadowed.add(occasion.call_id)
        self._tell_sent(question, prompt, placement, workspace, occasion, held, decision.known_at)
        return placement

    def answered(self, call_id: str, at: float) -> None:
        """The head of a good answer came: what the call wrote can be read from now on."""
        number = self._calls.find(call_id)
        if number is not None:
            self.planner.answered(number, self._time.at(at))
            self._say(Answered(call_id, at))

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        """The call's usage is known. In shadow mode the decision was not sent, and plays on as expected."""
        number = self._end(call_id)
        if number is None:
            return
        shadowed = call_id in self._shadowed
        self._shadowed.discard(call_id)
        reported = reported_of(usage)
        self.planner.billed(number, None if shadowed else reported, self._time.at(at))
        self._say(
            Billed(
                call_id,
                at,
                reported.uncached,
                reported.read,
                reported.write_5m,
                reported.write_1h,
                usage.output_tokens,
            )
        )

    def failed(self, call_id: str, at: float, *, billed: bool = False) -> None:
        """The call was not served. Where it may be billed nevertheless, its account pays what was expected,
        and nothing is believed to be cached for it."""
        self._shadowed.discard(call_id)
        number = self._end(call_id)
        if number is not None:
            self.planner.failed(number, billed=billed)
            self._say(Failed(call_id, at, billed))

    def age(self, at: float) -> None:
        """Time goes on, also while nobody calls: see `Reuse.advance`."""
        self.planner.reuse.advance(self._time.at(at))

    # Other replicas

    def hear(self, replica: str, news: News, at: float) -> None:
        """Learn from another replica's call as if it had been planned here, with the breakpoints that it was
        sent with. `at` is when it is heard: lifetimes count from then, not by the other's clock. What makes
        no sense is passed over."""
        self._hearing.hear(replica, news, self._time.at(at))

    def gone(self, replica: str, at: float) -> tuple[str, ...]:
        """That replica has died: its calls in flight, which count as failed from now on."""
        self._time.at(at)
        return self._hearing.gone(replica)

    # Warm-ups

    def due(self, at: float) -> list[WarmUp]:
        """The warm-ups to send now, which count as sent and paid as expected."""
        now, ready = self._time.at(at), []
        for warm in self.planner.woken(now):
            call_id = self._calls.kept(warm.request)
            if call_id is None:
                self.planner.not_warmed(warm, now)
                continue
            ready.append(
                WarmUp(
                    call_id=call_id,
                    upto=warm.upto,
                    marks=tuple(Breakpoint(mark.block, TTL(mark.ttl), warm.reason) for mark in warm.marks),
                    key=warm.key,
                    tokens=warm.tokens,
                    chance=warm.chance,
                    cost=warm.cost,
                    reason=warm.reason,
                    warm=warm,
                )
            )
        return ready

    def warmed(self, warm_up: WarmUp, usage: Usage, at: float) -> None:
        """It was served, and billed so."""
        now, hour = self._time.at(at), warm_up.warm.marks[-1].hour
        self.planner.warmed(warm_up.warm, reported_of(usage))
        until = now + (ONE_HOUR_SECONDS if hour else FIVE_MINUTES_SECONDS)
        self._say(Warmed(warm_up.key, hour, until))

    def not_warmed(self, warm_up: WarmUp, at: float) -> None:
        """It was not sent, or not served: its entry will expire."""
        self.planner.not_warmed(warm_up.warm, self._time.at(at))

    def next_due(self) -> float | None:
        """When to ask `due` next, as far as is known by now."""
        due = self.planner.next_wake()
        return None if due is None else self._time.shown(due)

    def planner_time(self, at: float) -> float:
        """An instant as the planner counts time, for who only looks."""
        return self._time.peek(at)

    # Over a restart

    def snapshot(self) -> Iterator[bytes | memoryview]:
        """All that was learned, in pieces which may be taken in another thread (see `snapshot.dump`), to be
        given to `restore` as one. Mostly zeros in a young gateway: worth compressing. Instants are the
        planner's."""
        return snapshot.dump(self.planner, self._time.now)

    def restore(self, data: bytes) -> bool:
        """Take up what another process had learned. False, and nothing is changed, where it is damaged or of
        another version. Raises nothing."""
        restored = snapshot.load(self.planner, data)
        if self.planner.resumed_at is not None:
            self._time.resume(self.planner.resumed_at)
        return restored

    # What follows is in the order of one call's life.

    def _question(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion,
        given: Placement | None,
    ) -> Question:
        """What is added by rule is decided here too, and is on the workspace's account. A client's warm-up is
        not: it asks for what it writes."""
        warm_up = is_warm_up(prompt, occasion)
        added = given is not None and bool(given.breakpoints) and not warm_up
        warmable = not (warm_up or workspace.placement is PlacementMode.SHADOW)
        return question_of(
            self._calls.number(occasion.call_id),
            prompt,
            keys,
            facts,
            workspace.id,
            occasion,
            fixed=None if given is None else on_the_wire(prompt, given.breakpoints),
            decided=given is None or given.holdout or added,
            warmable=warmable and self._is_warmable(prompt, workspace),
            warm_up=warm_up,
            otherwise=on_the_wire(prompt, ()) if added else None,
        )

    def _decide(self, question: Question, occasion: Occasion, now: float, *, send: bool) -> Decision:
        """Nobody waits for what is not sent, in shadow mode."""
        may_wait, may_claim = send and occasion.may_wait, send and occasion.may_claim and self._claims
        decision = self.planner.plan(question, now, may_wait=may_wait, may_claim=may_claim)
        if decision.wait_for is not None and self._calls.call(decision.wait_for) is None:
            return self.planner.plan(question, now, may_wait=False)
        return decision

    def _not_yet(self, decision: Decision) -> Placement:
        leader = None if decision.wait_for is None else self._calls.call(decision.wait_for)
        return Placement(
            reason=decision.reason,
            wait_for=leader,
            wait_tokens=decision.wait_tokens,
            claims=decision.claims,
            read_tokens=decision.read_tokens,
        )

    def _is_warmable(self, prompt: Prompt, workspace: Workspace) -> bool:
        wanted = self.planner.options.warming and workspace.warming_nanousd_per_day > 0
        return wanted and why_not_warmable(prompt) is None

    def _end(self, call_id: str) -> int | None:
        self._asked.pop(call_id, None)
        return self._calls.end(call_id)

    def _tell_sent(
        self,
        question: Question,
        prompt: Prompt,
        placement: Placement,
        workspace: Workspace,
        occasion: Occasion,
        held: float,
        known: tuple[int, ...],
    ) -> None:
        if self._tell is None:
            return
        decided = on_the_wire(prompt, placement.breakpoints)
        shadow = workspace.placement is PlacementMode.SHADOW
        self._tell(
            sent_of(
                question,
                on_the_wire(prompt, ()) if shadow else decided,
                prompt.model,
                workspace.id,
                occasion,
                planned=decided if occasion.call_id in self._shadowed else None,
                holdout=placement.holdout,
                by_rule=question.otherwise is not None and question.decided,
                held=held,
                known=known,
            )
        )

    def _say(self, news: News) -> None:
        if self._tell is not None:
            self._tell(news)


def _of_holding(asked: Decision, decision: Decision, seconds: float) -> str:
    """What to say of a call that was held."""
    if seconds < HELD_SECONDS:
        return ""
    more = decision.read_tokens - asked.read_tokens
    if more <= 0:
        return f"was held {seconds:.1f} s for another request, in vain; "
    return f"was held {seconds:.1f} s, and reads {more:,} tokens that another request wrote meanwhile; "


def _far_too_short(prompt: Prompt, facts: ModelFacts) -> bool:
    return block_tokens(prompt, facts)[-1] * FAR_TOO_SHORT < facts.minimum_cacheable_tokens
