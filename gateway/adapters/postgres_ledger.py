"""The ledger that replicas share, in PostgreSQL: connecting, adding what was shipped, reading.

Its tables are made by `postgres_ledger_schema.py`; `ledger_shipping.py` brings the entries. These two alone
know the driver, psycopg, and are imported only where such a ledger is configured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from typing import Any

import msgspec

from gateway.adapters.ledger_rows import ANCHORED, CHAINED
from gateway.adapters.ledger_shipping import Refused
from gateway.adapters.ledger_source import PostgresUrl
from gateway.core.chain import Anchor, Head
from gateway.core.entry import Entry
from gateway.core.errors import ConfigError, StoreUnavailable

try:
    import psycopg
except ImportError as error:
    raise ConfigError(
        "ledger.kind is postgres, and the driver for it is not installed: pip install "
        "'claude-cache-gateway[postgres]'."
    ) from error

SCHEMA_NAME = "gateway_ledger"
CONNECT_SECONDS = 5
STATEMENT_SECONDS = 60
READ_SECONDS = 600
"""For a sum over all there is."""
COLUMNS = (*Entry._fields, *CHAINED)
_ADD = (
    f"INSERT INTO entries ({', '.join(COLUMNS)}) SELECT {', '.join(COLUMNS)} "  # noqa: S608 - our own names
    "FROM json_populate_recordset(NULL::entries, %s::json) ON CONFLICT DO NOTHING"
)
_ADD_ANCHOR = (
    f"INSERT INTO anchors ({', '.join(ANCHORED)}) "  # noqa: S608 - our own names
    f"VALUES ({', '.join(['%s'] * len(ANCHORED))}) ON CONFLICT DO NOTHING"
)
_READ_MANY = 2_000


class PostgresLedger:
    """`ledger_shipping.SharedLedger` over one connection. After `StoreUnavailable`, which comes within
    `STATEMENT_SECONDS`, it is of no more use."""

    def __init__(self, source: PostgresUrl) -> None:
        self._connection = connect(source)
        self._months: set[str] = set()

    def close(self) -> None:
        self._connection.close()

    def reached(self, chain: str) -> Head | None:
        """How far a chain goes there, pruned entries included; None where nothing of it is there."""
        with self._transaction() as cursor:
            cursor.execute(
                "(SELECT position, digest FROM entries WHERE chain = %s ORDER BY position DESC LIMIT 1) "
                "UNION ALL SELECT last, digest FROM anchors WHERE chain = %s AND last > 0 "
                "ORDER BY 1 DESC LIMIT 1",
                (chain, chain),
            )
            row = cursor.fetchone()
        return None if row is None else Head(chain, *row)

    def add_anchors(self, anchors: Sequence[Anchor]) -> None:
        """Those that are not there yet."""
        with self._transaction() as cursor:
            for anchor in anchors:
                cursor.execute(_ADD_ANCHOR, [getattr(anchor, name) for name in ANCHORED])

    def add(self, rows: Sequence[tuple[Any, ...]]) -> int:
        """Add entries, with their links behind their values, in one commit, all or none; how many were new.
        One that is there already is left alone. Raises `Refused` for what cannot be stored."""
        at = COLUMNS.index("received_at_ms")
        months = {datetime.fromtimestamp(row[at] // 1000, UTC).strftime("%Y-%m"): row[at] for row in rows}
        try:
            with self._transaction() as cursor:
                for month, instant in months.items():
                    if month not in self._months:
                        cursor.execute("SELECT make_month(%s)", (instant,))
                cursor.execute(_ADD, (_as_json(rows),))
                added = cursor.rowcount
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            raise Refused(str(error).partition("\n")[0]) from error
        self._months |= months.keys()
        return added

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Cursor[tuple[Any, ...]]]:
        try:
            with self._connection.transaction(), self._connection.cursor() as cursor:
                _settle_in(cursor, STATEMENT_SECONDS)
                yield cursor
        except (psycopg.DataError, psycopg.IntegrityError):
            raise
        except psycopg.Error as error:
            raise StoreUnavailable(in_words(error)) from error


def connect(source: PostgresUrl) -> psycopg.Connection[tuple[Any, ...]]:
    """A connection without state of its own between transactions, so that a pooler may stand in between.
    Raises `StoreUnavailable`."""
    try:
        return psycopg.connect(
            source.url,
            autocommit=True,
            prepare_threshold=None,
            connect_timeout=CONNECT_SECONDS,
            application_name="claude-cache-gateway",
            # A server that is gone without a word: half a minute, not what the kernel's defaults come to.
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )
    except psycopg.Error as error:
        raise StoreUnavailable(in_words(error)) from error


@contextmanager
def read_from(source: PostgresUrl) -> Iterator[tuple[int, Callable[..., Iterator[tuple[Any, ...]]]]]:
    """The schema's version, and queries with `?` for values, all of one state. Raises `ConfigError`."""
    numbers = count()
    try:
        with connect(source) as connection, connection.transaction(), connection.cursor() as first:
            first.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
            _settle_in(first, READ_SECONDS)
            first.execute("SELECT MAX(version) FROM schema_versions")
            row = first.fetchone()

            def query(sql: str, values: Sequence[Any] = ()) -> Iterator[tuple[Any, ...]]:
                with connection.cursor(f"reading_{next(numbers)}", binary=True) as cursor:
                    cursor.itersize = _READ_MANY
                    cursor.execute(sql.replace("%", "%%").replace("?", "%s"), values)
                    yield from cursor

            yield (row[0] if row else 0), query
    except psycopg.Error as error:
        raise ConfigError(f"The shared ledger cannot be read: {in_words(error)}.") from error
    except StoreUnavailable as error:
        raise ConfigError(f"The shared ledger cannot be read: {error}.") from error


def in_words(error: psycopg.Error) -> str:
    """One line, and what to do where that is known. The URL is in none of them."""
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        return "its tables are missing or of an older version: run `gateway ledger migrate`"
    if isinstance(error, psycopg.errors.UndefinedFunction | psycopg.errors.InvalidSchemaName):
        return "its tables are missing or of an older version: run `gateway ledger migrate`"
    return " ".join(str(error).split()) or type(error).__name__


def _settle_in(cursor: psycopg.Cursor[tuple[Any, ...]], seconds: int) -> None:
    cursor.execute(
        f"SET LOCAL search_path = {SCHEMA_NAME}; SET LOCAL statement_timeout = '{seconds}s'; "
        "SET LOCAL lock_timeout = '10s'"
    )


def _as_json(rows: Sequence[tuple[Any, ...]]) -> str:
    """The rows as objects: one parameter for all, which costs a twentieth of binding each value."""
    return msgspec.json.encode(
        [dict(zip(COLUMNS, (*row[:-1], _as_text(row[-1])), strict=True)) for row in rows]
    ).decode()


def _as_text(digest: bytes | None) -> str | None:
    return None if digest is None else f"\\x{digest.hex()}"
