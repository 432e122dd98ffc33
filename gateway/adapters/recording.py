"""The recording: what the learning policy saw of each call, for `gateway replay`. Digests, lengths, counts.

A file is gzip JSON lines: a `Header`, then news (`core/news.py`) in the order in which they were told. Every
flush is a gzip member of its own, so that a file that was cut short by a crash can be read up to the last
flush. A file is begun whenever the process starts, grows too large or is a day old; the one before gets the
time of its last line into its name. Reading them is `gateway/replay/trace.py`'s.
"""

from __future__ import annotations

import dataclasses
import gzip
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from gateway.adapters.batch_writer import BatchWriter
from gateway.core.errors import ConfigError
from gateway.core.news import News
from gateway.core.planner import PlannerOptions

VERSION = 1
FLUSH_SECONDS = 1.0
"""What a crash may lose, at most, of a disk that keeps up."""
MAX_FILE_BYTES = 256 << 20
MAX_FILE_SECONDS = 86_400.0
KEPT_FILES = 30
"""Of one recording; the oldest go first."""
LEVEL = 6


class Header(msgspec.Struct, frozen=True, tag="gateway-recording", tag_field="format", kw_only=True):
    """The first line of each file. Fields are only ever added, with defaults."""

    version: int = VERSION
    begun_at: float
    """Epoch seconds."""
    started_at: float
    """When the recording was begun of which this file is a part: tells processes apart."""
    part: int = 0
    """The files of one process, counted from 0."""
    began_empty: bool = True
    """Whether the policy knew nothing when its process started."""
    options: dict[str, float | int | bool] = {}
    """The planner's (`PlannerOptions`), where the recording is of one."""


class Recording:
    """Appends news to a file from a thread of its own. `tell` never blocks; what finds no room is counted in
    `dropped`. While the disk refuses, what waits is tried again. Raises `ConfigError` where the file cannot
    be made.

    `options` are the planner's, and `began_empty` says that it had no memory of an earlier process: both are
    what a replay needs to decide alike.
    """

    def __init__(
        self,
        path: Path,
        *,
        now: Callable[[], float],
        options: PlannerOptions | None = None,
        began_empty: bool = True,
        limit: int = 20_000,
        max_file_bytes: int = MAX_FILE_BYTES,
        max_file_seconds: float = MAX_FILE_SECONDS,
        kept_files: int = KEPT_FILES,
        flush_seconds: float = FLUSH_SECONDS,
    ) -> None:
        self.dropped = 0
        self.written = 0
        """News that are in a file."""
        self._path = path
        self._now = now
        self._options = dataclasses.asdict(options) if options is not None else {}
        self._began_empty = began_empty
        self._started_at = now()
        self._max_file_bytes = max_file_bytes
        self._max_file_seconds = max_file_seconds
        self._kept_files = kept_files
        self._encoder = msgspec.json.Encoder()
        self._part = -1
        self._size = 0
        try:
            self._begin_file()
        except OSError as error:
            raise ConfigError(
                f"The recording {path} cannot be written: {error.strerror}. Check that its directory exists "
                "and is writable, or leave placement.recording out."
            ) from error
        self._writer: BatchWriter[News] = BatchWriter(
            self._write, name="recording", limit=limit, batch=limit, linger_seconds=flush_seconds
        )

    def tell(self, news: News) -> None:
        """Take it to be written within a second or two."""
        if not self._writer.put(news):
            self.dropped += 1

    @property
    def backlog(self) -> int:
        """News told and not written yet."""
        return self._writer.backlog

    def close(self, timeout_seconds: float = 5.0) -> int:
        """Write what waits; how many news could not be. Blocks for at most a second over the timeout."""
        left = len(self._writer.close(timeout_seconds))
        self.dropped += left
        if self._writer.ended:
            os.close(self._fd)
        return left

    # What follows runs on the writer's thread, but for the first `_begin_file`.

    def _write(self, items: list[News]) -> None:
        full = self._size >= self._max_file_bytes
        if full or self._now() - self._begun_at >= self._max_file_seconds:
            before = self._fd
            self._begin_file()
            os.close(before)
        self._size += _append(self._fd, self._size, self._encoder.encode_lines(items))
        self.written += len(items)

    def _begin_file(self) -> None:
        """Put away the file that is there, and begin another. Changes nothing here where it raises."""
        begun_at, part = self._now(), self._part + 1
        if self._path.exists() and self._path.stat().st_size:
            self._put_away()
        header = Header(
            begun_at=begun_at,
            started_at=self._started_at,
            part=part,
            began_empty=self._began_empty,
            options=self._options,
        )
        fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            os.fchmod(fd, 0o600)
            size = _append(fd, 0, self._encoder.encode_lines([header]))
        except BaseException:
            os.close(fd)
            raise
        self._fd, self._size, self._begun_at, self._part = fd, size, begun_at, part

    def _put_away(self) -> None:
        stem, dot, suffix = self._path.name.partition(".")
        ended = datetime.fromtimestamp(self._path.stat().st_mtime, UTC).strftime("%Y%m%dT%H%M%S")
        number, name = 0, f"{stem}-{ended}"
        while (target := self._path.with_name(f"{name}{dot}{suffix}")).exists():
            number += 1
            name = f"{stem}-{ended}-{number:04d}"
        self._path.rename(target)
        pattern = f"{stem}-[0-9]*T[0-9]*{dot}{suffix}"
        earlier = sorted(self._path.parent.glob(pattern), key=lambda file: file.stat().st_mtime)
        for old in earlier[: max(0, len(earlier) - self._kept_files + 1)]:
            old.unlink()


def _append(fd: int, size: int, lines: bytes) -> int:
    """One gzip member behind `size` bytes; its own size. What an attempt that failed had written is taken
    away first: it is repeated."""
    data = gzip.compress(lines, LEVEL, mtime=0)
    os.ftruncate(fd, size)
    left = memoryview(data)
    while left:
        left = left[os.write(fd, left) :]
    return len(data)
