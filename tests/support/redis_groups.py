"""Several real `redis-server`s that belong together: a master with a replica under three Sentinels, and a
Cluster of three nodes. All on free loopback ports, in directories of their own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from redis.crc import key_slot

from tests.support.ports import free_port
from tests.support.redis_server import RedisServer

SERVICE = "budgets"
SLOTS = 16384


class SentinelGroup:
    """`url` names the Sentinels. `fail_over` makes the replica the master, as they agree on it."""

    def __init__(self, directory: Path) -> None:
        self.master = RedisServer(directory / "one")
        self.replica = RedisServer(
            directory / "two",
            options={"replicaof": f"127.0.0.1 {self.master.port}", "repl-diskless-sync-delay": "0"},
        )
        _wait(lambda: b"master_link_status:up" in self.replica.command("INFO", "replication"))
        self.ports = [free_port() for _ in range(3)]
        self._sentinels = [self._sentinel(directory / f"sentinel{port}", port) for port in self.ports]
        _wait(lambda: all(self._knows_all(port) for port in self.ports))

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.ports)}/{SERVICE}/0"

    def fail_over(self) -> None:
        """The other one is master when this returns; what was the master is its replica, or about to be.
        Sentinels that are busy with one, or trust no replica yet, are asked again."""
        self.named_master()
        _wait(lambda: ask(self.ports[0], "SENTINEL", "FAILOVER", SERVICE) == b"+OK\r\n")
        self.master, self.replica = self.replica, self.master
        self.wait_for(self.master)
        self.replica.command(
            "REPLICAOF", "127.0.0.1", str(self.master.port)
        )  # they would, some seconds later
        _wait(lambda: b"state=online" in self.master.command("INFO", "replication"))

    def named_master(self) -> RedisServer:
        """Whom the Sentinels name: on a slow machine they may fail over once more by themselves."""
        said = ask(self.ports[0], "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
        if f"\r\n{self.replica.port}\r\n".encode() in said:
            self.master, self.replica = self.replica, self.master
        return self.master

    def lose_master(self) -> None:
        """It dies, with all that it had written at the replica; that is master when this returns."""
        self.master.command("WAIT", "1", "1000")
        self.master.stop()
        self.master, self.replica = self.replica, self.master
        self.wait_for(self.master)

    def wait_for(self, server: RedisServer) -> None:
        """Until all Sentinels say that this is the master, and it says so too."""
        wanted = str(server.port).encode()
        _wait(
            lambda: all(
                wanted in ask(port, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE) for port in self.ports
            )
        )
        _wait(lambda: b"role:master" in server.command("INFO", "replication"))

    def __enter__(self) -> SentinelGroup:
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._sentinels:
            process.kill()
            process.wait(timeout=120)
        self.master.stop()
        self.replica.stop()

    def _sentinel(self, directory: Path, port: int) -> subprocess.Popen[bytes]:
        directory.mkdir(parents=True)
        file = directory / "sentinel.conf"  # it writes into it
        file.write_text(
            f"port {port}\nbind 127.0.0.1\ndir {directory}\nlogfile {directory / 'log'}\n"
            f"sentinel monitor {SERVICE} 127.0.0.1 {self.master.port} 2\n"
            f"sentinel down-after-milliseconds {SERVICE} 500\nsentinel failover-timeout {SERVICE} 2000\n"
        )
        binary = shutil.which("redis-server") or shutil.which("valkey-server")
        assert binary is not None
        return subprocess.Popen([binary, str(file), "--sentinel"], stdout=subprocess.DEVNULL)

    def _knows_all(self, port: int) -> bool:
        try:
            said = ask(port, "SENTINEL", "MASTER", SERVICE)
        except OSError:
            return False
        fields = said.replace(b"\r\n", b" ")
        return b"num-slaves $1 1" in fields and b"num-other-sentinels $1 2" in fields


class Cluster:
    """Three masters that share the slots. `url` names two of them."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [
            RedisServer(
                directory / f"node{n}",
                options={"cluster-enabled": "yes", "cluster-port": str(free_port())},
            )
            for n in range(3)
        ]
        for n, node in enumerate(self.nodes):
            first, last = n * SLOTS // 3, (n + 1) * SLOTS // 3 - 1
            assert node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)) == b"+OK\r\n"
        for node in self.nodes[1:]:
            bus = node.options["cluster-port"]
            self.nodes[0].command("CLUSTER", "MEET", "127.0.0.1", str(node.port), bus)
        _wait(lambda: all(b"cluster_state:ok" in node.command("CLUSTER", "INFO") for node in self.nodes))
        _wait(lambda: all(b"cluster_known_nodes:3" in node.command("CLUSTER", "INFO") for node in self.nodes))

    @property
    def url(self) -> str:
        return f"redis+cluster://127.0.0.1:{self.nodes[0].port},127.0.0.1:{self.nodes[1].port}"

    def owner(self, prefix: str) -> RedisServer:
        """The node that serves the keys of a prefix at first."""
        slot = key_slot(b"{%s}" % prefix.encode())
        return next(node for n, node in enumerate(self.nodes) if slot < (n + 1) * SLOTS // 3)

    def move(self, prefix: str, to: RedisServer) -> None:
        """Move the slot of a prefix, with what is in it, to another node."""
        slot = str(key_slot(b"{%s}" % prefix.encode()))
        source = self.owner(prefix)
        from_id, to_id = (node.command("CLUSTER", "MYID").split(b"\r\n")[1].decode() for node in (source, to))
        to.command("CLUSTER", "SETSLOT", slot, "IMPORTING", from_id)
        source.command("CLUSTER", "SETSLOT", slot, "MIGRATING", to_id)
        listing = source.command("CLUSTER", "GETKEYSINSLOT", slot, "1000").decode().split("\r\n")
        keys = [line for line in listing if line and line[0] not in "*$"]
        if keys:
            said = source.command("MIGRATE", "127.0.0.1", str(to.port), "", "0", "1000", "KEYS", *keys)
            assert said == b"+OK\r\n", said
        for node in (to, source, *self.nodes):
            node.command("CLUSTER", "SETSLOT", slot, "NODE", to_id)

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: object) -> None:
        for node in self.nodes:
            node.stop()


def ask(port: int, *words: str) -> bytes:
    """One command to whatever listens there, without authentication."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as connection:
        parts = [f"*{len(words)}\r\n", *(f"${len(w.encode())}\r\n{w}\r\n" for w in words)]
        connection.sendall("".join(parts).encode())
        return connection.recv(65536)


def _wait(true: Callable[[], bool], seconds: float = 45.0) -> None:
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "the servers did not find together in time"
        time.sleep(0.02)
