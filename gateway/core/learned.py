"""The policy that learns: `planner/` behind the gateway's own values.

Here a body becomes a question, a decision becomes a placement, and reported usage becomes experience, whether
of this replica's calls or, from their news, of others'. What is decided, and on what grounds, is the
planner's. Prompts whose whole text is not in the body go by rule. Those that carry breakpoints of the
client's, and those for which the API runs tools, go by rule too, and the planner learns from them; so it does
from warm-ups, of which it only learns what they wrote.

Replicas that tell each other their news keep equal accounts: each counts every call of a workspace once, its
own as it is planned and others' as they are heard, so that what trying may lose is bounded for all of them
together, but for what is decided in the instant that news travel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from gateway.core.changes import Changes
from gateway.core.hearing import Hearing
from gateway.core.ids import PrefixKey
from gateway.core.misses import Miss
from gateway.core.models import ModelFacts
from gateway.core.news import Answered, Billed, Failed, News, Warmed
from gateway.core.placement import Breakpoint, Occasion, Placement, has_server_tools
from gateway.core.planner import Decision, Planner, PlannerOptions, Question, Warm, snapshot
from gateway.core.planner.calls import Calls
from gateway.core.planner.values import FIVE_MINUTES_SECONDS, ONE_HOUR_SECONDS
from gateway.core.prompt import TTL, Level, Prompt
from gateway.core.questions import on_the_wire, question_of, reported_of, sent_of
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import PlacementMode, Workspace
from gateway.core.usage import Usage
from gateway.core.warmup import why_not_warmable

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
        self._asked: dict[str, tuple[Decision, float]] = {}
        """Calls that were not let go at once: what was said first, and when."""
        self._shadowed: set[str] = set()
        self._hearing = Hearing(self.planner, self._calls)
        self._now = 0.0

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
        if "thread" in prompt.fields or prompt.max_tokens is None or not prompt.blocks:
            return self._by_rule.plan(prompt, keys, facts, workspace, occasion)
        warm_up = occasion.warm_up or prompt.max_tokens == 0
        shadow = workspace.placement is PlacementMode.SHADOW
        by_rule: Placement | None = None
        if occasion.warm_up and prompt.client_marks:
            by_rule = Placement(reason="a warm-up brings its own breakpoints")
        elif warm_up or prompt.client_marks or has_server_tools(prompt):
            by_rule = self._by_rule.plan(prompt, keys, facts, workspace, occasion)
        elif not shadow and self._holds_out(prompt, keys):
            by_rule = Placement(reason="left alone on purpose, to measure what placing saves", holdout=True)
        question = question_of(
            self._calls.number(occasion.call_id),
            prompt,
            keys,
            facts,
            workspace.id,
            occasion,
            fixed=None if by_rule is None else on_the_wire(prompt, by_rule.breakpoints),
            decided=by_rule is None or by_rule.holdout,
            warmable=not (shadow or warm_up) and self._is_warmable(prompt, workspace),
            warm_up=warm_up,
        )
        now = self._at(occasion.at)
        decision = self._decide(question, occasion, now, send=not shadow)
        if decision.wait_for is not None or decision.claims:
            return self._not_yet(decision, occasion, now)
        if self._changes is not None and not warm_up:
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
            decision = replace(decision, miss=_greater(miss, decision.miss))
        if decision.keep_upto is not None:
            self._calls.keep(question.id, occasion.call_id)
        placement = self._placement(question, decision, by_rule, occasion, now)
        if shadow and (by_rule is None or by_rule.breakpoints):
            self._shadowed.add(occasion.call_id)
        self._tell_sent(question, prompt, placement, workspace, occasion)
        return placement

    def answered(self, call_id: str, at: float) -> None:
        """The head of a good answer came: what the call wrote can be read from now on."""
        number = self._calls.find(call_id)
        if number is not None:
            self.planner.answered(number, self._at(at))
            self._say(Answered(call_id, at))

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        """The call's usage is known. In shadow mode the decision was not sent, and plays on as expected."""
        number = self._end(call_id)
        if number is None:
            return
        shadowed = call_id in self._shadowed
        self._shadowed.discard(call_id)
        reported = reported_of(usage)
        self.planner.billed(number, None if shadowed else reported, self._at(at))
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

    def failed(self, call_id: str, at: float) -> None:
        """The call was not served: it wrote and refreshed nothing."""
        self._shadowed.discard(call_id)
        number = self._end(call_id)
        if number is not None:
            self.planner.failed(number)
            self._say(Failed(call_id, at))

    # Other replicas

    def hear(self, replica: str, news: News, at: float) -> None:
        """Learn from another replica's call as if it had been planned here, with the breakpoints that it was
        sent with. `at` is when it is heard: lifetimes count from then, not by the other's clock. What makes
        no sense is passed over."""
        self._hearing.hear(replica, news, self._at(at))

    def gone(self, replica: str, at: float) -> tuple[str, ...]:
        """That replica has died: its calls in flight, which count as failed from now on."""
        self._at(at)
        return self._hearing.gone(replica)

    # Warm-ups

    def due(self, at: float) -> list[WarmUp]:
        """The warm-ups to send now, which count as sent and paid as expected."""
        now, ready = self._at(at), []
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
        now, hour = self._at(at), warm_up.warm.marks[-1].hour
        self.planner.warmed(warm_up.warm, reported_of(usage))
        until = now + (ONE_HOUR_SECONDS if hour else FIVE_MINUTES_SECONDS)
        self._say(Warmed(warm_up.key, hour, until))

    def not_warmed(self, warm_up: WarmUp, at: float) -> None:
        """It was not sent, or not served: its entry will expire."""
        self.planner.not_warmed(warm_up.warm, self._at(at))

    def next_due(self) -> float | None:
        """When to ask `due` next, as far as is known by now."""
        return self.planner.next_wake()

    # Over a restart

    def snapshot(self) -> bytes:
        """All that was learned, to be given to `restore`. Mostly zeros in a young gateway: worth compressing.
        Instants are epoch seconds."""
        return snapshot.dump(self.planner)

    def restore(self, data: bytes) -> bool:
        """Take up what another process had learned. False, and nothing is changed, where it is damaged or of
        another version. Raises nothing."""
        return snapshot.load(self.planner, data)

    # What follows is in the order of one call's life.

    def _decide(self, question: Question, occasion: Occasion, now: float, *, send: bool) -> Decision:
        """Nobody waits for what is not sent, in shadow mode."""
        may_wait, may_claim = send and occasion.may_wait, send and occasion.may_claim and self._claims
        decision = self.planner.plan(question, now, may_wait=may_wait, may_claim=may_claim)
        if decision.wait_for is not None and self._calls.call(decision.wait_for) is None:
            return self.planner.plan(question, now, may_wait=False)
        return decision

    def _not_yet(self, decision: Decision, occasion: Occasion, now: float) -> Placement:
        self._asked.setdefault(occasion.call_id, (decision, now))
        leader = None if decision.wait_for is None else self._calls.call(decision.wait_for)
        return Placement(
            reason=decision.reason,
            wait_for=leader,
            wait_tokens=decision.wait_tokens,
            claims=decision.claims,
            read_tokens=decision.read_tokens,
        )

    def _placement(
        self,
        question: Question,
        decision: Decision,
        by_rule: Placement | None,
        occasion: Occasion,
        now: float,
    ) -> Placement:
        reason = self._held(decision, occasion.call_id, now)
        if by_rule is None:
            points = tuple(Breakpoint(mark.block, TTL(mark.ttl), mark.reason) for mark in decision.marks)
            why = decision.reason if decision.miss is None else f"{decision.reason}; {decision.miss.reason}"
            by_rule = Placement(breakpoints=points, reason=reason + why)
        return replace(
            by_rule,
            prompt_tokens=question.ends[-1],
            read_tokens=decision.read_tokens,
            write_5m_tokens=decision.write_5m_tokens,
            write_1h_tokens=decision.write_1h_tokens,
            miss=decision.miss,
            keep_upto=decision.keep_upto,
        )

    def _held(self, decision: Decision, call_id: str, now: float) -> str:
        """What to say of a call that was held; what it waited for another's claim counts as waited."""
        if call_id not in self._asked:
            return ""
        asked, asked_at = self._asked.pop(call_id)
        seconds = now - asked_at
        if seconds < HELD_SECONDS:
            return ""
        if asked.claims:
            self.planner.held(seconds)
        more = decision.read_tokens - asked.read_tokens
        if more <= 0:
            return f"was held {seconds:.1f} s for another request, in vain; "
        return f"was held {seconds:.1f} s, and reads {more:,} tokens that another request wrote meanwhile; "

    def _is_warmable(self, prompt: Prompt, workspace: Workspace) -> bool:
        wanted = self.planner.options.warming and workspace.warming_nanousd_per_day > 0
        return wanted and why_not_warmable(prompt) is None

    def _holds_out(self, prompt: Prompt, keys: Sequence[PrefixKey]) -> bool:
        """By the conversation's first message, so that it stays in or out for as long as it lasts."""
        if not self._holdout_share:
            return False
        first = next((at for at, block in enumerate(prompt.blocks) if block.level is Level.MESSAGES), None)
        if first is None:
            return False
        return int.from_bytes(keys[first][8:16], "little") < self._holdout_share * 2**64

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
            )
        )

    def _say(self, news: News) -> None:
        if self._tell is not None:
            self._tell(news)

    def _at(self, instant: float) -> float:
        """The planner's time must not go back, as a wall clock may."""
        self._now = max(self._now, instant)
        return self._now


def _greater(one: Miss | None, other: Miss | None) -> Miss | None:
    """The one that costs more; the first where both cost as much."""
    if one is None or other is None:
        return one or other
    return other if other.tokens > one.tokens else one
