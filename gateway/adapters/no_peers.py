"""`ports.Peers` for the only replica: every claim is granted, and nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence


class NoPeers:
    """There are no others."""

    async def claim(self, names: Sequence[bytes], holder: str, seconds: float) -> str | None:
        """Granted."""
        return None

    def give_up(self, holder: str) -> None:
        """Nothing is held."""

    def tell(self, news: bytes) -> None:
        """Nobody listens."""

    async def listen(self, heard: Callable[[str, bytes], None], gone: Callable[[str], None]) -> None:
        """Nobody speaks."""
        await asyncio.Event().wait()

    async def close(self) -> None:
        """Nothing is open."""
