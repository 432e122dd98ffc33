"""What a request may cost, before it is sent; and what it is presumed to have used where nobody said.

Strict mode bounds: a token covers at least one byte, so a prompt has no more tokens than bytes, and it is
priced at the dearest class that its breakpoints allow. Estimate mode takes typical figures and says so.
What was really used is `usage.py`'s, its price `pricing.py`'s.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from math import ceil

import msgspec

from gateway.core.api_facts import SERVER_TOOLS
from gateway.core.bucket import Amounts
from gateway.core.models import ModelFacts
from gateway.core.placement import Placement, has_server_tools
from gateway.core.pricing import PriceTable
from gateway.core.prompt import TTL, Level, Prompt
from gateway.core.rules import EstimateMode
from gateway.core.usage import Report, Usage

ASSUMED_SEARCHES = 10
"""Web searches set aside for a search tool that states no `max_uses`."""
TOOL_PROMPT_TOKENS = 1_000
"""Room for the system prompt that the API adds to any request with tools; 804 is the most that was published
(pricing page, 2026-08-21)."""
TYPED_TOOL_TOKENS = 7_000
"""Room for the definition behind a tool given by its type; 6,600 is the most that was published."""
IMAGE_TOKENS = 5_000
"""Room for one image, however well it is compressed. Assumed."""
TYPICAL_IMAGE_TOKENS = 1_600
TYPICAL_DOCUMENT_BYTES_PER_TOKEN = 20
"""Of base64. A guess for PDF pages."""

# Every image and document has one. It is looked for first, as each search reads the whole body.
_SOURCE = b'"source"'
_BASE64 = b'"base64"'
_DATA = re.compile(rb'"data"\s*:\s*"')
# Pages are compressed: bytes do not bound their tokens, as they do for text; images have a bound each.
_PAGES = re.compile(rb'"media_type"\s*:\s*"(?!image\\?/|text\\?/plain")')
_REMOTE = re.compile(rb'"type"\s*:\s*"(?:url|file)"')
# Nobody escapes what is in "source", "type", "media_type", "url" or "base64" for a good reason: it could hide
# them.
_ESCAPED = re.compile(rb"\\u00(?:2[fF]|3[46]|5[fF]|[67])")
_NEAR_BYTES = 200
_UNSEEN_PROMPT = ("thread", "container", "mcp_servers")
_UNBOUNDED = ("fallbacks", "compaction", *_UNSEEN_PROMPT)


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What to set aside for one request, and the usage that it stands for."""

    amounts: Amounts
    usage: Usage
    bounded: bool
    """True where the real cost cannot be more. False in estimate mode, and for what no number in the request
    bounds: server-tool loops, advisors, fallbacks, compaction, state and tools kept elsewhere; nor for tools
    of a type that we do not know, which may be the API's to run, and models that no row names."""

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
    default_geo: str = "us",
) -> Estimate:
    """What the request may use: in strict mode at most, in estimate mode typically.

    `default_geo` is what a request without `inference_geo` is taken to run in: the workspace's default is
    set upstream and not seen here, so the dearest unless told. Cache reads are never presumed.
    """
    strict = mode is EstimateMode.STRICT
    server_tools = [
        block
        for block in prompt.blocks
        if block.level is Level.TOOLS and SERVER_TOOLS.value.fullmatch(block.type)
    ]
    input_tokens = _most_input(prompt, facts) if strict else _typical_input(prompt, facts)
    output_tokens = facts.max_output_tokens if prompt.max_tokens is None else max(0, prompt.max_tokens)
    if not strict:
        output_tokens = min(output_tokens, output_cap_tokens)
    geo = _string(prompt, "inference_geo")
    ttl = _dearest_ttl(prompt, placement)
    usage = Usage(
        uncached_input_tokens=input_tokens if ttl is None else 0,
        cache_write_5m_tokens=input_tokens if ttl is TTL.FIVE_MINUTES else 0,
        cache_write_1h_tokens=input_tokens if ttl is TTL.ONE_HOUR else 0,
        output_tokens=output_tokens,
        web_search_requests=sum(_searches(prompt, block.start, block.end) for block in server_tools),
        inference_geo=default_geo if geo is None else geo,
        speed=_string(prompt, "speed"),
    )
    cost = prices.cost(usage, model=prompt.model, at=at)
    return Estimate(
        amounts=Amounts(
            requests=1,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            nanousd=cost.total_nanousd,
        ),
        usage=usage,
        bounded=(
            strict and facts.known and not has_server_tools(prompt) and not _has_unbounded_fields(prompt)
        ),
    )


def presumed_usage(report: Report | None, estimate: Estimate, facts: ModelFacts) -> Usage:
    """Usage to settle on where the answer did not come to its end.

    What upstream had reported, with output of at least the text that was seen; without any report all that
    was set aside. Never less than upstream surely bills for what was seen; hidden thinking is not in it.
    """
    if report is None or report.usage is None:
        return estimate.usage
    usage = report.usage
    seen = ceil(report.output_text_bytes / facts.bytes_per_token)
    missing = seen - sum(part.output_tokens for part in usage.iterations or (usage,))
    if missing <= 0:
        return usage
    if usage.iterations:
        rest = Usage(output_tokens=missing, model=usage.model)
        return replace(usage, iterations=(*usage.iterations, rest))
    return replace(usage, output_tokens=seen)


def _most_input(prompt: Prompt, facts: ModelFacts) -> int:
    """No fewer tokens than the prompt can have. What is fetched from elsewhere, and pages of a PDF, may fill
    the context."""
    body = prompt.body
    tokens = len(body)
    tools = [block.type for block in prompt.blocks if block.level is Level.TOOLS]
    if tools:
        tokens += TOOL_PROMPT_TOKENS + TYPED_TOOL_TOKENS * sum(type_ != "custom" for type_ in tools)
    has_source = _SOURCE in body
    if has_source:
        tokens += IMAGE_TOKENS * body.count(_BASE64)
    unseen = (
        not prompt.fields.keys().isdisjoint(_UNSEEN_PROMPT)
        or any(block.type == "container_upload" for block in prompt.blocks)
        or (has_source and (_REMOTE.search(body) or _PAGES.search(body)) is not None)
        or (b"\\u00" in body and _ESCAPED.search(body) is not None)
    )
    return max(tokens, facts.context_tokens) if unseen else tokens


def _typical_input(prompt: Prompt, facts: ModelFacts) -> int:
    """Text by its bytes; images and documents, whose bytes say little, by typical figures."""
    text_bytes = len(prompt.body)
    tokens = 0
    if _SOURCE in prompt.body:
        for found in _DATA.finditer(prompt.body):
            start = found.end()
            end = max(start, prompt.body.find(b'"', start))
            around = prompt.body[max(0, start - _NEAR_BYTES) : start] + prompt.body[end : end + _NEAR_BYTES]
            if _BASE64 not in around:
                continue
            text_bytes -= end - start
            tokens += (
                TYPICAL_IMAGE_TOKENS
                if b'"image/' in around
                else ceil((end - start) / TYPICAL_DOCUMENT_BYTES_PER_TOKEN)
            )
    return tokens + ceil(text_bytes / facts.bytes_per_token)


def _dearest_ttl(prompt: Prompt, placement: Placement) -> TTL | None:
    """The dearest way in which the prompt may be written to the cache; None where nothing asks for it.

    Server tools add a 5m breakpoint of their own, but only where there is a mark already (tool use with
    prompt caching docs, 2026-08-21). Marks whose TTL is not known, or is kept in a thread, may be 1h.
    """
    ttls = {point.ttl for point in placement.breakpoints} | {block.ttl for block in prompt.blocks}
    ttls.add(prompt.automatic_ttl)
    hidden = any(block.marks > 1 or (block.marks and block.ttl is None) for block in prompt.blocks)
    if TTL.ONE_HOUR in ttls or hidden or prompt.unread_marks or "thread" in prompt.fields:
        return TTL.ONE_HOUR
    return TTL.FIVE_MINUTES if TTL.FIVE_MINUTES in ttls else None


def _has_unbounded_fields(prompt: Prompt) -> bool:
    start, end = prompt.fields.get("context_management", (0, 0))
    management = prompt.body[start:end]
    may_compact = b"compact" in management or b"\\u" in management
    return may_compact or not prompt.fields.keys().isdisjoint(_UNBOUNDED)


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


def _string(prompt: Prompt, name: str) -> str | None:
    """A top-level string of the body, if it is short; None where it is absent or something else."""
    span = prompt.fields.get(name)
    if span is None or span[1] - span[0] > _NEAR_BYTES:
        return None
    try:
        return msgspec.json.decode(prompt.body[span[0] : span[1]], type=str)
    except msgspec.DecodeError:
        return None
