"""The whole gateway as `growth.py` measures it: a process with a configuration of any size, and callers that
send bodies which differ.

The load generator in C sends one body again and again. What a conversation costs shows only where each
request says more than the one before it, so the callers here are threads of Python; their own CPU is not
looked at.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import shutil
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from urllib.request import urlopen

from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, KeyRecord, mint_key
from gateway.settings import packaged_directory
from tests.bench.loads import GOES_ON
from tests.bench.processes import Measured, free_port
from tests.bench.whole import LIMITS

QUIET_SECONDS = 0.4
"""After the last answer, until what the client does not wait for is done."""


class Whole:
    """One replica, everything on, in front of the mock at `upstream`."""

    def __init__(
        self,
        upstream: str,
        *,
        keys: int = 1,
        limits: str = LIMITS,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        """`keys` is how many workspaces there are, with one key each; `settings` are variables GATEWAY_..."""
        self.home = Path(tempfile.mkdtemp(prefix="growth-"))
        self.port, self.admin_port = free_port(), free_port()
        made = [_key(number) for number in range(keys)]
        self.keys = [text for text, _ in made]
        config = self.home / "config"
        config.mkdir()
        (config / "gateway.yaml").write_text(
            f"listen: {{data: '127.0.0.1:{self.port}', admin: '127.0.0.1:{self.admin_port}'}}\n"
            f"state: {{directory: '{self.home / 'state'}'}}\n"
            f"upstreams: {{default: {{base_url: '{upstream}', credential: {{env: UPSTREAM_KEY}}}}}}\n"
            "capacity: {exchanges: 20000}\n"
        )
        (config / "workspaces.yaml").write_text(_workspaces([record for _, record in made]))
        (config / "limits.yaml").write_text(limits)
        shutil.copy(packaged_directory() / "prices.yaml", config / "prices.yaml")
        environ = {name: value for name, value in os.environ.items() if not name.startswith("GATEWAY_")}
        environ |= {"UPSTREAM_KEY": "sk-test-growth", **(settings or {})}
        variables = [f"{name}={value}" for name, value in environ.items()]
        gateway = [sys.executable, "-m", "gateway", "run", "--config", str(config)]
        self.process = Measured(["env", "-i", *variables, *gateway], log=self.home / "log")
        self.process.await_port(self.port, 120.0)
        self._await_ready()

    def __enter__(self) -> Whole:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.end()
        shutil.rmtree(self.home, ignore_errors=True)

    def cpu_of(self, conversations: Sequence[Sequence[bytes]], keys: Sequence[str] = ()) -> float:
        """CPU microseconds a request: each conversation on a connection of its own, all at once, their
        requests one after the other. `keys` are used in turn by each; the first one if there are none."""
        count = sum(len(bodies) for bodies in conversations)
        before = self.process.cpu_seconds()
        self.send(conversations, keys)
        time.sleep(QUIET_SECONDS)
        return (self.process.cpu_seconds() - before) / count * 1e6

    def send(self, conversations: Sequence[Sequence[bytes]], keys: Sequence[str] = ()) -> None:
        """All of them. Raises RuntimeError for an answer that is not 200."""
        faults: list[str] = []
        keys = keys or self.keys[:1]
        callers = []
        for number, bodies in enumerate(conversations):
            own = keys[number :: len(conversations)] or keys
            callers.append(threading.Thread(target=self._call, args=(bodies, own, faults)))
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
        if faults:
            raise RuntimeError(f"{faults[0]}; {self.process.tail()}")

    def idle_cpu(self, seconds: float) -> float:
        """CPU milliseconds a second without a single call."""
        before, began = self.process.cpu_seconds(), time.monotonic()
        time.sleep(seconds)
        return (self.process.cpu_seconds() - before) / (time.monotonic() - began) * 1e3

    def metrics_page(self) -> bytes:
        with urlopen(f"http://127.0.0.1:{self.admin_port}/metrics", timeout=60) as answer:
            page: bytes = answer.read()
        return page

    def gauge(self, name: str) -> float:
        """Of the metrics page; 0 where it is not there."""
        for line in self.metrics_page().decode().splitlines():
            if line.startswith(f"{name} "):
                return float(line.split()[1])
        return 0.0

    def _await_ready(self) -> None:
        until = time.monotonic() + 60
        while time.monotonic() < until:
            try:
                with urlopen(f"http://127.0.0.1:{self.admin_port}/readyz", timeout=5):
                    return
            except OSError:
                time.sleep(0.05)
        raise RuntimeError(f"not ready: {self.process.tail()}")

    def _call(self, bodies: Iterable[bytes], keys: Sequence[str], faults: list[str]) -> None:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 60) as connection:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for number, body in enumerate(bodies):
                    connection.sendall(_head(keys[number % len(keys)], len(body)) + body)
                    answer = http.client.HTTPResponse(connection)
                    answer.begin()
                    text = answer.read()
                    if answer.status != 200:
                        faults.append(f"{answer.status} {text[:300]!r}")
                        return
        except OSError as error:
            faults.append(repr(error))


def bench_key() -> str:
    """The first workspace's key, which every `Whole` has."""
    return _key(0)[0]


def _head(key: str, length: int) -> bytes:
    return (
        f"POST /v1/messages?{GOES_ON} HTTP/1.1\r\nhost: growth.test\r\n"
        f"authorization: Bearer {key}\r\ncontent-type: application/json\r\n"
        f"anthropic-version: 2023-06-01\r\ncontent-length: {length}\r\n\r\n"
    ).encode()


def _key(number: int) -> tuple[str, KeyRecord]:
    return mint_key(
        random_bytes=hashlib.sha512(str(number).encode()).digest()[:RANDOM_BYTES],
        name="growth",
        workspace=WorkspaceId(f"w{number}"),
        created_at=0.0,
    )


def _workspaces(records: Sequence[KeyRecord]) -> str:
    lines = ["workspaces:"]
    for record in records:
        key = f'{{id: "{record.id}", name: growth, digest: "sha256:{record.digest.hex()}"}}'
        lines.append(f"  {record.workspace}: {{upstream: default, client_marks: complete, keys: [{key}]}}")
    return "\n".join(lines) + "\n"
