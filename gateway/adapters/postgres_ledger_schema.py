"""The tables of the shared ledger: making them, bringing them up to date, dropping months that are over.

Entries are only ever added: triggers refuse everything else, and who ships them needs no more than to read
and to insert. Everything here is for the tables' owner, from a command, and safe to run by several at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

import psycopg

from gateway.adapters.ledger_file import ENTRIES
from gateway.adapters.ledger_rows import ANCHORED
from gateway.adapters.ledger_source import PostgresUrl
from gateway.adapters.postgres_ledger import SCHEMA_NAME, connect, in_words
from gateway.core.chain import Anchor, ChainKey
from gateway.core.errors import ConfigError

T = TypeVar("T")
LOCK = 0x6C656467
"""Advisory lock, the ledger's mark: one at a time makes or drops tables."""


def _columns() -> str:
    """Of SQLite's table, in PostgreSQL's words: one list of columns, not two that may differ."""
    body = ENTRIES[ENTRIES.index("(") + 1 : ENTRIES.index(") STRICT")]
    body = re.sub(r"\n +sequence [^\n]*", "", body).replace("NOT NULL UNIQUE", "NOT NULL")
    for theirs, ours in (("INTEGER", "BIGINT"), ("REAL", "DOUBLE PRECISION"), ("BLOB", "BYTEA")):
        body = re.sub(rf"\b{theirs}\b", ours, body)
    return body.rstrip()


_TABLES = f"""
CREATE TABLE entries ({_columns()},
    PRIMARY KEY (received_at_ms, id)
) PARTITION BY RANGE (received_at_ms);
CREATE INDEX entries_by_id ON entries (id);
CREATE INDEX entries_by_chain ON entries (chain, position);
CREATE TABLE anchors (
    chain TEXT NOT NULL,
    first BIGINT NOT NULL,
    last BIGINT NOT NULL,
    digest BYTEA NOT NULL,
    key_id TEXT NOT NULL,
    uncovered BIGINT NOT NULL,
    why TEXT NOT NULL,
    seal BYTEA NOT NULL,
    PRIMARY KEY (chain, last)
);
CREATE FUNCTION stay() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION 'the ledger is append-only'; END $$;
CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON entries FOR EACH ROW EXECUTE FUNCTION stay();
CREATE TRIGGER stay BEFORE UPDATE OR DELETE ON anchors FOR EACH ROW EXECUTE FUNCTION stay();
CREATE TRIGGER remain BEFORE TRUNCATE ON entries FOR EACH STATEMENT EXECUTE FUNCTION stay();
CREATE TRIGGER remain BEFORE TRUNCATE ON anchors FOR EACH STATEMENT EXECUTE FUNCTION stay();

-- With the owner's rights: who ships may add months, and no other tables.
CREATE FUNCTION make_month(instant_ms BIGINT) RETURNS void LANGUAGE plpgsql SECURITY DEFINER
SET search_path = {SCHEMA_NAME}, pg_temp AS $$
DECLARE
    month TIMESTAMP := date_trunc('month', to_timestamp(instant_ms / 1000) AT TIME ZONE 'UTC');
    name TEXT := 'entries_' || to_char(month, 'YYYY_MM');
BEGIN
    IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
    PERFORM pg_advisory_xact_lock({LOCK});
    IF to_regclass(name) IS NOT NULL THEN RETURN; END IF;
    -- Attached, not made in its place: that would wait for every reader, and all writers behind it.
    EXECUTE format('CREATE TABLE %I (LIKE entries INCLUDING DEFAULTS)', name);
    EXECUTE format('ALTER TABLE entries ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)', name,
        extract(epoch FROM month)::bigint * 1000,
        extract(epoch FROM month + interval '1 month')::bigint * 1000);
    EXECUTE format('CREATE TRIGGER remain BEFORE TRUNCATE ON %I EXECUTE FUNCTION stay()', name);
END $$;
"""  # noqa: S608 - our own names

_MIGRATIONS: tuple[tuple[int, str], ...] = ((3, _TABLES),)
"""By the version of the schema that they lead to, which is that of an entry. A later one only adds columns,
IF NOT EXISTS: the first makes what this version knows."""

_RUNS = """
SELECT runs.chain, runs.first, runs.last, entry.digest FROM (
    SELECT chain, MIN(position) AS first, MAX(position) AS last FROM (
        SELECT chain, position, position - ROW_NUMBER() OVER (PARTITION BY chain ORDER BY position) AS run
        FROM {month} WHERE chain IS NOT NULL
    ) AS numbered GROUP BY chain, run
) AS runs JOIN {month} AS entry ON entry.chain = runs.chain AND entry.position = runs.last
"""


def migrate(source: PostgresUrl) -> int:
    """Make the tables, or bring them up to date; the version they have then. Raises `ConfigError`."""

    def work(cursor: psycopg.Cursor[Any]) -> int:
        cursor.execute(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA_NAME}")
        cursor.execute(f"SET LOCAL search_path = {SCHEMA_NAME}")
        cursor.execute(
            "CREATE TABLE IF NOT EXISTS schema_versions "
            "(version BIGINT PRIMARY KEY, made_at TIMESTAMPTZ NOT NULL DEFAULT now())"
        )
        at = _version(cursor)
        for version, script in _MIGRATIONS:
            if version > at:
                cursor.execute(script.encode())
                cursor.execute("INSERT INTO schema_versions (version) VALUES (%s)", (version,))
        return _version(cursor)

    return _locked(source, work)


def prune_months(source: PostgresUrl, keys: Sequence[ChainKey], *, before_ms: int) -> tuple[str, ...]:
    """Drop the months that end at or before `before_ms`, each with its entries, and anchor the chains that go
    on behind them; their names. All or none. Raises `ConfigError`, too where a chain's key is not among
    `keys`: its anchors could not be sealed.
    """
    known = {key.id: key for key in keys}

    def work(cursor: psycopg.Cursor[Any]) -> tuple[str, ...]:
        cursor.execute(f"SET LOCAL search_path = {SCHEMA_NAME}")
        cursor.execute("SELECT chain, key_id FROM anchors WHERE first = 0")
        key_of = {chain: known.get(key_id) for chain, key_id in cursor.fetchall()}
        months = [name for name, end_ms in _months(cursor) if end_ms <= before_ms]
        for month in months:
            _drop(cursor, month, key_of)
        return tuple(months)

    return _locked(source, work)


def _drop(cursor: psycopg.Cursor[Any], month: str, key_of: dict[str, ChainKey | None]) -> None:
    cursor.execute(f"LOCK TABLE {month} IN EXCLUSIVE MODE")
    cursor.execute(_RUNS.format(month=month))
    for chain, first, last, digest in cursor.fetchall():
        key = key_of.get(chain)
        if key is None:
            raise ConfigError(
                f"{month} holds entries of chain {chain}, whose key is not at hand: give it with --key."
            )
        anchor = key.sealed(
            Anchor(chain=chain, first=first, last=last, digest=digest, key_id=key.id, why=f"pruned {month}")
        )
        cursor.execute(
            f"INSERT INTO anchors ({', '.join(ANCHORED)}) "  # noqa: S608 - our own names
            f"VALUES ({', '.join(['%s'] * len(ANCHORED))}) ON CONFLICT DO NOTHING",
            [getattr(anchor, name) for name in ANCHORED],
        )
    cursor.execute(f"ALTER TABLE entries DETACH PARTITION {month}")
    cursor.execute(f"DROP TABLE {month}")


def _months(cursor: psycopg.Cursor[Any]) -> list[tuple[str, int]]:
    """The partitions, and the instant at which each ends."""
    cursor.execute(
        "SELECT child.relname FROM pg_inherits JOIN pg_class AS child ON child.oid = inhrelid "
        "WHERE inhparent = 'entries'::regclass ORDER BY 1"
    )
    found = []
    for (name,) in cursor.fetchall():
        if match := re.fullmatch(r"entries_(\d{4})_(\d{2})", name):
            year, month = int(match[1]), int(match[2])
            end = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=UTC)
            found.append((name, round(end.timestamp() * 1000)))
    return found


def _version(cursor: psycopg.Cursor[Any]) -> int:
    cursor.execute("SELECT COALESCE(MAX(version), 0) FROM schema_versions")
    row = cursor.fetchone()
    return 0 if row is None else int(row[0])


def _locked(source: PostgresUrl, work: Callable[[psycopg.Cursor[Any]], T]) -> T:
    """`work` in one transaction, when nobody else makes or drops tables."""
    try:
        with connect(source) as connection, connection.transaction(), connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '30s'")
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
            return work(cursor)
    except psycopg.Error as error:
        raise ConfigError(f"The tables of the shared ledger cannot be changed: {in_words(error)}.") from error
