"""An nginx in front of gateways, as an ingress controller runs it: one worker that takes calls from a Unix
socket and hands them to whoever is listed, and that is told of another list without dropping a call."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path

_CONFIG = """
daemon off; master_process on; worker_processes 1; pid {home}/nginx.pid; error_log {home}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {home}/body; proxy_temp_path {home}/proxy;
  fastcgi_temp_path {home}/fastcgi; uwsgi_temp_path {home}/uwsgi; scgi_temp_path {home}/scgi;
  upstream gateways {{ {servers} keepalive 16; }}
  server {{
    listen unix:{home}/socket;
    add_header x-replica $upstream_addr always;
    location / {{
      proxy_pass http://gateways;
      proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off; proxy_read_timeout 60s;
    }}
  }}
}}
"""


class Nginx:
    """`start` it, or use it in `async with`. What it has of a call is never sent a second time, but for where
    nobody took the connection: those are nginx's own rules for calls that are not idempotent."""

    def __init__(self, home: Path) -> None:
        program = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin")
        if program is None:
            raise RuntimeError("These tests need nginx; on Debian: apt-get install nginx-light")
        self._program = program
        self._home = home
        self._process: asyncio.subprocess.Process | None = None
        self.socket = home / "socket"

    async def __aenter__(self) -> Nginx:
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
            await self._process.wait()

    def errors(self) -> str:
        return (self._home / "error.log").read_text()

    async def hand_to(self, addresses: Sequence[str]) -> None:
        """From now on to these; calls that others have are finished by them."""
        servers = " ".join(f"server {address} max_fails=0;" for address in addresses)
        self._home.mkdir(parents=True, exist_ok=True)
        config = self._home / "nginx.conf"
        config.write_text(_CONFIG.format(home=self._home, servers=servers))
        if self._process is not None:
            self._process.send_signal(signal.SIGHUP)
            return
        with (self._home / "error.log").open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                self._program, "-p", str(self._home), "-c", str(config), stderr=log
            )
        for _ in range(1_500):
            if self.socket.exists():
                return
            assert self._process.returncode is None, self.errors()
            await asyncio.sleep(0.02)
        raise AssertionError("nginx did not start")
