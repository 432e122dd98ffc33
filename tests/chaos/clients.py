"""Clients of a chaos run: each sends one call after the other to any replica that listens, streamed or not,
and sometimes leaves in the middle. What becomes of each call is counted; one that hangs fails the run."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import aiohttp

from tests.chaos.world import World

MODEL = "claude-haiku-4-5"
HANGS_SECONDS = 20.0
LONGER_SECONDS = 90.0


class Clients:
    """`run` them until an instant of the loop's clock, and then on until the limit has refused them all once
    with nothing let through between: a bill that stays below a limit which nobody reached shows nothing."""

    def __init__(self, world: World, count: int, seed: int) -> None:
        self._world = world
        self._count = count
        self._seed = seed
        self._calls = 0
        self.ends: Counter[str] = Counter()
        self.hung: list[str] = []
        self._refused_in_turn = 0

    @property
    def used_up(self) -> bool:
        """Whether the limit lets nothing through any more."""
        return self._refused_in_turn >= self._count

    async def run(self, until: float) -> None:
        timeout = aiohttp.ClientTimeout(total=HANGS_SECONDS)
        connector = aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
            await asyncio.gather(*(self._client(session, number, until) for number in range(self._count)))

    async def _client(self, session: aiohttp.ClientSession, number: int, until: float) -> None:
        chance = random.Random(f"{self._seed} {number}")
        loop = asyncio.get_running_loop()
        await asyncio.sleep(chance.random() * 2)
        while loop.time() < until or (loop.time() < until + LONGER_SECONDS and not self.used_up):
            urls = [replica.url for replica in self._world.replicas if replica.url]
            if not urls:
                await asyncio.sleep(0.1)
                continue
            self._calls += 1
            call = f"c{self._calls}"
            patience = chance.uniform(0.05, 1.5) if chance.random() < 0.1 else None
            work = self._call(session, chance.choice(urls), call, stream=chance.random() < 0.5)
            try:
                async with asyncio.timeout(patience):
                    end = await work
            except TimeoutError:
                end = "left early"
            self.ends[end] += 1
            if end.startswith("refused 429"):
                self._refused_in_turn += 1
            elif end in ("answered", "cut"):
                self._refused_in_turn = 0
            if end not in ("answered", "left early"):
                await asyncio.sleep(chance.uniform(0.3, 1.0))

    async def _call(self, session: aiohttp.ClientSession, url: str, call: str, *, stream: bool) -> str:
        body = {
            "model": MODEL,
            "max_tokens": 24,
            "stream": stream,
            "metadata": {"user_id": call},
            "messages": [{"role": "user", "content": f"Say something about number {call}."}],
        }
        headers = {"x-api-key": self._world.key, "anthropic-version": "2023-06-01", "x-call": call}
        started = asyncio.get_running_loop().time()
        try:
            async with session.post(f"{url}/v1/messages", json=body, headers=headers) as response:
                data = await response.read()
        except TimeoutError:
            if asyncio.get_running_loop().time() - started >= HANGS_SECONDS - 1:
                self.hung.append(call)
                return "hung"
            raise
        except aiohttp.ClientError:
            return "cut"
        if response.status == 200:
            whole = b"message_stop" in data or not stream
            return "answered" if whole else "ended with an error event" if b"event: error" in data else "cut"
        return f"refused {response.status} {response.headers.get('x-gateway-error', 'by upstream')}"
