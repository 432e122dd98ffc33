"""One value of some megabytes that outlives the process: in a file, or in Redis for all replicas.

The value is opaque here. What is read back is what was saved, or nothing: a header tells its size and digest,
so that a half-written or damaged value counts as none.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import secrets
from pathlib import Path
from typing import Final, cast

from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from gateway.adapters.redis_topology import client
from gateway.core.errors import StoreUnavailable

log = logging.getLogger(__name__)

MAX_BYTES: Final = 256 << 20
"""More is neither saved nor read."""
PIECE_BYTES: Final = 1 << 20
"""Redis serves nobody else while it takes in a command, so a large value comes in several."""
UNFINISHED_SECONDS: Final = 60
"""After so long without another piece, what a replica that died had begun to save is deleted."""
KEPT_SECONDS: Final = 30 * 86_400
"""What nobody replaces for so long is deleted from Redis."""

_MAGIC: Final = b"CGWSHLF1"
_DIGEST_BYTES: Final = 16


class FileShelf:
    """`ports.Shelf` in a file that nobody else may read. One process saves to it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._saving = asyncio.Lock()

    async def load(self) -> bytes | None:
        """As `ports.Shelf`."""
        try:
            with contextlib.suppress(FileNotFoundError):
                return await asyncio.to_thread(lambda: _checked(_read(self._path)))
        except (OSError, ValueError) as error:
            log.error("%s cannot be read, and counts as empty: %s", self._path, error)
        return None

    async def save(self, data: bytes) -> None:
        """As `ports.Shelf`. On the disk when it returns."""
        async with self._saving:
            try:
                await asyncio.to_thread(lambda: _write(self._path, _headed(data)))
            except OSError as error:
                raise StoreUnavailable(f"{self._path} cannot be written: {error}") from error

    async def close(self) -> None:
        """Nothing is open."""


class RedisShelf:
    """`ports.Shelf` in the key `{<prefix>}:shelf`, the same for all replicas: who saves last, wins."""

    def __init__(self, url: str, prefix: str, *, timeout_seconds: float = 5.0) -> None:
        """`timeout_seconds` is for one command."""
        self._redis = client(
            url,
            prefix,
            socket_timeout=timeout_seconds,
            socket_connect_timeout=timeout_seconds,
            retry=Retry(NoBackoff(), 0),
        )
        self._key = f"{{{prefix}}}:shelf"

    async def load(self) -> bytes | None:
        """As `ports.Shelf`."""
        try:
            pieces = cast("dict[bytes, bytes]", await self._redis.hgetall(self._key))
            if not pieces:
                return None
            return await asyncio.to_thread(
                lambda: _checked(b"".join(pieces[b"%d" % at] for at in range(len(pieces))))
            )
        except (RedisError, OSError, ValueError, KeyError) as error:
            log.error("what was saved in Redis cannot be read, and counts as nothing: %s", error)
        return None

    async def save(self, data: bytes) -> None:
        """As `ports.Shelf`: piece by piece under a name of its own, then renamed."""
        whole = await asyncio.to_thread(_headed, data)
        unfinished = f"{self._key}:{secrets.token_hex(8)}"
        try:
            for number, start in enumerate(range(0, len(whole), PIECE_BYTES)):
                async with self._redis.pipeline(transaction=True) as pipeline:
                    pipeline.hset(unfinished, str(number), whole[start : start + PIECE_BYTES])
                    pipeline.expire(unfinished, UNFINISHED_SECONDS)
                    await pipeline.execute()
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.rename(unfinished, self._key)
                pipeline.expire(self._key, KEPT_SECONDS)
                await pipeline.execute()
        except (RedisError, OSError) as error:
            raise StoreUnavailable(f"nothing can be saved in Redis: {error}") from error

    async def close(self) -> None:
        await self._redis.aclose()


def _headed(data: bytes) -> bytes:
    if len(data) > MAX_BYTES:
        raise StoreUnavailable(f"{len(data):,} bytes are too many to save.")
    return b"".join((_MAGIC, len(data).to_bytes(8, "little"), _digest(data), data))


def _checked(whole: bytes) -> bytes:
    """Without its header. Raises ValueError where it is not what was saved."""
    start = len(_MAGIC) + 8 + _DIGEST_BYTES
    data = whole[start:]
    if whole[: len(_MAGIC)] != _MAGIC or len(whole) < start:
        raise ValueError("it is of another kind or version")
    if len(data) != int.from_bytes(whole[len(_MAGIC) : len(_MAGIC) + 8], "little"):
        raise ValueError("it is cut off")
    if _digest(data) != whole[start - _DIGEST_BYTES : start]:
        raise ValueError("it is damaged")
    return data


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()[:_DIGEST_BYTES]


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(MAX_BYTES + 64)


def _write(path: Path, whole: bytes) -> None:
    """A reader sees the old file or the new one, also after a power failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.new")
    aside.unlink(missing_ok=True)
    try:
        with open(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(whole)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except OSError:
        aside.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
