"""Reading recordings and public traces, whole and damaged."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path

import msgspec
import pytest

from gateway.adapters.recording import Header
from gateway.core.news import Answered, Billed, Failed, News, Sent, pack_keys
from gateway.core.planner import Prices, Reported, compact_key
from gateway.core.questions import account_of
from gateway.replay.request import Request
from gateway.replay.trace import MAX_UNBILLED, UNBILLED_SECONDS, TraceError, TraceFile, recorded_requests
from tests.unit.replay.workloads import write_trace

ROWS = [
    {"t": 0.0, "out": 5, "segments": [["a", 100, "tools"], ["b", 50, "system"], ["c", 25, "user"]]},
    {"t": 1.5, "out": 6, "base": [0, 2], "segments": [["d", 10, "user"]]},
    {"t": 1.5, "base": [1, 3], "segments": [["e", 10, "assistant"], ["f", 1, "user"]], "session": None},
]


def sent(call: str, at: float, **changed: object) -> Sent:
    values: dict[str, object] = {
        "workspace": "demo",
        "model": "claude-opus-5-5",
        "scope": 7,
        "keys": pack_keys([11, 12]),
        "ends": (600, 1_000),
        "kinds": b"\x01\x02",
        "marks": ((1, False),),
        "prices": (0.05, 1.25, 2.0, 563),
    } | changed
    return Sent(call=call, at=at, **values)  # type: ignore[arg-type]


def a_recording(path: Path, news: Iterable[News], **header: object) -> TraceFile:
    """Written line by line, each a gzip member."""
    lines: list[object] = [Header(begun_at=0.0, started_at=0.0, **header), *news]  # type: ignore[arg-type]
    path.write_bytes(b"".join(gzip.compress(msgspec.json.encode(line) + b"\n") for line in lines))
    return TraceFile(path)


def billed(call: str, at: float) -> Billed:
    return Billed(call, at, 100, 900, 0, 0, 33)


def test_public_traces_share_what_base_names(tmp_path: Path) -> None:
    requests = list(TraceFile(write_trace(tmp_path / "t.gz", ROWS)).requests(Prices(read=0.025)))
    first, second, third = requests

    assert [list(request.ends) for request in requests] == [
        [100, 150, 175],
        [100, 150, 160],
        [100, 150, 160, 170, 171],
    ]
    assert list(second.keys[:2]) == list(first.keys[:2])
    assert second.keys[2] not in first.keys
    assert third.kinds == bytes([0, 1, 2, 3, 2])
    assert (first.output_tokens, third.output_tokens, third.prices.read) == (5, 0, 0.025)
    assert (third.sent, third.model) == (None, "")


def test_public_keys_are_those_of_the_planner_protocol(tmp_path: Path) -> None:
    """A published trace is decided alike here and there."""
    (request,) = TraceFile(write_trace(tmp_path / "t.gz", ROWS[:1])).requests(Prices())

    assert request.keys[0] == compact_key(blake2b(b"a", digest_size=8).digest())


def test_a_trace_may_be_plain_text(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))

    assert len(list(TraceFile(path).requests(Prices()))) == 3


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([ROWS[1]], "line 1"),
        ([ROWS[0], {"t": 1.0, "segments": [["x", "many", "user"]]}], "line 2"),
        ([ROWS[0], {"t": 1.0, "segments": [["x", 1, "robot"]]}], "line 2"),
        ([ROWS[0], {"t": 1.0, "segments": []}], "line 2"),
        ([{**ROWS[0], "t": 9.0}, ROWS[1]], "earlier"),
    ],
)
def test_a_line_that_is_wrong_is_named(tmp_path: Path, rows: list[dict[str, object]], why: str) -> None:
    with pytest.raises(TraceError, match=why):
        list(TraceFile(write_trace(tmp_path / "t.gz", rows)).requests(Prices()))


@pytest.mark.parametrize(
    "data", [b"", b"hello", b"[1, 2]\n", gzip.compress(b"\x00\x01", mtime=0), b"\x1f\x8bnonsense"]
)
def test_what_is_no_trace_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "t.gz"
    path.write_bytes(data)

    with pytest.raises(TraceError, match="neither"):
        TraceFile(path)


def test_a_later_version_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="later version"):
        a_recording(tmp_path / "r.gz", [], version=2)


def test_a_request_is_what_was_sent_and_what_it_was_billed(tmp_path: Path) -> None:
    news: list[News] = [sent("a", 5.0, unmarkable=(0,), warmable=True), Answered("a", 6.0), billed("a", 7.0)]
    (request,) = recorded_requests([a_recording(tmp_path / "r.gz", news)])

    assert (request.at, request.workspace, request.model, request.scope) == (
        5.0,
        "demo",
        "claude-opus-5-5",
        7,
    )
    assert (list(request.keys), list(request.ends), request.kinds) == ([11, 12], [600, 1_000], b"\x01\x02")
    assert request.prices == Prices(read=0.05, minimum_tokens=563)
    assert (request.sent, request.given, request.unmarkable) == (((1, False),), None, frozenset({0}))
    assert (request.billed, request.output_tokens) == (Reported(100, 900, 0, 0), 33)
    assert request.account == account_of("demo")


def test_what_was_not_decided_stays_as_it_was(tmp_path: Path) -> None:
    news: list[News] = [
        sent("a", 1.0, decided=False),
        sent("b", 2.0, decided=False, marks=(), planned=((0, True),)),
        sent("c", 3.0, marks=(), planned=((0, True),)),
        sent("d", 4.0, holdout=True, marks=()),
    ]
    requests = list(recorded_requests([a_recording(tmp_path / "r.gz", news)]))

    assert [request.given for request in requests] == [((1, False),), ((0, True),), None, None]


def test_calls_that_failed_are_left_out_and_order_is_kept(tmp_path: Path) -> None:
    news: list[News] = [
        sent("a", 1.0), sent("b", 2.0), sent("c", 3.0), billed("c", 4.0), Failed("b", 5.0), billed("a", 6.0),
        Billed("unknown", 7.0, 1, 0, 0, 0, 0), sent("d", 8.0),
    ]  # fmt: skip
    requests = list(recorded_requests([a_recording(tmp_path / "r.gz", news)]))

    assert [request.at for request in requests] == [1.0, 3.0, 8.0]
    assert [request.number for request in requests] == [0, 1, 2]
    assert requests[-1].billed is None


def test_nobody_waits_for_ever_for_a_bill(tmp_path: Path) -> None:
    """The first call's end was never told; the others are not kept back until the end of the recording."""
    news: list[News] = [sent("lost", 0.0), sent("b", 1.0), billed("b", 2.0), sent("c", UNBILLED_SECONDS + 1)]
    stream = recorded_requests([a_recording(tmp_path / "r.gz", [*news, billed("c", 9_999.0)])])

    assert [request.at for request in stream] == [0.0, 1.0, UNBILLED_SECONDS + 1]
    assert MAX_UNBILLED < 1 << 20


def test_recordings_of_replicas_are_one_traffic(tmp_path: Path) -> None:
    one = a_recording(tmp_path / "1.gz", [sent("a", 1.0), billed("a", 2.0), sent("c", 5.0), billed("c", 6.0)])
    two = a_recording(tmp_path / "2.gz", [sent("b", 3.0), sent("d", 4.0), billed("d", 5.5), billed("b", 7.0)])

    assert [request.at for request in recorded_requests([one, two])] == [1.0, 3.0, 4.0, 5.0]


def test_a_call_may_end_in_the_next_part(tmp_path: Path) -> None:
    one = a_recording(tmp_path / "1.gz", [sent("a", 1.0)])
    two = a_recording(tmp_path / "2.gz", [billed("a", 2.0)], part=1)
    (request,) = recorded_requests([one, two])

    assert request.billed is not None


def test_a_clock_that_went_back_does_not_reverse_requests(tmp_path: Path) -> None:
    news: list[News] = [sent("a", 10.0), billed("a", 11.0), sent("b", 4.0), billed("b", 5.0)]
    requests: list[Request] = list(recorded_requests([a_recording(tmp_path / "r.gz", news)]))

    assert [request.at for request in requests] == [10.0, 10.0]


@pytest.mark.parametrize("lost_bytes", [1, 9, 40])
def test_a_cut_end_is_left_out(tmp_path: Path, lost_bytes: int) -> None:
    path = tmp_path / "r.gz"
    whole = a_recording(path, [sent("a", 1.0), billed("a", 2.0), sent("b", 3.0), billed("b", 4.0)])
    assert len(list(whole.news())) == 4 and not whole.cut
    path.write_bytes(path.read_bytes()[:-lost_bytes])
    cut = TraceFile(path)

    assert len(list(cut.news())) in (3, 4)
    assert cut.cut


def test_what_comes_after_damage_is_not_trusted(tmp_path: Path) -> None:
    path = tmp_path / "r.gz"
    a_recording(path, [sent("a", 1.0), sent("b", 2.0)])
    data = bytearray(path.read_bytes())
    data[-60] ^= 0xFF
    path.write_bytes(bytes(data))
    damaged = TraceFile(path)

    assert len(list(damaged.news())) < 3
    assert damaged.cut


def test_progress_is_told_in_bytes(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "t.gz", ROWS)
    file = TraceFile(path)
    list(file.requests(Prices()))

    assert file.bytes_read == path.stat().st_size
