"""Prompts by name, as the planner sees them, and an upstream that plays the cache's rules on them."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.core.planner import Decision, Kind, Planner, Prices, Question, Reported, compact_key
from gateway.sim.cache import CacheScope, Outcome, Position, PromptCache, Ttl

SCOPE_KEY, ACCOUNT = 7, 11
SCOPE = CacheScope(workspace="w", model="m", speed="standard")
KINDS = {"t": Kind.TOOLS, "s": Kind.SYSTEM, "u": Kind.USER, "a": Kind.ASSISTANT}

Blocks = Sequence[tuple[str, int]]
"""Name and tokens of each block. A name's first letter says its kind; equal names are equal blocks."""


def key_of(names: Sequence[str]) -> int:
    text = "\n".join(names).encode()
    return compact_key(zlib.crc32(text).to_bytes(4, "little") + zlib.adler32(text).to_bytes(4, "little"))


def ask(number: int, blocks: Blocks, prices: Prices | None = None, **more: object) -> Question:
    """One request. Blocks of the same names in the same order share their prefixes."""
    names = [name for name, _ in blocks]
    ends, end = [], 0
    for _, tokens in blocks:
        end += tokens
        ends.append(end)
    return Question(
        number,
        SCOPE_KEY,
        ACCOUNT,
        [key_of(names[: at + 1]) for at in range(len(names))],
        ends,
        bytes(KINDS[name[0]] for name in names),
        prices or Prices(),
        **more,  # type: ignore[arg-type]
    )


def bill(question: Question, decision: Decision) -> Reported:
    """The usage that the decision expects."""
    written = decision.write_5m_tokens + decision.write_1h_tokens
    return Reported(
        question.ends[-1] - decision.read_tokens - written,
        decision.read_tokens,
        decision.write_5m_tokens,
        decision.write_1h_tokens,
    )


@dataclass
class Upstream:
    """Sends what the planner decides to the simulator's cache, which knows nothing of the planner."""

    planner: Planner
    first_byte_seconds: float = 1.0
    cache: PromptCache = field(default_factory=PromptCache)
    plain: float = 0.0
    cost: float = 0.0
    worst_loss: float = 0.0
    warmed: int = 0
    surprises: list[str] = field(default_factory=list)
    asked: dict[int, Question] = field(default_factory=dict)
    _flying: list[tuple[float, Question, Decision, Outcome]] = field(default_factory=list)

    def send(self, question: Question, now: float) -> Decision:
        """Ask the planner, and bill what it says at `now`; answers and wakes that are due come first."""
        self.run_until(now)
        decision = self.planner.plan(question, now, may_wait=False)
        self.asked[question.id] = question
        outcome = self._open(question, decision.marks, len(question.keys) - 1, now)
        self._flying.append((now + self.first_byte_seconds, question, decision, outcome))
        expected = (decision.read_tokens, decision.write_5m_tokens, decision.write_1h_tokens)
        if expected != (outcome.read_tokens, outcome.write_5m_tokens, outcome.write_1h_tokens):
            self.surprises.append(f"{question.id}: expected {expected}, billed {outcome}")
        return decision

    def run_until(self, now: float) -> None:
        while True:
            wake = self.planner.next_wake()
            answer = self._flying[0][0] if self._flying else None
            due = min(at for at in (wake, answer, now) if at is not None)
            if answer is not None and answer == due:
                self._answer()
            elif wake is not None and wake == due:
                self._warm(max(wake, 0.0))
            else:
                return

    def _answer(self) -> None:
        at, question, _, outcome = self._flying.pop(0)
        self.cache.publish(outcome)
        usage = Reported(
            outcome.uncached_tokens, outcome.read_tokens, outcome.write_5m_tokens, outcome.write_1h_tokens
        )
        self.planner.billed(question.id, usage, at)
        self._pay(usage.cost(question.prices), float(usage.total))

    def _warm(self, at: float) -> None:
        for warm in self.planner.woken(at):
            question = self.asked[warm.request]
            outcome = self._open(question, warm.marks, warm.upto, at)
            self.cache.publish(outcome)
            self.warmed += 1
            if outcome.read_tokens != warm.tokens:
                self.surprises.append(f"warm-up of {warm.request} read {outcome.read_tokens}")
            self._pay(outcome.read_tokens * question.prices.read, 0.0)

    def _open(self, question: Question, marks: Sequence[object], upto: int, at: float) -> Outcome:
        ttls = {mark.block: Ttl(mark.ttl) for mark in marks}  # type: ignore[attr-defined]
        positions = [
            Position(
                key=question.keys[i].to_bytes(8, "little"), end_tokens=question.ends[i], mark=ttls.get(i)
            )
            for i in range(upto + 1)
        ]
        return self.cache.open(
            SCOPE,
            positions,
            total_tokens=question.ends[upto],
            minimum_tokens=question.prices.minimum_tokens,
            at=at,
        )

    def _pay(self, cost: float, plain: float) -> None:
        self.cost += cost
        self.plain += plain
        self.worst_loss = max(self.worst_loss, self.cost - self.plain)
