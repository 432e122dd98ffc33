"""Rules of the Claude API's protocol that decisions depend on, each with its source and date.

Prices, minimum lengths and other numbers that change by model or by announcement are configuration, not
here. The simulator has facts of its own, found in the same documents.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from typing import Generic, TypeVar

T = TypeVar("T")

_CACHING = "platform.claude.com/docs/en/build-with-claude/prompt-caching"
_TOOL_CACHING = "platform.claude.com/docs/en/agents-and-tools/tool-use/tool-use-with-prompt-caching"
_CLAUDE_CODE = "code.claude.com/docs/en/llm-gateway-protocol"
_THREADS = "platform.claude.com/docs/en/build-with-claude/message-threads"
_ERRORS = "platform.claude.com/docs/en/api/errors"
_SDK = "types of the Python package anthropic 2.12.0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact(Generic[T]):
    """One rule: its value, what it says in a sentence, where it was read and when."""

    value: T
    says: str
    source: str
    seen: date


MAX_BREAKPOINTS = Fact(
    value=4,
    says="Four breakpoints to a request, the automatic one and nested ones included; a fifth is a 400.",
    source=_CACHING,
    seen=date(2026, 8, 21),
)
MAX_MESSAGES = Fact(
    value=100_000,
    says="A request has at most 100,000 messages; one more is a 400.",
    source=_SDK,
    seen=date(2026, 11, 21),
)
MAX_BODY_BYTES = Fact(
    value=(32_000_000, 32 << 20),
    says="A Messages body has at most 32 MB; which of the two that means is not documented.",
    source=_ERRORS,
    seen=date(2026, 8, 21),
)
LOOKBACK_BLOCKS = Fact(
    value=20,
    says="From a breakpoint the API looks for earlier entries at 20 positions, its own included.",
    source=_CACHING,
    seen=date(2026, 8, 21),
)
TTL_SECONDS = Fact(
    value={"5m": 300, "1h": 3600},
    says="The two lifetimes of an entry, counted from the start of the request that wrote or read it.",
    source=_CACHING,
    seen=date(2026, 8, 21),
)
TTL_ORDER = Fact(
    value=("1h", "5m"),
    says="Over tools, system and messages, every 1h breakpoint must come before every 5m one.",
    source=_CACHING,
    seen=date(2026, 8, 21),
)
SERVER_TOOL_SPARE_SLOTS = Fact(
    value=1,
    says="With server tools the API adds a 5m breakpoint of its own; whether it counts is not documented.",
    source=_TOOL_CACHING,
    seen=date(2026, 8, 21),
)
THREAD_BREAKPOINTS = Fact(
    value=4,
    says="All requests of one message thread share the four breakpoints; system and tools come only once.",
    source=_THREADS,
    seen=date(2026, 11, 2),
)
ATTRIBUTION_PREFIX = Fact(
    value=b"x-anthropic-billing-header:",
    says="Claude Code's first system block; the API drops it when first, alone in its block, unchanged.",
    source=_CLAUDE_CODE,
    seen=date(2026, 8, 22),
)
MARKABLE_BLOCKS = Fact(
    value=frozenset({
        "text", "image", "document", "search_result", "tool_use", "tool_result", "server_tool_use",
        "web_search_tool_result", "web_fetch_tool_result", "code_execution_tool_result",
        "bash_code_execution_tool_result", "text_editor_code_execution_tool_result",
        "tool_search_tool_result", "container_upload", "mcp_tool_use", "mcp_tool_result",
        "advisor_tool_result", "compaction",
    }),
    says="Content blocks that take cache_control; thinking and redacted_thinking, among others, do not.",
    source=_SDK,
    seen=date(2026, 11, 21),
)  # fmt: skip
BOUNDED_BLOCKS = Fact(
    value=MARKABLE_BLOCKS.value | {"thinking", "redacted_thinking", "tool_reference", "browser_state"},
    says="Content blocks that add to a prompt what they hold, unlike `tool_addition`, which adds a tool.",
    source=_SDK,
    seen=date(2026, 11, 21),
)
BOUNDED_FIELDS = Fact(
    value=frozenset({
        "billing_policy", "cache_control", "context_management", "diagnostics", "fallback_credit_token",
        "inference_geo", "max_tokens", "messages", "metadata", "model", "output_config", "output_format",
        "service_tier", "speed", "stop_sequences", "stream", "system", "temperature", "thinking",
        "tool_choice", "tools", "top_k", "top_p",
    }),
    says="Fields of a Messages body under which a request costs no more than its prompt and its max_tokens; "
    "of context_management that holds but for compaction, of tools for those that the client runs.",
    source=_SDK,
    seen=date(2026, 11, 21),
)  # fmt: skip
CLIENT_TOOLS = Fact(
    value=re.compile(r"custom|(?:bash|computer|memory|text_editor)_\d{8}|(?:browser|computer)_toolset_\d{8}"),
    says="Types of tools that the client runs; a tool without a type is `custom`.",
    source=_SDK,
    seen=date(2026, 11, 21),
)
SERVER_TOOLS = Fact(
    value=re.compile(
        r"(?:web_search|web_fetch|code_execution|advisor)_\d{8}"
        r"|tool_search_tool_(?:bm25|regex)(?:_\d{8})?|mcp_toolset"
    ),
    says="Types of tools that the API runs itself, looping inside one request.",
    source=_SDK,
    seen=date(2026, 11, 21),
)


def facts() -> dict[str, Fact[object]]:
    """Every fact of this module by name."""
    return {name: value for name, value in globals().items() if isinstance(value, Fact)}
