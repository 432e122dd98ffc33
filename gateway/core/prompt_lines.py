"""A file of prompts to be warmed: JSON lines, a request body on each. Read here for schedules, for `gateway
prewarm` and for the admin API alike, so that all three accept the same and say the same of what is wrong.

A body's bytes are kept as they are: a warm-up has to be the same prompt, to the byte, as the requests that
are to read it. No IO, and no text of a prompt in any message.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import msgspec
from msgspec import Raw

from gateway.core.batch_items import item_members
from gateway.core.errors import BadRequest
from gateway.core.headers import Header
from gateway.core.prompt_reader import read_prompt
from gateway.core.spans import OBJECT, Members
from gateway.core.warmup import WarmOutcome, WarmState, why_not_warmable

MAX_PROMPTS = 1_000
MAX_PROMPTS_BYTES = 64 << 20
"""What one file or request may hold; larger ones are to be split."""
HEADERS = frozenset({"anthropic-beta", "anthropic-version"})
"""Headers that a line may name: those that alter what upstream makes of a body."""

_HEADER_VALUES = msgspec.json.Decoder(dict[str, str])


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLine:
    """One prompt to be warmed."""

    number: int
    """Of its line, from 1."""
    model: str
    body: bytes = field(repr=False)
    headers: tuple[Header, ...]


@dataclass(frozen=True, slots=True)
class LineProblem:
    """What is wrong with a line, in a sentence. `number` is 0 where it is wrong with the whole."""

    number: int
    message: str

    def __str__(self) -> str:
        return f"line {self.number}: {self.message}" if self.number else self.message


@dataclass(frozen=True, slots=True)
class WarmedPrompt:
    """One prompt that was to be warmed, and what became of it."""

    prompt: PromptLine
    outcome: WarmOutcome

    @property
    def is_warm(self) -> bool:
        """Whether it is in the cache now."""
        return self.outcome.state in (WarmState.WARMED, WarmState.ALREADY_WARM)


def read_prompt_lines(data: bytes) -> tuple[tuple[PromptLine, ...], tuple[LineProblem, ...]]:
    """The prompts of a file, and everything that is wrong with it. Never raises.

    A line is a body of `/v1/messages`, or `{"body": {...}, "headers": {"anthropic-beta": "..."}}`. Empty
    lines count in numbers only. One object that goes over several lines is one prompt.
    """
    if len(data) > MAX_PROMPTS_BYTES:
        return (), (LineProblem(0, f"more than {MAX_PROMPTS_BYTES >> 20} MiB; split it"),)
    lines = _lines(data)
    if not lines:
        return (), (LineProblem(0, "holds no prompts; write a request body on each line"),)
    if len(lines) > MAX_PROMPTS:
        return (), (LineProblem(0, f"{len(lines):,} prompts, {MAX_PROMPTS:,} are the most; split it"),)
    prompts, problems = [], []
    for number, line in lines:
        try:
            prompts.append(_read_line(number, line))
        except BadRequest as error:
            problems.append(LineProblem(number, error.message))
    return tuple(prompts), tuple(problems)


def find_unwarmable(prompts: Iterable[PromptLine]) -> tuple[LineProblem, ...]:
    """Those of `prompts` that no gateway could warm, whatever the workspace."""
    reasons = ((prompt.number, why_not_warmable(read_prompt(prompt.body))) for prompt in prompts)
    return tuple(LineProblem(number, why) for number, why in reasons if why is not None)


def as_line(prompt: PromptLine) -> bytes:
    """The line that `read_prompt_lines` reads as this prompt; the body's own bytes are in it."""
    headers = {name.decode(): value.decode("latin-1") for name, value in prompt.headers}
    return b'{"headers":%s,"body":%s}' % (msgspec.json.encode(headers), prompt.body)


def _lines(data: bytes) -> list[tuple[int, bytes]]:
    data = data.removeprefix(b"\xef\xbb\xbf")
    lines = [(n, line) for n, text in enumerate(data.split(b"\n"), 1) if (line := text.strip())]
    if len(lines) > 1 and not _is_object(lines[0][1]) and _is_object(data):
        return [(lines[0][0], data.strip())]
    return lines


def _is_object(text: bytes) -> bool:
    try:
        OBJECT.decode(text)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return True


def _read_line(number: int, line: bytes) -> PromptLine:
    """Raises `BadRequest` with what is wrong."""
    body, headers = _unwrapped(line)
    prompt = read_prompt(body)
    return PromptLine(number=number, model=prompt.model, body=body, headers=headers)


def _unwrapped(line: bytes) -> tuple[bytes, tuple[Header, ...]]:
    try:
        members, spans = item_members(line, "a line")
    except BadRequest:
        return line, ()  # the reader of bodies says what is wrong
    if "body" not in members or "messages" in members:
        return line, ()
    if strange := members.keys() - {"body", "headers"}:
        raise BadRequest(f"beside `body` stands `headers` and nothing else, not {sorted(strange)[0]!r}")
    return line[slice(*spans["body"])], _headers(members)


def _headers(members: Members) -> tuple[Header, ...]:
    try:
        given = _HEADER_VALUES.decode(members.get("headers", Raw(b"{}")))
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise BadRequest("`headers` must be an object of strings") from None
    named = {name.lower(): value for name, value in given.items()}
    if strange := named.keys() - HEADERS:
        raise BadRequest(
            f"a line cannot name the header {sorted(strange)[0]!r}, only {' and '.join(sorted(HEADERS))}; "
            "the gateway sets the rest itself"
        )
    for name, value in named.items():
        if not value.isascii() or not value.isprintable():
            raise BadRequest(f"the value of {name} holds characters that a header must not")
    return tuple((name.encode(), value.strip().encode()) for name, value in sorted(named.items()))
