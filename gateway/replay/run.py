"""One trace, all contestants side by side: each in a world of its own, in virtual time.

Requests are added one by one, so that a long recording is never in memory as a whole. Nothing is read or
printed here.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

from gateway.core.planner import Reported
from gateway.replay.bound import ClairvoyantBound
from gateway.replay.contestants import Contestant, WarmUp
from gateway.replay.request import Request
from gateway.replay.tariffs import Bill, Cost, Tally, Tariffs
from gateway.replay.upstream import Upstream, first_byte_after
from gateway.sim.cache import Outcome

MAX_HOLD_SECONDS = 10.0


class _Kind(IntEnum):
    """Of what happens at one instant, what comes first."""

    FIRST_BYTE = 0
    ARRIVAL = 1
    WAKE = 2


@dataclass(slots=True)
class Result:
    """What one contestant paid. Tokens and costs include its warm-ups."""

    name: str
    what: str
    fixed: bool
    requests: int = 0
    bill: Bill = field(default_factory=Bill)
    warm_bill: Bill = field(default_factory=Bill)
    """The part of `bill` that went into warm-ups."""
    warm_ups: int = 0
    wasted_tokens: int = 0
    """Written, and expired without having been read."""
    held: int = 0
    hold_seconds: float = 0.0
    max_hold_seconds: float = 0.0

    @property
    def cost(self) -> Cost:
        return self.bill.cost

    @property
    def mean_hold_seconds(self) -> float:
        return self.hold_seconds / self.requests if self.requests else 0.0

    @property
    def read_share(self) -> float:
        """Of the requests' prompt tokens, warm-ups apart."""
        all_, warm = self.bill.total, self.warm_bill.total
        prompt = all_.prompt - warm.prompt
        return (all_.read - warm.read) / prompt if prompt else 0.0


class Replay:
    """`add` every request in the order of time, then `finish`. `actual` is what upstream billed by its own
    report, where all of the requests have one."""

    def __init__(self, contestants: Sequence[Contestant]) -> None:
        self._tariffs = Tariffs()
        self._lanes = [_Lane(contestant, self._tariffs) for contestant in contestants]
        self._bound = ClairvoyantBound(self._tariffs)
        self._last_at = 0.0
        self.requests = 0
        self.prompt_tokens = 0
        self.output_usd = 0.0
        self.actual = Bill()
        self.billed_requests = 0
        self.first_at: float | None = None

    def add(self, request: Request) -> None:
        for lane in self._lanes:
            lane.arrive(request)
        self._last_at = request.at
        self.first_at = request.at if self.first_at is None else self.first_at
        tariff = self._tariffs.of(request, request.prompt_tokens)
        if request.billed is not None:
            used = request.billed
            self.billed_requests += 1
            self.actual.of(tariff).add(used.uncached, used.read, used.write_5m, used.write_1h)
        if not request.warm_up:
            self.requests += 1
            self.prompt_tokens += request.prompt_tokens
            self.output_usd += float(request.output_tokens * tariff.output_usd)
            self._bound.add(request)
        request.forget_positions()

    def finish(self) -> list[Result]:
        return [lane.finish(self._last_at) for lane in self._lanes]

    @property
    def bound(self) -> Cost:
        return self._bound.cost

    @property
    def seconds(self) -> float:
        return self._last_at - (self.first_at or 0.0)


class _Lane:
    """One contestant, its upstream, and what is still to happen."""

    def __init__(self, contestant: Contestant, tariffs: Tariffs) -> None:
        self.result = Result(contestant.name, contestant.what, contestant.fixed)
        self._contestant = contestant
        self._tariffs = tariffs
        self._upstream = Upstream()
        self._due: list[tuple[float, _Kind, int, tuple[Request, Outcome] | Outcome | Request | None]] = []
        self._order = 0
        self._first_byte_at: dict[int, float] = {}
        """Of the requests in flight."""
        self._wake_at: float | None = None
        self._ends_at = float("inf")

    def arrive(self, request: Request) -> None:
        self._run_until((request.at, _Kind.ARRIVAL))
        if not request.warm_up:
            self._ask(request, request.at, may_wait=True)
        elif self._contestant.replays_warm_ups:
            self._warm(WarmUp(request, len(request.keys) - 1, request.sent or (), _nobody), request.at)

    def finish(self, at: float) -> Result:
        """What was held is sent; nobody is woken any more."""
        self._ends_at = at
        self._run_until((float("inf"), _Kind.WAKE))
        self._upstream.close(at)
        self.result.wasted_tokens = self._upstream.wasted_tokens
        return self.result

    def _run_until(self, before: tuple[float, _Kind]) -> None:
        due = self._due
        while due and due[0][:2] < before:
            at, kind, _, what = heapq.heappop(due)
            if kind is _Kind.WAKE:
                self._wake(at)
            elif isinstance(what, Request):
                self._ask(what, at, may_wait=False)
                what.forget_positions()
            elif isinstance(what, Outcome):
                self._upstream.publish(what)
            elif what is not None:
                self._answer(*what, at)

    def _push(self, at: float, kind: _Kind, what: tuple[Request, Outcome] | Outcome | Request | None) -> None:
        self._order += 1
        heapq.heappush(self._due, (at, kind, self._order, what))

    def _ask(self, request: Request, at: float, *, may_wait: bool) -> None:
        move = self._contestant.plan(request, at, may_wait=may_wait)
        if move.wait_for is not None and may_wait:
            ready = min(max(self._first_byte_at.get(move.wait_for, at), at), at + MAX_HOLD_SECONDS)
            self._held(ready - at)
            self._push(ready, _Kind.ARRIVAL, request)
        else:
            outcome = self._upstream.send(request, move.marks, at)
            self.result.requests += 1
            self._pay(request, outcome)
            begins = at + first_byte_after(outcome)
            self._first_byte_at[request.number] = begins
            self._push(begins, _Kind.FIRST_BYTE, (request, outcome))
        self._plan_wake(at)

    def _held(self, seconds: float) -> None:
        result = self.result
        result.held += 1
        result.hold_seconds += seconds
        result.max_hold_seconds = max(result.max_hold_seconds, seconds)

    def _answer(self, request: Request, outcome: Outcome, at: float) -> None:
        del self._first_byte_at[request.number]
        self._upstream.publish(outcome)
        self._contestant.billed(request, reported(outcome), at)
        self._plan_wake(at)

    def _wake(self, at: float) -> None:
        if self._wake_at is None or at < self._wake_at or at > self._ends_at:
            return  # it has been woken earlier, or need not be any more
        self._wake_at = None
        for warm in self._contestant.woken(at):
            self._warm(warm, at)
            warm.request.forget_positions()
        self._plan_wake(at)

    def _warm(self, warm: WarmUp, at: float) -> None:
        outcome = self._upstream.send(warm.request, warm.marks, at, upto=warm.upto, warm_up=True)
        self.result.warm_ups += 1
        self._pay(warm.request, outcome)
        _add(self.result.warm_bill.of(self._tariffs.of(warm.request, outcome.prompt_tokens)), outcome)
        warm.paid(reported(outcome))
        self._push(at + first_byte_after(outcome), _Kind.FIRST_BYTE, outcome)

    def _pay(self, request: Request, outcome: Outcome) -> None:
        _add(self.result.bill.of(self._tariffs.of(request, outcome.prompt_tokens)), outcome)

    def _plan_wake(self, now: float) -> None:
        """One alarm: the earliest asked for."""
        asked = self._contestant.next_wake()
        if asked is None:
            return
        at = max(asked, now)
        if self._wake_at is None or at < self._wake_at:
            self._wake_at = at
            self._push(at, _Kind.WAKE, None)


def reported(outcome: Outcome) -> Reported:
    """The usage that goes with it."""
    return Reported(
        outcome.uncached_tokens, outcome.read_tokens, outcome.write_5m_tokens, outcome.write_1h_tokens
    )


def _add(tally: Tally, outcome: Outcome) -> None:
    tally.add(outcome.uncached_tokens, outcome.read_tokens, outcome.write_5m_tokens, outcome.write_1h_tokens)


def _nobody(usage: Reported) -> None:
    """A warm-up of the trace's."""
