"""Which breakpoints a request gets, with what TTL, and why.

The policies are `rule_policy.py`, which goes by the shape of one request, and `learned.py`, behind
`PlacementPolicy`. `check_placement` judges apart from any policy whether the API accepts the result; the
bytes are edited in `edit.py`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import msgspec

from gateway.core.api_facts import (
    CLIENT_TOOLS,
    MARKABLE_BLOCKS,
    MAX_BREAKPOINTS,
    TTL_ORDER,
)
from gateway.core.prompt import TTL, Block, Level, Prompt
from gateway.core.spans import OBJECT, has_text, read_string

if TYPE_CHECKING:
    from gateway.core.headers import Headers
    from gateway.core.ids import PrefixKey
    from gateway.core.misses import Miss
    from gateway.core.models import ModelFacts
    from gateway.core.pricing import Factors
    from gateway.core.rules import Workspace
    from gateway.core.usage import Usage


# msgspec.Structs, since they are made for each call: a frozen dataclass takes ten times as long to make.
class Breakpoint(msgspec.Struct, frozen=True, gc=False):
    block: int
    """Index into `Prompt.blocks`."""
    ttl: TTL
    reason: str
    """A sentence a person understands, for `gateway explain` and the ledger."""


class Placement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The breakpoints that the gateway adds to one request, in block order. Empty: the very same bytes."""

    breakpoints: tuple[Breakpoint, ...] = ()
    reason: str = ""
    """Why there are none, or what policy decided."""
    wait_for: str | None = None
    """Hold the call until the first byte of this other one, which writes the same prefix; then ask again."""
    wait_tokens: int = 0
    """With `wait_for`: what need not be written again by waiting."""
    claims: tuple[int, ...] = ()
    """Compact keys of cold prefixes that this call would write, and that no two replicas should: not final
    yet. Claim them, then ask again."""
    prompt_tokens: int = 0
    """The whole prompt, estimated in the same way as the three below; 0 where it was not."""
    read_tokens: int = 0
    """Expected, as the two below."""
    write_5m_tokens: int = 0
    write_1h_tokens: int = 0
    miss: Miss | None = None
    """Why something known is not read."""
    holdout: bool = False
    """Left alone on purpose, to measure what placing saves."""
    keep_upto: int | None = None
    """The prompt up to this block may be asked for again as a warm-up: keep it in memory."""


class Occasion(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The call on which a policy is asked."""

    call_id: str
    at: float
    """Epoch seconds."""
    scope: bytes
    """Who may share the prompt's entries (`prefix.cache_scope`)."""
    prices: Factors
    may_wait: bool = True
    may_claim: bool = False
    """Whether `claims` are understood; where not, the decision is final at once."""
    headers: Headers = ()
    """The call's own."""
    warm_up: bool = False
    """A call of the gateway's own, to warm a prefix."""
    price: float = 1.0
    """Of one uncached input token, in nano-dollars."""


class PlacementPolicy(Protocol):
    """Decides, and is told what became of it. No method blocks, waits or does IO.

    Of each call that was planned, either `billed` or `failed` is told once, in the end. Unknown ids do
    nothing.
    """

    @property
    def needs_keys(self) -> bool:
        """Whether it looks at prefix keys; where it does not they are not computed."""
        ...

    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion,
    ) -> Placement:
        """`keys` has one key per block, or none where they are not needed."""
        ...

    def answered(self, call_id: str, at: float) -> None:
        """The head of a good answer came: what the call wrote can be read from now on."""
        ...

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        """The call's usage is known."""
        ...

    def failed(self, call_id: str, at: float, *, billed: bool = False) -> None:
        """The call was not served: nobody can rely on what it was to write and refresh. `billed`: it was
        sent, and upstream may bill all of it nevertheless."""
        ...


MINIMUM_MARGIN = 1.1
"""Above the model's minimum by this factor, since tokens are guessed from bytes: a breakpoint below the
minimum does nothing, and still takes one of the four."""
_BLANK = re.compile(rb'"\s*"')


def has_server_tools(prompt: Prompt) -> bool:
    """Whether the API runs tools of its own for this prompt, and then adds a breakpoint of its own."""
    # A tool of a type that we do not know may be the API's to run.
    types = prompt.outline.tool_types
    return "mcp_servers" in prompt.fields or not all(map(CLIENT_TOOLS.value.fullmatch, types))


def type_of(prompt: Prompt, field: str) -> str:
    """The `type` of a top-level object, or empty."""
    if field not in prompt.fields:
        return ""
    start, end = prompt.fields[field]
    try:
        return read_string(OBJECT.decode(prompt.body[start:end]).get("type"))
    except msgspec.DecodeError:
        return ""


def check_placement(prompt: Prompt, placement: Placement) -> str | None:
    """Why the API would refuse the request with this placement, or None. A last guard over any policy, which
    looks at the body itself and shares no judgement with the policies. What it saw of a block is kept by the
    outline, and so holds for the same bytes of the conversation's next turn."""
    points = placement.breakpoints
    if not points:
        return None
    if prompt.unread_marks:
        return "the client's own marks are of an unknown kind"
    if "thread" in prompt.fields:
        return "all requests of a thread share its breakpoints"
    indices = [point.block for point in points]
    if indices != sorted(set(indices)) or indices[0] < 0 or indices[-1] >= len(prompt.blocks):
        return "the breakpoints are not in the order of the blocks, or one has no block"
    if len(points) + prompt.client_marks > MAX_BREAKPOINTS.value:
        return f"{len(points)} breakpoints and {prompt.client_marks} of the client are more than four"
    unchecked = frozenset(indices) - prompt.outline.checked
    for index in sorted(unchecked):
        if (why := _why_not_here(prompt, prompt.blocks[index])) is not None:
            return f"block {index} {why}"
    prompt.outline.checked |= unchecked
    return _why_not_in_this_order(prompt, {point.block: point.ttl for point in points})


def _why_not_here(prompt: Prompt, block: Block) -> str | None:
    if block.is_string:
        literal = prompt.body[block.start : block.end]
        return None if _BLANK.fullmatch(literal) is None and block.may_be_marked else "is an empty string"
    try:
        members = OBJECT.decode(prompt.body[block.start : block.end])
    except msgspec.DecodeError:
        return None if block.may_be_marked else "may not be marked"  # lone surrogates: trust the reader
    kind = read_string(members.get("type"))
    if "cache_control" in members or block.marks:
        return "has a cache_control already"
    if block.level is Level.TOOLS:
        deferred = bytes(members.get("defer_loading", b"false"))
        of_toolset = b"".join(bytes(members.get(name, b"")) for name in ("default_config", "configs"))
        if deferred not in (b"false", b"null") or b"defer_loading" in of_toolset:
            return "is a deferred tool, or may hold one"
        return None
    if kind not in MARKABLE_BLOCKS.value or (block.level is Level.SYSTEM and kind != "text"):
        return f"is of a type that takes no breakpoint ({kind or 'none'})"
    if kind == "text" and not has_text(members.get("text")):
        return "has no text"
    if not block.in_prefix:
        return "is no part of the prompt"
    return None


def _why_not_in_this_order(prompt: Prompt, ours: Mapping[int, TTL]) -> str | None:
    blocks = prompt.blocks
    ttls = [ours.get(index, blocks[index].ttl) for index in sorted({*prompt.outline.marked, *ours})]
    if prompt.automatic_ttl is not None:
        ttls.append(prompt.automatic_ttl)
        last = max((i for i, block in enumerate(blocks) if block.may_be_marked or block.marks), default=-1)
        if last in ours:
            return "the client's automatic breakpoint falls on the same block"
    known = [ttl for ttl in ttls if ttl is not None]
    if len(known) != len(ttls):
        return "a TTL of the client is unknown"
    if known != sorted(known, key=TTL_ORDER.value.index):
        return "a 1h breakpoint would come after a 5m one"
    return None
