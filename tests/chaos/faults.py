"""What is broken in a chaos run, and when: drawn from the seed."""

from __future__ import annotations

import asyncio
import random
import shutil
import signal
from collections import Counter

from tests.chaos.gateway import FAILPOINTS, LEASE_SECONDS
from tests.chaos.world import World

ALL = ("kill", "pause", "lost_reply", "script_flush", "restart", "failover", "flushall", "old_snapshot")


class Faults:
    """One fault after the other, each mended before the next. `seen` counts them."""

    def __init__(self, world: World, kinds: tuple[str, ...], seed: int) -> None:
        assert set(kinds) <= set(ALL), kinds
        self._world = world
        self._kinds = kinds
        self._chance = random.Random(f"faults {seed}")
        self.seen: Counter[str] = Counter()
        self._thawing: set[asyncio.Task[None]] = set()

    async def run(self, until: float) -> None:
        """Until an instant of the loop's clock; all is mended when it returns."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(2.0)
        turns = list(self._kinds)
        self._chance.shuffle(turns)
        while loop.time() < until:
            for kind in turns:  # each at least once, if there is time
                if loop.time() < until:
                    await getattr(self, f"_{kind}")()
                    await asyncio.sleep(self._chance.uniform(0.5, 1.8))
        for replica in self._world.replicas:
            replica.signal(signal.SIGCONT)

    async def _kill(self) -> None:
        replica = self._chance.choice(self._world.replicas)
        if self._chance.random() < 0.2:
            self.seen["kill: anywhere"] += 1
            replica.signal(signal.SIGKILL)
        else:
            point = self._chance.choice(FAILPOINTS)
            self.seen[f"kill: {point}"] += 1
            replica.arm(point)

    async def _pause(self) -> None:
        """Of a replica, perhaps until others close what it holds; or of Redis, shortly."""
        if self._chance.random() < 0.4:
            self.seen["pause: redis"] += 1
            self._world.master.freeze()
            await asyncio.sleep(self._chance.uniform(0.2, 1.0))
            self._world.master.thaw()
            return
        self.seen["pause: replica"] += 1
        replica = self._chance.choice(self._world.replicas)
        replica.signal(signal.SIGSTOP)
        seconds = self._chance.uniform(0.5, LEASE_SECONDS + 2)

        async def thaw() -> None:
            await asyncio.sleep(seconds)
            replica.signal(signal.SIGCONT)

        task = asyncio.get_running_loop().create_task(thaw())
        self._thawing.add(task)
        task.add_done_callback(self._thawing.discard)

    async def _lost_reply(self) -> None:
        if self._world.proxies:
            self.seen["lost_reply"] += 1
            self._chance.choice(self._world.proxies).lose_replies += self._chance.randint(1, 3)

    async def _script_flush(self) -> None:
        self.seen["script_flush"] += 1
        await asyncio.to_thread(self._world.master.command, "SCRIPT", "FLUSH")

    async def _flushall(self) -> None:
        self.seen["flushall"] += 1
        await asyncio.to_thread(self._world.master.command, "FLUSHALL")

    async def _restart(self) -> None:
        if self._world.group is None:
            self.seen["restart"] += 1
            await asyncio.to_thread(self._world.redis.stop)
            await asyncio.sleep(self._chance.uniform(0.1, 0.8))
            await asyncio.to_thread(self._world.redis.start)

    async def _old_snapshot(self) -> None:
        """Started again with data of some moments ago: what a restored backup is."""
        if self._world.group is None:
            self.seen["old_snapshot"] += 1
            data = self._world.folder / "redis" / "appendonlydir"
            kept = self._world.folder / "redis" / "kept"
            await asyncio.to_thread(shutil.copytree, data, kept, dirs_exist_ok=True)
            await asyncio.sleep(self._chance.uniform(0.3, 2.0))
            await asyncio.to_thread(self._world.redis.stop)
            await asyncio.to_thread(shutil.rmtree, data)
            await asyncio.to_thread(kept.rename, data)
            await asyncio.to_thread(self._world.redis.start)

    async def _failover(self) -> None:
        if self._world.group is not None:
            self.seen["failover"] += 1
            await asyncio.to_thread(self._world.group.fail_over)
