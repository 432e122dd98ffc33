"""One replica of the chaos run: the gateway's own `Service` on the run's settings, with a short lease, and
with failpoints around its adapters at which the process can be made to die. The gateway knows nothing of it.

Started as `python -m tests.chaos.gateway CONFIG KEY_BYTES`; says where it listens on a line of its standard
output. A line of its standard input arms a failpoint: at the next passing the process is gone, as by SIGKILL.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import structs

import gateway.adapters.ledger as ledger
import gateway.service as service
import gateway.spending as spending
from gateway.core.ids import WorkspaceId
from gateway.core.principal import mint_key
from gateway.ports import Answer, Upstream, UpstreamRequest
from gateway.settings import load_settings
from gateway.settings.gateway import GatewayFile

LEASE_SECONDS = 3.0
SWEEP_SECONDS = 0.5
WORKSPACE = "chaos"
FAILPOINTS = (
    "before reserve",
    "after reserve",
    "before send",
    "after send",
    "after head",
    "mid-stream",
    "before settle",
    "after settle",
    "before commit",
    "after commit",
)


class Failpoints:
    """Which of them are armed. Passed on the event loop and on the ledger's thread."""

    def __init__(self) -> None:
        self._armed: set[str] = set()

    def arm(self, name: str) -> None:
        assert name in FAILPOINTS, name
        self._armed.add(name)

    def __call__(self, name: str) -> None:
        if name in self._armed:
            os._exit(137)


class ChaosService(service.Service):
    """The service, its adapters wrapped once they are open."""

    def __init__(self, *arguments: Any, failpoints: Failpoints, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._failpoints = failpoints

    async def _open_adapters(self, file: GatewayFile) -> None:
        await super()._open_adapters(file)
        self.spending.budgets = _Around(self.spending.budgets, self._failpoints)
        self._upstream = _AroundUpstream(self._upstream, self._failpoints)


class _Around:
    """A budget store between failpoints; a release is a settlement here."""

    def __init__(self, store: Any, failpoints: Failpoints) -> None:
        self._store = store
        self._failpoints = failpoints

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._store, name)
        point = {"reserve": "reserve", "settle": "settle", "release": "settle"}.get(name)
        return method if point is None else partial(self._pass, method, point)

    async def _pass(self, method: Callable[..., Awaitable[Any]], point: str, *arguments: Any) -> Any:
        self._failpoints(f"before {point}")
        result = await method(*arguments)
        self._failpoints(f"after {point}")
        return result


class _AroundUpstream:
    """Upstream between failpoints. "After send" lets the request out first: the simulator may bill it."""

    def __init__(self, upstream: Upstream, failpoints: Failpoints) -> None:
        self._upstream = upstream
        self._failpoints = failpoints

    def open(self, request: UpstreamRequest) -> AbstractAsyncContextManager[Answer]:
        return self._open(request)

    async def close(self) -> None:
        await self._upstream.close()

    @asynccontextmanager
    async def _open(self, request: UpstreamRequest) -> AsyncIterator[Answer]:
        def sent() -> None:
            request.on_sent()
            asyncio.get_running_loop().call_later(0.02, self._failpoints, "after send")

        self._failpoints("before send")
        async with self._upstream.open(structs.replace(request, on_sent=sent)) as answer:
            self._failpoints("after head")
            yield _AroundAnswer(answer, self._failpoints)


class _AroundAnswer:
    def __init__(self, answer: Answer, failpoints: Failpoints) -> None:
        self._answer = answer
        self._failpoints = failpoints
        self.status, self.headers = answer.status, answer.headers
        self._pieces = 0

    async def pump(self, feed: Callable[[bytes], bool]) -> bool:
        def counted(piece: bytes) -> bool:
            self._pieces += 1
            if self._pieces == 3:
                self._failpoints("mid-stream")
            return feed(piece)

        return await self._answer.pump(counted)


async def _run(config: Path, key_bytes: bytes) -> None:
    failpoints = Failpoints()
    vars(spending)["SWEEP_SECONDS"] = SWEEP_SECONDS
    commit = vars(ledger)["insert"]

    def insert(*arguments: Any) -> int:
        failpoints("before commit")
        stored: int = commit(*arguments)
        failpoints("after commit")
        return stored

    vars(ledger)["insert"] = insert
    settings = load_settings(config, os.environ)
    store = settings.gateway.store.model_copy(update={"lease": LEASE_SECONDS})  # shorter than people may
    settings = replace(settings, gateway=settings.gateway.model_copy(update={"store": store}))
    _, key = mint_key(random_bytes=key_bytes, name="chaos", workspace=WorkspaceId(WORKSPACE), created_at=0.0)
    running = ChaosService(settings, more_keys=[key], quiet=True, failpoints=failpoints)
    await running.start()
    print(f"listens {running.data_url}", flush=True)

    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.set)

    def read() -> None:
        said = os.read(0, 4096)
        if not said:  # whoever started this is gone
            loop.remove_reader(0)
            ending.set()
        for line in said.decode().splitlines():
            failpoints.arm(line)

    os.set_blocking(0, False)
    loop.add_reader(0, read)
    await ending.wait()
    loop.remove_reader(0)
    await running.drain(announce=False)
    await running.stop()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_run(Path(sys.argv[1]), bytes.fromhex(sys.argv[2])))
