"""Texts that tests plant wherever a secret or a prompt goes in, and that must come out nowhere: not in what
is printed or logged, not in what is kept. `tests/conftest.py` looks for them after every test, `a_stack` in
what each gateway leaves behind."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

UPSTREAM_CREDENTIAL = "sk-test-upstream-canary"
OTHER_CREDENTIAL = "sk-test-other"
PROMPT = "then reads the next file and says what it found there"
"""A part of the prose that the bodies of most tests are made of."""
SYSTEM = "You are brief and kind. You are brief and kind."
"""A part of the system prompt of tests of the whole."""
TEXTS = (UPSTREAM_CREDENTIAL, PROMPT, SYSTEM)
"""Those that no test has a reason to print."""


def found_in(text: str) -> str | None:
    """The first canary in a text."""
    return next((canary for canary in TEXTS if canary in text), None)


def left_in(folder: Path, more: Iterable[str] = ()) -> list[str]:
    """Which files of a folder hold a canary, or one of `more`."""
    wanted = [text.encode() for text in (*TEXTS, OTHER_CREDENTIAL, *more)]
    return [
        f"{path.name}: {text.decode()[:12]}..."
        for path in sorted(folder.rglob("*"))
        for content in [_content(path)]
        for text in wanted
        if text in content
    ]


def _content(path: Path) -> bytes:
    """Nothing of a folder, nor of a file that is gone by now: SQLite removes its log when the last who has
    the database open closes it, and that may be another gateway on the same folder."""
    try:
        return path.read_bytes() if path.is_file() else b""
    except FileNotFoundError:
        return b""
