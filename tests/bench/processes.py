"""The processes of a bench: started, waited for, measured by what the kernel counts, ended."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


class Missing(Exception):
    """A tool that the bench needs is not installed."""


@dataclass(frozen=True, slots=True)
class Cores:
    """Who runs where: a target has a core to itself, and what drives and answers it has the others, so that
    no request waits for its own load generator."""

    target: frozenset[int]
    rest: frozenset[int]

    @classmethod
    def split(cls) -> Cores | None:
        """The last core that this process may use, and the others; None where there is only one."""
        *rest, last = sorted(os.sched_getaffinity(0))
        return cls(frozenset({last}), frozenset(rest)) if rest else None


@contextmanager
def on_cores(cores: frozenset[int] | None) -> Iterator[None]:
    """What is started meanwhile stays on these; None: wherever this process may run."""
    before = os.sched_getaffinity(0)
    if cores is not None:
        os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


class Measured:
    """One target or mock, its children included."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        cwd: Path | None = None,
        cores: frozenset[int] | None = None,
    ) -> None:
        self._log = log.open("wb")
        with on_cores(cores):
            self._process = subprocess.Popen(
                list(command), stdout=self._log, stderr=self._log, cwd=cwd, start_new_session=True
            )
        self.log_path = log

    def await_port(self, port: int, seconds: float = 30.0) -> None:
        """Until it accepts connections."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self._process.poll() is not None:
                break
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"no server on port {port}; its output ends: {self.tail()}")

    def tail(self) -> str:
        return self.log_path.read_text(errors="replace")[-1500:]

    def cpu_seconds(self) -> float:
        return sum(_cpu_seconds(pid) for pid in self._tree())

    def busiest(self) -> int:
        """The process of the tree that has used the most CPU: nginx's worker."""
        return max(self._tree(), key=_cpu_seconds)

    def resident_bytes(self) -> int:
        """Private and shared resident memory of the whole tree, shared pages split among those that share
        them where the kernel says so."""
        return sum(_resident_bytes(pid) for pid in self._tree())

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(self._process.pid, signal.SIGKILL)
                self._process.wait(10)
        self._log.close()

    def _tree(self) -> list[int]:
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                children.setdefault(int(fields[1]), []).append(int(entry.name))
        found = [self._process.pid]
        for pid in found:
            found.extend(children.get(pid, ()))
        return found


def _cpu_seconds(pid: int) -> float:
    """From the scheduler, in nanoseconds; the accounting in ticks is too coarse for short runs."""
    total = 0
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    except OSError:
        return 0.0
    return total / 1e9


def _resident_bytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def free_port() -> int:
    with socket.socket() as made:
        made.bind(("127.0.0.1", 0))
        port: int = made.getsockname()[1]
        return port


def compiled(name: str, into: Path) -> Path:
    """The C program `name`, made now."""
    compiler = shutil.which("cc")
    if compiler is None:
        raise Missing("The bench compiles two small C programs and finds no `cc`: install gcc or clang.")
    target = into / name
    subprocess.run([compiler, "-O2", "-o", str(target), str(HERE / f"{name}.c")], check=True)
    return target


NGINX = """
worker_processes 1; daemon off; pid {home}/pid; error_log {home}/error.log; worker_rlimit_nofile 16384;
events {{ worker_connections 8192; }}
http {{
  access_log off; client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  keepalive_requests 100000000; keepalive_timeout 600;
  upstream mock {{ server 127.0.0.1:{upstream}; keepalive 4096; keepalive_requests 100000000; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096; client_max_body_size 64m; client_body_buffer_size 4m;
    location / {{
      proxy_pass http://mock; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 600;
    }}
  }}
}}
"""


def nginx_command(home: Path, upstream: int, port: int) -> list[str]:
    """A plain proxy with one worker: bodies read whole, answers passed on as they come."""
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
    if nginx is None:
        raise Missing("The bench measures beside nginx and finds none: install nginx (Debian: nginx-light).")
    home.mkdir()
    config = home / "nginx.conf"
    config.write_text(NGINX.format(home=home, upstream=upstream, port=port))
    return [nginx, "-p", str(home), "-c", str(config)]
