"""`gateway ledger` and `gateway report`, over a file and over the ledger that replicas share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from gateway.cli import app as gateway_app
from gateway.settings.gateway import LEDGER_FILE, LEDGER_KEY_FILE
from tests.support.ledgers import KEY, Books
from tests.support.records import a_record

CONFIG = Path(__file__).parents[2] / "config"
Run = Callable[..., Result]


@pytest.fixture
def run(books: Books, tmp_path: Path) -> Run:
    (tmp_path / LEDGER_KEY_FILE).write_bytes(KEY)
    (tmp_path / LEDGER_FILE).symlink_to(books.outbox())
    environ = {"GATEWAY_STATE__DIRECTORY": str(tmp_path), "COLUMNS": "200"}
    if books.shared is not None:
        environ |= {"GATEWAY_LEDGER__KIND": "postgres", "LEDGER_URL": books.shared.url}

    def invoke(*arguments: str, text: str | None = None) -> Result:
        return CliRunner().invoke(gateway_app, [*arguments, "--config", str(CONFIG)], env=environ, input=text)

    return invoke


def test_books_as_they_were_written_end_in_heads_that_can_be_noted(
    books: Books, run: Run, tmp_path: Path
) -> None:
    books.hold([a_record(id=f"e{n}") for n in range(12)])
    first = run("ledger", "verify")
    noted = tmp_path / "heads.txt"
    noted.write_text(first.stdout)
    again = run("ledger", "verify", "--head", str(noted))

    assert (first.exit_code, again.exit_code) == (0, 0)
    lines = first.stdout.splitlines()
    assert lines[0] == "12 entries in 1 chain: all as they were written."
    assert lines[1].startswith("head ")
    assert lines[1].split()[2] == "12"

    books.tamper("DELETE FROM entries WHERE id = 'e11'")
    cut = run("ledger", "verify", "--head", str(noted))
    assert cut.exit_code == 1
    assert "noted up to position 12 and ends at 11" in cut.stdout
    assert run("ledger", "verify").exit_code == 0


def test_what_was_changed_is_said_and_is_not_pruned(books: Books, run: Run) -> None:
    books.hold([a_record(id=f"e{n}", received_at=1_700_000_000) for n in range(5)])
    books.tamper("UPDATE entries SET output_nanousd = 1 WHERE id = 'e3'")
    plain, as_json = run("ledger", "verify"), run("ledger", "verify", "--json")

    assert (plain.exit_code, as_json.exit_code) == (1, 1)
    assert plain.stdout.startswith("changed: entry e3, at position 4 of chain ")
    (finding,) = json.loads(as_json.stdout)["findings"]
    assert (finding["kind"], finding["entry"], finding["position"]) == ("changed", "e3", 4)
    assert run("ledger", "verify", "--from", "2024-01-01").exit_code == 0
    assert run("ledger", "verify", "--to", "2024-01-01").exit_code == 1

    pruned = run("ledger", "prune", "--keep", "400d")
    assert pruned.exit_code == 1
    assert "Nothing was pruned" in pruned.stderr
    assert "5 entries" in run("ledger", "verify").stdout


def test_a_key_that_is_not_at_hand_is_asked_for_and_none_is_made(
    books: Books, run: Run, tmp_path: Path
) -> None:
    books.hold([a_record()])
    key = tmp_path / LEDGER_KEY_FILE
    elsewhere = key.rename(tmp_path / "elsewhere.key")
    missing = run("ledger", "verify")

    assert missing.exit_code == 1
    assert "a key that is not at hand" in missing.stdout
    assert not key.exists()
    assert run("ledger", "verify", "--key", str(elsewhere)).exit_code == 0


def test_old_months_are_pruned_everywhere_and_the_rest_is_sound(
    books: Books, run: Run, tmp_path: Path
) -> None:
    books.hold([a_record(id=f"old{n}", received_at=1_700_000_000) for n in range(5)])
    books.hold([a_record(id=f"new{n}", received_at=4_000_000_000) for n in range(3)])
    pruned = run("ledger", "prune", "--keep", "400d")

    assert pruned.exit_code == 0, pruned.output
    assert "5 entries" in pruned.stdout
    assert ("entries_2023_11 dropped" in pruned.stdout) == (books.shared is not None)
    for arguments in ([], ["--ledger", str(tmp_path / LEDGER_FILE)]):
        found = run("ledger", "verify", *arguments)
        assert found.exit_code == 0, found.output
        assert found.stdout.startswith("3 entries in 1 chain")
    assert run("ledger", "prune").exit_code == 2  # nothing says how much to keep


def test_reports_read_what_the_configuration_names(books: Books, run: Run) -> None:
    books.hold([a_record(id="a")])
    if books.shared is not None:
        books.hold([a_record(id="b")], replica="b")
    run_ = run("report", "--by", "workspace,month", "--format", "json")
    (row,) = json.loads(run_.stdout)

    replicas = 2 if books.shared is not None else 1
    assert (row["workspace"], row["month"], row["requests"]) == ("search", "2026-11", replicas)
    assert run("report", "--by", "cause").exit_code == 0


def test_migrating_is_for_the_shared_ledger(books: Books, run: Run) -> None:
    for _ in range(2):
        migrated = run("ledger", "migrate")
        if books.shared is not None:
            assert (migrated.exit_code, migrated.stdout) == (
                0,
                "The tables of the shared ledger are those of schema 3.\n",
            )
        else:
            assert migrated.exit_code == 2
            assert "nothing to migrate" in migrated.stderr


def test_heads_that_were_cut_or_are_not_there_are_refused(books: Books, run: Run) -> None:
    books.hold([a_record()])
    for text in ("head abc 12\n", "no head at all\n"):
        assert run("ledger", "verify", "--head", "-", text=text).exit_code == 2
    assert run("ledger", "verify", "--from", "yesterday").exit_code == 2
