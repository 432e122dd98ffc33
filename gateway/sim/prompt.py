"""A request as the cache sees it: blocks in cache order, each with the key and size of its prefix.

Reads parsed JSON; knows which parts of a request alter the rendered prompt, and from which level on.
Whether breakpoints are legal is `marks.py`, what a hit costs is `cache.py`. Sources: prompt caching page
(2026-08-21) and tool use with prompt caching (2026-08-21), unless said otherwise.
"""

from __future__ import annotations

import enum
import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.sim.cache import Position, Ttl
from gateway.sim.catalogue import ModelRow
from gateway.sim.tokens import count_block
from gateway.sim.wire import JsonObject

ATTRIBUTION: Final = "x-anthropic-billing-header:"
"""How Claude Code's attribution line begins; stripped when it is the first system block (Claude Code's
gateway protocol page, 2026-08-22)."""

MESSAGE_TAIL_TOKENS: Final = 5
"""What the frame of a conversation costs, after its last block."""

_NEUTRAL_BETAS: Final = (
    "prompt-caching-", "extended-cache-ttl-", "token-counting-", "message-batches-", "cache-diagnosis-",
    "token-efficient-tools-", "pdfs-", "files-api-", "message-threads-", "fast-mode-",
    "thinking-token-count-", "oauth-",
)  # fmt: skip
"""Betas that are accepted and alter nothing of the prompt (beta headers page; release notes)."""

_FREE_FORM: Final = frozenset({"input", "input_schema", "schema", "input_examples"})
"""Members in which the order of keys is part of the prompt."""


class Level(enum.IntEnum):
    """Cache order. Each level's keys depend on the levels before it."""

    TOOLS = 0
    SYSTEM = 1
    MESSAGES = 2


@dataclass(slots=True, kw_only=True)
class Block:
    """One tool, system block or content block, where it stood in the request."""

    level: Level
    role: str
    path: str
    value: JsonObject
    deferred: bool = False
    """A tool outside the prefix (`defer_loading`)."""
    hidden: bool = False
    """Accepted but not rendered: the attribution line, thinking that the API strips."""
    mark: Ttl | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """What the cache needs of a request."""

    positions: tuple[Position, ...]
    total_tokens: int

    @property
    def key(self) -> bytes:
        """The key of the whole prompt: the same however it is marked, streamed or sent."""
        return self.positions[-1].key if self.positions else b""


def read_blocks(body: JsonObject, model: ModelRow) -> list[Block]:
    """All blocks in the order of the request. A string is one text block. Web search and web fetch belong
    to the system level, because turning them on or off keeps the tools level."""
    tools = [tool for tool in body.get("tools") or [] if isinstance(tool, dict)]
    blocks = [
        Block(
            level=Level.SYSTEM if _is_web_tool(tool) else Level.TOOLS,
            role="tool",
            path=f"tools.{index}",
            value=tool,
            deferred=tool.get("defer_loading") is True,
        )
        for index, tool in enumerate(tools)
    ]
    for index, value in enumerate(_as_blocks(body.get("system"))):
        text = str(value.get("text", ""))
        hidden = index == 0 and text.startswith(ATTRIBUTION) and "\n" not in text
        blocks.append(
            Block(level=Level.SYSTEM, role="system", path=f"system.{index}", value=value, hidden=hidden)
        )
    messages = body.get("messages") or []
    stripped_before = 0 if model.keeps_thinking else _last_spoken_turn(messages)
    for index, message in enumerate(messages):
        for part, value in enumerate(_as_blocks(message.get("content"))):
            thinking = value.get("type") in ("thinking", "redacted_thinking")
            blocks.append(
                Block(
                    level=Level.MESSAGES,
                    role=str(message.get("role")),
                    path=f"messages.{index}.content.{part}",
                    value=value,
                    hidden=thinking and index < stripped_before,
                )
            )
    return blocks


def render(blocks: Sequence[Block], body: JsonObject, model: ModelRow, betas: Iterable[str]) -> Rendered:
    """Chain keys and sizes over the blocks. Text compares by its characters, JSON by its parsed value with
    the order of keys kept inside inputs and schemas; breakpoints are not part of a key."""
    seeds = _seeds(blocks, body, model, betas)
    key = b""
    tokens = 0
    level: Level | None = None
    positions: list[Position] = []
    for block in sorted(blocks, key=lambda block: block.level):
        if block.deferred or block.hidden:
            continue
        while level is None or level < block.level:
            level = Level.TOOLS if level is None else Level(level + 1)
            key = _digest(key, seeds[level])
            tokens += _hidden_tokens(level, body, model)
        key = _digest(key, _canonical(block))
        tokens += count_block(block.value, new_tokenizer=model.new_tokenizer)
        positions.append(Position(key=key, end_tokens=tokens, mark=block.mark))
    return Rendered(positions=tuple(positions), total_tokens=tokens + MESSAGE_TAIL_TOKENS)


def _seeds(
    blocks: Sequence[Block], body: JsonObject, model: ModelRow, betas: Iterable[str]
) -> dict[Level, bytes]:
    """What else alters the prompt, by the level from which it does (the invalidation table)."""
    config = body.get("output_config") or {}
    choice = body.get("tool_choice") or {}
    thinking = body.get("thinking") or {}
    thinking_type = thinking.get("type") or model.default_thinking
    messages = [block.value for block in blocks if block.level is Level.MESSAGES]
    return {
        # A format loses the whole conversation (structured outputs page); warm-ups must carry the same
        # beta headers or are never hit (cost guide, 2026-10-09).
        Level.TOOLS: _json([config.get("format"), sorted(_rendering_betas(betas))]),
        Level.SYSTEM: _json([any(_cites(value) for value in messages)]),
        Level.MESSAGES: _json(
            [
                choice.get("type") or "auto",
                choice.get("name"),
                bool(choice.get("disable_parallel_tool_use")),
                any(_has_image(value) for value in messages),
                thinking_type,
                thinking.get("budget_tokens"),
                config.get("effort") or model.default_effort,
                config.get("task_budget"),
                body.get("context_management"),
            ]
        ),
    }


def _hidden_tokens(level: Level, body: JsonObject, model: ModelRow) -> int:
    """The tool-use system prompt, once when any tool is present (pricing page, 2026-08-21); what a forced
    choice adds to it comes with the messages, for a changed choice keeps the levels before them."""
    if not body.get("tools"):
        return 0
    if level is Level.TOOLS:
        return model.tool_prompt_tokens
    forced = (body.get("tool_choice") or {}).get("type") in ("any", "tool")
    if level is Level.MESSAGES and forced:
        return model.forced_tool_prompt_tokens - model.tool_prompt_tokens
    return 0


def _canonical(block: Block) -> bytes:
    """The bytes that stand for a block in its key. Roles, not messages: consecutive messages of one role
    are one turn to the API."""
    value = block.value
    if value.get("type") == "text" and not value.get("citations"):
        return f"{block.role}\0text\0{value.get('text')}".encode("utf-8", "surrogatepass")
    return f"{block.role}\0".encode() + _json(_plain(value))


def _plain(value: Any) -> Any:
    """A block without breakpoints and nulls, its own keys sorted, free-form JSON as it stands."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    out: JsonObject = {}
    for name in sorted(value):
        member = value[name]
        if name == "cache_control" or member is None:
            continue
        if name == "content" and isinstance(member, str) and value.get("type") == "tool_result":
            member = [{"type": "text", "text": member}]
        out[name] = member if name in _FREE_FORM else _plain(member)
    return out


def _as_blocks(content: Any) -> list[JsonObject]:
    if isinstance(content, str):
        return [{"type": "text", "text": content}] if content else []
    return [part for part in content or [] if isinstance(part, dict)]


def _last_spoken_turn(messages: Sequence[JsonObject]) -> int:
    """Index of the last user message that is not only tool results; older thinking before it is gone."""
    for index in range(len(messages) - 1, -1, -1):
        if messages[index].get("role") == "user" and any(
            part.get("type") != "tool_result" for part in _as_blocks(messages[index].get("content"))
        ):
            return index
    return 0


def _rendering_betas(betas: Iterable[str]) -> set[str]:
    return {beta for beta in betas if not beta.startswith(_NEUTRAL_BETAS)}


def _is_web_tool(tool: JsonObject) -> bool:
    return str(tool.get("type", "")).startswith(("web_search_", "web_fetch_"))


def _cites(value: JsonObject) -> bool:
    citations = value.get("citations")
    return isinstance(citations, dict) and citations.get("enabled") is True


def _has_image(value: JsonObject) -> bool:
    if value.get("type") == "image":
        return True
    inner = value.get("content")
    return isinstance(inner, list) and any(isinstance(part, dict) and _has_image(part) for part in inner)


def _digest(key: bytes, data: bytes) -> bytes:
    return hashlib.blake2b(key + len(data).to_bytes(8, "big") + data, digest_size=16).digest()


def _json(value: object) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")
