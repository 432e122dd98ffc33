"""The policies that a replay compares. Each decides on every request in the order of time.

The fixed rules are what clients and gateways do today. `Learned` is the very code that serves requests.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, Protocol

from gateway.core.planner import Kind, Planner, PlannerOptions, Question, Reported
from gateway.replay.by_shape import marks_by_rule
from gateway.replay.request import Marks, Request

MAX_KEPT = 3 * 4096
"""Prompts that may be asked for again, as in the gateway; the oldest go first."""


class Move(NamedTuple):
    """What to do with a request: send it with these breakpoints, or wait for another one's first byte."""

    marks: Marks = ()
    wait_for: int | None = None


class WarmUp(NamedTuple):
    """Send an earlier request's prompt up to a block again, with nothing to be generated."""

    request: Request
    upto: int
    marks: Marks
    paid: Callable[[Reported], None]
    """To be told what it was billed."""


class Contestant(Protocol):
    """All calls come in the order of time."""

    name: str
    what: str
    """In a few words, for people."""
    fixed: bool
    """A rule that looks at one request alone."""
    replays_warm_ups: bool
    """Whether the warm-ups in the trace are its own."""

    def plan(self, request: Request, at: float, *, may_wait: bool) -> Move: ...

    def billed(self, request: Request, usage: Reported, at: float) -> None:
        """The first byte of the response came."""
        ...

    def woken(self, at: float) -> Sequence[WarmUp]: ...

    def next_wake(self) -> float | None:
        """When it wants to be woken, as far as it knows by now."""
        ...


@dataclass(slots=True)
class Rule:
    """A fixed rule."""

    name: str
    what: str
    marks: Callable[[Request], Marks]
    fixed: bool = True
    replays_warm_ups: bool = False

    def plan(self, request: Request, at: float, *, may_wait: bool) -> Move:
        return Move(self.marks(request))

    def billed(self, request: Request, usage: Reported, at: float) -> None:
        """Learns nothing."""

    def woken(self, at: float) -> Sequence[WarmUp]:
        return ()

    def next_wake(self) -> float | None:
        return None


class Learned:
    """The planner that serves, with its holds and its warm-ups."""

    name = "learned"
    what = "this gateway, policy: learned"
    fixed = False
    replays_warm_ups = False

    def __init__(self, options: PlannerOptions | None = None) -> None:
        self._planner = Planner(options)
        self._kept: OrderedDict[int, Request] = OrderedDict()
        """Those whose prompts may be asked for again."""

    def plan(self, request: Request, at: float, *, may_wait: bool) -> Move:
        decision = self._planner.plan(question_of(request), at, may_wait=may_wait)
        if decision.wait_for is not None:
            return Move(wait_for=decision.wait_for)
        if decision.keep_upto is not None:
            self._kept[request.number] = request
            if len(self._kept) > MAX_KEPT:
                self._kept.popitem(last=False)
        return Move(tuple((mark.block, mark.hour) for mark in decision.marks))

    def billed(self, request: Request, usage: Reported, at: float) -> None:
        self._planner.billed(request.number, usage, at)

    def woken(self, at: float) -> Sequence[WarmUp]:
        ready = []
        for warm in self._planner.woken(at):
            request = self._kept.get(warm.request)
            if request is None:
                self._planner.not_warmed(warm, at)
                continue
            marks = tuple((mark.block, mark.hour) for mark in warm.marks)
            ready.append(WarmUp(request, warm.upto, marks, partial(self._planner.warmed, warm)))
        return ready

    def next_wake(self) -> float | None:
        return self._planner.next_wake()


def question_of(request: Request) -> Question:
    """The request as the planner is asked about it."""
    return Question(
        id=request.number,
        scope=request.scope,
        account=request.account,
        keys=request.keys,
        ends=request.ends,
        kinds=request.kinds,
        prices=request.prices,
        unmarkable=request.unmarkable,
        fixed=request.given,
        decided=request.given is None,
        warmable=request.warmable,
    )


def contestants(options: PlannerOptions | None = None) -> list[Contestant]:
    """All of them, new, in the order in which they are shown."""
    return [
        Rule("none", "no caching", lambda r: ()),
        Rule("recorded", "as it was sent", _as_sent, fixed=False, replays_warm_ups=True),
        Rule("automatic-5m", "automatic caching: the last block", lambda r: _marked(r, [_last(r)])),
        Rule("automatic-1h", "the same for an hour", lambda r: _marked(r, [_last(r)], hour=True)),
        Rule("system-5m", "the end of the system prompt", lambda r: _marked(r, [_system(r)])),
        Rule("system-1h", "the same for an hour", lambda r: _marked(r, [_system(r)], hour=True)),
        Rule("system+last", "system prompt and last block", lambda r: _marked(r, [_system(r), _last(r)])),
        Rule("two-turns", "system prompt and the last two user turns", _two_turns),
        Rule("rules", "this gateway, policy: rules", marks_by_rule),
        Learned(options),
    ]


def _as_sent(request: Request) -> Marks:
    return request.sent or ()


def _marked(request: Request, blocks: Sequence[int], *, hour: bool = False) -> Marks:
    """Breakpoints on these blocks, or on the next one before each that may carry one. -1: none."""
    found = {_markable(request, block) for block in blocks}
    return tuple((block, hour) for block in sorted(found) if block >= 0)


def _markable(request: Request, block: int) -> int:
    while block in request.unmarkable:
        block -= 1
    return block


def _last(request: Request) -> int:
    return len(request.kinds) - 1


def _system(request: Request) -> int:
    return max(request.kinds.rfind(Kind.SYSTEM), request.kinds.rfind(Kind.TOOLS))


def _two_turns(request: Request) -> Marks:
    """What the provider's guides recommend: the later turn is written, the one before it is read."""
    kinds, last = request.kinds, len(request.kinds) - 1
    ends = [
        block
        for block in range(last + 1)
        if kinds[block] == Kind.USER and (block == last or kinds[block + 1] != Kind.USER)
    ]
    return _marked(request, [_system(request), *ends[-2:]] if ends else [last])
