"""Decisions from a recording are the recorded gateway's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from gateway.adapters.recording import Recording
from gateway.core.news import News, Sent
from gateway.core.planner import PlannerOptions
from gateway.core.rules import ClientMarks, PlacementMode
from gateway.replay.trace import TraceError, TraceFile
from gateway.replay.verify import Verdict, retrace, verify
from tests.unit.replay.recorded import BEGINS, MODEL, OPTIONS, RecordedGateway
from tests.unit.replay.workloads import Line, body_of, chat, coding_agent, herd, one_shot, support


def bodies(lines: Iterable[Line]) -> Iterator[tuple[float, dict[str, Any]]]:
    for line in lines:
        yield line.at, body_of(line, MODEL)


def recorded(tmp_path: Path, lines: Iterable[Line], **changed: Any) -> list[News]:
    told: list[News] = []
    RecordedGateway(tmp_path, told.append, **changed).play(bodies(lines))
    return told


def verdict_on(told: Iterable[News], options: PlannerOptions = OPTIONS) -> Verdict:
    verdict = Verdict()
    retrace(told, options, verdict)
    return verdict


@pytest.mark.parametrize("workload", [coding_agent, one_shot, chat, support, herd])
def test_the_same_marks_from_the_recording_alone(tmp_path: Path, workload: Callable[[], list[Line]]) -> None:
    lines = workload()
    verdict = verdict_on(recorded(tmp_path, lines, failing=True))

    assert (verdict.compared, verdict.different) == (len(lines), 0)


def test_held_calls_are_retraced_too(tmp_path: Path) -> None:
    told: list[News] = []
    gateway = RecordedGateway(tmp_path, told.append)
    gateway.play(bodies(herd()))

    assert gateway.held
    assert verdict_on(told).different == 0


def test_shadow_decisions_are_retraced_although_nothing_was_sent(tmp_path: Path) -> None:
    told = recorded(tmp_path, support(), placement=PlacementMode.SHADOW)
    sent = [news for news in told if isinstance(news, Sent)]

    assert not any(news.marks for news in sent)
    assert any(news.planned for news in sent)
    assert verdict_on(told).different == 0


def test_those_left_alone_on_purpose_are_followed(tmp_path: Path) -> None:
    verdict = verdict_on(recorded(tmp_path, support(), holdout_share=0.4))

    assert verdict.followed
    assert (verdict.compared + verdict.followed, verdict.different) == (150, 0)


def test_what_clients_mark_is_followed(tmp_path: Path) -> None:
    calls = list(bodies(support()))
    for number, (_, body) in enumerate(calls):
        if number % 3 == 0:
            body["system"][-1]["cache_control"] = {"type": "ephemeral"}
    told: list[News] = []
    RecordedGateway(tmp_path, told.append, client_marks=ClientMarks.COMPLETE).play(calls)
    verdict = verdict_on(told)

    assert (verdict.followed, verdict.different) == (50, 0)


def test_names_the_first_difference(tmp_path: Path) -> None:
    told = recorded(tmp_path, support())
    at = next(at for at, news in enumerate(told) if isinstance(news, Sent) and len(news.marks) > 1)
    victim = told[at]
    assert isinstance(victim, Sent)
    told[at] = msgspec.structs.replace(victim, marks=victim.marks[:-1])
    verdict = verdict_on(told)

    assert verdict.first is not None
    assert (verdict.first.call, verdict.first.planned) == (victim.call, victim.marks)
    assert verdict.different == 1


def test_other_options_decide_differently(tmp_path: Path) -> None:
    """The test of the test: what is compared does depend on the planner."""
    told = recorded(tmp_path, support())

    assert verdict_on(told, PlannerOptions(capacity=1 << 12, opening_tokens=0.0)).different


def test_through_the_file_with_its_parts(tmp_path: Path) -> None:
    """Options come from the header; a process's parts are one story, another process begins anew."""
    path = tmp_path / "recording.jsonl.gz"
    for run in range(2):
        recording = Recording(
            path, now=partial(float, BEGINS + run), options=OPTIONS, max_file_bytes=4_000, flush_seconds=0.01
        )
        told = recorded(tmp_path, support(seed=run))
        for start in range(0, len(told), 60):
            recording._write(told[start : start + 60])  # as the writer's thread does, without its pace
        assert recording.close() == 0
    files = [TraceFile(file) for file in sorted(tmp_path.glob("recording*.gz"))]
    verdict = verify(files)

    assert len(files) > 4
    assert (verdict.compared, verdict.different) == (300, 0)
    with pytest.raises(TraceError, match="parts"):
        verify([file for file in files if file.header and file.header.part != 1])


def test_refuses_what_began_with_other_memories(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl.gz"
    Recording(path, now=lambda: BEGINS, options=OPTIONS, began_empty=False).close()

    with pytest.raises(TraceError, match="earlier process"):
        verify([TraceFile(path)])
