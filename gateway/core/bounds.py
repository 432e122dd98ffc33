"""What a request can cost at most, before it is sent; and what leaves it without such a bound.

It rests on this: a token covers at least one byte of what is sent, an accepted image has no more tokens than
`IMAGE_TOKENS`, no prompt is larger than the model's context, and no answer longer than `max_tokens`, thinking
included. Whatever is not known to keep to it is named by `unbounded_by`, never guessed. Typical figures are
`typical.py`'s.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from gateway.core.api_facts import BOUNDED_BLOCKS, BOUNDED_FIELDS
from gateway.core.models import ModelFacts
from gateway.core.placement import Placement, has_server_tools
from gateway.core.prompt import TTL, Block, Prompt
from gateway.core.spans import OBJECT, OBJECTS, read_string

TOOL_PROMPT_TOKENS = 1_000
"""Room for the system prompt that the API adds to any request with tools; 804 is the most that was published
(pricing page, 2026-08-21). The same for one with an output format, and for one with citations. Assumed."""
TYPED_TOOL_TOKENS = 7_000
"""Room for the definition behind a tool given by its type; 6,600 is the most that was published."""
IMAGE_TOKENS = 5_000
"""Room for one image, however well it is compressed. Assumed."""

# Every image and document has one. It is looked for first, as each search reads the whole block.
_SOURCE = b'"source"'
_BASE64 = b'"base64"'
_CITATIONS = b'"citations"'
# Pages are compressed: bytes do not bound their tokens, as they do for text; images have a bound each.
_PAGES = re.compile(rb'"media_type"\s*:\s*"(?!image\\?/|text\\?/plain")')
_REMOTE = re.compile(rb'"type"\s*:\s*"(?:url|file)"')
# Nobody escapes what is in "source", "type", "media_type", "url" or "base64" for a good reason: it could hide
# them.
_ESCAPED = re.compile(rb"\\u00(?:2[fF]|3[46]|5[fF]|[67])")
_UNSEEN_PROMPT = frozenset({"thread", "container", "mcp_servers"})
_UNBOUNDED = ("fallbacks", "compaction", "thread", "container", "mcp_servers")
_ACCOUNTED_FIELDS = BOUNDED_FIELDS.value | frozenset(_UNBOUNDED)
_TEXT_ALONE = frozenset(
    {"text", "tool_use", "server_tool_use", "mcp_tool_use", "thinking", "redacted_thinking", "custom"}
)
"""Blocks that hold neither images nor documents."""
_TIERS = (None, "auto", "standard_only")
_NAME = re.compile(r"[a-z0-9_]{1,40}")
_NEAR_BYTES = 200


def most_input(prompt: Prompt, facts: ModelFacts) -> int:
    """No fewer tokens than the prompt can have. What is fetched from elsewhere, and pages of a PDF, may fill
    the context; a prompt that does not fit into it is refused, and costs nothing."""
    tokens = len(prompt.body)
    unseen = not prompt.fields.keys().isdisjoint(_UNSEEN_PROMPT)
    outline = prompt.outline
    tools, cites = outline.tools_end > 0, False
    tokens += TYPED_TOOL_TOKENS * outline.typed_tools
    for block in prompt.blocks[outline.head_end :]:
        if not (block.is_string or block.type in _TEXT_ALONE):
            more, elsewhere = _most_of_files(prompt, block)
            tokens += more
            unseen = unseen or elsewhere
            if block.type in ("document", "search_result"):
                # Its text is cut into pieces, and each is given a name.
                cited = prompt.body.find(_CITATIONS, block.start, block.end) >= 0
                tokens += block.end - block.start if cited else 0
                cites = cites or cited
    config = _field(prompt, "output_config")
    formats = "output_format" in prompt.fields or b"format" in config or b"\\u" in config
    tokens += TOOL_PROMPT_TOKENS * (tools + formats + cites)
    if not facts.known:
        return max(tokens, facts.context_tokens) if unseen else tokens
    return facts.context_tokens if unseen else min(tokens, facts.context_tokens)


def dearest_ttl(prompt: Prompt, placement: Placement) -> TTL | None:
    """The dearest way in which the prompt may be written to the cache; None where nothing asks for it.

    Server tools add a 5m breakpoint of their own, but only where there is a mark already (tool use with
    prompt caching docs, 2026-08-21). Marks whose TTL is not known, or is kept in a thread, may be 1h.
    """
    marked = prompt.marked_blocks
    ttls = {point.ttl for point in placement.breakpoints} | {block.ttl for block in marked}
    ttls.add(prompt.automatic_ttl)
    hidden = any(block.marks > 1 or block.ttl is None for block in marked)
    if TTL.ONE_HOUR in ttls or hidden or prompt.unread_marks or "thread" in prompt.fields:
        return TTL.ONE_HOUR
    return TTL.FIVE_MINUTES if TTL.FIVE_MINUTES in ttls else None


def unbounded_by(prompt: Prompt, facts: ModelFacts, *, priced: bool) -> Iterator[str]:
    """What no number in the request bounds, in words for its sender. `priced` is False where its price is one
    that the table had to assume."""
    if not facts.known:
        yield "no price is known of its model"
    elif not priced:
        yield "no price is known of its model at this speed, in this place, at this date"
    if has_server_tools(prompt):
        yield "the API runs tools for it, in a loop"
    management = _field(prompt, "context_management")
    if b"compact" in management or b"\\u" in management:
        yield "`context_management` may compact it"
    for field in _UNBOUNDED:
        if field in prompt.fields:
            yield f"it has `{field}`"
    for field in sorted(prompt.fields.keys() - _ACCOUNTED_FIELDS):
        yield f"{_named('field', field)}, which is not known here"
    if "service_tier" in prompt.fields and short_string(prompt, "service_tier") not in _TIERS:
        yield "its `service_tier` is not known here"
    kinds = {block.type for block in prompt.blocks[prompt.outline.head_end :]}
    for kind in sorted(kinds - BOUNDED_BLOCKS.value):
        yield f"{_named('block of type', kind)}, which may add to it what is not in it"


def short_string(prompt: Prompt, name: str) -> str | None:
    """A top-level string of the body, if it is short; None where it is absent or something else."""
    span = prompt.fields.get(name)
    if span is None or span[1] - span[0] > _NEAR_BYTES:
        return None
    try:
        return msgspec.json.decode(prompt.body[span[0] : span[1]], type=str)
    except msgspec.DecodeError:
        return None


def _most_of_files(prompt: Prompt, block: Block) -> tuple[int, bool]:
    """The tokens that a block may have beyond its bytes, negative where images take fewer; and whether it
    has something whose size does not show."""
    body, start, end = prompt.body, block.start, block.end
    if block.type == "container_upload":
        return 0, True
    if body.find(b"\\u00", start, end) >= 0 and _ESCAPED.search(body, start, end):
        return 0, True
    if body.find(_SOURCE, start, end) < 0:
        return 0, False
    if _REMOTE.search(body, start, end) or _PAGES.search(body, start, end):
        return 0, True
    count = body.count(_BASE64, start, end)
    return IMAGE_TOKENS * count - (_image_bytes(body[start:end]) if count else 0), False


def _image_bytes(raw: bytes) -> int:
    """The bytes of what images hold, in a block that is one or has some in its content. The API takes nothing
    but the picture there."""
    try:
        block = OBJECT.decode(raw)
        parts = [block] if "source" in block else OBJECTS.decode(block.get("content", msgspec.Raw(b"[]")))
        return sum(
            len(part["source"])
            for part in parts
            if "source" in part and read_string(part.get("type")) == "image"
        )
    except msgspec.DecodeError:  # content that is a string, for one
        return 0


def _named(what: str, name: str) -> str:
    """Names are the sender's: only what could be one of the API's is repeated."""
    return f"it has a {what} `{name}`" if _NAME.fullmatch(name) else f"it has a {what} of its own"


def _field(prompt: Prompt, name: str) -> bytes:
    start, end = prompt.fields.get(name, (0, 0))
    return prompt.body[start:end]
