"""A deterministic count of tokens per model family: not the API's tokenizer, but one of its size.

English and JSON come out at about four bytes a token for older models, and 30% more tokens for those with
the tokenizer that came with Opus 4.7 (token counting page, 2026-08-21). What matters for tests is that the
count is stable, additive over blocks, and not the gateway's own estimate.
"""

from __future__ import annotations

import json
from typing import Any, Final

from gateway.sim.wire import JsonObject

BLOCK_OVERHEAD_TOKENS: Final = 3
IMAGE_TOKENS: Final = 1_568
FILE_TOKENS: Final = 2_000


def count_text(text: str, *, new_tokenizer: bool) -> int:
    """Tokens of plain text; 0 for an empty one."""
    size = len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
    return _tokens(size, new_tokenizer=new_tokenizer)


def count_block(block: JsonObject, *, new_tokenizer: bool) -> int:
    """Tokens of one tool, system block or content block; marks and signatures weigh nothing."""
    size, fixed = _weigh(block)
    return BLOCK_OVERHEAD_TOKENS + fixed + _tokens(size, new_tokenizer=new_tokenizer)


def _tokens(size: int, *, new_tokenizer: bool) -> int:
    return -(-size * 13 // 40) if new_tokenizer else -(-size // 4)


def _weigh(block: JsonObject) -> tuple[int, int]:
    """Bytes of text in a block, and tokens that do not depend on text."""
    kind = block.get("type")
    if kind == "text":
        return _size(block.get("text")), 0
    if kind == "thinking":
        return _size(block.get("thinking")), 0
    if kind == "image":
        return 0, IMAGE_TOKENS
    if kind == "document":
        return _weigh_document(block)
    if kind in ("tool_result", "mcp_tool_result") and isinstance(block.get("content"), list):
        parts = [_weigh(part) for part in block["content"] if isinstance(part, dict)]
        return sum(p[0] for p in parts) + _size(block.get("tool_use_id")), sum(p[1] for p in parts)
    return _size({k: v for k, v in block.items() if k not in ("cache_control", "type")}), 0


def _weigh_document(block: JsonObject) -> tuple[int, int]:
    source = block.get("source")
    if not isinstance(source, dict):
        return 0, FILE_TOKENS
    title = _size(block.get("title")) + _size(block.get("context"))
    if source.get("type") == "text":
        return title + _size(source.get("data")), 0
    if source.get("type") == "base64":
        return title, FILE_TOKENS + len(str(source.get("data", ""))) // 100
    if source.get("type") == "content":
        return title + _size(source.get("content")), 0
    return title, FILE_TOKENS


def _size(value: Any) -> int:
    if value is None:
        return 0
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
