"""What a batch used, from its result lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.core.batch_results import MAX_LINE_BYTES, ResultSums
from gateway.core.rules import Rules
from tests.support.fakes import make_rules

AT = 1_800_000_000.0
OPUS, HAIKU = "claude-opus-5-5", "claude-haiku-5-5"


@pytest.fixture
def rules(tmp_path: Path) -> Rules:
    return make_rules(tmp_path, {})


def succeeded(model: str = OPUS, content: Any = "hi", **usage: Any) -> dict[str, Any]:
    counts = {"input_tokens": 11, "output_tokens": 7, "service_tier": "batch", **usage}
    blocks = [{"type": "text", "text": content}]
    message = {"id": "msg_1", "type": "message", "model": model, "content": blocks, "usage": counts}
    return {"custom_id": "a", "result": {"type": "succeeded", "message": message}}


def other(kind: str, **more: Any) -> dict[str, Any]:
    return {"custom_id": "a", "result": {"type": kind, **more}}


def lines(*results: Any) -> bytes:
    return b"".join(json.dumps(result).encode() + b"\n" for result in results)


def read(rules: Rules, data: bytes, step: int = 1 << 20) -> ResultSums:
    sums = ResultSums(rules.prices, at=AT)
    for at in range(0, len(data), step):
        assert not sums.feed(data[at : at + step])
    sums.end()
    return sums


ALL = lines(
    succeeded(),
    other("errored", error={"type": "error", "error": {"type": "invalid_request_error", "message": "no"}}),
    succeeded(HAIKU, cache_read_input_tokens=1000, cache_creation_input_tokens=200),
    other("canceled"),
    succeeded(inference_geo="us"),
    other("expired"),
    succeeded(),
)


@pytest.mark.parametrize("step", [1, 7, 100, 1 << 20])
@pytest.mark.parametrize("data", [ALL, ALL.rstrip(b"\n"), ALL.replace(b"\n", b"\r\n")])
def test_sums_what_succeeded_however_it_comes(data: bytes, step: int, rules: Rules) -> None:
    sums = read(rules, data, step)
    settled = sums.settled(items=7, ended_at=AT, ledger="one", at=AT)

    assert sums.is_whole(7)
    assert not sums.is_whole(8)
    assert settled.amounts.requests == 7
    assert (settled.amounts.input_tokens, settled.amounts.prompt_tokens) == (4 * 11 + 200, 4 * 11 + 1200)
    assert settled.amounts.output_tokens == 28
    found = {(share.model, share.usage.inference_geo): share for share in settled.shares}
    assert {key: share.items for key, share in found.items()} == {
        (OPUS, None): 2,
        (OPUS, "us"): 1,
        (HAIKU, None): 1,
    }
    assert found[OPUS, None].cost.total_nanousd == 2 * (11 * 2_000 + 7 * 10_000)
    assert found[OPUS, "us"].cost.total_nanousd == (11 * 2_000 + 7 * 10_000) * 11 // 10
    assert settled.amounts.nanousd == sum(share.cost.total_nanousd for share in settled.shares)
    assert {share.usage.service_tier for share in settled.shares} == {"batch"}


@pytest.mark.parametrize(
    "bad",
    [
        b"nonsense\n",
        b'{"custom_id":"a"}\n',
        lines(other("new")),
        lines(other("succeeded", message={"id": "msg_1"})),
        b'{"custom_id":"a","result":{"type":"succ\n',
    ],
)
def test_a_line_that_cannot_be_read_leaves_the_batch_unknown(bad: bytes, rules: Rules) -> None:
    assert not read(rules, lines(succeeded()) + bad).is_whole(2)


def test_a_line_that_is_too_long_is_not_held(rules: Rules) -> None:
    sums = ResultSums(rules.prices, at=AT)
    piece = b"x" * (1 << 20)
    for _ in range(3 * MAX_LINE_BYTES // len(piece)):
        sums.feed(piece)
        assert len(sums._line) <= MAX_LINE_BYTES + len(piece)
    sums.end()
    assert not sums.is_whole(1)


def test_a_refusal_before_any_output_costs_nothing_and_is_kept_apart(rules: Rules) -> None:
    free = succeeded()
    free["result"]["message"] |= {"content": [], "stop_reason": "refusal"}
    settled = read(rules, lines(succeeded(), free)).settled(items=2, ended_at=AT, ledger="one", at=AT)
    assert [share.cost.total_nanousd > 0 for share in settled.shares] == [True, False]
