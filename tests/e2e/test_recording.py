"""The recording on a real disk, and `gateway replay` on what was recorded."""

from __future__ import annotations

import gzip
import json
import os
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import msgspec
import pytest
from typer.testing import CliRunner

from gateway.adapters.recording import Recording
from gateway.cli import app
from gateway.core.errors import ConfigError
from gateway.core.news import Answered, News, Sent
from gateway.replay.trace import TraceFile
from tests.unit.replay.recorded import BEGINS, OPTIONS, RecordedGateway
from tests.unit.replay.test_trace import a_recording, sent
from tests.unit.replay.test_verify import bodies, recorded
from tests.unit.replay.workloads import public_rows, support, write_trace

CANARIES = ("canary-system", "canary-user", "canary-tool", "canary-answer")


class Ticking:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.at = BEGINS

    def __call__(self) -> float:
        return self.at


def a_writer(path: Path, **changed: Any) -> Recording:
    return Recording(path, **{"now": lambda: BEGINS, "flush_seconds": 0.01, **changed})


def test_what_is_told_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl.gz"
    told: list[News] = [sent("a", 1.5, unmarkable=(0,), planned=((1, True),)), Answered("a", 2.0)]
    recording = a_writer(path, options=OPTIONS)
    for news in told:
        recording.tell(news)
    assert recording.close() == 0
    file = TraceFile(path)

    assert list(file.news()) == told
    assert not file.cut
    assert file.header is not None
    assert (file.header.part, file.header.began_empty) == (0, True)
    assert file.header.options["capacity"] == OPTIONS.capacity


def test_only_its_owner_may_read_it(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl.gz"
    before = os.umask(0)
    try:
        a_writer(path).close()
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_no_text_and_no_credential_gets_into_it(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl.gz"
    recording = a_writer(path, options=OPTIONS)
    gateway = RecordedGateway(tmp_path, recording.tell)
    body = {
        "model": "claude-opus-5-5",
        "max_tokens": 20,
        "system": "canary-system " * 500,
        "tools": [{"name": "canary-tool", "description": "canary-tool", "input_schema": {"type": "object"}}],
        "metadata": {"user_id": "canary-user"},
        "messages": [
            {"role": "user", "content": "canary-user " * 50},
            {"role": "assistant", "content": "canary-answer"},
            {"role": "user", "content": "canary-user again"},
        ],
    }
    gateway.play([(0.0, body), (10.0, body)])
    recording.close()
    text = gzip.decompress(path.read_bytes()).decode()

    assert text.count("\n") == 1 + 2 * 3  # the header; sent, answered and billed
    assert not any(canary in text for canary in CANARIES)
    assert gateway.rules.prefix_secret.hex() not in text


def test_a_file_begins_anew_with_each_process_and_day(tmp_path: Path) -> None:
    path, clock = tmp_path / "recording.jsonl.gz", Ticking()
    a_writer(path, now=clock).close()
    recording = a_writer(path, now=clock, max_file_seconds=60.0)
    for number in range(3):
        clock.at += 61.0
        recording.tell(Answered("a", clock.at))
        wait_until(lambda: recording.written > number)  # noqa: B023 - called at once
    recording.close()
    headers = [header for file in files_of(tmp_path) if (header := TraceFile(file).header)]

    assert sorted((header.part, header.started_at - BEGINS) for header in headers) == [
        (0, 0.0), (0, 0.0), (1, 0.0), (2, 0.0), (3, 0.0),
    ]  # fmt: skip
    assert sum(len(list(TraceFile(file).news())) for file in files_of(tmp_path)) == 3


def test_a_file_has_a_greatest_size_and_the_oldest_go(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl.gz"
    recording = a_writer(path, max_file_bytes=300, kept_files=3)
    for number in range(8):
        recording.tell(sent(f"call {number}", float(number)))
        wait_until(lambda: recording.written > number)  # noqa: B023 - called at once
    recording.close()

    assert len(files_of(tmp_path)) == 3
    assert all(file.stat().st_size < 1_000 for file in files_of(tmp_path))
    assert [news.call for news in TraceFile(path).news() if isinstance(news, Sent)][-1] == "call 7"


def test_what_finds_no_room_is_dropped_and_counted(tmp_path: Path) -> None:
    recording = a_writer(tmp_path / "recording.jsonl.gz", limit=10, flush_seconds=30.0)
    for number in range(50):
        recording.tell(Answered(str(number), 1.0))
    dropped = recording.dropped
    recording.close()

    assert 35 <= dropped <= 40
    assert len(list(TraceFile(tmp_path / "recording.jsonl.gz").news())) == 50 - dropped


def test_a_disk_that_is_full_for_a_while_costs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Half of a flush got onto the disk, then it was full; it is written again, whole and once."""
    path = tmp_path / "recording.jsonl.gz"
    recording = a_writer(path)
    real, full = os.write, threading.Event()

    def write(fd: int, data: memoryview | bytes) -> int:
        if fd == recording._fd and not full.is_set():
            real(fd, bytes(data)[:20])
            full.set()
            raise OSError(28, "No space left on device")
        return real(fd, data)

    monkeypatch.setattr(os, "write", write)
    recording.tell(Answered("a", 1.0))
    wait_until(lambda: recording.written == 1)
    recording.tell(Answered("b", 2.0))
    recording.close()
    file = TraceFile(path)

    assert list(file.news()) == [Answered("a", 1.0), Answered("b", 2.0)]
    assert not file.cut
    assert "No space left" in caplog.text


def test_a_place_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        a_writer(tmp_path / "nowhere" / "recording.jsonl.gz")


def test_it_can_be_read_while_it_is_written(tmp_path: Path) -> None:
    path = tmp_path / "recording.jsonl.gz"
    recording = a_writer(path)
    recording.tell(Answered("a", 1.0))
    wait_until(lambda: recording.written == 1)

    assert list(TraceFile(path).news()) == [Answered("a", 1.0)]
    recording.close()


# The command


def run(*arguments: object) -> Any:
    return CliRunner().invoke(app, ["replay", *map(str, arguments)])


@pytest.fixture
def recording(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "recording.jsonl.gz"
    writer = a_writer(path, options=OPTIONS)
    RecordedGateway(tmp_path, writer.tell).play(bodies(support(sessions=8)))
    writer.close()
    yield path


def test_a_recording_is_priced_by_policy(recording: Path) -> None:
    result = run(recording)

    assert result.exit_code == 0, result.output
    assert "40 requests" in result.output
    assert "Automatic caching would have cost" in result.output
    assert "$" in result.output
    assert result.output.count(" * ") == 1


def test_json_and_csv_have_the_same_figures(recording: Path) -> None:
    (report,) = json.loads(run(recording, "--json").stdout)
    header, *lines = run(recording, "--csv").stdout.splitlines()

    assert report["unit"] == "usd"
    assert [line.split(",")[2] for line in lines] == [row["policy"] for row in report["policies"]]
    assert header.split(",")[3] == "cost"
    assert [float(line.split(",")[3]) for line in lines] == [row["cost"] for row in report["policies"]]


def test_a_chart_is_drawn_beside_the_table(recording: Path, tmp_path: Path) -> None:
    result = run(recording, "--chart", tmp_path / "chart.svg", "--policy", "learned", "--policy", "none")

    assert result.exit_code == 0, result.output
    assert ElementTree.parse(tmp_path / "chart.svg").getroot().tag.endswith("svg")
    assert "automatic-5m" not in result.output


def test_times_are_dates_or_seconds(recording: Path) -> None:
    whole = json.loads(run(recording, "--json").stdout)[0]["requests"]
    by_date = json.loads(run(recording, "--json", "--to", "2027-01-15T08:20").stdout)[0]["requests"]
    by_seconds = json.loads(run(recording, "--json", "--to", BEGINS + 1_200).stdout)[0]["requests"]

    assert by_date == by_seconds
    assert 0 < by_date < whole
    assert run(recording, "--from", "yesterday").exit_code == 2


def test_public_traces_are_each_a_table(tmp_path: Path) -> None:
    paths = [write_trace(tmp_path / f"{n}.jsonl.gz", public_rows(support(sessions=3))) for n in range(2)]
    result = run(*paths, "--read-price", 0.025, "--minimum", 512)

    assert result.exit_code == 0, result.output
    assert result.output.count("x bound") == 2
    assert "millions of uncached input tokens" in result.output


def test_verify_says_that_the_planner_decides_alike(recording: Path) -> None:
    result = run(recording, "--verify")

    assert result.exit_code == 0, result.output
    assert "40 decisions compared, 0 differ" in result.output


def test_verify_shows_the_first_difference(tmp_path: Path) -> None:
    news = recorded(tmp_path, support(sessions=8))
    at = next(at for at, one in enumerate(news) if isinstance(one, Sent) and one.marks)
    victim = news[at]
    assert isinstance(victim, Sent)
    news[at] = msgspec.structs.replace(victim, marks=())
    options = msgspec.to_builtins(OPTIONS)
    a_recording(tmp_path / "r.gz", news, options=options)
    result = run(tmp_path / "r.gz", "--verify")

    assert result.exit_code == 1
    assert f"call {victim.call} " in result.output
    assert "recorded none" in result.output


def test_without_a_trace_it_says_how_to_record() -> None:
    result = run()

    assert result.exit_code == 2
    assert "recording: recording.jsonl.gz" in result.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--policy", "magic"], "no policy magic"),
        (["--workspace", "other"], "holds no request"),
    ],
)
def test_what_cannot_be_done_is_said_plainly(recording: Path, arguments: list[str], said: str) -> None:
    result = run(recording, *arguments)

    assert result.exit_code != 0
    assert said in " ".join(result.output.split())


def test_what_is_no_trace_is_said_plainly(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not a trace")
    result = run(tmp_path / "notes.txt")

    assert result.exit_code == 1
    assert "neither a recording nor a trace" in result.output


def files_of(folder: Path) -> list[Path]:
    return sorted(folder.glob("recording*.gz"))


def wait_until(true: Callable[[], bool], seconds: float = 30.0) -> None:
    pause = threading.Event()
    for _ in range(int(seconds / 0.005)):
        if true():
            return
        pause.wait(0.005)
    raise AssertionError("it did not come true in time")
