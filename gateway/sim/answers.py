"""What the model would say: plausible, deterministic given the request, and never longer than allowed.

No IO and no clock; how an answer travels is `stream.py`. The generated text means nothing. Two things in
a request steer it, for demos and tests: "use the NAME tool" asks for a call of that tool, and "N words"
for a length.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias

from gateway.sim.catalogue import ModelRow
from gateway.sim.faults import ANY_REQUEST, Match
from gateway.sim.tokens import count_block, count_text
from gateway.sim.wire import JsonObject

_PROSE: Final = (
    "the cache holds what was said before and a prefix that stays the same is read again at a tenth of its "
    "price while each new block is written once so put what changes last and keep order in mind because one "
    "early edit costs every later token its discount which is why the system text comes first then the "
    "history and then today's question"
)
_WORDS: Final = tuple(re.findall(r"\S+", _PROSE))
_USE_TOOL: Final = re.compile(r"use the [`\"']?([A-Za-z0-9_-]+)[`\"']? tool", re.IGNORECASE)
_LENGTH: Final = re.compile(r"\b(\d{1,5}) words\b")
_LISTENS_CHARACTERS: Final = 2_000
"""How much of the end of the user's words can steer an answer."""
_THINKS: Final = ("enabled", "adaptive")


@dataclass(slots=True, kw_only=True)
class Answer:
    """One generated message, before it has an id."""

    content: list[JsonObject]
    stop_reason: str
    output_tokens: int
    stop_sequence: str | None = None
    stop_details: JsonObject | None = None
    thinking_tokens: int = 0
    usage: JsonObject = field(default_factory=dict)
    """Fields that replace those of the computed usage, when scripted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """Exactly this answer, for the next `times` matching requests (None: always)."""

    content: Sequence[JsonObject] | str
    stop_reason: str = "end_turn"
    stop_details: JsonObject | None = None
    output_tokens: int | None = None
    usage: JsonObject = field(default_factory=dict)
    """Usage fields to replace, as on the wire; `iterations` may be among them."""
    match: Match = ANY_REQUEST
    times: int | None = 1


ScriptHook: TypeAlias = Callable[[JsonObject], Scripted | None]
"""Given the request's body (a thread's expanded); None leaves the answer to the generator."""


class Script:
    """Scripted answers waiting for their requests, in order."""

    def __init__(self, hook: ScriptHook | None = None) -> None:
        self.hook = hook
        self._waiting: list[tuple[Scripted, int | None]] = []

    def add(self, scripted: Scripted) -> None:
        self._waiting.append((scripted, scripted.times))

    def clear(self) -> None:
        self._waiting.clear()

    def take(self, body: JsonObject, path: str) -> Scripted | None:
        """The scripted answer for this request, if any; uses it up."""
        for index, (scripted, left) in enumerate(self._waiting):
            stream = body.get("stream") is True
            if not scripted.match.fits(method="POST", path=path, model=body.get("model"), stream=stream):
                continue
            if left is not None:
                if left <= 1:
                    del self._waiting[index]
                else:
                    self._waiting[index] = (scripted, left - 1)
            return scripted
        return self.hook(body) if self.hook is not None else None


def compose(body: JsonObject, model: ModelRow, *, seed: bytes, scripted: Scripted | None) -> Answer:
    """The answer to a request: the scripted one, nothing for a pre-warm, or one generated from `seed`."""
    if scripted is not None:
        return _from_script(scripted, model)
    if body["max_tokens"] == 0:
        return Answer(content=[], stop_reason="max_tokens", output_tokens=0)
    dice = random.Random(seed)  # noqa: S311 - reproducible, not secret
    calls = _asked_tools(body)
    thinking = _thinking_block(body, dice)
    text = _structured(body, dice) or _prose(_words_wanted(body, dice), dice)
    content: list[JsonObject] = [thinking] if thinking else []
    if calls:
        text = "I will look that up."
    if not calls or (body.get("tool_choice") or {}).get("type") not in ("any", "tool"):
        content.append({"type": "text", "text": text})
    content.extend(
        {
            "type": "tool_use",
            "id": f"toolu_{dice.getrandbits(96):024x}",
            "name": tool["name"],
            "input": _example(tool.get("input_schema"), dice),
        }
        for tool in calls
    )
    answer = Answer(content=content, stop_reason="tool_use" if calls else "end_turn", output_tokens=0)
    _stop_at_sequence(answer, body)
    _fit(answer, body["max_tokens"], model)
    return answer


def _from_script(scripted: Scripted, model: ModelRow) -> Answer:
    content = (
        [{"type": "text", "text": scripted.content}]
        if isinstance(scripted.content, str)
        else [dict(block) for block in scripted.content]
    )
    tokens = scripted.output_tokens
    if tokens is None:
        tokens = scripted.usage.get("output_tokens")
    if tokens is None:
        tokens = sum(count_block(block, new_tokenizer=model.new_tokenizer) for block in content)
    return Answer(
        content=content,
        stop_reason=scripted.stop_reason,
        stop_details=scripted.stop_details,
        output_tokens=tokens,
        usage=dict(scripted.usage),
    )


def _asked_tools(body: JsonObject) -> list[JsonObject]:
    """Tools to call now: the forced one, or those the newest words of the user name."""
    tools = {
        tool["name"]: tool
        for tool in body.get("tools") or []
        if "name" in tool and tool.get("type") in (None, "custom")
    }
    choice = body.get("tool_choice") or {}
    if not tools or choice.get("type") == "none":
        return []
    if choice.get("type") == "tool":
        return [tools[choice["name"]]] if choice.get("name") in tools else []
    if choice.get("type") == "any":
        return [next(iter(tools.values()))]
    names = dict.fromkeys(_USE_TOOL.findall(_newest_words(body)))
    return [tools[name] for name in names if name in tools]


def _newest_words(body: JsonObject) -> str:
    """Text of the last message, if a user wrote it; tool results are not words."""
    message = body["messages"][-1] if body["messages"] else {}
    if message.get("role") != "user":
        return ""
    content = message.get("content")
    if isinstance(content, str):
        return content[-_LISTENS_CHARACTERS:]
    texts = [str(part.get("text", "")) for part in content or [] if isinstance(part, dict)]
    return "\n".join(texts)[-_LISTENS_CHARACTERS:]


def _words_wanted(body: JsonObject, dice: random.Random) -> int:
    asked = _LENGTH.search(_newest_words(body))
    return max(1, int(asked.group(1))) if asked else dice.randint(25, 90)


def _prose(words: int, dice: random.Random) -> str:
    out: list[str] = []
    start = dice.randrange(len(_WORDS))
    for index in range(words):
        word = _WORDS[(start + index) % len(_WORDS)]
        fresh = index % 14 == 0
        out.append(word.capitalize() if fresh else word)
        if index % 14 == 13 or index == words - 1:
            out[-1] += "."
    return " ".join(out)


def _thinking_block(body: JsonObject, dice: random.Random) -> JsonObject | None:
    """Shown where the request speaks of thinking; models that always think keep it to themselves here."""
    thinking = body.get("thinking") or {}
    if thinking.get("type") not in _THINKS or body["max_tokens"] < 64:
        return None
    text = "" if thinking.get("display") == "omitted" else _prose(dice.randint(10, 30), dice)
    return {"type": "thinking", "thinking": text, "signature": f"{dice.getrandbits(512):0128x}"}


def _structured(body: JsonObject, dice: random.Random) -> str | None:
    shape = (body.get("output_config") or {}).get("format")
    if not isinstance(shape, dict) or shape.get("type") != "json_schema":
        return None
    return json.dumps(_example(shape.get("schema"), dice), ensure_ascii=False)


def _example(schema: Any, dice: random.Random) -> Any:
    """A value that satisfies a plain JSON schema: every property, first choices, small numbers."""
    if not isinstance(schema, dict):
        return {}
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for union in ("anyOf", "oneOf"):
        if schema.get(union):
            return _example(schema[union][0], dice)
    kind = schema.get("type")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "string":
        return dice.choice(_WORDS)
    if kind == "integer":
        return dice.randint(1, 9)
    if kind == "number":
        return dice.randint(1, 9) + 0.5
    if kind == "boolean":
        return True
    if kind == "array":
        return [_example(schema.get("items"), dice)] if schema.get("items") else []
    if kind == "null":
        return None
    return {name: _example(sub, dice) for name, sub in (schema.get("properties") or {}).items()}


def _stop_at_sequence(answer: Answer, body: JsonObject) -> None:
    for block in answer.content:
        if block["type"] != "text":
            continue
        for sequence in body.get("stop_sequences") or []:
            at = block["text"].find(sequence)
            if sequence and at >= 0:
                block["text"] = block["text"][:at]
                del answer.content[answer.content.index(block) + 1 :]
                answer.stop_reason, answer.stop_sequence = "stop_sequence", sequence
                return


def _fit(answer: Answer, max_tokens: int, model: ModelRow) -> None:
    """Count the output, and cut it at `max_tokens`."""
    left = max_tokens
    for index, block in enumerate(answer.content):
        tokens = count_block(block, new_tokenizer=model.new_tokenizer)
        if tokens > left:
            if block["type"] == "text":
                block["text"] = _shortened(block["text"], max(left - 3, 1), model)
                del answer.content[index + 1 :]
            else:
                del answer.content[index:]
            answer.stop_reason, answer.stop_sequence = "max_tokens", None
            answer.output_tokens = max_tokens
            return
        left -= tokens
        if block["type"] == "thinking":
            answer.thinking_tokens += tokens
    answer.output_tokens = max_tokens - left


def _shortened(text: str, tokens: int, model: ModelRow) -> str:
    """The longest beginning of `text` that is at most so many tokens, at least one character."""
    keep = len(text)
    while keep > 1 and count_text(text[:keep], new_tokenizer=model.new_tokenizer) > tokens:
        keep = max(1, keep - max(1, keep // 8))
    return text[:keep]
