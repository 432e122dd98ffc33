"""How many tokens a prompt typically has: the one place where bytes are taken for tokens.

Guesses for planning and for what is set aside in estimate mode, made from sizes alone. What a prompt can have
at most is `bounds.py`'s; how far the guesses are off for a workspace and a model, `learned_estimates.py`'s.
"""

from __future__ import annotations

import re
from math import ceil

from gateway.core.models import ModelFacts
from gateway.core.outline import Measured
from gateway.core.prompt import Block, Prompt

IMAGE_TOKENS = 1_600
"""The most that an image counts for, however many bytes its encoding takes; and what one counts for that is
fetched from elsewhere."""
FILE_BYTES_PER_TOKEN = 48.0
"""For documents sent as base64, where a page of some 100 kB is read as two or three thousand tokens."""
TOOL_PROMPT_TOKENS = 500
"""What the API adds to any request with tools: 286 to 804 were published (pricing page, 2026-08-21)."""
TYPED_TOOL_TOKENS = 700
"""For each tool that is given by its type: the text editor's definition. Toolsets have thousands."""

_BASE64 = b'"base64"'
_DATA = re.compile(rb'"data"\s*:\s*"')
_HEAD_BYTES = 512
"""In which a block's own source says of what kind it is, unless its members come in an unusual order."""
_NEAR_BYTES = 200
_NEVER_FILES = frozenset({"text", "tool_use", "thinking", "redacted_thinking", "custom"})


def block_tokens(prompt: Prompt, facts: ModelFacts) -> tuple[int, ...]:
    """For each block, an estimate of the tokens of the prefix that ends with it. Typical, not a bound: what
    the API adds of its own, and what documents by id or URL stand for, is not in the body."""
    rate, outline = facts.bytes_per_token, prompt.outline
    known = outline.measured
    if known is None or known.bytes_per_token != rate:
        known = Measured(rate, (), ())
    blocks = prompt.blocks
    if len(known.ends) == len(blocks):
        return known.ends
    sums, ends = list(known.sums), list(known.ends)
    total = sums[-1] if sums else 0.0
    as_image = IMAGE_TOKENS * rate
    for block in blocks[len(ends) :]:
        if block.in_prefix:
            size = block.end - block.start
            # A file of fewer bytes than that counts for them.
            if block.type == "image" or (size > as_image and block.type not in _NEVER_FILES):
                total += _with_files(prompt.body, block, rate)
            else:
                total += size / rate
        sums.append(total)
        ends.append(int(total))
    outline.measured = found = Measured(rate, sums, tuple(ends))
    return found.ends


def prompt_tokens(prompt: Prompt, facts: ModelFacts, in_blocks: int = 0) -> int:
    """The whole prompt, with what the API adds for tools. `in_blocks` is the last of `block_tokens` where it
    is known already, else 0."""
    if not in_blocks and prompt.blocks:
        in_blocks = block_tokens(prompt, facts)[-1]
    start, end = prompt.fields.get("output_config", (0, 0))
    tools = TOOL_PROMPT_TOKENS if prompt.outline.tools_end else 0
    typed = TYPED_TOOL_TOKENS * prompt.outline.typed_tools
    return in_blocks + tools + typed + ceil((end - start) / facts.bytes_per_token)


def _with_files(body: bytes, block: Block, rate: float) -> float:
    """The tokens of a block that is or holds images or documents: their bytes say little."""
    size = block.end - block.start
    if block.type in ("image", "document"):
        encoded = body.find(_BASE64, block.start, min(block.end, block.start + _HEAD_BYTES)) >= 0
        if block.type == "image":
            return min(size / rate, IMAGE_TOKENS) if encoded else IMAGE_TOKENS
        return size / (FILE_BYTES_PER_TOKEN if encoded else rate)
    if body.find(_BASE64, block.start, block.end) < 0:
        return size / rate
    tokens = 0.0
    for found in _DATA.finditer(body, block.start, block.end):
        start = found.end()
        end = body.find(b'"', start, block.end)
        around = body[max(block.start, start - _NEAR_BYTES) : start] + body[end : end + _NEAR_BYTES]
        if end < 0 or _BASE64 not in around:
            continue
        size -= end - start
        if b'"image/' in around:
            tokens += min((end - start) / rate, IMAGE_TOKENS)
        else:
            tokens += (end - start) / FILE_BYTES_PER_TOKEN
    return tokens + size / rate
