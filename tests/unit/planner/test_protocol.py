from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from gateway.cli.planner import Session, replies

START = {
    "type": "start",
    "read_price": 0.1,
    "write_price": {"5m": 1.25, "1h": 2.0},
    "minimum_tokens": 1024,
}


def request(number: int, t: float, names: list[str], tokens: int = 2000) -> dict[str, Any]:
    kinds = {"t": "tools", "s": "system", "u": "user", "a": "assistant"}
    keys = ["/".join(names[: at + 1]) for at in range(len(names))]
    segments = [[key, tokens, kinds[name[0]]] for key, name in zip(keys, names, strict=True)]
    return {"type": "request", "id": number, "t": t, "segments": segments}


def response(number: int, t: float, read: int, write: int) -> dict[str, Any]:
    usage = {
        "input_tokens": 0,
        "cache_read_input_tokens": read,
        "ephemeral_5m_input_tokens": write,
        "ephemeral_1h_input_tokens": 0,
        "first_byte_at": t,
    }
    return {"type": "response", "id": number, "t": t, "usage": usage}


def test_second_turn_marks_what_it_reads_and_what_it_writes() -> None:
    session = Session()
    assert session.reply(START) == {}
    first = session.reply(request(0, 0.0, ["s1", "u1"]))
    session.reply(response(0, 1.0, 0, 4000))
    second = session.reply(request(1, 9.0, ["s1", "u1", "a1", "u2"]))

    assert first["breakpoints"][-1] == [1, "5m"]
    assert second["breakpoints"][-1] == [3, "5m"]
    assert second["wait_for"] is None


def test_waits_once_and_is_sent_when_asked_again() -> None:
    session = Session()
    session.reply(START)
    session.reply(request(0, 0.0, ["s1", "u1"], tokens=20_000))
    waiting = session.reply(request(1, 0.1, ["s1", "u2"], tokens=20_000))
    again = session.reply(request(1, 0.2, ["s1", "u2"], tokens=20_000))

    assert waiting["wait_for"] == 0
    assert again["wait_for"] is None


def test_wake_is_answered_with_warm_ups_and_the_next_wake() -> None:
    session = Session()
    session.reply(START)

    assert session.reply({"type": "wake", "t": 300.0}) == {"warm": [], "wake_at": None}


def test_unknown_message_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown message type 'stop'"):
        Session().reply({"type": "stop"})


def test_same_lines_give_the_same_replies() -> None:
    lines = [json.dumps(START)]
    for number in range(60):
        names = ["s1", *(f"{'ua'[at % 2]}{number % 5}.{at}" for at in range(1 + 2 * (number // 5)))]
        lines.append(json.dumps(request(number, 13.0 * number, names, tokens=700)))

    assert list(replies(lines)) == list(replies(lines))


def test_speaks_over_standard_input_and_output() -> None:
    """In a process of its own, a reply for each line, whatever seed the process hashes strings with."""
    lines = [
        START,
        request(0, 0.0, ["s1", "u1"]),
        response(0, 1.0, 0, 4000),
        request(1, 9.0, ["s1", "u1", "a1"]),
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    outputs = {
        subprocess.run(
            [sys.executable, "-m", "gateway.cli.planner"],
            input=text,
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }

    assert len(outputs) == 1
    answers = [json.loads(line) for line in outputs.pop().splitlines()]
    assert len(answers) == 4
    assert answers[3]["breakpoints"][-1][0] == 2
