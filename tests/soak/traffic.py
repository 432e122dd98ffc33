"""Who calls in a soak run: clients of every kind side by side, each sending one call after the other. What
became of each call is counted by its kind. Randomness is seeded."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

MODEL, SMALL_MODEL = "claude-opus-5-5", "claude-haiku-5-5"
MAX_TOKENS = 120
SYSTEM = "You are brief and kind, and you keep to what is asked of you. " * 120
HANGS_SECONDS = 40.0
VERSION = {"anthropic-version": "2023-06-01"}
Session = aiohttp.ClientSession


class Traffic:
    """`run` it until an instant of the loop's clock. `keys` maps a workspace to its key."""

    def __init__(self, url: str, admin_url: str, keys: dict[str, str], *, clients: int, seed: int) -> None:
        self._url = url
        self._admin_url = admin_url
        self._keys = keys
        self._clients = clients
        self._seed = seed
        self.forgets = True
        """Whether some clients never look at their batches again."""
        self.calls = 0
        self.ends: Counter[str] = Counter()
        self.hung: list[str] = []
        self.kinds: dict[str, tuple[float, Callable[[Session, random.Random], Awaitable[str]]]] = {
            "plain": (28, self._plain),
            "stream": (28, self._stream),
            "conversation": (2, self._conversation),
            "large body": (1.5, self._large),
            "leaves early": (7, self._leaves_early),
            "leaves in a stream": (6, self._leaves_in_a_stream),
            "slow reader": (0.5, self._slow_reader),
            "unknown key": (3, self._unknown_key),
            "spent budget": (3, self._spent_budget),
            "no JSON": (2, self._no_json),
            "token counting": (2, self._count),
            "models": (1, self._models),
            "warm-up by the client": (1, self._warm_up),
            "warm-up by the admin plane": (0.3, self._prewarm),
            "batch": (0.3, self._batch),
            "metrics": (0.5, self._metrics),
        }

    async def run(self, until: float) -> None:
        timeout = aiohttp.ClientTimeout(total=HANGS_SECONDS)
        connector = aiohttp.TCPConnector(limit=0)
        async with Session(timeout=timeout, connector=connector) as session:
            await asyncio.gather(*(self._client(session, number, until) for number in range(self._clients)))

    async def once(self) -> None:
        """One call of every kind, side by side."""
        timeout = aiohttp.ClientTimeout(total=HANGS_SECONDS)
        async with Session(timeout=timeout) as session:
            works = [self._counted(session, random.Random(kind), kind) for kind in self.kinds]
            await asyncio.gather(*works)

    async def _client(self, session: Session, number: int, until: float) -> None:
        chance = random.Random(f"{self._seed} {number}")
        loop = asyncio.get_running_loop()
        names = list(self.kinds)
        weights = [self.kinds[name][0] for name in names]
        await asyncio.sleep(chance.random())
        while loop.time() < until:
            await self._counted(session, chance, chance.choices(names, weights)[0])
            await asyncio.sleep(chance.uniform(0.1, 0.9))

    async def _counted(self, session: Session, chance: random.Random, kind: str) -> None:
        try:
            end = await self.kinds[kind][1](session, chance)
        except TimeoutError:
            self.hung.append(kind)
            end = "hung"
        except aiohttp.ClientError:
            end = "cut"
        self.ends[f"{kind}: {end}"] += 1

    # What a call looks like

    def _head(self, key: str = "one") -> tuple[str, dict[str, str]]:
        self.calls += 1
        name = f"c{self.calls}"
        return name, {"x-api-key": self._keys[key], "x-call": name, **VERSION}

    def _ask(self, name: str, chance: random.Random, **more: Any) -> dict[str, Any]:
        words = chance.randint(5, 60)
        return {
            "model": chance.choice((MODEL, SMALL_MODEL)),
            "max_tokens": MAX_TOKENS,
            "metadata": {"user_id": name},
            "system": SYSTEM + chance.choice(("", "Answer in verse.", "Answer in prose.")),
            "messages": [{"role": "user", "content": f"{chance.random()} Say {words} words."}],
            **more,
        }

    async def _post(self, session: Session, body: Any, headers: dict[str, str]) -> tuple[int, bytes]:
        async with session.post(f"{self._url}/v1/messages", json=body, headers=headers) as response:
            return response.status, await response.read()

    # Kinds of calls

    async def _plain(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head(chance.choice(("one", "two")))
        status, _ = await self._post(session, self._ask(name, chance), headers)
        return str(status)

    async def _stream(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head(chance.choice(("one", "two")))
        status, data = await self._post(session, self._ask(name, chance, stream=True), headers)
        return _stream_end(status, data)

    async def _conversation(self, session: Session, chance: random.Random) -> str:
        messages: list[Any] = []
        for turn in range(chance.randint(2, 5)):
            name, headers = self._head()
            messages.append({"role": "user", "content": f"{chance.random()} question {turn}, 30 words."})
            ask = self._ask(name, chance, model=MODEL, system=SYSTEM, messages=messages)
            status, data = await self._post(session, ask, headers)
            if status != 200:
                return str(status)
            messages.append({"role": "assistant", "content": json.loads(data)["content"]})
        return "200"

    async def _large(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head()
        text = f"{chance.random()} " + "a long tale, " * chance.randint(20_000, 60_000)
        ask = self._ask(name, chance, messages=[{"role": "user", "content": text + "in 20 words."}])
        status, _ = await self._post(session, ask, headers)
        return str(status)

    async def _leaves_early(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head()
        ask = self._ask(name, chance, stream=chance.random() < 0.5)
        try:
            async with asyncio.timeout(chance.uniform(0.0, 0.6)):
                await self._post(session, ask, headers)
        except TimeoutError:
            return "left"
        return "was done before"

    async def _leaves_in_a_stream(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head("two")
        ask = self._ask(name, chance, stream=True)
        async with session.post(f"{self._url}/v1/messages", json=ask, headers=headers) as response:
            for _ in range(chance.randint(1, 12)):
                if not await response.content.readany():
                    return "was done before"
            response.close()
        return "left"

    async def _slow_reader(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head()
        ask = self._ask(name, chance, stream=True)
        data = bytearray()
        async with session.post(f"{self._url}/v1/messages", json=ask, headers=headers) as response:
            while piece := await response.content.read(256):
                data += piece
                await asyncio.sleep(0.02)
            return _stream_end(response.status, bytes(data))

    async def _unknown_key(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head()
        status, _ = await self._post(session, self._ask(name, chance), headers | {"x-api-key": "cgw_unknown"})
        return str(status)

    async def _spent_budget(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head("poor")
        status, _ = await self._post(session, self._ask(name, chance), headers)
        return str(status)

    async def _no_json(self, session: Session, chance: random.Random) -> str:
        _, headers = self._head()
        body = b'{"model": "' + b"x" * chance.randint(0, 2_000)
        async with session.post(f"{self._url}/v1/messages", data=body, headers=headers) as response:
            await response.read()
            return str(response.status)

    async def _count(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head()
        ask = {key: value for key, value in self._ask(name, chance).items() if key in ("model", "messages")}
        url = f"{self._url}/v1/messages/count_tokens"
        async with session.post(url, json=ask, headers=headers) as response:
            await response.read()
            return str(response.status)

    async def _models(self, session: Session, _chance: random.Random) -> str:
        _, headers = self._head()
        async with session.get(f"{self._url}/v1/models", headers=headers) as response:
            await response.read()
            return str(response.status)

    async def _warm_up(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head()
        marked = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
        ask = self._ask(name, chance, max_tokens=0, system=marked)
        status, _ = await self._post(session, ask, headers)
        return str(status)

    async def _prewarm(self, session: Session, chance: random.Random) -> str:
        name, _ = self._head()
        line = json.dumps(self._ask(name, chance, model=MODEL, system=SYSTEM)).encode()
        url = f"{self._admin_url}/v1/prewarm?workspace=two&name=soak"
        headers = {"authorization": "Bearer admin", "content-type": "application/x-ndjson"}
        async with session.post(url, data=line, headers=headers) as response:
            lines = (await response.text()).splitlines()
            if response.status != 200:
                return f"{response.status}"
            return str(json.loads(lines[0])["prompt"]["state"])

    async def _batch(self, session: Session, chance: random.Random) -> str:
        name, headers = self._head("two")
        items = [
            {"custom_id": f"i{number}", "params": self._ask(name, chance)}
            for number in range(chance.randint(2, 8))
        ]
        url = f"{self._url}/v1/messages/batches"
        async with session.post(url, json={"requests": items}, headers=headers) as response:
            if response.status != 200:
                return str(response.status)
            batch = (await response.json())["id"]
        if self.forgets and chance.random() < 0.3:
            return "never looked at again"
        for _ in range(20):
            await asyncio.sleep(0.5)
            async with session.get(f"{url}/{batch}", headers=headers) as response:
                if response.status == 200 and (await response.json())["processing_status"] == "ended":
                    break
        async with session.get(f"{url}/{batch}/results", headers=headers) as response:
            await response.read()
            return str(response.status)

    async def _metrics(self, session: Session, chance: random.Random) -> str:
        path = chance.choice(("/metrics", "/readyz", "/v1/budgets", "/v1/warming", "/v1/counters"))
        headers = {"authorization": "Bearer admin"}
        async with session.get(self._admin_url + path, headers=headers) as response:
            await response.read()
            return f"{path} {response.status}"


def _stream_end(status: int, data: bytes) -> str:
    if status != 200:
        return str(status)
    return "200" if b"message_stop" in data else "error event" if b"event: error" in data else "cut"
