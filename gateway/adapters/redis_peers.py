"""`ports.Peers` over Redis or Valkey: claims are keys, news are entries of a stream, life is a beat.

Here the two halves are put together: `redis_peers_talk.py` speaks, `redis_peers_hear.py` listens, and
`redis_peers_wire.py` says what is written. Whatever Redis does, nothing here fails a call: where it cannot be
asked, the replica goes on alone, and that is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from typing import Final

from gateway.adapters.redis_peers_hear import Hearing
from gateway.adapters.redis_peers_talk import ANSWER_SECONDS, Talk
from gateway.adapters.redis_peers_wire import PeerKeys
from gateway.adapters.redis_scripts import RedisScripts
from gateway.ports import Clock

FAILURES: Final = ("claim", "tell", "listen", "entry", "missed", "beat")
"""What `failed` is told: a claim that nobody answered, a piece of news that was dropped, a connection for
listening that was lost, an entry that could not be taken in, entries that were lost on the way, a sign of
life that was not given."""


class RedisPeers:
    """The other replicas that use one store. Claims stand, and others hear of this replica's end, only while
    `listen` runs. `replica` is unique to this start of the process."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        replica: str,
        clock: Clock,
        failed: Callable[[str], None],
    ) -> None:
        assert prefix and not set("{}") & set(prefix), prefix
        assert replica and " " not in replica, replica
        self._scripts = RedisScripts(url, clock, prefix)
        keys = PeerKeys(prefix)
        self._talk = Talk(self._scripts, keys, replica=replica, clock=clock, failed=failed)
        self._hearing = Hearing(self._scripts, keys, replica=replica, clock=clock, failed=failed)

    async def claim(self, names: Sequence[bytes], holder: str, seconds: float) -> str | None:
        """As `ports.Peers`; all that are asked for at one time go in one round trip. The names of a replica
        that has died are free. Who gets its names has heard all that was told before."""
        began = asyncio.get_running_loop().time()
        owner, told = await self._talk.claim(names, holder, seconds)
        if owner is None and told:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(began + ANSWER_SECONDS):
                    await self._hearing.heard_up_to(told)
        return owner

    def give_up(self, holder: str) -> None:
        """As `ports.Peers`."""
        self._talk.give_up(holder)

    def tell(self, news: bytes) -> None:
        """As `ports.Peers`. Goes out at once, or with more a few milliseconds later."""
        self._talk.tell(news)

    async def listen(self, heard: Callable[[str, bytes], None], gone: Callable[[str], None]) -> None:
        """As `ports.Peers`: of replicas that were heard of, from the start of listening on. Both are called
        one piece of news at a time, and must not block."""
        await self._hearing.listen(heard, gone)

    async def close(self) -> None:
        """Tell what is left, and say good-bye, as far as that takes half a second."""
        await self._talk.close()
        await self._scripts.close()
