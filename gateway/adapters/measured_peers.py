"""`ports.Peers` that counts what is said and claimed. Decides nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from gateway.ports import Peers


class MeasuredPeers:
    """`news` is told `told` or `heard`, `claimed` what became of a claim: `granted` or `taken`."""

    def __init__(self, peers: Peers, *, news: Callable[[str], None], claimed: Callable[[str], None]) -> None:
        self._peers = peers
        self._news = news
        self._claimed = claimed

    async def claim(self, names: Sequence[bytes], holder: str, seconds: float) -> str | None:
        owner = await self._peers.claim(names, holder, seconds)
        self._claimed("granted" if owner in (None, holder) else "taken")
        return owner

    def give_up(self, holder: str) -> None:
        self._peers.give_up(holder)

    def tell(self, news: bytes) -> None:
        self._news("told")
        self._peers.tell(news)

    async def listen(self, heard: Callable[[str, bytes], None], gone: Callable[[str], None]) -> None:
        def counted(replica: str, news: bytes) -> None:
            self._news("heard")
            heard(replica, news)

        await self._peers.listen(counted, gone)

    async def close(self) -> None:
        await self._peers.close()
