"""Where a run of blocks first differs from another, what was done there, and whether it is still the same
prompt for all that.

Two prompts of different applications may begin alike, as all that share tools do. So a run counts as the
other one changed only if most of what stands from the change on is in both; or if most of the whole is, and
little more than an instant or an id stands in the place. Blocks that were put in or taken out do not count
against it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.looks import looks_at
from gateway.core.misses import Looks
from gateway.core.prompt import Block, Level, Prompt
from gateway.core.sketch import Run, Spread, content_of

ALIKE = 0.6
"""The share that both must have in common."""
SMALL_BYTES = 256
MAX_PAIRS = 8
"""Blocks that are compared piece by piece; as many tools may have changed in the same way."""

_FLEETING = frozenset({Looks.TIMESTAMP, Looks.DATE, Looks.UUID, Looks.RANDOM_ID})


@dataclass(frozen=True, slots=True)
class Difference:
    """The first difference of a run of blocks from an earlier one."""

    index: int
    """Of the first block that differs, in the new run; its length, where blocks at the end are gone."""
    looks: Looks
    byte: int | None = None
    """In the block's content."""
    exact: bool = False
    alike: bool = True
    """Whether it is still the same prompt: the rule is this module's docstring."""


def find_difference(old: Run, new: Run, prompt: Prompt, blocks: Sequence[Block]) -> Difference | None:
    """How `new`, made of these blocks of `prompt`, first differs from `old`; None where it does not."""
    at = _first_difference(old, new)
    if at is None:
        return None
    level = min((run.levels[at] for run in (old, new) if at < len(run.levels)), key=_ORDER.index)
    done = _rearranged(old, new, level)
    if done is not None:
        return Difference(at, done, alike=_alike(old, new, at, {}, but=level) >= ALIKE)
    # Both runs have a block of this level at `at`: one that ends before is the other's beginning, as above.
    spreads = {
        index: old.spread(index, content_of(prompt, blocks[index]), new)
        for index in _changed_pairs(old, new, at)[:MAX_PAIRS]
    }
    alike = _alike(old, new, at, spreads)
    if at not in spreads:
        same_size = old.sizes[at] == new.sizes[at]
        is_text = blocks[at].text is not None
        looks = Looks.REORDERED_KEYS if same_size and not is_text else Looks.WHITE_SPACE
        return Difference(at, looks, alike=alike >= ALIKE)
    looks, byte = judge_spread(prompt, blocks[at], spreads[at], new.sizes[at] - old.sizes[at])
    if looks in _FLEETING and spreads[at].end - spreads[at].start <= SMALL_BYTES:
        alike = max(alike, _alike(old, new, 0, spreads))
    return Difference(at, looks, byte, spreads[at].exact, alike >= ALIKE)


def judge_spread(prompt: Prompt, block: Block, spread: Spread, grew: int) -> tuple[Looks, int]:
    """What stands where a block changed, and from which byte of its content on."""
    if block.cuts:
        content = bytes(content_of(prompt, block))
        looks, found = looks_at(content, spread.start, spread.end, within=(0, len(content)), grew=grew)
        begin = 0
    else:
        begin, end = (block.start, block.end) if block.text is None else block.text
        begin, end = (begin, end) if block.text is None else (begin + 1, end - 1)
        looks, found = looks_at(
            prompt.body, begin + spread.start, begin + spread.end, within=(begin, end), grew=grew
        )
    byte = spread.start if found is None or spread.exact else found - begin
    return looks, byte


def where_is(prompt: Prompt, block: int) -> str:
    """A block as the API's own messages name it: `tools[3]`, `system[2]`, `messages[4].content[1]`."""
    blocks = prompt.blocks
    if block >= len(blocks):
        return "the end"
    this = blocks[block]
    start = block
    while start and blocks[start - 1].level is this.level and blocks[start - 1].message == this.message:
        start -= 1
    in_messages = this.level is Level.MESSAGES
    name = f"messages[{this.message}].content" if in_messages else this.level.value
    return name if this.is_string else f"{name}[{block - start}]"


_ORDER = list(Level)


def _first_difference(old: Run, new: Run) -> int | None:
    shorter = min(len(old.contents), len(new.contents))
    for index in range(shorter):
        if old.contents[index] != new.contents[index] or old.levels[index] is not new.levels[index]:
            return index
    return None if len(old.contents) == len(new.contents) else shorter


def _rearranged(old: Run, new: Run, level: Level) -> Looks | None:
    """Whether whole blocks of this level moved, came or went, and all others are as they were."""
    before, after = (
        Counter([content for content, where in zip(run.contents, run.levels, strict=True) if where is level])
        for run in (old, new)
    )
    tools = level is Level.TOOLS
    if before == after:
        return Looks.REORDERED_TOOLS if tools else Looks.REORDERED_BLOCKS
    if not before - after:
        return Looks.ADDED_TOOL if tools else Looks.ADDED_BLOCK
    if not after - before:
        return Looks.REMOVED_TOOL if tools else Looks.REMOVED_BLOCK
    return None


def _changed_pairs(old: Run, new: Run, at: int) -> list[int]:
    """Blocks from `at` on whose content differs by more than white space and order."""
    both = range(at, min(len(old.contents), len(new.contents)))
    return [
        index
        for index in both
        if old.looses[index] != new.looses[index] and old.levels[index] is new.levels[index]
    ]


def _alike(old: Run, new: Run, at: int, spreads: dict[int, Spread], but: Level | None = None) -> float:
    """The share of bytes that both have from block `at` on. Of the level `but`, what only one has is left
    out of account; where nothing else is there, the whole is compared."""
    known = Counter(old.looses[at:])
    found = Counter(new.looses[at:])
    shared = known & found
    equal = sum(spread.equal for index, spread in spreads.items() if new.looses[index] not in shared)
    totals = []
    for run in (old, new):
        total = 0
        for loose, size, level in zip(run.looses[at:], run.sizes[at:], run.levels[at:], strict=True):
            if level is not but or loose in shared:
                total += size
        totals.append(total)
    equal += sum(size for loose, size in zip(new.looses[at:], new.sizes[at:], strict=True) if loose in shared)
    if not any(totals):
        return _alike(old, new, 0, spreads) if at else 0.0
    return min(1.0, equal / max(totals))
