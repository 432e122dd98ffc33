"""Why something that was known could not be read from the cache: the causes and their sentences.

Values only. The planner finds the causes that follow from what upstream holds; those that take a look at the
prompt itself are found in `changes.py`. What a miss cost is reckoned in `savings.py`.
"""

from __future__ import annotations

from enum import StrEnum

import msgspec


class MissCause(StrEnum):
    """Why a prefix that was known, or that looks like one, could not be read."""

    EXPIRED = "expired"
    NEVER_WRITTEN = "never_written"
    BELOW_MINIMUM = "below_minimum"
    PARALLEL_TWIN = "parallel_twin"
    BEYOND_LOOKBACK = "beyond_lookback"
    GONE_EARLY = "gone_early"
    CHANGED = "changed"
    OTHER_WORKSPACE = "other_workspace"
    OTHER_MODEL = "other_model"
    OTHER_PARAMETER = "other_parameter"


class Looks(StrEnum):
    """What stands where a prompt changed, or what was done there. A closed set, fit to label a metric."""

    TIMESTAMP = "a timestamp"
    DATE = "a date"
    UUID = "a UUID"
    RANDOM_ID = "a random id"
    COUNTER = "a counter"
    PATH = "a path"
    EDITED = "an edited text"
    SHORTENED = "a shortened text"
    WHITE_SPACE = "white space"
    REORDERED_KEYS = "reordered keys"
    REORDERED_TOOLS = "reordered tools"
    REORDERED_BLOCKS = "reordered blocks"
    ADDED_TOOL = "an added tool"
    REMOVED_TOOL = "a removed tool"
    ADDED_BLOCK = "an added block"
    REMOVED_BLOCK = "a removed block"
    DROPPED_MESSAGES = "dropped messages"
    INSERTED_MESSAGES = "inserted messages"
    MOVED_BLOCK = "a moved block"


VOLATILE = frozenset(
    {Looks.TIMESTAMP, Looks.DATE, Looks.UUID, Looks.RANDOM_ID, Looks.COUNTER, Looks.PATH},
)
"""What differs from request to request, or from one machine to the next, although nobody edited anything."""

_DONE = {
    Looks.EDITED: "{where} was edited{at}",
    Looks.SHORTENED: "{where} was shortened{at}",
    Looks.WHITE_SPACE: "{where} differs in white space only",
    Looks.REORDERED_KEYS: "the keys of {where} came in another order",
    Looks.REORDERED_TOOLS: "the tools came in another order, from {where} on",
    Looks.REORDERED_BLOCKS: "the blocks came in another order, from {where} on",
    Looks.ADDED_TOOL: "a tool was added, {where}",
    Looks.REMOVED_TOOL: "a tool was removed that stood at {where}",
    Looks.ADDED_BLOCK: "a block was added, {where}",
    Looks.REMOVED_BLOCK: "a block was removed that stood at {where}",
    Looks.DROPPED_MESSAGES: "earlier messages were dropped before {where}",
    Looks.INSERTED_MESSAGES: "something was inserted among earlier messages, at {where}",
    Looks.MOVED_BLOCK: "what stood at {where} moved to the end, as a reminder does",
}


class Miss(msgspec.Struct, frozen=True, gc=False):
    """A known prefix deeper than what is read, and why it cannot be read."""

    block: int
    """The known prefix's last block; CHANGED: the first block that differs."""
    cause: MissCause
    tokens: int
    """Tokens between what is read and this prefix's end; CHANGED: that could have been read otherwise."""
    seconds: float = 0.0
    """EXPIRED: how long ago. PARALLEL_TWIN: for how long it has been in flight."""
    byte: int | None = None
    """CHANGED: where in the block's content it begins to differ, as near as is known. Of a text, the byte of
    its literal in the body, counted from behind the quote; of anything else, that of its JSON."""
    looks_like: str = ""
    """CHANGED: one of `Looks`. OTHER_PARAMETER: the parameter's name, one of `prefix.scope_parts`."""
    where: str = ""
    """CHANGED: the block as the API's own messages name it, such as `system[2]`."""
    exact: bool = False
    """CHANGED: whether `byte` was found by comparing both texts; otherwise it is near the place."""

    @property
    def reason(self) -> str:
        """A sentence a person understands."""
        match self.cause:
            case MissCause.EXPIRED:
                return f"{self.tokens:,} tokens had expired {self.seconds:,.1f} s before"
            case MissCause.NEVER_WRITTEN:
                return f"{self.tokens:,} tokens were known and not written, as that did not seem to pay"
            case MissCause.BELOW_MINIMUM:
                return f"the shared prefix is shorter than the model's minimum by {self.tokens:,} tokens"
            case MissCause.PARALLEL_TWIN:
                return (
                    f"{self.tokens:,} tokens were being written by a request sent {self.seconds:.1f} s before"
                )
            case MissCause.BEYOND_LOOKBACK:
                return f"{self.tokens:,} tokens lie further back than a breakpoint searches"
            case MissCause.GONE_EARLY:
                return f"{self.tokens:,} tokens should still have been cached; upstream did not read them"
            case MissCause.CHANGED:
                return f"{self._change}; {self.tokens:,} tokens had to be processed again"
            case MissCause.OTHER_WORKSPACE:
                return f"{self.tokens:,} tokens are known in another workspace; caches are not shared"
            case MissCause.OTHER_MODEL:
                return f"{self.tokens:,} tokens are known for another model; each has caches of its own"
            case MissCause.OTHER_PARAMETER:
                name = self.looks_like or "a parameter"
                return f"{self.tokens:,} tokens are known with another {name}, which parts the caches"

    @property
    def _change(self) -> str:
        where = self.where or f"block {self.block}"
        at = "" if self.byte is None else f" at {'' if self.exact else 'about '}byte {self.byte:,}"
        if self.looks_like in VOLATILE:
            return f"{where} changed{at}, where {self.looks_like} stands"
        done = _DONE[Looks(self.looks_like)] if self.looks_like else "{where} changed{at}"
        return done.format(where=where, at=at)
