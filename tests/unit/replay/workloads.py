"""Small synthetic traffic with a seed: as bodies for a gateway, and as traces in the public form."""

from __future__ import annotations

import gzip
import json
import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Segment = tuple[str, int, str]


class Line(NamedTuple):
    """One request: when, and its blocks as (name, tokens, kind). Equal names in the same order are equal
    prefixes."""

    at: float
    blocks: Sequence[Segment]


def coding_agent(seed: int = 1, *, sessions: int = 4, turns: int = 25) -> list[Line]:
    """Long tool loops on one big head, now and then with a pause longer than five minutes."""
    rng = random.Random(seed)
    lines = []
    for session in range(sessions):
        blocks: list[Segment] = [("tools", 6_000, "tools"), ("system", 3_000, "system")]
        at = session * 400.0
        for turn in range(turns):
            blocks = [*blocks, (f"u{session}.{turn}", rng.randrange(200, 3_000), "user")]
            lines.append(Line(at, blocks))
            blocks = [*blocks, (f"a{session}.{turn}", rng.randrange(50, 400), "assistant")]
            at += rng.expovariate(1 / 12) if rng.random() < 0.92 else rng.uniform(320, 1_500)
    return sorted(lines, key=lambda line: line.at)


def one_shot(seed: int = 2, *, requests: int = 120) -> list[Line]:
    """Every prompt is new from its first block on."""
    rng = random.Random(seed)
    at, lines = 0.0, []
    for number in range(requests):
        at += rng.expovariate(1 / 20)
        lines.append(Line(at, [(f"s{number}", 2_000, "system"), (f"u{number}", 900, "user")]))
    return lines


def chat(seed: int = 3, *, sessions: int = 20, turns: int = 6) -> list[Line]:
    """Conversations with human pauses on a short system prompt."""
    rng = random.Random(seed)
    lines = []
    for session in range(sessions):
        blocks: list[Segment] = [("persona", 300, "system")]
        at = rng.uniform(0, 3_600)
        for turn in range(turns):
            blocks = [*blocks, (f"u{session}.{turn}", rng.randrange(30, 600), "user")]
            lines.append(Line(at, blocks))
            blocks = [*blocks, (f"a{session}.{turn}", rng.randrange(100, 900), "assistant")]
            at += rng.lognormvariate(4.2, 1.0)
    return sorted(lines, key=lambda line: line.at)


def support(seed: int = 4, *, sessions: int = 30, turns: int = 5) -> list[Line]:
    """One big shared head, short conversations."""
    rng = random.Random(seed)
    lines = []
    for session in range(sessions):
        blocks: list[Segment] = [("tools", 2_500, "tools"), ("manual", 7_000, "system")]
        at = rng.uniform(0, 3_000)
        for turn in range(turns):
            blocks = [*blocks, (f"u{session}.{turn}", rng.randrange(20, 200), "user")]
            lines.append(Line(at, blocks))
            blocks = [*blocks, (f"a{session}.{turn}", rng.randrange(50, 300), "assistant")]
            at += rng.expovariate(1 / 40)
    return sorted(lines, key=lambda line: line.at)


def herd(seed: int = 5, *, bursts: int = 8, width: int = 12) -> list[Line]:
    """Bursts of requests that share a system prompt, each burst another one, all within a second."""
    rng = random.Random(seed)
    lines = []
    for burst in range(bursts):
        for number in range(width):
            at = burst * 900.0 + rng.uniform(0.0, 0.8)
            blocks: list[Segment] = [(f"s{burst}", 20_000, "system"), (f"u{burst}.{number}", 400, "user")]
            lines.append(Line(at, blocks))
    return sorted(lines, key=lambda line: line.at)


WORKLOADS: dict[str, Callable[[], list[Line]]] = {
    "coding_agent": coding_agent,
    "one_shot": one_shot,
    "chat": chat,
    "support": support,
    "herd": herd,
}


def public_rows(lines: Iterable[Line]) -> Iterator[dict[str, Any]]:
    for line in lines:
        names = [name for name, _, _ in line.blocks]
        yield {
            "t": line.at,
            "out": 100,
            "segments": [
                ["/".join(names[: at + 1]), tokens, kind] for at, (_, tokens, kind) in enumerate(line.blocks)
            ],
        }


def write_trace(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    with gzip.open(path, "wt") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    return path


def body_of(line: Line, model: str) -> dict[str, Any]:
    """A Messages body of about those lengths: the same names give the same text."""
    tools = [
        {"name": name, "description": _text(name, tokens), "input_schema": {"type": "object"}}
        for name, tokens, kind in line.blocks
        if kind == "tools"
    ]
    system = [
        {"type": "text", "text": _text(name, tokens)}
        for name, tokens, kind in line.blocks
        if kind == "system"
    ]
    messages: list[dict[str, Any]] = [
        {"role": kind, "content": [{"type": "text", "text": _text(name, tokens)}]}
        for name, tokens, kind in line.blocks
        if kind in ("user", "assistant")
    ]
    body: dict[str, Any] = {"model": model, "max_tokens": 64, "messages": messages}
    return body | ({"tools": tools} if tools else {}) | ({"system": system} if system else {})


def _text(name: str, tokens: int) -> str:
    word = f"{name} "
    return word * (3 * tokens // len(word) + 1)
