"""Why something that was known could not be read from the cache: the causes and their sentences.

Values only. The planner finds the causes that follow from what upstream holds; those that take a look at the
prompt itself are found in `changes.py`. What a miss cost is reckoned in `savings.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


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


@dataclass(frozen=True, slots=True)
class Miss:
    """A known prefix deeper than what is read, and why it cannot be read."""

    block: int
    """The known prefix's last block; CHANGED: the first block that differs."""
    cause: MissCause
    tokens: int
    """Tokens between what is read and this prefix's end."""
    seconds: float = 0.0
    """EXPIRED: how long ago. PARALLEL_TWIN: for how long it has been in flight."""
    byte: int | None = None
    """CHANGED: where in the block it begins to differ, as near as is known."""
    looks_like: str = ""
    """CHANGED: what stands there, as "a timestamp". OTHER_PARAMETER: the parameter's name."""

    @property
    def reason(self) -> str:
        """A sentence a person understands."""
        match self.cause:
            case MissCause.EXPIRED:
                return f"{self.tokens:,} tokens had expired {self.seconds:,.1f} s before"
            case MissCause.NEVER_WRITTEN:
                return f"{self.tokens:,} tokens were seen before but not written, as that did not seem to pay"
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
                at = "" if self.byte is None else f" at byte {self.byte:,}"
                what = f": {self.looks_like}" if self.looks_like else ""
                return f"block {self.block} changed{at}{what}; {self.tokens:,} tokens cannot be read"
            case MissCause.OTHER_WORKSPACE:
                return f"{self.tokens:,} tokens are known in another workspace; caches are not shared"
            case MissCause.OTHER_MODEL:
                return f"{self.tokens:,} tokens are known for another model; each has caches of its own"
            case MissCause.OTHER_PARAMETER:
                name = self.looks_like or "a parameter"
                return f"{self.tokens:,} tokens are known with another {name}, which parts the caches"
