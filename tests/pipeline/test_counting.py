"""What is made of upstream's count, and of an upstream that does not count."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from gateway import counting
from gateway.core.errors import UpstreamUnreachable
from gateway.core.learned_estimates import LearnedEstimates
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.counting import MAX_REMEMBERED, Counting
from gateway.ports import UpstreamRequest
from tests.support.bodies import dump, single
from tests.support.fakes import CREDENTIAL, FakeUpstream, Played, Stage, make_rules

PROMPT = read_prompt(
    dump(single("hi", system="s", stream=True, metadata={"user_id": "u"}, thinking={"type": "adaptive"}))
)
COUNT = Played(pieces=[b'{"input_', b'tokens":123}'])


class Counted:
    def __init__(self, folder: Path, *script: Played) -> None:
        self.upstream = FakeUpstream(script, Stage())
        self.counting = Counting(self.upstream, LearnedEstimates())
        self.route = next(iter(make_rules(folder, {}).routes.values()))

    async def count(self, prompt: Prompt = PROMPT) -> int | None:
        headers = [(b"x-api-key", b"sk-test-client"), (b"anthropic-beta", b"b"), (b"x-team", b"t")]
        return await self.counting.count(prompt, headers, self.route, drop=("x-team",))

    @property
    def sent(self) -> UpstreamRequest:
        return self.upstream.requests[-1]


async def test_asks_with_what_the_endpoint_takes_and_the_routes_credential(tmp_path: Path) -> None:
    counted = Counted(tmp_path, COUNT)

    assert await counted.count() == 123
    sent = json.loads(b"".join(counted.sent.body))
    assert sent == {
        "model": PROMPT.model,
        "system": "s",
        "messages": [{"role": "user", "content": "hi"}],
        "thinking": {"type": "adaptive"},
    }
    assert counted.sent.target == "/v1/messages/count_tokens"
    values = dict(counted.sent.headers)
    assert values[b"anthropic-beta"] == b"b"
    assert b"sk-test-client" not in values.values()
    assert any(CREDENTIAL in value for value in values.values())
    assert b"x-team" not in values


async def test_a_prompt_is_counted_once(tmp_path: Path) -> None:
    counted = Counted(tmp_path, COUNT)

    assert [await counted.count() for _ in range(3)] == [123] * 3
    assert counted.upstream.opened == 1


async def test_counts_that_are_remembered_are_bounded(tmp_path: Path) -> None:
    counted = Counted(tmp_path, *[COUNT] * (MAX_REMEMBERED + 2))
    for number in range(MAX_REMEMBERED + 1):
        await counted.count(read_prompt(dump(single(f"question {number}"))))
    await counted.count(read_prompt(dump(single("question 0"))))

    assert counted.upstream.opened == MAX_REMEMBERED + 2


@pytest.mark.parametrize(
    "played",
    [
        Played(status=429, pieces=[b'{"type":"error"}']),
        Played(error=UpstreamUnreachable("away", request_sent=False)),
        Played(pieces=[b"{"]),
        Played(pieces=[b'{"input_tokens":-1}']),
        Played(pieces=[b'{"input_tokens":"many"}']),
        Played(pieces=[b"[]"]),
        Played(pieces=[b'{"x":"' + b"x" * 100_000, b'","input_tokens":1}']),
    ],
)
async def test_who_does_not_count_says_nothing_and_is_asked_again(played: Played, tmp_path: Path) -> None:
    counted = Counted(tmp_path, played, COUNT)

    assert await counted.count() is None
    assert await counted.count() == 123


async def test_nobody_waits_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "COUNT_SECONDS", 0.02)
    counted = Counted(tmp_path, COUNT)
    never: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    monkeypatch.setattr(counted.upstream.stage, "step", lambda: never)

    assert await counted.count() is None
