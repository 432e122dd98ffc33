"""What other replicas tell of their calls, learned as if those had been planned here.

Of each call in flight elsewhere is kept whose it is and when it was heard of. Instants are those of hearing:
another replica's clock may be wrong, and its calls' lifetimes count from here. News may be lost.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.core.news import Answered, Billed, Failed, News, Sent, Warmed
from gateway.core.planner import Planner, Reported
from gateway.core.planner.calls import Calls
from gateway.core.planner.values import FIVE_MINUTES_SECONDS, ONE_HOUR_SECONDS
from gateway.core.questions import question_heard

UNHEARD_SECONDS = 900.0
"""After so long without more news a call of another replica counts as failed: some news were lost."""
NEWS_SECONDS = 10.0
"""What the first byte of a warm-up and the news of it may have taken together."""
MAX_CALLS = 1 << 16


class Hearing:
    """Bounded. Shares the numbers of calls with whoever plans: either may wait for the other's."""

    def __init__(self, planner: Planner, calls: Calls) -> None:
        self._planner = planner
        self._calls = calls
        self._flying: OrderedDict[str, _Flying] = OrderedDict()

    def hear(self, replica: str, news: News, now: float) -> None:
        """Learn from it. What makes no sense, or tells of unknown calls, is passed over."""
        self._give_up_unheard(now)
        if isinstance(news, Sent):
            question = question_heard(self._calls.number(news.call), news)
            if question is None:
                self._calls.end(news.call)
                return
            if news.planned is not None:  # what shadow mode would have sent plays on here as it does there
                question = replace(question, fixed=news.planned)
            self._flying[news.call] = _Flying(replica, now, news.planned is not None)
            if news.held > 0.0:
                self._planner.held(news.held)
            self._planner.plan(question, now)
        elif isinstance(news, Warmed):
            lifetime = ONE_HOUR_SECONDS if news.hour else FIVE_MINUTES_SECONDS
            until = now + lifetime - NEWS_SECONDS
            self._planner.learn_entry(news.key, hour=news.hour, until=until, now=now)
        elif news.call in self._flying:
            self._hear_more(news, now)

    def gone(self, replica: str) -> tuple[str, ...]:
        """That replica has died: its calls in flight, which count as failed from now on."""
        calls = tuple(call for call, flying in self._flying.items() if flying.replica == replica)
        for call in calls:
            self._fail(call)
        return calls

    def _hear_more(self, news: Answered | Billed | Failed, now: float) -> None:
        if isinstance(news, Failed):
            self._fail(news.call, billed=news.billed)
            return
        number = self._calls.find(news.call)
        if number is None:
            return
        if isinstance(news, Answered):
            self._planner.answered(number, now)
            return
        shadowed = self._end(news.call)
        reported = Reported(news.uncached, news.read, news.write_5m, news.write_1h)
        self._planner.billed(number, None if shadowed else reported, now)

    def _give_up_unheard(self, now: float) -> None:
        while self._flying:
            call, flying = next(iter(self._flying.items()))
            if now - flying.since < UNHEARD_SECONDS and len(self._flying) < MAX_CALLS:
                return
            self._fail(call)

    def _fail(self, call: str, *, billed: bool = False) -> None:
        number = self._calls.find(call)
        self._end(call)
        if number is not None:
            self._planner.failed(number, billed=billed)

    def _end(self, call: str) -> bool:
        """Whether it was sent in shadow mode."""
        self._calls.end(call)
        return self._flying.pop(call).shadowed


@dataclass(frozen=True, slots=True)
class _Flying:
    """A call in flight elsewhere."""

    replica: str
    since: float
    shadowed: bool
