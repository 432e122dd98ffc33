"""How much may be looked at closely, for one workspace and for all: a number of bytes a second."""

from __future__ import annotations

from dataclasses import dataclass, field

from gateway.core.ids import WorkspaceId

BYTES_PER_SECOND = 256 * 1024.0
"""For one workspace. A look takes some 4 us a kB, so this is about 0.1% of a processor."""
BURST_SECONDS = 8.0
ALL_WORKSPACES = 16.0
"""For all together, in multiples of that."""
LOOK_BYTES = 4096
"""What a look counts for besides the bytes that it looks at."""
_MAX_WORKSPACES = 4096


@dataclass(slots=True)
class _Level:
    rate: float
    left: float
    at: float

    def fill(self, now: float) -> float:
        """What is left by now."""
        self.left = min(self.rate * BURST_SECONDS, self.left + self.rate * max(0.0, now - self.at))
        self.at = now
        return self.left


@dataclass(slots=True)
class Allowance:
    """Filled up by time, to `BURST_SECONDS` of it."""

    _levels: dict[WorkspaceId | None, _Level] = field(default_factory=dict)

    def take(self, workspace: WorkspaceId, size_bytes: int, now: float) -> bool:
        """Whether so much may be looked at. A look may overdraw the allowance, and the next ones wait."""
        levels = (
            self._level(None, BYTES_PER_SECOND * ALL_WORKSPACES, now),
            self._level(workspace, BYTES_PER_SECOND, now),
        )
        if min(level.fill(now) for level in levels) <= 0.0:
            return False
        for level in levels:
            level.left -= size_bytes + LOOK_BYTES
        return True

    def _level(self, who: WorkspaceId | None, rate: float, now: float) -> _Level:
        level = self._levels.get(who)
        if level is None:
            if len(self._levels) >= _MAX_WORKSPACES:
                self._levels.clear()
            level = self._levels[who] = _Level(rate, rate * BURST_SECONDS, now)
        return level
