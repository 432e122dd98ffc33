"""One recorded request, as contestants and the simulator's cache see it. A value; nothing is decided here."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field

from gateway.core.planner import Prices, Reported
from gateway.sim.cache import CacheScope, Position

Marks = tuple[tuple[int, bool], ...]
"""Breakpoints: the block, and whether it asks for an hour. In block order."""


@dataclass(slots=True, kw_only=True, eq=False)
class Request:
    number: int
    """Counts the requests of one replay."""
    at: float
    """Seconds, on the trace's own clock."""
    workspace: str = ""
    model: str = ""
    """Empty where the trace does not say."""
    scope: int = 1
    """Whose entries it may share, as the planner is told."""
    account: int = 1
    """Whose losses they are, as the planner is told."""
    keys: array[int]
    """For each block the compact key of the prefix up to it."""
    ends: Sequence[int]
    """The prompt's tokens up to each block, as whoever decides knows them: the gateway's estimates."""
    kinds: bytes
    prices: Prices
    """What the planner is told. The simulator knows its models' facts itself."""
    output_tokens: int = 0
    sent: Marks | None = None
    """The breakpoints that were on the wire; None where the trace does not say."""
    given: Marks | None = None
    """The breakpoints that would have been sent under any policy of the gateway's: the client's own, and what
    goes by rule beside them. None where it had been free to decide."""
    unmarkable: frozenset[int] = frozenset()
    warm_up: bool = False
    """A request of the gateway's own."""
    warmable: bool = True
    billed: Reported | None = None
    """Its usage, as upstream reported it."""
    _positions: list[Position] = field(default_factory=list)
    _ends_by_key: dict[bytes, int] = field(default_factory=dict)

    @property
    def billed_ends(self) -> Sequence[int]:
        """The prompt's tokens up to each block, as upstream counts: estimates, stretched to the length that
        was reported."""
        total, estimated = self.prompt_tokens, self.ends[-1]
        if total == estimated or not estimated:
            return self.ends
        return [end * total // estimated for end in self.ends]

    @property
    def prompt_tokens(self) -> int:
        return self.billed.total if self.billed is not None and self.billed.total else self.ends[-1]

    @property
    def cache_scope(self) -> CacheScope:
        """The workspace apart, the planner's scope counts: it knows what else parts the caches."""
        return CacheScope(workspace=f"{self.workspace}/{self.scope:x}", model=self.model, speed="")

    def positions(self) -> list[Position]:
        """The simulator's view of its blocks, without breakpoints. Kept until `forget_positions`."""
        if not self._positions:
            packed = self.keys.tobytes()
            self._positions = [
                Position(key=packed[8 * at : 8 * at + 8], end_tokens=end)
                for at, end in enumerate(self.billed_ends)
            ]
        return self._positions

    def ends_by_key(self) -> dict[bytes, int]:
        """The same, for looking keys up."""
        if not self._ends_by_key:
            self._ends_by_key = {position.key: position.end_tokens for position in self.positions()}
        return self._ends_by_key

    def forget_positions(self) -> None:
        """They take a hundred times the room of what they are made from."""
        self._positions, self._ends_by_key = [], {}
