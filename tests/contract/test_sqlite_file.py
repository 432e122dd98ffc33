"""A SQLite file that several open at once."""

from __future__ import annotations

import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from gateway.adapters.sqlite_file import into_wal

ROUNDS = 60
AT_ONCE = 8


def test_of_many_that_open_a_new_file_at_once_none_is_refused(tmp_path: Path) -> None:
    """SQLite alone refuses one in 170 here, at once, whatever the connection's time-out."""
    modes: list[str | BaseException] = []

    def open_it(path: Path, together: threading.Barrier) -> None:
        together.wait(20)
        try:
            with closing(sqlite3.connect(path, timeout=5, isolation_level=None)) as connection:
                connection.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
                modes.append(into_wal(connection, 20))
        except BaseException as error:
            modes.append(error)

    for number in range(ROUNDS):
        together = threading.Barrier(AT_ONCE)
        path = tmp_path / f"{number}.sqlite3"
        threads = [threading.Thread(target=open_it, args=(path, together)) for _ in range(AT_ONCE)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)

    assert modes == ["wal"] * ROUNDS * AT_ONCE
