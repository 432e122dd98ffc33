"""Whether the planner, told what a recording holds and starting from nothing, decides as the recorded gateway
did: events in their order and at their times, usage as it was billed.

Exact for one replica that began knowing nothing, up to its first warm-up: when the gateway looked for
warm-ups is not recorded, nor what it heard of others.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields

from msgspec.structs import replace

from gateway.adapters.recording import Header
from gateway.core.news import Answered, Billed, Failed, News, Sent
from gateway.core.planner import Decision, Planner, PlannerOptions, Question, Reported
from gateway.core.planner.instants import Instants
from gateway.core.questions import question_heard
from gateway.replay.request import Marks
from gateway.replay.trace import TraceError, TraceFile


@dataclass(frozen=True, slots=True)
class Difference:
    """A call on which the two disagree."""

    call: str
    at: float
    recorded: Marks
    planned: Marks
    after_warm_up: bool
    """From the first warm-up on the planner is not told all that the gateway knew."""


@dataclass(slots=True)
class Verdict:
    """What came of it. Calls whose breakpoints were not the policy's to decide are followed, not compared."""

    compared: int = 0
    followed: int = 0
    different: int = 0
    first: Difference | None = None

    def add(self, difference: Difference | None) -> None:
        self.compared += 1
        if difference is not None:
            self.different += 1
            self.first = self.first or difference


def verify(files: Sequence[TraceFile]) -> Verdict:
    """All recordings, each process by itself. Raises `TraceError` where the beginning of one is missing."""
    verdict = Verdict()
    processes: dict[float, dict[int, TraceFile]] = {}
    for file in files:
        header = _header(file)
        processes.setdefault(header.started_at, {})[header.part] = file
    for parts in processes.values():
        files = [parts[number] for number in sorted(parts)]
        first = _header(files[0])
        if sorted(parts) != list(range(len(parts))):
            raise TraceError(
                f"{files[0].path}: parts of this recording are missing; there are {sorted(parts)}."
            )
        if not first.began_empty:
            raise TraceError(f"{files[0].path}: it began with what an earlier process had learned.")
        retrace((news for file in files for news in file.news()), planner_options(first.options), verdict)
    return verdict


def _header(file: TraceFile) -> Header:
    if file.header is None:
        raise TraceError(f"{file.path} is no recording: it does not say what a gateway decided.")
    return file.header


def planner_options(recorded: dict[str, float | int | bool]) -> PlannerOptions:
    """As recorded. Options that this version does not know are left out."""
    known = {field.name for field in fields(PlannerOptions)}
    return PlannerOptions(**{name: value for name, value in recorded.items() if name in known})  # type: ignore[arg-type]


def retrace(events: Iterable[News], options: PlannerOptions, verdict: Verdict) -> None:
    """One process's news, in the order in which they were told."""
    gateway = _Gateway(options, verdict)
    for news in events:
        gateway.hear(news)


class _Gateway:
    """What `LearnedPolicy` is to a running gateway, but for the bodies."""

    def __init__(self, options: PlannerOptions, verdict: Verdict) -> None:
        self._planner = Planner(options)
        self._verdict = verdict
        self._calls: dict[str, tuple[int, bool]] = {}
        """Of each call in flight its number, and whether its decision was not sent."""
        self._numbers = 0
        self._time = Instants()
        self._warmed = False

    def hear(self, news: News) -> None:
        if isinstance(news, Sent):
            self._sent(news)
        elif isinstance(news, Answered | Billed | Failed) and news.call in self._calls:
            self._became(news)

    def _sent(self, sent: Sent) -> None:
        self._numbers += 1
        question = question_sent(self._numbers, sent)
        if question is None:
            return
        self._calls[sent.call] = (self._numbers, sent.planned is not None)
        self._warmed |= sent.warm_up
        decision = self._planner.plan(question, self._time.at(sent.at), may_wait=False)
        if question.fixed is None:
            self._verdict.add(self._compared(sent, decision))
        else:
            self._verdict.followed += 1

    def _compared(self, sent: Sent, decision: Decision) -> Difference | None:
        recorded = sent.marks if sent.planned is None else sent.planned
        planned = tuple((mark.block, mark.hour) for mark in decision.marks)
        if recorded == planned:
            return None
        return Difference(sent.call, sent.at, recorded, planned, self._warmed)

    def _became(self, news: Answered | Billed | Failed) -> None:
        number, shadowed = self._calls[news.call]
        now = self._time.at(news.at)
        if isinstance(news, Answered):
            self._planner.answered(number, now)
            return
        del self._calls[news.call]
        if isinstance(news, Failed):
            self._planner.failed(number, billed=news.billed)
        else:
            usage = Reported(news.uncached, news.read, news.write_5m, news.write_1h)
            self._planner.billed(number, None if shadowed else usage, now)


def question_sent(number: int, sent: Sent) -> Question | None:
    """What the recorded gateway asked itself; None where it makes no sense."""
    question = question_heard(number, sent)
    if question is None:
        return None
    return replace(
        question,
        unmarkable=frozenset(sent.unmarkable),
        warmable=sent.warmable,
        fixed=given_marks(sent),
        known_at=(),
    )


def given_marks(sent: Sent) -> Marks | None:
    """The breakpoints that were not the policy's to decide; None where they were."""
    if sent.warm_up or sent.holdout:
        return sent.marks
    if sent.decided and not sent.by_rule and sent.ends:
        return None
    return sent.marks if sent.planned is None else sent.planned
