"""A real `redis-server` for one test run: on a free loopback port, in a directory of its own, without
persistence unless asked. Where the binary is missing, that is an error: a suite that skips proves nothing."""

from __future__ import annotations

import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.ports import free_port


class RedisServer:
    """Starts on construction, and is there when the constructor returns. `stop` it, or use it in `with`."""

    def __init__(
        self,
        directory: Path,
        *,
        append_only: bool = False,
        port: int | None = None,
        options: Mapping[str, str] | None = None,
    ) -> None:
        """`options` are those of redis.conf, beside or in place of the usual ones."""
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        if binary is None:
            raise RuntimeError(
                "These tests need a real redis-server (or valkey-server) on PATH; on Debian: "
                "apt-get install redis-server"
            )
        self._binary = binary
        self._directory = directory
        self._append_only = append_only
        self.options = dict(options or {})
        self.port = port or free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> RedisServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        assert self._process is None, "it runs already"
        self._directory.mkdir(parents=True, exist_ok=True)
        options = {
            "port": str(self.port),
            "bind": "127.0.0.1",
            "dir": str(self._directory),
            "save": "",
            "appendonly": "yes" if self._append_only else "no",
            "appendfsync": "always",
            "daemonize": "no",
            "logfile": str(self._directory / "redis.log"),
            **self.options,
        }
        arguments = [part for key, value in options.items() for part in (f"--{key}", value)]
        self._process = subprocess.Popen([self._binary, *arguments], stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                log = (self._directory / "redis.log").read_text(errors="replace")
                self.stop()
                raise RuntimeError(f"redis-server did not start:\n{log}")
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it, as a crash would; without `append_only` its data is gone."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.kill()
            process.wait(timeout=120)

    def freeze(self) -> None:
        """Connections stay, nothing is answered, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> bytes:
        """One command over a connection of its own; its raw reply, for what is read in one piece."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            parts = [f"*{len(words)}\r\n", *(f"${len(w.encode())}\r\n{w}\r\n" for w in words)]
            connection.sendall("".join(parts).encode())
            return connection.recv(65536)

    def send(self, *words: str) -> None:
        """One command whose reply nobody waits for."""
        parts = [f"*{len(words)}\r\n", *(f"${len(w.encode())}\r\n{w}\r\n" for w in words)]
        with socket.create_connection(("127.0.0.1", self.port), timeout=20) as connection:
            connection.sendall("".join(parts).encode())
            time.sleep(0.05)  # closed at once, it would be dropped unread

    def _answers(self) -> bool:
        try:
            return self.command("PING") == b"+PONG\r\n"
        except OSError:
            return False
