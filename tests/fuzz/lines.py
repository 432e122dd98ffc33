"""Files of lines: recordings and traces to be replayed, and lists of prompts to be warmed. A line that is
none ends with the error of its kind, never with another."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from gateway.adapters.recording import Header
from gateway.core.news import Answered, Billed, News, Sent
from gateway.core.planner import Prices
from gateway.core.prompt_lines import as_line, find_unwarmable, read_prompt_lines
from gateway.replay.trace import TraceError, TraceFile, recorded_requests
from tests.fuzz.bodies import short_bodies
from tests.fuzz.target import Check, Target, pure

PRICES = Prices(read=0.1, write_5m=1.25, write_1h=2.0, minimum_tokens=1024)


@asynccontextmanager
async def _replaying(folder: Path) -> AsyncIterator[Check]:
    path = folder / "trace.gz"

    async def check(data: bytes) -> None:
        for content in (data, gzip.compress(data, 1), gzip.compress(data, 1)[:-6]):
            path.write_bytes(content)
            try:
                file = TraceFile(path)
                if file.header is not None:
                    found = list(recorded_requests([file]))
                else:
                    found = list(file.requests(PRICES))
            except TraceError as error:
                assert str(path) in str(error)
                continue
            for request in found:
                assert len(request.keys) == len(request.ends) == len(request.kinds)

    yield check


def check_prompts(data: bytes) -> None:
    prompts, problems = read_prompt_lines(data)
    assert prompts or problems or not data.strip()
    find_unwarmable(prompts)
    for prompt in prompts:
        again, wrong = read_prompt_lines(as_line(prompt).replace(b"\n", b" ").replace(b"\r", b" "))
        assert not wrong
        assert [(one.model, one.headers) for one in again] == [(prompt.model, prompt.headers)]


def traces() -> Sequence[bytes]:
    rows = [
        {"t": 0.5, "out": 10, "segments": [["a", 1200, "tool"], ["b", 30, "user"]]},
        {"t": 1, "base": [0, 1], "segments": [["c", 7, "user"]]},
        {"t": 2.25, "out": 3, "base": [1, 2], "segments": []},
    ]
    public = b"".join(json.dumps(row).encode() + b"\n" for row in rows)
    sent = Sent(
        call="c1",
        at=1.0,
        workspace="w",
        model="m",
        scope=1,
        keys=bytes(16),
        ends=(1_200, 1_300),
        kinds=b"\x00\x02",
        marks=((1, False),),
        prices=(0.1, 1.25, 2.0, 1_024),
    )
    news: list[News] = [sent, Answered("c1", 1.5), Billed("c1", 2.0, 10, 0, 5, 0, 7)]
    begun = Header(begun_at=0.0, started_at=0.0)
    return [public, b"".join(msgspec.json.encode(item) + b"\n" for item in (begun, *news))]


def prompt_files() -> Sequence[bytes]:
    bodies = [body for body in short_bodies() if b"\n" not in body]
    wrapped = b'{"headers":{"anthropic-beta":"a-2026"},"body":%b}' % bodies[5]
    return [b"\n".join(bodies[:3]), wrapped + b"\n\n" + bodies[7], b"\xef\xbb\xbf" + bodies[9]]


_WORDS = (
    b'"t"', b'"out"', b'"base"', b'"segments"', b"[0,1]", b"[-1,1]", b"[0,-1]", b"[9,9]", b'["a",-5,"user"]',
    b"\n", b'["a",18446744073709551616,"user"]', b'"kind"', b'"sent"', b'"billed"', b'"gateway-recording"',
    b'"version"', b'"headers"', b'"body"', b'"anthropic-beta"', b'"host"', b"\x1f\x8b", b'""', b"[]",
)  # fmt: skip

TARGETS = (
    Target(name="trace", open=_replaying, seeds=traces, words=_WORDS, rounds=60),
    Target(name="prompts", open=pure(check_prompts), seeds=prompt_files, words=_WORDS, rounds=400),
)
