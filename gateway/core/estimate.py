"""What a request may cost, before it is sent; and what it is presumed to have used where nobody said.

Strict mode takes the most of everything (`bounds.py`), at the dearest price that it may come to. Estimate
mode takes typical tokens (`typical.py`) at the price that the placement expects, as far off as bills have
shown calls like it to be (`learned_estimates.py`), and promises nothing. What was really used is
`usage.py`'s, its price `pricing.py`'s.
"""

from __future__ import annotations

from math import ceil

import msgspec
from msgspec.structs import replace

from gateway.core.api_facts import SERVER_TOOLS
from gateway.core.bounds import dearest_ttl, most_input, short_string, unbounded_by
from gateway.core.bucket import Amounts
from gateway.core.learned_estimates import Guess, Kind, Learned, LearnedEstimates
from gateway.core.models import ModelFacts
from gateway.core.placement import Placement
from gateway.core.pricing import STANDARD, Cost, Factors, PriceTable
from gateway.core.prompt import TTL, Block, Prompt
from gateway.core.rules import EstimateMode
from gateway.core.typical import prompt_tokens
from gateway.core.usage import Report, Usage

ASSUMED_SEARCHES = 10
"""Web searches set aside for a search tool that states no `max_uses`."""
READ_MARGIN = 0.05
"""Share of the cache reads expected by the placement that estimate mode takes for writes, until it has
learned how many really come."""
NO_COST = Cost()
_ANYWHERE = ("global", "not_available")


# A msgspec.Struct, since it is made for each call: a frozen dataclass takes ten times as long to make.
class Estimate(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What to set aside for one request, and the usage that it stands for."""

    amounts: Amounts
    usage: Usage
    """Costs exactly what is set aside."""
    bounded: bool
    """True where the real cost cannot be more. False in estimate mode, and where there is `unbounded_by`."""
    unbounded_by: tuple[str, ...] = ()
    """What no number in the request bounds, in words for its sender: server-tool loops (`max_uses` bounds the
    calls, not what they find), advisors, fallbacks, compaction, state and tools kept elsewhere; tools, blocks
    and fields of a kind that we do not know; models, speeds and places without a price. Empty in estimate
    mode."""
    cost: Cost = NO_COST
    """That of `usage`."""
    room_tokens: int = 0
    """The most output that was asked for."""
    guess: Guess | None = None
    """What was expected before anything learned was applied: tell `LearnedEstimates.billed` of it, with what
    was billed. None in strict mode."""

    @property
    def input_tokens(self) -> int:
        return self.amounts.input_tokens

    @property
    def output_tokens(self) -> int:
        return self.amounts.output_tokens

    @property
    def nanousd(self) -> int:
        return self.amounts.nanousd


def estimate_spend(
    prompt: Prompt,
    placement: Placement,
    facts: ModelFacts,
    prices: PriceTable,
    *,
    mode: EstimateMode,
    at: float,
    output_cap_tokens: int,
    workspace: str = "",
    quantile: float = 0.9,
    learned: LearnedEstimates | None = None,
    counted: int | None = None,
    default_geo: str | None = None,
    batch: bool = False,
) -> Estimate:
    """What the request may use: in strict mode at most; in estimate mode so much that a share `quantile` of
    the workspace's calls like it use no more, once enough of them were billed. Until then typical tokens, a
    `READ_MARGIN` of the expected reads as writes, and output up to `output_cap_tokens`.

    `default_geo` is what a request without `inference_geo` is taken to run in: the workspace's default is
    set upstream and not seen here, so the dearest unless told. Where the placement says nothing of what it
    expects, no cache reads are presumed before they were learned. `counted` is what upstream counted the
    prompt as, where it was asked: estimate mode goes by it; strict mode does not, since it is no promise.
    """
    tools: list[Block] = []
    if any(map(_runs_upstream, prompt.outline.tool_types)):
        tools = [block for block in prompt.blocks[: prompt.outline.tools_end] if _runs_upstream(block.type)]
    basis = Usage(
        web_search_requests=sum(_searches(prompt, block.start, block.end) for block in tools),
        inference_geo=short_string(prompt, "inference_geo") or default_geo or prices.dearest_place(at),
        speed=short_string(prompt, "speed"),
    )
    if mode is EstimateMode.STRICT:
        return _at_most(prompt, placement, facts, prices, basis, at, batch)
    ttl = dearest_ttl(prompt, placement)
    guess = _guess(prompt, placement, facts, workspace, loops=bool(tools), marked=ttl is not None)
    known = Learned(None, None, None) if learned is None else learned.expect(guess.kind, quantile)
    if counted is not None and guess.prompt_tokens:
        known = known._replace(input_ratio=counted / guess.prompt_tokens)
    output = output_cap_tokens if known.output_tokens is None else known.output_tokens
    room = _room(prompt, facts)
    usage = _expected(basis, guess, known, placement, ttl, min(room, output))
    cost = prices.cost(usage, model=prompt.model, at=at, batch=batch)
    return Estimate(
        amounts=_amounts(usage, usage.prompt_tokens - usage.cache_read_tokens, usage.prompt_tokens, cost),
        usage=usage,
        bounded=False,
        cost=cost,
        room_tokens=room,
        guess=guess,
    )


def presumed_usage(report: Report | None, estimate: Estimate, facts: ModelFacts, seconds: float) -> Usage:
    """Usage to settle on where the answer did not come to its end, `seconds` after its request was sent.

    What upstream had reported: its input; and its output, where that was its last word. Else the output has
    a floor, as who leaves is billed for what was generated, and leaving early must get nobody past a limit.
    Strict mode takes all that may come. Estimate mode takes the text that was seen, and where there may have
    been more, what the model is presumed to write in that time. Without any report the whole was unseen, and
    no less is taken than was set aside.
    """
    written = min(estimate.room_tokens, ceil(seconds * facts.output_tokens_per_second))
    if report is None or report.usage is None:
        usage = estimate.usage
        return replace(usage, output_tokens=max(usage.output_tokens, written))
    usage = report.usage
    if report.output_is_final:
        return usage
    floor = ceil(report.output_text_bytes / facts.bytes_per_token)
    if estimate.guess is None:
        floor = max(floor, estimate.usage.output_tokens)
    elif report.has_thinking or not report.output_text_bytes:
        floor = max(floor, written)
    missing = floor - sum(part.output_tokens for part in usage.iterations or (usage,))
    if missing <= 0:
        return usage
    if usage.iterations:
        rest = Usage(output_tokens=missing, model=usage.model)
        return replace(usage, iterations=(*usage.iterations, rest))
    return replace(usage, output_tokens=floor)


def _at_most(
    prompt: Prompt,
    placement: Placement,
    facts: ModelFacts,
    prices: PriceTable,
    basis: Usage,
    at: float,
    batch: bool,
) -> Estimate:
    """The dearest that the prompt may come to: a larger one may have another price, and not always a higher
    one, so the sizes at which prices change are tried as well."""
    most = most_input(prompt, facts)
    output = _room(prompt, facts)
    ttl, speed = dearest_ttl(prompt, placement), basis.speed or STANDARD
    usage = cost = None
    for size in (most, *prices.edges(prompt.model, at=at, speed=speed)):
        if size > most:
            continue
        factors = prices.factors(prompt.model, at=at, prompt_tokens=size, speed=speed)
        tried = replace(_in_dearest_kind(basis, size, factors, ttl), output_tokens=output)
        price = prices.cost(tried, model=prompt.model, at=at, batch=batch)
        if cost is None or price.total_nanousd > cost.total_nanousd:
            usage, cost = tried, price
    assert usage is not None
    assert cost is not None
    priced = not cost.fallback and (basis.inference_geo in (*_ANYWHERE, *prices.places(at)))
    reasons = tuple(unbounded_by(prompt, facts, priced=priced))
    return Estimate(
        amounts=_amounts(usage, most, most, cost),
        usage=usage,
        bounded=not reasons,
        unbounded_by=reasons,
        cost=cost,
        room_tokens=output,
    )


def _guess(
    prompt: Prompt, placement: Placement, facts: ModelFacts, workspace: str, *, loops: bool, marked: bool
) -> Guess:
    """A placement that says nothing of tokens knows no reads: all of a marked prompt may be one."""
    foreseen = placement.prompt_tokens > 0
    tokens = prompt_tokens(prompt, facts, placement.prompt_tokens)
    reads = min(placement.read_tokens, tokens) if foreseen else tokens
    kind = Kind(
        workspace=workspace,
        model=facts.id,
        room=_room(prompt, facts).bit_length(),
        streams=prompt.stream,
        thinks=_thinks(prompt),
        loops=loops,
        foreseen=foreseen,
    )
    return Guess(kind, tokens, reads if marked else 0)


def _in_dearest_kind(basis: Usage, tokens: int, factors: Factors, ttl: TTL | None) -> Usage:
    """What is marked may be written, read or neither; what is marked for 1h may be written for 5m."""
    if ttl is None:
        return replace(basis, uncached_input_tokens=tokens)
    long = factors.write_1h if ttl is TTL.ONE_HOUR else 0.0
    dearest = max(1.0, factors.read, factors.write_5m, long)
    if dearest == long:
        return replace(basis, cache_write_1h_tokens=tokens)
    if dearest == factors.write_5m:
        return replace(basis, cache_write_5m_tokens=tokens)
    if dearest == factors.read:
        return replace(basis, cache_read_tokens=tokens)
    return replace(basis, uncached_input_tokens=tokens)


def _expected(
    basis: Usage, guess: Guess, known: Learned, placement: Placement, ttl: TTL | None, output_tokens: int
) -> Usage:
    """The prompt by kinds of tokens. Reads that may not come are written, as dear as the marks allow; and so
    is all that is not read where nothing was foreseen."""
    ratio = 1.0 if known.input_ratio is None else known.input_ratio
    shortfall = known.read_shortfall
    if shortfall is None:
        shortfall = READ_MARGIN if guess.kind.foreseen else 1.0
    tokens = ceil(guess.prompt_tokens * ratio)
    read = int(guess.read_tokens * ratio * (1.0 - shortfall))
    short = long = 0
    if ttl is not None:
        may_not_come = tokens - read
        if guess.kind.foreseen:
            may_not_come = min(tokens, ceil(guess.read_tokens * ratio)) - read
            long = min(tokens - read - may_not_come, ceil(placement.write_1h_tokens * ratio))
            short = min(tokens - read - may_not_come - long, ceil(placement.write_5m_tokens * ratio))
        if ttl is TTL.ONE_HOUR:
            long += may_not_come
        else:
            short += may_not_come
    return Usage(
        uncached_input_tokens=tokens - read - short - long,
        cache_read_tokens=read,
        cache_write_5m_tokens=short,
        cache_write_1h_tokens=long,
        output_tokens=output_tokens,
        web_search_requests=basis.web_search_requests,
        inference_geo=basis.inference_geo,
        speed=basis.speed,
    )


def _amounts(usage: Usage, input_tokens: int, prompt_tokens: int, cost: Cost) -> Amounts:
    return Amounts(
        requests=1,
        input_tokens=input_tokens,
        output_tokens=usage.output_tokens,
        nanousd=cost.total_nanousd,
        prompt_tokens=prompt_tokens,
        concurrent=1,
    )


def _room(prompt: Prompt, facts: ModelFacts) -> int:
    """The most output that may be asked for."""
    return facts.max_output_tokens if prompt.max_tokens is None else max(0, prompt.max_tokens)


def _thinks(prompt: Prompt) -> bool:
    """Whether it asks for thinking; models that always think have no others to be told from."""
    start, end = prompt.fields.get("thinking", (0, 0))
    return end - start > len(b"null") and b'"disabled"' not in prompt.body[start:end]


def _runs_upstream(tool_type: str) -> bool:
    return tool_type != "custom" and SERVER_TOOLS.value.fullmatch(tool_type) is not None


class _Tool(msgspec.Struct):
    type: str = ""
    max_uses: int | None = None


_TOOL = msgspec.json.Decoder(_Tool)


def _searches(prompt: Prompt, start: int, end: int) -> int:
    try:
        tool = _TOOL.decode(prompt.body[start:end])
    except msgspec.DecodeError:
        return ASSUMED_SEARCHES
    if not tool.type.startswith("web_search"):
        return 0
    return ASSUMED_SEARCHES if tool.max_uses is None else max(0, tool.max_uses)
