"""One worker as a process of its own, as its supervisor sees it: started, asked whether it lives, ended.

What a worker has to know comes on its standard input, as one line; the input stays open for as long as the
supervisor lives, so that a worker notices its end whatever brought it about.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import aiohttp
import msgspec

from gateway.core.principal import KeyRecord
from gateway.core.worker import Worker

ANSWER_SECONDS: Final = 2.0
COMMAND: Final = "worker"


class WorkerSpec(msgspec.Struct, frozen=True, kw_only=True):
    """What a worker is started with."""

    worker: Worker
    config: Path | None
    more_keys: tuple[KeyRecord, ...] = ()
    """In force for this start of the gateway only."""

    def line(self) -> bytes:
        return msgspec.json.encode(self, enc_hook=str) + b"\n"

    @classmethod
    def read(cls, line: bytes) -> WorkerSpec:
        """Raises `msgspec.DecodeError`."""
        return msgspec.json.decode(line, type=cls, dec_hook=lambda kind, value: kind(value))


class WorkerProcess:
    """`session` reaches its admin plane, and is closed with it."""

    def __init__(self, process: asyncio.subprocess.Process, session: aiohttp.ClientSession) -> None:
        self._process = process
        self.session = session
        self.pid: int = process.pid

    @classmethod
    async def start(
        cls, spec: WorkerSpec, environ: Mapping[str, str], session: aiohttp.ClientSession
    ) -> WorkerProcess:
        """Raises OSError."""
        try:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "gateway", COMMAND),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=(spec.worker.listening,),
                env=dict(environ),
            )
            assert process.stdin is not None
            process.stdin.write(spec.line())
        except BaseException:
            await session.close()
            raise
        return cls(process, session)

    async def ended(self, seconds: float) -> int | None:
        """Its exit code, minus the signal's number where one ended it; None where it still runs by then."""
        try:
            async with asyncio.timeout(seconds):
                return await self._process.wait()
        except TimeoutError:
            return None

    async def answers(self, path: str) -> bool:
        """Whether that probe answers, in time, with 200."""
        timeout = aiohttp.ClientTimeout(total=ANSWER_SECONDS)
        try:
            async with self.session.get(f"http://gateway{path}", timeout=timeout) as answer:
                return answer.status == 200
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    def signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def kill(self) -> None:
        """It cannot object."""
        self.signal(signal.SIGKILL)

    async def close(self) -> None:
        """Once it has ended."""
        await self.session.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
