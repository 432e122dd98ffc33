"""What is kept of calls that may be warmed, and for how long."""

from __future__ import annotations

import json
from typing import Any

from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.kept import IDLE_SECONDS, MOST_CUT_BYTES, OVERHEAD_BYTES, KeptPrompt, KeptPrompts
from gateway.core.principal import Principal
from gateway.core.prompt_reader import read_prompt
from tests.support.bodies import MARK, conversation, dump, prose, single

LONG = prose(9_000)
CALLER = Principal(workspace=WorkspaceId("w"), key_id=KeyId("k"), key_name="app", organisation="o")
HEADERS = [
    (b"anthropic-version", b"2023-06-01"),
    (b"anthropic-beta", b"one-2026-01-01"),
    (b"authorization", b"Bearer sk-test-key"),
    (b"user-agent", b"app/1"),
    (b"anthropic-beta", b"two-2026-01-01"),
]


def keep(kept: KeptPrompts, call: str, body: Any, upto: int, *, now: float = 0.0) -> bool:
    return kept.keep(
        call,
        read_prompt(dump(body)),
        upto=upto,
        caller=CALLER,
        target="/v1/messages?beta=true",
        headers=HEADERS,
        now=now,
    )


def taken(kept: KeptPrompts, call: str, now: float = 0.0) -> KeptPrompt:
    found = kept.take(call, now)
    assert found is not None
    return found


def test_keeps_what_a_warm_up_needs_and_nothing_else_of_the_caller() -> None:
    kept = KeptPrompts(1 << 20)
    body = conversation(1, 1, 1)
    assert keep(kept, "c", body, 3)
    found = taken(kept, "c")

    assert found.body == dump(body)
    assert found.target == "/v1/messages?beta=true"
    assert found.headers == (HEADERS[0], HEADERS[1], HEADERS[4])
    assert "sk-test" not in repr(found)
    assert "Section" not in repr(found), "nor is the prompt in what a log could show"


def test_what_is_not_needed_is_cut_off_and_the_clients_marks_stay() -> None:
    kept = KeptPrompts(1 << 20)
    system = [{"type": "text", "text": LONG, "cache_control": {**MARK, "scope": "global"}}]
    assert keep(kept, "c", conversation(40, 1, system=system), 0)
    found = json.loads(taken(kept, "c").body)

    assert found["system"] == system
    assert found["messages"] == [{"role": "user", "content": "warmup"}]
    assert kept.bytes < 11_000


def test_the_oldest_is_forgotten_where_there_is_no_room() -> None:
    size = len(dump(single(LONG))) + OVERHEAD_BYTES
    kept = KeptPrompts(2 * size)
    for call in ("a", "b"):
        assert keep(kept, call, single(LONG), 0)
    taken(kept, "a")
    assert keep(kept, "c", single(LONG), 0)

    assert kept.take("b", 0.0) is None, "a was asked for later"
    assert (len(kept), kept.bytes) == (2, 2 * size)
    kept.forget("a")
    kept.forget("a")
    assert (len(kept), kept.bytes) == (1, size)
    kept.clear()
    assert (len(kept), kept.bytes) == (0, 0)


def test_a_call_that_is_kept_again_counts_once() -> None:
    kept = KeptPrompts(1 << 20)
    for _ in range(3):
        assert keep(kept, "a", single(LONG), 0)

    assert kept.bytes == len(dump(single(LONG))) + OVERHEAD_BYTES


def test_what_nobody_asks_for_is_forgotten() -> None:
    kept = KeptPrompts(1 << 20)
    keep(kept, "a", single(LONG), 0, now=0.0)
    keep(kept, "b", single(LONG), 0, now=0.0)
    taken(kept, "a", now=IDLE_SECONDS / 2)

    assert kept.take("b", IDLE_SECONDS + 1) is None
    assert kept.take("a", IDLE_SECONDS + 1) is not None


def test_what_cannot_be_warmed_or_is_too_large_is_not_kept() -> None:
    kept = KeptPrompts(8_000)

    assert not keep(kept, "a", single("q", system="s", thread={"type": "create"}), 0)
    assert not keep(kept, "b", single(LONG), 0)
    assert len(kept) == 0


def test_large_bodies_are_kept_whole() -> None:
    kept = KeptPrompts(1 << 20)
    body = conversation(800, 1, system=LONG)
    assert len(dump(body)) > MOST_CUT_BYTES
    assert keep(kept, "a", body, 0)

    assert taken(kept, "a").body == dump(body)
