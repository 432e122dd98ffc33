"""What the API refuses before it runs a request, in its own words.

Fields, versions, betas, and what each model takes. Breakpoints are `marks.py`. Sources: errors page and
Messages reference (2026-08-21), versioning page (October 2026), model pages; wording partly from public
reports. Where the API's wording is not known, the status and the named field are what counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.sim.catalogue import ModelRow, find_model
from gateway.sim.wire import JsonObject, invalid, not_found

OLD_VERSION: Final = "2023-06-01"
NEW_VERSION: Final = "2026-10-21"
MAXIMUM_MESSAGES: Final = 100_000

_SHARED_FIELDS: Final = frozenset(
    {
        "messages",
        "model",
        "cache_control",
        "output_config",
        "speed",
        "system",
        "thinking",
        "tool_choice",
        "tools",
    }
)
_MESSAGE_FIELDS: Final = _SHARED_FIELDS | {
    "max_tokens", "container", "diagnostics", "inference_geo", "metadata", "service_tier", "stop_sequences",
    "stream",
}  # fmt: skip
_SAMPLING: Final = frozenset({"temperature", "top_p", "top_k"})
_BETA_FIELDS: Final[Mapping[str, tuple[str, ...]]] = {
    "thread": ("message-threads-",),
    "context_management": ("context-management-", "compact-2026-01-12"),
    "compaction": ("compact-2026-09-04",),
    "fallbacks": ("server-side-fallback-",),
    "fallback_credit_token": ("fallback-credit-", "server-side-fallback-"),
    "mcp_servers": ("mcp-client-",),
    "billing_policy": ("user-profiles-",),
}
_COUNT_BETA_FIELDS: Final = ("context_management", "compaction", "mcp_servers", "billing_policy")
_DATED_BETA: Final = re.compile(r"[a-z0-9-]+-(\d{4}-\d{2}-\d{2}|\d{8})")


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """What the headers of a request say."""

    workspace: str
    version: str
    betas: tuple[str, ...]


def read_version(value: str | None) -> str:
    if not value:
        raise invalid("anthropic-version: header is required")
    if value not in (OLD_VERSION, NEW_VERSION):
        raise invalid(f'anthropic-version: "{value}" is not a valid version')
    return value


def read_betas(lines: Sequence[str]) -> tuple[str, ...]:
    """Names of all `anthropic-beta` lines. The set is open: any dated name is taken, others are refused."""
    names = tuple(name.strip() for line in lines for name in line.split(",") if name.strip())
    for name in names:
        if not _DATED_BETA.fullmatch(name):
            raise invalid(f"Unexpected value(s) `{name}` for the `anthropic-beta` header.")
    return names


def check_message_call(body: JsonObject, caller: Caller, *, in_batch: bool = False) -> ModelRow:
    """A `POST /v1/messages` body, or one item's params of a batch. Returns the model's row."""
    _check_fields(body, _allowed_fields(caller, body))
    model = _check_shared(body, caller, required=("max_tokens",))
    _check_max_tokens(body, model, caller)
    _check_speed(body, model, caller)
    if body.get("inference_geo") is not None:
        if not model.inference_geo:
            raise invalid(f"inference_geo: {model.id} does not support `inference_geo`.")
        if body["inference_geo"] not in ("global", "us"):
            raise invalid("inference_geo: Input should be 'global' or 'us'")
    if body.get("service_tier") not in (None, "auto", "standard_only"):
        raise invalid("service_tier: Input should be 'auto' or 'standard_only'")
    if in_batch:
        _check_batch_item(body)
    elif body["max_tokens"] == 0:
        _check_prewarm(body)
    return model


def check_count_call(body: JsonObject, caller: Caller) -> ModelRow:
    """A `POST /v1/messages/count_tokens` body: its own fields only (token counting page, 2026-08-21)."""
    allowed = set(_SHARED_FIELDS)
    allowed.update(name for name in _COUNT_BETA_FIELDS if _has_beta(caller, _BETA_FIELDS[name]))
    _check_fields(body, allowed)
    return _check_shared(body, caller, required=())


def _allowed_fields(caller: Caller, body: JsonObject) -> set[str]:
    allowed = set(_MESSAGE_FIELDS)
    if caller.version == OLD_VERSION:
        allowed |= _SAMPLING
    allowed.update(name for name, betas in _BETA_FIELDS.items() if _has_beta(caller, betas))
    return allowed


def _has_beta(caller: Caller, prefixes: tuple[str, ...]) -> bool:
    return any(beta.startswith(prefixes) for beta in caller.betas)


def _check_fields(body: JsonObject, allowed: set[str]) -> None:
    for name in body:
        if name not in allowed:
            raise invalid(f"{name}: Extra inputs are not permitted")


def _check_shared(body: JsonObject, caller: Caller, *, required: tuple[str, ...]) -> ModelRow:
    for name in ("model", *required, "messages"):
        if name not in body:
            raise invalid(f"{name}: Field required")
    if not isinstance(body["model"], str):
        raise invalid("model: Input should be a valid string")
    model = find_model(body["model"])
    if model is None:
        raise not_found(f"model: {body['model']}")
    _check_system(body.get("system"))
    _check_tools(body.get("tools"))
    _check_messages(body, model, caller)
    _check_thinking(body, model)
    choice = body.get("tool_choice")
    if choice is not None and not isinstance(choice, dict):
        raise invalid("tool_choice: Input should be a valid dictionary or object to extract fields from")
    if (choice or {}).get("type") in ("any", "tool") and not model.forced_tool_choice:
        raise invalid(f"tool_choice: {model.id} does not support forced tool use.")
    config = body.get("output_config")
    if config is not None and not isinstance(config, dict):
        raise invalid("output_config: Input should be a valid dictionary or object to extract fields from")
    effort = (config or {}).get("effort")
    if effort not in (None, "low", "medium", "high", "xhigh", "max"):
        raise invalid("output_config.effort: Input should be 'low', 'medium', 'high', 'xhigh' or 'max'")
    return model


def _check_system(system: Any) -> None:
    if system is None or isinstance(system, str):
        return
    if not isinstance(system, list):
        raise invalid("system: Input should be a valid list")
    for index, block in enumerate(system):
        if not isinstance(block, dict) or block.get("type") != "text":
            raise invalid(f"system.{index}.type: Input should be 'text'")
        _check_text(block, f"system.{index}")


def _check_tools(tools: Any) -> None:
    if tools is None:
        return
    if not isinstance(tools, list):
        raise invalid("tools: Input should be a valid list")
    names: set[str] = set()
    for index, tool in enumerate(tools):
        if not isinstance(tool, dict):
            raise invalid(f"tools.{index}: Input should be a valid dictionary")
        if tool.get("type") in (None, "custom"):
            for name in ("name", "input_schema"):
                if name not in tool:
                    raise invalid(f"tools.{index}.custom.{name}: Field required")
        called = tool.get("name")
        if isinstance(called, str):
            if called in names:
                raise invalid("tools: Tool names must be unique.")
            names.add(called)


def _check_messages(body: JsonObject, model: ModelRow, caller: Caller) -> None:
    messages = body["messages"]
    resumes = (body.get("thread") or {}).get("type") == "continue"
    if not isinstance(messages, list):
        raise invalid("messages: Input should be a valid list")
    if not messages and not resumes:
        raise invalid("messages: at least one message is required")
    if len(messages) > MAXIMUM_MESSAGES:
        raise invalid(f"messages: Too many messages: {len(messages)} > {MAXIMUM_MESSAGES} maximum")
    for index, message in enumerate(messages):
        path = f"messages.{index}"
        if not isinstance(message, dict):
            raise invalid(f"{path}: Input should be a valid dictionary")
        role = message.get("role")
        if role not in ("user", "assistant", "system"):
            raise invalid(f"{path}.role: Input should be 'user' or 'assistant'")
        if "content" not in message:
            raise invalid(f"{path}.content: Field required")
        for name in message:
            if name not in ("role", "content", "output_config"):
                raise invalid(f"{path}.{name}: Extra inputs are not permitted")
        _check_content(message["content"], role, path, caller)
    if messages and messages[-1].get("role") == "assistant" and not model.prefill:
        raise invalid(
            "This model does not support assistant message prefill. The conversation must end with a user "
            "message."
        )


def _check_content(content: Any, role: str, path: str, caller: Caller) -> None:
    if isinstance(content, str):
        if not content and role == "user":
            raise invalid(f"{path}: user messages must have non-empty content")
        return
    if not isinstance(content, list):
        raise invalid(f"{path}.content: Input should be a valid list")
    if not content and role == "user":
        raise invalid(f"{path}: user messages must have non-empty content")
    for index, block in enumerate(content):
        place = f"{path}.content.{index}"
        if not isinstance(block, dict):
            raise invalid(f"{place}: Input should be a valid dictionary")
        if not isinstance(block.get("type"), str):
            raise invalid(f"{place}.type: Field required")
        if block["type"] == "text":
            _check_text(block, place)
        if caller.version == NEW_VERSION:
            _check_new_version(block, role, place)


def _check_text(block: JsonObject, place: str) -> None:
    text = block.get("text")
    if not isinstance(text, str):
        raise invalid(f"{place}.text.text: Field required")
    # A marked empty block has a message of its own, which `marks.py` gives.
    if not text and block.get("cache_control") is None:
        raise invalid(f"{place}: text content blocks must be non-empty")


def _check_new_version(block: JsonObject, role: str, place: str) -> None:
    """What 2026-10-21 refuses on content (versioning page, migration notes, October 2026)."""
    if role == "assistant" and block["type"] == "document":
        raise invalid(f"{place}: document blocks are not permitted in assistant messages")
    inner = block.get("content") if block["type"] == "search_result" else None
    for part in [block, *(inner if isinstance(inner, list) else [])]:
        cited = isinstance(part, dict) and part.get("type") == "text" and part.get("citations")
        if role == "user" and cited:
            raise invalid(f"{place}.citations: citations are not permitted in user messages")


def _check_thinking(body: JsonObject, model: ModelRow) -> None:
    thinking = body.get("thinking")
    if thinking is None:
        return
    if not isinstance(thinking, dict) or "type" not in thinking:
        raise invalid("thinking.type: Field required")
    kind = thinking["type"]
    if kind not in model.thinking:
        raise invalid(f'thinking.type: "{kind}" is not supported by {model.id}.')
    if kind == "enabled":
        budget = thinking.get("budget_tokens")
        if not isinstance(budget, int) or budget < 1024:
            raise invalid("thinking.enabled.budget_tokens: Input should be greater than or equal to 1024")
        if "max_tokens" in body and body["max_tokens"] != 0 and budget >= body["max_tokens"]:
            raise invalid("`max_tokens` must be greater than `thinking.budget_tokens`.")


def _check_max_tokens(body: JsonObject, model: ModelRow, caller: Caller) -> None:
    asked = body["max_tokens"]
    if not isinstance(asked, int) or isinstance(asked, bool):
        raise invalid("max_tokens: Input should be a valid integer")
    if asked < 0:
        raise invalid("max_tokens: Input should be greater than or equal to 0")
    ceiling = 300_000 if _has_beta(caller, ("output-300k-",)) else model.max_output_tokens
    if asked > ceiling:
        raise invalid(
            f"max_tokens: {asked} > {ceiling}, which is the maximum allowed number of output tokens for "
            f"{model.id}"
        )


def _check_speed(body: JsonObject, model: ModelRow, caller: Caller) -> None:
    """Fast mode page (August and September 2026)."""
    speed = body.get("speed")
    if speed in (None, "standard"):
        return
    if speed != "fast":
        raise invalid("speed: Input should be 'standard' or 'fast'")
    if model.fast == "refused":
        raise invalid(f"speed: {model.id} does not support fast mode.")
    if model.fast == "beta" and not _has_beta(caller, ("fast-mode-",)):
        raise invalid("speed: fast mode requires the `fast-mode-2026-02-01` beta header.")


def _check_prewarm(body: JsonObject) -> None:
    """`max_tokens: 0` refuses what would sample (prompt caching page, pre-warming)."""
    clash = None
    if body.get("stream") is True:
        clash = "`stream: true`"
    elif (body.get("thinking") or {}).get("type") == "enabled":
        clash = '`thinking.type: "enabled"`'
    elif (body.get("output_config") or {}).get("format") is not None:
        clash = "`output_config.format`"
    elif (body.get("tool_choice") or {}).get("type") in ("any", "tool"):
        clash = "`tool_choice` of type `any` or `tool`"
    elif body.get("compaction") is not None:
        clash = "`compaction`"
    if clash is not None:
        raise invalid(f"max_tokens: `max_tokens: 0` cannot be combined with {clash}.")


def _check_batch_item(body: JsonObject) -> None:
    """Batch processing page (2026-08-21)."""
    for name in ("stream", "speed", "thread", "fallbacks", "cache_hint", "context_hint", "store"):
        if body.get(name):
            raise invalid(f"{name}: is not supported in batches")
    if body["max_tokens"] == 0:
        raise invalid("max_tokens: `max_tokens: 0` is not supported in batches")
