"""Breakpoints of a request: finding them, and refusing what the API refuses, in its own words.

Sources: prompt caching page (2026-08-21); the wording of messages from public reports and probes up to
2026-09-30. Blocks come from `prompt.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from gateway.sim.cache import Ttl
from gateway.sim.prompt import Block
from gateway.sim.wire import JsonObject, invalid

MAXIMUM_MARKS: Final = 4

_THINKING: Final = ("thinking", "redacted_thinking")


def set_marks(blocks: Sequence[Block], automatic: Any, betas: Iterable[str]) -> None:
    """Set `mark` on every block that carries a breakpoint, the automatic one included. Raises the API's
    400 for an illegal one."""
    scoped = any(beta.startswith("prompt-caching-scope-") for beta in betas)
    count = 0
    for block in blocks:
        ttl = _own_mark(block, scoped=scoped)
        if ttl is not None:
            block.mark = ttl
            count += 1
    count += _set_automatic(blocks, automatic, scoped=scoped)
    if count > MAXIMUM_MARKS:
        raise invalid(f"A maximum of 4 blocks with cache_control may be provided. Found {count}.")
    _check_order(blocks)


def _own_mark(block: Block, *, scoped: bool) -> Ttl | None:
    value = block.value
    kind = value.get("type")
    control = value.get("cache_control")
    if kind in _THINKING:
        if "cache_control" in value:
            raise invalid(f"{block.path}.{kind}.cache_control: Extra inputs are not permitted")
        return None
    if kind == "tool_result":
        control = _tool_result_control(block, control)
    if control is None:
        return None
    ttl = _read_control(control, f"{block.path}.cache_control", scoped=scoped)
    if block.deferred:
        raise invalid(
            f"{block.path}: Tool '{value.get('name')}' cannot have both defer_loading=true and cache_control "
            "set. Tools with defer_loading cannot use prompt caching."
        )
    if kind == "text" and not _has_text(value):
        raise invalid(f"{block.path}.text: cache_control cannot be set for empty text blocks")
    return ttl


def _tool_result_control(block: Block, own: Any) -> Any:
    """A breakpoint on a child of a tool result is the result's own; a second one in it is refused."""
    children = block.value.get("content")
    inner = [
        child["cache_control"]
        for child in (children if isinstance(children, list) else [])
        if isinstance(child, dict) and child.get("cache_control") is not None
    ]
    found = ([own] if own is not None else []) + inner
    if len(found) > 1:
        raise invalid(f"{block.path}: cache_control may not be specified within `tool_result.content`")
    return found[0] if found else None


def _set_automatic(blocks: Sequence[Block], automatic: Any, *, scoped: bool) -> int:
    """Top-level `cache_control`: on the last block that can be cached, silently on none (GA 2026-02-19).
    Returns how many breakpoints it added."""
    if automatic is None:
        return 0
    ttl = _read_control(automatic, "cache_control", scoped=scoped)
    last = next((block for block in reversed(blocks) if _is_cacheable(block)), None)
    if last is None:
        return 0
    if last.mark is None:
        last.mark = ttl
        return 1
    if last.mark is not ttl:
        raise invalid(
            f"cache_control: the last cacheable block ({last.path}) has ttl='{last.mark.value}' and the "
            f"top-level cache_control has ttl='{ttl.value}'. When both are specified on the same block, they "
            "must have matching TTLs."
        )
    return 0


def _is_cacheable(block: Block) -> bool:
    if block.deferred or block.hidden or block.value.get("type") in _THINKING:
        return False
    return block.value.get("type") != "text" or _has_text(block.value)


def _has_text(value: JsonObject) -> bool:
    text = value.get("text")
    return isinstance(text, str) and bool(text.strip())


def _read_control(control: Any, path: str, *, scoped: bool) -> Ttl:
    if not isinstance(control, dict):
        raise invalid(f"{path}: Input should be a valid dictionary or object to extract fields from")
    if "type" not in control:
        raise invalid(f"{path}.type: Field required")
    if control["type"] != "ephemeral":
        raise invalid(f"{path}.type: Input should be 'ephemeral'")
    for name in control:
        if name not in ("type", "ttl") and not (name == "scope" and scoped):
            raise invalid(f"{path}.{name}: Extra inputs are not permitted")
    ttl = control.get("ttl")
    if ttl is None:
        return Ttl.FIVE_MINUTES
    if ttl not in ("5m", "1h"):
        raise invalid(f"{path}.ttl: Input should be '5m' or '1h'")
    return Ttl(ttl)


def _check_order(blocks: Sequence[Block]) -> None:
    """Longer lifetimes first, over tools, system and messages."""
    short_seen = False
    for block in blocks:
        if block.mark is Ttl.ONE_HOUR and short_seen:
            raise invalid(
                f"{block.path}.cache_control.ttl: a ttl='1h' cache_control block must not come after a "
                "ttl='5m' cache_control block. Note that blocks are processed in the following order: "
                "`tools`, `system`, `messages`."
            )
        short_seen = short_seen or block.mark is Ttl.FIVE_MINUTES
