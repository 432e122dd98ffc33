"""One request's breakpoints, from what is cached and what is expected: which to write, which to read from,
which to prolong, and what to do with breakpoints that are left over.

Pure. What may be lost is asked of `allow`; nothing is remembered here.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

import msgspec

from gateway.core.misses import Miss
from gateway.core.planner.choose import Candidate, Choice, choose_writes, gain_1h, gain_5m, premium_of
from gateway.core.planner.reuse import Chances
from gateway.core.planner.values import (
    LOOKBACK_BLOCKS,
    MAX_BREAKPOINTS,
    Decision,
    Kind,
    Mark,
    Question,
    Why,
)

TRUSTED = 0.5
"""Belief in layered entries below which they are not used at all."""
FORK_DEPTH = 3
"""Boundaries before the end of a prompt at which a prompt is expected to go on differently now and then: its
last blocks edited, a turn tried again."""


class Outlook(msgspec.Struct, gc=False):
    """What is cached, and what is expected of this prompt's boundaries."""

    read_at: int
    """Deepest block whose prefix can be read now, or -1."""
    hour_at: int
    """Deepest block at or before it whose entry has an hour's TTL, or -1."""
    alive: Sequence[int]
    """Blocks before `read_at` that others share and whose entries can be prolonged, first to expire first."""
    tail: Chances
    shared: Mapping[int, Chances]
    """Boundaries at which other prompts are expected."""
    trust: float
    """Belief that a 1h entry behind a 5m one lives for an hour."""
    pending_at: int = -1
    """Deepest block whose prefix another request is writing, or -1."""


class Known(msgspec.Struct, gc=False):
    """What was known of a prompt before it was asked about; only passed on."""

    upto: int
    """Deepest known block, cached or not; or -1."""
    goes_on: bool
    """Whether that prefix was seen to go on in another prompt."""
    miss: Miss | None
    """Why not all of it is read."""
    at: tuple[int, ...] = ()
    """`Decision.known_at`."""


NOTHING_KNOWN = Known(-1, goes_on=False, miss=None)


def place(
    question: Question,
    outlook: Outlook,
    allow: Callable[[float, Sequence[Choice]], bool],
    known: Known = NOTHING_KNOWN,
) -> Decision:
    """The breakpoints. `allow` is asked whether a premium may be risked; where not, less is written."""
    prices, ends, read_at = question.prices, question.ends, outlook.read_at
    if ends[-1] < prices.minimum_tokens:
        return Decision(
            (),
            Why.TOO_SHORT,
            miss=known.miss,
            known_to=known.upto,
            known_goes_on=known.goes_on,
            known_at=known.at,
        )
    read_end = ends[read_at] if read_at >= 0 else 0
    prolong = 0 <= outlook.hour_at < read_at
    tail = _next_markable(question, len(ends) - 1, -1, read_at)
    candidates = _candidates(question, outlook, tail, read_end)
    pending_end = ends[outlook.pending_at] if outlook.pending_at > read_at else 0
    slots = MAX_BREAKPOINTS - prolong
    _, choices = choose_writes(candidates, read_end, prices, slots, pending_end)
    if _needs_read(choices, read_at) and len(choices) == slots:
        _, choices = choose_writes(candidates, read_end, prices, slots - 1, pending_end)
    why = Why.NOTHING_PAYS
    cut: set[int] = set()
    if choices:
        why = _why(choices[-1][0].block, outlook)
        if not allow(premium_of(choices, read_end, prices), choices):
            why = Why.LOSS_BOUND
            cut = {candidate.block for candidate, hour in choices if hour}
            choices = [(candidate, False) for candidate, _ in choices]
            while choices and not allow(premium_of(choices, read_end, prices), choices):
                choices = choices[:-1]
    elif outlook.pending_at > read_at:
        why = Why.TWIN
    elif read_at >= 0:
        why = Why.READ
    marks = _writes(choices, question, outlook, tail, cut)
    marks += _reads(marks, question, outlook, prolong)
    marks += _forks(marks, question, outlook)
    marks.sort(key=_block)
    hour_end = max(
        (ends[mark.block] for mark in marks if mark.hour and mark.block > read_at), default=read_end
    )
    last_end = max(ends[marks[-1].block], read_end) if marks else read_end
    return Decision(
        tuple(marks),
        why,
        read_tokens=read_end,
        write_5m_tokens=last_end - hour_end,
        write_1h_tokens=hour_end - read_end,
        miss=known.miss,
        read_at=read_at,
        known_to=known.upto,
        known_goes_on=known.goes_on,
        known_at=known.at,
    )


def as_fixed(
    question: Question, marks: Sequence[tuple[int, bool]], read_at: int, known: Known = NOTHING_KNOWN
) -> Decision:
    """The client's own breakpoints, as (block, whether 1h), and what they can be expected to do."""
    ends, minimum = question.ends, question.prices.minimum_tokens
    read_end = ends[read_at] if read_at >= 0 else 0
    marks = sorted(marks)
    hour_end, last_end = read_end, 0
    for at, hour in marks:
        if (end := ends[at]) >= minimum:
            last_end = end  # they are sorted, and ends do not fall
            if hour and end > hour_end:
                hour_end = end
    return Decision(
        tuple(Mark(block, hour, Why.CLIENT) for block, hour in marks),
        Why.CLIENT,
        read_tokens=read_end,
        write_5m_tokens=max(last_end - hour_end, 0),
        write_1h_tokens=hour_end - read_end,
        miss=known.miss,
        read_at=read_at,
        known_to=known.upto,
        known_goes_on=known.goes_on,
        known_at=known.at,
    )


def _candidates(question: Question, outlook: Outlook, tail: int, read_end: int) -> list[Candidate]:
    prices, ends, read_at = question.prices, question.ends, outlook.read_at
    layered = outlook.trust >= TRUSTED
    may_hour = layered or read_at < 0 or outlook.hour_at == read_at
    from_here = max(read_at, outlook.pending_at)
    blocks = {block for block in outlook.shared if block > from_here}
    if tail > from_here:
        blocks.add(tail)
    layer = 0.0
    if layered and read_at >= 0 and from_here < tail:
        kept_end = ends[outlook.hour_at] if outlook.hour_at >= 0 else 0
        layer = (read_end - kept_end) * outlook.tail.hour * (prices.write_5m - prices.read) * outlook.trust
        if layer > 0.0:
            blocks.add(_next_markable(question, from_here + 1, 1, tail))
    candidates = []
    five, within = outlook.tail.five, outlook.tail.within_hour
    for block in sorted(blocks, reverse=True):
        known = outlook.shared.get(block)
        if known is not None:
            five, within = max(five, known.five), max(within, known.within_hour)
        if ends[block] >= prices.minimum_tokens and block not in question.unmarkable:
            lasting = known is not None or not layered
            hour = max(0.0, within - five)
            candidates.append(Candidate(block, ends[block], five, hour, lasting, may_hour, layer))
    candidates.reverse()
    return candidates


def _next_markable(question: Question, block: int, step: int, until: int) -> int:
    """From `block` towards `until` by `step`, the first that may be marked and is long enough; or `until`."""
    minimum = question.prices.minimum_tokens
    while block != until and (block in question.unmarkable or question.ends[block] < minimum):
        block += step
    return block


def _needs_read(choices: Sequence[Choice], read_at: int) -> bool:
    """Whether the writes alone would not find what is cached."""
    return read_at >= 0 and (not choices or choices[0][0].block - read_at >= LOOKBACK_BLOCKS)


def _why(block: int, outlook: Outlook) -> Why:
    return Why.WRITE_SHARED if block in outlook.shared else Why.WRITE_TAIL


def _writes(
    choices: Sequence[Choice], question: Question, outlook: Outlook, tail: int, cut: Collection[int]
) -> list[Mark]:
    """What was chosen, each with what it was chosen for; of `cut` an hour was not allowed."""
    marks = []
    written = read_end = question.ends[outlook.read_at] if outlook.read_at >= 0 else 0
    for place, (candidate, hour) in enumerate(choices):
        block, tokens = candidate.block, candidate.end - written
        why, keeps = _why(block, outlook), 0
        chances = candidate.five, candidate.five + candidate.hour
        if hour and candidate.layer > 0.0 and place == 0:
            keeps = read_end - (question.ends[outlook.hour_at] if outlook.hour_at >= 0 else 0)
            if not _pays_by_itself(candidate, question, outlook, tail):
                why, chances = Why.WRITE_LAYER, (outlook.tail.five, outlook.tail.within_hour)
        marks.append(Mark(block, hour, why, *chances, tokens, keeps, block in cut))
        written = candidate.end
    return marks


def _pays_by_itself(candidate: Candidate, question: Question, outlook: Outlook, tail: int) -> bool:
    """Whether it would be written for its own tokens, and not only for the sake of those before it."""
    if candidate.block != tail and candidate.block not in outlook.shared:
        return False
    return max(gain_5m(candidate, question.prices), gain_1h(candidate, question.prices)) > 0.0


def _reads(writes: Sequence[Mark], question: Question, outlook: Outlook, prolong: bool) -> list[Mark]:
    """Breakpoints on what is cached: to find it, and to prolong what others will read."""
    read_at, ends = outlook.read_at, question.ends
    if read_at < 0:
        return []
    hour = any(mark.hour for mark in writes)
    room = MAX_BREAKPOINTS - len(writes)
    marks = []
    if not writes or writes[0].block - read_at >= LOOKBACK_BLOCKS:
        marks.append(Mark(read_at, hour, Why.READ, tokens=ends[read_at]))
    if prolong and len(marks) < room:
        marks.append(Mark(outlook.hour_at, hour, Why.REFRESH, tokens=ends[outlook.hour_at]))
    for block in outlook.alive:
        if len(marks) < room and block != outlook.hour_at:
            marks.append(Mark(block, hour, Why.REFRESH, tokens=ends[block]))
    return marks


def _forks(marks: Sequence[Mark], question: Question, outlook: Outlook) -> list[Mark]:
    """Left-over breakpoints, put where they cost nothing: in the stretch that is written anyway."""
    taken = {mark.block for mark in marks}
    last = max(taken, default=-1)
    room = MAX_BREAKPOINTS - len(marks)
    if last <= outlook.read_at or room <= 0:
        return []
    hour_to = max((mark.block for mark in marks if mark.hour), default=-1)
    forks: list[Mark] = []
    for block in _fork_blocks(question.kinds, outlook, last):
        if len(forks) == room:
            break
        short = question.ends[block] < question.prices.minimum_tokens
        if block not in taken and block not in question.unmarkable and not short:
            taken.add(block)
            forks.append(Mark(block, block < hour_to, Why.WRITE_FORK))
    return forks


def _fork_blocks(kinds: bytes, outlook: Outlook, last: int) -> Iterator[int]:
    """Likely places of a fork behind what is read, best first: where other prompts are expected, right before
    the end, then where turns end."""
    read_at = outlook.read_at
    yield from (block for block in sorted(outlook.shared, reverse=True) if read_at < block < last)
    near = max(read_at, last - FORK_DEPTH)
    yield from range(last - 1, near, -1)
    for block in range(near, read_at, -1):
        if kinds[block] != kinds[block + 1] and kinds[block] >= Kind.USER:
            yield block


def _block(mark: Mark) -> int:
    return mark.block
