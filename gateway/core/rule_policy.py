"""The policy that goes by the shape of one request and remembers nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from gateway.core.api_facts import LOOKBACK_BLOCKS, MAX_BREAKPOINTS, SERVER_TOOL_SPARE_SLOTS
from gateway.core.placement import (
    MINIMUM_MARGIN,
    Breakpoint,
    Occasion,
    Placement,
    has_server_tools,
    type_of,
)
from gateway.core.prompt import TTL, Block, Level, Prompt
from gateway.core.typical import block_tokens

if TYPE_CHECKING:
    from gateway.core.ids import PrefixKey
    from gateway.core.models import ModelFacts
    from gateway.core.rules import Workspace
    from gateway.core.usage import Usage


class RulePolicy:
    """Breakpoints by the shape of the request: the fixed head, where the previous turn was written, and the
    end of the conversation, so that each turn reads what the one before it wrote."""

    needs_keys = False

    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion | None = None,
    ) -> Placement:
        """See `PlacementPolicy.plan`; `keys` play no part."""
        if occasion is not None and occasion.warm_up:
            return Placement(reason="A warm-up carries its breakpoints already.")
        if (reason := _reason_for_none(prompt, workspace)) is not None:
            return Placement(reason=reason)
        tokens = block_tokens(prompt, facts)
        least = facts.minimum_cacheable_tokens * MINIMUM_MARGIN
        if not tokens or tokens[-1] < least:
            size = tokens[-1] if tokens else 0
            return Placement(
                reason=f"The prompt has about {size} tokens, and this model caches from "
                f"{facts.minimum_cacheable_tokens} on."
            )
        chosen: dict[int, str] = {}
        slots = _free_slots(prompt)
        for index, reason in _candidates(prompt, tokens, least):
            if len(chosen) < slots and index not in chosen:
                chosen[index] = reason
        points = [
            Breakpoint(index, ttl, chosen[index])
            for index in sorted(chosen)
            if (ttl := _ttl_at(prompt, index, TTL(workspace.ttl))) is not None
        ]
        if not points:
            return Placement(reason="No block that may carry a breakpoint is long enough, or all are taken.")
        return Placement(breakpoints=tuple(points), reason="Placed by rule, from the shape of the request.")

    def answered(self, call_id: str, at: float) -> None:
        """Learns nothing."""

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        """Learns nothing."""

    def failed(self, call_id: str, at: float, *, billed: bool = False) -> None:
        """Learns nothing."""


def _reason_for_none(prompt: Prompt, workspace: Workspace) -> str | None:
    """Why this request gets no breakpoint, where its kind says so already."""
    marks = prompt.client_marks
    if prompt.unread_marks:
        return "The client sets a cache_control of a kind that the gateway does not know."
    if marks and workspace.client_marks == "hands_off":
        return "The client sets its own breakpoints, and the workspace leaves those requests alone."
    if marks >= MAX_BREAKPOINTS.value:
        return "The client sets four breakpoints itself, all that the API allows."
    if "max_tokens" not in prompt.fields:
        return "Nothing will be generated, so nothing would be written to the cache."
    if "thread" in prompt.fields:
        # They stay in the thread: beside them, marks that its client sets later may be one too many, or of a
        # TTL that may not come after theirs.
        return "The request belongs to a message thread, whose later turns share its breakpoints."
    ttls = [block.ttl for block in prompt.marked_blocks] + [prompt.automatic_ttl]
    if TTL.FIVE_MINUTES in ttls and TTL.ONE_HOUR in ttls[ttls.index(TTL.FIVE_MINUTES) :]:
        return "The client sets a 1h breakpoint after a 5m one, which the API refuses."
    if all(block.level is Level.MESSAGES for block in prompt.blocks) and _is_first_turn(prompt):
        return "A first question without tools and system: nothing that a later request is likely to read."
    return None


def _free_slots(prompt: Prompt) -> int:
    slots = MAX_BREAKPOINTS.value - prompt.client_marks
    if has_server_tools(prompt):
        slots -= SERVER_TOOL_SPARE_SLOTS.value
    return slots


def _candidates(prompt: Prompt, tokens: Sequence[int], least: float) -> Iterable[tuple[int, str]]:
    """Blocks worth a breakpoint and the reason, the most useful first; none that is marked already."""
    blocks = prompt.blocks
    head = _eligible(prompt, Level.SYSTEM)
    tools = _eligible(prompt, Level.TOOLS)
    tail = _tail(prompt)
    read = None if tail is None else _previous_tail(prompt, tail)
    found: list[tuple[int | None, str]] = []
    if head is not None:
        found.append((head, "The end of the system prompt: tools and system return in the next request."))
    else:
        found.append((tools, "The last tool: there is no system prompt to mark, and the tools return."))
    found.append((tail, "The end of the conversation: the next turn reads everything up to here."))
    if tail is not None and read is not None:
        found.append((read, "The end of the previous turn: where that request wrote to the cache."))
        if tail - read >= LOOKBACK_BLOCKS.value:
            between = next(i for i in range(tail - LOOKBACK_BLOCKS.value, tail + 1) if _takes(blocks[i]))
            reason = f"Half way: the last turn added {tail - read} blocks, more than the API looks back over."
            found.append((between, reason))
    if head is not None:
        found.append((tools, "The last tool: the tools stay cached where the system prompt changes."))
    automatic = _automatic_block(prompt)
    for index, reason in found:
        if index is not None and index != automatic and not blocks[index].marks and tokens[index] >= least:
            yield index, reason


def _takes(block: Block) -> bool:
    return block.may_be_marked or block.marks > 0


def _eligible(prompt: Prompt, level: Level, before: int | None = None) -> int | None:
    """The last block of a level, ahead of `before`, that may carry a breakpoint or does so already."""
    for index in range(len(prompt.blocks) if before is None else before)[::-1]:
        if prompt.blocks[index].level is level and _takes(prompt.blocks[index]):
            return index
    return None


def _automatic_block(prompt: Prompt) -> int | None:
    """Where the API puts the client's automatic breakpoint, if there is one."""
    if prompt.automatic_ttl is None:
        return None
    return next((i for i in range(len(prompt.blocks))[::-1] if _takes(prompt.blocks[i])), None)


def _tail(prompt: Prompt) -> int | None:
    """The last block that the next turn of this conversation will send again; None where none is likely."""
    if _is_first_turn(prompt):
        # A first turn returns when a tool was called. A forced tool is how answers are extracted, once; and
        # in a warm-up the only message is a placeholder.
        agent = any(block.level is Level.TOOLS for block in prompt.blocks) and not _forces_tool(prompt)
        if not agent or prompt.max_tokens == 0:
            return None
    return _eligible(prompt, Level.MESSAGES, _end_of_turn(prompt))


def _end_of_turn(prompt: Prompt) -> int:
    """Where the blocks end that the next turn repeats. A prefill is not repeated: the next turn has the whole
    answer in its place."""
    blocks = prompt.blocks
    end = len(blocks)
    prefill = end and blocks[-1].role == "assistant" and blocks[-1].type == "text"
    return _start_of_run(blocks, end) if prefill else end


def _is_first_turn(prompt: Prompt) -> bool:
    return not any(block.role == "assistant" for block in prompt.blocks[: _end_of_turn(prompt)])


def _previous_tail(prompt: Prompt, tail: int) -> int | None:
    """The end of the turn before the last answer, or None in a conversation's first turn."""
    end = tail + 1
    if prompt.blocks[tail].role != "assistant":
        end = _start_of_run(prompt.blocks, end)
    return _eligible(prompt, Level.MESSAGES, _start_of_run(prompt.blocks, end))


def _start_of_run(blocks: Sequence[Block], end: int) -> int:
    """Where the run of blocks of one side, the assistant's or the other, begins that ends at `end`."""
    start = end
    while start and (blocks[start - 1].role == "assistant") == (blocks[end - 1].role == "assistant"):
        start -= 1
    return start


def _ttl_at(prompt: Prompt, index: int, wanted: TTL) -> TTL | None:
    """The TTL that keeps the order with the client's own breakpoints, or None where there is none."""
    earlier = [block.ttl for block in prompt.blocks[:index] if block.marks]
    later = [prompt.automatic_ttl, *(block.ttl for block in prompt.blocks[index:] if block.marks)]
    if TTL.ONE_HOUR in later:
        return None if TTL.FIVE_MINUTES in earlier else TTL.ONE_HOUR
    return TTL.FIVE_MINUTES if TTL.FIVE_MINUTES in earlier else wanted


def _forces_tool(prompt: Prompt) -> bool:
    return type_of(prompt, "tool_choice") in ("any", "tool")
