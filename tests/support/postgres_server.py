"""A real PostgreSQL for one test run: on a free loopback port, in a directory of its own. Where the binaries
are missing, that is an error: a suite that skips proves nothing."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path

import psycopg

from tests.support.ports import free_port

_UNPRIVILEGED = "postgres"
"""Made by Debian's package; the server refuses to run as root."""


class PostgresServer:
    """Starts on construction, and is there when the constructor returns. `stop` it, or use it in `with`."""

    def __init__(self) -> None:
        self._programs = _programs()
        # Not under pytest's own directory, which nobody but its owner may enter.
        self._directory = Path(tempfile.mkdtemp(prefix="ledger-postgres-"))
        self._as_user: list[str] = []
        if os.geteuid() == 0:
            user = pwd.getpwnam(_UNPRIVILEGED)
            os.chown(self._directory, user.pw_uid, user.pw_gid)
            self._as_user = ["setpriv", f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._names = count()
        self._run("initdb", "-D", str(self._data), "-U", "ledger", "--auth=trust", "--no-sync", "-E", "UTF8")
        self.start()

    def __enter__(self) -> PostgresServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def start(self) -> None:
        assert self._process is None, "it runs already"
        options = {
            "listen_addresses": "127.0.0.1",
            "port": str(self.port),
            "unix_socket_directories": "",
            "fsync": "off",
            "shared_buffers": "16MB",
            "max_connections": "40",
        }
        arguments = [part for key, value in options.items() for part in ("-c", f"{key}={value}")]
        log = (self._directory / "log").open("ab")
        with log:
            self._process = subprocess.Popen(
                [*self._as_user, str(self._programs / "postgres"), "-D", str(self._data), *arguments],
                stdout=log,
                stderr=log,
                cwd=self._directory,
            )
        deadline = time.monotonic() + 40
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                text = (self._directory / "log").read_text(errors="replace")
                self.stop()
                raise RuntimeError(f"postgres did not start:\n{text}")
            time.sleep(0.02)

    def stop(self) -> None:
        """At once, connections cut; what was committed is there after the next start."""
        process, self._process = self._process, None
        if process is not None:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGQUIT)
            process.wait(timeout=20)

    def database(self) -> str:
        """The URL of a new, empty database."""
        name = f"test_{next(self._names)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)

    def url(self, database: str, user: str = "ledger") -> str:
        return f"postgresql://{user}@127.0.0.1:{self.port}/{database}"

    @property
    def _data(self) -> Path:
        return self._directory / "data"

    def _run(self, program: str, *arguments: str) -> None:
        subprocess.run(
            [*self._as_user, str(self._programs / program), *arguments],
            check=True,
            capture_output=True,
            cwd=self._directory,
            timeout=120,
        )

    def _answers(self) -> bool:
        try:
            with psycopg.connect(self.url("postgres"), connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False


def _programs() -> Path:
    """The folder of the newest version's programs: Debian does not put them on PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    on_path = shutil.which("initdb")
    if not found and on_path is None:
        raise RuntimeError("These tests need PostgreSQL 15 or later; on Debian: apt-get install postgresql")
    return (found[-1] if found else Path(str(on_path)).resolve()).parent
