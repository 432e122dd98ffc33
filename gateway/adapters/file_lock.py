"""A lock that the tasks of one process and the processes of one machine take in turn: an empty file beside
the one that is guarded. It is free again when its holder dies. Knows nothing of what it guards."""

from __future__ import annotations

import asyncio
import fcntl
import os
from pathlib import Path

LOOK_SECONDS = 0.02
"""How often is asked whether another process has let go of it."""


class FileLock:
    """`async with` it. Not to be taken again by its holder."""

    def __init__(self, guarded: Path) -> None:
        self._path = guarded.with_name(f"{guarded.name}.lock")
        self._here = asyncio.Lock()
        self._file = -1

    async def __aenter__(self) -> None:
        """Raises OSError where the file cannot be made."""
        await self._here.acquire()
        try:
            self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            while not _taken(self._file):  # noqa: ASYNC110 - another process says nothing when it lets go
                await asyncio.sleep(LOOK_SECONDS)
        except BaseException:
            self._let_go()
            raise

    async def __aexit__(self, *_: object) -> None:
        self._let_go()

    def _let_go(self) -> None:
        if self._file >= 0:
            os.close(self._file)  # which unlocks it
            self._file = -1
        self._here.release()


def _taken(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
