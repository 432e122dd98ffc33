"""The models that the simulator knows, as the API's model pages list them.

A table of facts and nothing else: what is dear or cheap is in `bill.py`. Sources: models overview and
release notes (seen 2026-08-21 to mid November 2026), minimum cacheable lengths from the prompt caching
page (2026-09-24), tool prompts from the pricing page (2026-08-21).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelRow:
    """One model as the API serves it."""

    id: str
    name: str
    line: str
    launched: str
    """Date, `YYYY-MM-DD`."""
    minimum_cacheable_tokens: int
    context_tokens: int = 1_000_000
    max_output_tokens: int = 128_000
    new_tokenizer: bool = True
    """From Opus 4.7 on: the same text is about 30% more tokens."""
    thinking: frozenset[str] = frozenset({"adaptive", "disabled"})
    """Accepted values of `thinking.type`."""
    default_thinking: str = "disabled"
    default_effort: str = "high"
    forced_tool_choice: bool = True
    inference_geo: bool = True
    prefill: bool = False
    keeps_thinking: bool = True
    """False where thinking of earlier turns is stripped once the user speaks again."""
    fast: str = "refused"
    """`refused`, `beta` (needs the fast-mode beta), `open`, or `ignored` (runs standard)."""
    tool_prompt_tokens: int = 290
    """Hidden system prompt when any tool is given; 5.5 and Fable rows are not published: assumed."""
    forced_tool_prompt_tokens: int = 410
    retires: str | None = None
    aliases: tuple[str, ...] = field(default=())


_ALWAYS: Final = frozenset({"adaptive"})
_OLD: Final = frozenset({"enabled", "disabled"})
_BOTH: Final = frozenset({"adaptive", "enabled", "disabled"})

CATALOGUE: Final[tuple[ModelRow, ...]] = (
    ModelRow(
        id="claude-fable-5-2", name="Claude Fable 5.2", line="fable", launched="2026-11-09",
        minimum_cacheable_tokens=512, thinking=_ALWAYS, default_thinking="adaptive", fast="open",
    ),
    ModelRow(
        id="claude-mythos-5-2", name="Claude Mythos 5.2", line="mythos", launched="2026-11-09",
        minimum_cacheable_tokens=512, thinking=_ALWAYS, default_thinking="adaptive",
    ),
    ModelRow(
        id="claude-haiku-5-5", name="Claude Haiku 5.5", line="haiku", launched="2026-10-07",
        minimum_cacheable_tokens=512, default_effort="medium",
    ),
    ModelRow(
        id="claude-sonnet-5-5", name="Claude Sonnet 5.5", line="sonnet", launched="2026-09-28",
        minimum_cacheable_tokens=512, thinking=frozenset({"adaptive", "between_tools"}),
        default_thinking="adaptive", forced_tool_choice=False,
    ),
    ModelRow(
        id="claude-opus-5-5", name="Claude Opus 5.5", line="opus", launched="2026-09-22",
        minimum_cacheable_tokens=512, thinking=_ALWAYS, default_thinking="adaptive",
        forced_tool_choice=False, fast="open",
    ),
    ModelRow(
        id="claude-fable-5-1", name="Claude Fable 5.1", line="fable", launched="2026-09-01",
        minimum_cacheable_tokens=512, thinking=_ALWAYS, default_thinking="adaptive", forced_tool_choice=False,
    ),
    ModelRow(
        id="claude-mythos-5-1", name="Claude Mythos 5.1", line="mythos", launched="2026-09-01",
        minimum_cacheable_tokens=512, thinking=_ALWAYS, default_thinking="adaptive", forced_tool_choice=False,
    ),
    ModelRow(
        id="claude-opus-5", name="Claude Opus 5", line="opus", launched="2026-07-24",
        minimum_cacheable_tokens=512, fast="beta", tool_prompt_tokens=286, forced_tool_prompt_tokens=406,
    ),
    ModelRow(
        id="claude-sonnet-5", name="Claude Sonnet 5", line="sonnet", launched="2026-06-30",
        minimum_cacheable_tokens=1024, tool_prompt_tokens=354, forced_tool_prompt_tokens=474,
    ),
    ModelRow(
        id="claude-fable-5", name="Claude Fable 5", line="fable", launched="2026-06-09",
        minimum_cacheable_tokens=512, thinking=_ALWAYS, default_thinking="adaptive",
    ),
    ModelRow(
        id="claude-mythos-5", name="Claude Mythos 5", line="mythos", launched="2026-06-09",
        minimum_cacheable_tokens=512, thinking=_ALWAYS, default_thinking="adaptive",
    ),
    ModelRow(
        id="claude-opus-4-8", name="Claude Opus 4.8", line="opus", launched="2026-05-28",
        minimum_cacheable_tokens=1024, fast="beta",
    ),
    ModelRow(
        id="claude-opus-4-7", name="Claude Opus 4.7", line="opus", launched="2026-04-16",
        minimum_cacheable_tokens=2048, tool_prompt_tokens=675, forced_tool_prompt_tokens=804,
    ),
    ModelRow(
        id="claude-sonnet-4-6", name="Claude Sonnet 4.6", line="sonnet", launched="2026-02-17",
        minimum_cacheable_tokens=1024, new_tokenizer=False, thinking=_BOTH,
        tool_prompt_tokens=497, forced_tool_prompt_tokens=589,
    ),
    ModelRow(
        id="claude-opus-4-6", name="Claude Opus 4.6", line="opus", launched="2026-02-05",
        minimum_cacheable_tokens=4096, new_tokenizer=False, thinking=_BOTH, fast="ignored",
        tool_prompt_tokens=497, forced_tool_prompt_tokens=589,
    ),
    ModelRow(
        id="claude-opus-4-5-20251101", name="Claude Opus 4.5", line="opus", launched="2025-11-24",
        minimum_cacheable_tokens=4096, context_tokens=200_000, max_output_tokens=64_000, new_tokenizer=False,
        thinking=_OLD, inference_geo=False, prefill=True, aliases=("claude-opus-4-5",),
        tool_prompt_tokens=496, forced_tool_prompt_tokens=588,
    ),
    ModelRow(
        id="claude-haiku-4-5-20251001", name="Claude Haiku 4.5", line="haiku", launched="2025-10-15",
        minimum_cacheable_tokens=4096, context_tokens=200_000, max_output_tokens=64_000, new_tokenizer=False,
        thinking=_OLD, inference_geo=False, prefill=True, keeps_thinking=False, aliases=("claude-haiku-4-5",),
        tool_prompt_tokens=496, forced_tool_prompt_tokens=588,
    ),
    ModelRow(
        id="claude-sonnet-4-5-20250929", name="Claude Sonnet 4.5", line="sonnet", launched="2025-09-29",
        minimum_cacheable_tokens=1024, context_tokens=200_000, max_output_tokens=64_000, new_tokenizer=False,
        thinking=_OLD, inference_geo=False, prefill=True, keeps_thinking=False, retires="2026-11-30",
        aliases=("claude-sonnet-4-5",), tool_prompt_tokens=496, forced_tool_prompt_tokens=588,
    ),
)  # fmt: skip

_BY_NAME: Final = MappingProxyType(
    {name: row for row in CATALOGUE for name in (row.id, *row.aliases)},
)


def find_model(name: str) -> ModelRow | None:
    """The row of a model id or alias; None for one that the API would not find."""
    return _BY_NAME.get(name)
