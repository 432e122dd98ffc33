"""`gateway report`: the figures of all replicas, exact for machines and readable for people."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace
from typer.testing import CliRunner, Result

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger import Ledger
from gateway.cli import app as gateway_app
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.misses import Miss, MissCause
from gateway.core.placement import Placement
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.savings import Cohort, Savings
from tests.support.records import a_record, a_refused_record

CALLER = Principal(workspace=WorkspaceId("search"), key_id=KeyId("k1"), key_name="app")


def _report(*arguments: str) -> str:
    run = CliRunner().invoke(gateway_app, ["report", *arguments], env={"COLUMNS": "200"})
    assert run.exit_code == 0, run.output
    return run.stdout


@pytest.fixture
def ledgers(tmp_path: Path) -> list[str]:
    """Two replicas: two calls on one, one call and a refusal on the other."""
    refused = a_refused_record(principal=replace(CALLER, workspace=WorkspaceId("chat")))
    paths = [tmp_path / "a.sqlite3", tmp_path / "b.sqlite3"]
    for path, records in zip(
        paths,
        [[a_record(id="e1"), a_record(id="e2", model="=cmd()")], [a_record(id="e3"), refused]],
        strict=True,
    ):
        ledger = Ledger(path)
        for record in records:
            ledger.observe(record)
        ledger.close()
    return [argument for path in paths for argument in ("--ledger", str(path))]


def test_replicas_are_added_up_exactly(ledgers: list[str]) -> None:
    rows = json.loads(_report(*ledgers, "--by", "workspace", "--format", "json"))

    assert [row["workspace"] for row in rows] == ["search", "chat"]
    assert rows[0]["requests"] == 3
    assert rows[0]["cost_usd"] == "0.032625003"
    assert rows[0]["counterfactual_cost_usd"] == "0.103500000"
    assert rows[0]["input_plain_usd"] == "0.090000000"
    assert rows[0]["input_paid_usd"] == "0.019125003"
    assert rows[0]["saved_usd"] == "0.070874997"
    assert rows[0]["saved_ratio"] == 0.7875
    assert rows[0]["cache_read_ratio"] == 0.9
    assert (rows[1]["requests"], rows[1]["refused"], rows[1]["cost_usd"]) == (1, 1, "0.000000000")


def test_a_month_has_its_own_entries_only(ledgers: list[str]) -> None:
    november = json.loads(_report(*ledgers, "--by", "month", "--month", "2026-11", "--format", "json"))
    december = json.loads(_report(*ledgers, "--by", "month", "--month", "2026-12", "--format", "json"))

    assert [(row["month"], row["requests"]) for row in november] == [("2026-11", 4)]
    assert december == []


def test_the_last_hours_are_those_of_the_page_and_not_whole_days(ledgers: list[str], tmp_path: Path) -> None:
    ledger, now = Ledger(tmp_path / "recent.sqlite3"), SystemClock().now()
    for hours in (1, 2, 26, 30, 80):
        ledger.observe(a_record(id=f"h{hours}", received_at=now - hours * 3_600))
    ledger.close()
    path = ("--ledger", str(tmp_path / "recent.sqlite3"), "--period", "24h")
    (row,) = json.loads(_report(*path, "--by", "workspace", "--json"))
    assert row["requests"] == 2

    rows = json.loads(_report(*path, "--against", "before", "--json"))
    assert rows, "two calls then, two calls before"


def test_csv_has_a_header_even_without_rows_and_no_formulas(ledgers: list[str]) -> None:
    empty = _report(*ledgers, "--month", "2020-01", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(_report(*ledgers, "--format", "csv"))))

    assert empty.startswith("workspace,model,requests,")
    assert len(empty.splitlines()) == 1
    assert {row["model"] for row in rows} == {"claude-test-1", "'=cmd()", "-"}


def test_the_table_is_for_people(ledgers: list[str]) -> None:
    text = _report(*ledgers, "--by", "workspace,model")

    (whole,) = (line for line in text.splitlines() if line.startswith("all"))
    figures = ["0.0326", "0.0900", "0.0191", "0.0709", "78.7%"]
    assert whole.split() == ["all", "4", "30", "k", "90.0%", "900", *figures]
    assert "search" in text
    assert "without caching" in text
    assert "No entries." in _report(*ledgers, "--month", "2020-01")


def test_a_models_name_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    ledger.observe(a_record(model="[red]\x1b[31m\u202emodel"))
    ledger.close()

    text = _report("--ledger", str(path), "--by", "model")
    assert "[red]\\x1b[31m\\u202emodel" in text
    assert "\x1b" not in text


MISSED = Savings(
    cohort=Cohort.PLACED,
    plain_nanousd=30_000_000,
    paid_nanousd=6_375_001,
    miss_cause=MissCause.CHANGED,
    miss_tokens=900,
    miss_nanousd=1_150_000_000,
)
CHANGED = Placement(
    miss=Miss(2, MissCause.CHANGED, 900, byte=812, exact=True, looks_like="a timestamp", where="system[2]")
)


@pytest.fixture
def missed(tmp_path: Path) -> str:
    path = tmp_path / "missed.sqlite3"
    ledger = Ledger(path)
    for n in range(3):
        ledger.observe(a_record(id=f"e{n}", savings=MISSED, placement=CHANGED))
    expired = structs.replace(MISSED, miss_cause=MissCause.EXPIRED, miss_nanousd=7)
    ledger.observe(
        a_record(id="e3", savings=expired, placement=Placement(miss=Miss(1, MissCause.EXPIRED, 5)))
    )
    ledger.close()
    return str(path)


def test_misses_are_reported_by_what_they_cost(missed: str) -> None:
    rows = json.loads(_report("--ledger", missed, "--by", "cause", "--format", "json"))

    assert [(row["workspace"], row["cause"], row["calls"]) for row in rows] == [
        ("search", "changed", 3),
        ("search", "expired", 1),
    ]
    assert (rows[0]["tokens"], rows[0]["lost_usd"]) == (2_700, "3.450000000")
    assert rows[0]["first_at"] == rows[0]["last_at"] == "2026-11-18T11:06:40Z"
    assert rows[0]["detail"].startswith("system[2] changed at byte 812, where a timestamp stands")
    assert rows[0]["sentence"].startswith("search: prompts changed: $3.45 since 11:06, 3 calls.")


def test_misses_have_a_table_and_a_sentence_for_people(missed: str) -> None:
    text = _report("--ledger", missed, "--by", "model,cause")

    (whole,) = (line for line in text.splitlines() if line.startswith("all"))
    assert whole.split() == ["all", "4", "3,600", "3.4500"]
    assert "claude-test-1: prompts changed: $3.45 since 11:06" in text
    assert "$3.4500 of it was lost by misses" in _report("--ledger", missed)


def test_without_misses_it_says_so(ledgers: list[str]) -> None:
    assert "No misses." in _report(*ledgers, "--by", "cause")
    header = _report(*ledgers, "--by", "cause", "--format", "csv")
    assert header == "workspace,cause,calls,tokens,lost_usd,first_at,last_at,detail,sentence\n"


def test_what_was_held_out_is_compared_with_what_was_placed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    plain = Cost(uncached_input_nanousd=30_000_000, counterfactual_nanousd=30_000_000)
    held_out = Savings(cohort=Cohort.HOLDOUT, plain_nanousd=30_000_000, paid_nanousd=30_000_000)
    none = Savings(cohort=Cohort.NONE, plain_nanousd=30_000_000, paid_nanousd=30_000_000)
    for n in range(120):
        ledger.observe(a_record(id=f"p{n}") if n % 2 else a_record(id=f"p{n}", savings=none, cost=plain))
        if n >= 20:
            ledger.observe(a_record(id=f"h{n}", savings=held_out, cost=plain))
    ledger.observe(
        a_record(
            id="few", savings=held_out, cost=plain, principal=replace(CALLER, workspace=WorkspaceId("chat"))
        )
    )
    ledger.close()
    text = _report("--ledger", str(path), "--by", "model")
    rows = json.loads(_report("--ledger", str(path), "--by", "workspace,cohort", "--format", "json"))

    assert (
        "search: 39.4% of the input's cost saved, $0.018188 of input a call, over 120 calls decided" in text
    )
    assert "0.0% of the input's cost saved, $0.030000 of input a call, over 100 calls held out." in text
    assert "chat: 1 call held out against 0 decided on: too few" in text
    assert {(row["workspace"], row["cohort"], row["requests"], row["saved_ratio"]) for row in rows} == {
        ("search", "placed", 60, 0.7875),
        ("search", "none", 60, 0.0),
        ("search", "holdout", 100, 0.0),
        ("chat", "holdout", 1, 0.0),
    }


def test_shadow_mode_says_what_it_would_have_cost(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    ledger = Ledger(path)
    shadow = Savings(cohort=Cohort.SHADOW, plain_nanousd=1, paid_nanousd=1, shadow_nanousd=2_000_000)
    ledger.observe(a_record(savings=shadow))
    ledger.observe(a_record(id="e2"))
    ledger.close()

    text = _report("--ledger", str(path))
    assert "In shadow mode, input that cost $0.0064 would have cost $0.0020 as decided." in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--by", "colour"], "colour"),
        (["--by", "workspce"], "tag:NAME, cause"),
        (["--month", "2026-13"], "no month"),
        (["--from", "2026-11-31"], "'2026-11-31' is no day; write it as 2026-11-01"),
        (["--to", "9999-12-31"], "the beginning to 9999-12-31 is no span of days"),
        (["--month", "2026-11", "--against", "2026-10-01..2026-10-32"], "'2026-10-32' is no day"),
        (["--period", "7"], "--period 7: write it as 24h or 30d"),
        (["--ledger", "missing.sqlite3"], "there is no file missing.sqlite3"),
    ],
)
def test_a_mistake_is_explained(ledgers: list[str], arguments: list[str], words: str) -> None:
    run = CliRunner().invoke(gateway_app, ["report", *ledgers, *arguments], env={"COLUMNS": "200"})

    assert run.exit_code == 2
    assert words in run.output


def test_nothing_is_put_back_where_there_is_no_ledger_or_nothing_to_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    log = tmp_path / "gateway.log"
    log.write_text("started\n")
    environ = {"GATEWAY_STATE__DIRECTORY": "var"}

    def run() -> Result:
        return CliRunner().invoke(gateway_app, ["ledger", "restore", str(log)], env=environ)

    elsewhere, made = run(), sorted(path.name for path in tmp_path.iterdir())
    (tmp_path / "var").mkdir()
    Ledger(tmp_path / "var" / "ledger.sqlite3").close()
    nothing = run()

    assert elsewhere.exit_code == 2
    assert "var/ledger.sqlite3 cannot be read: there is no such file" in elsewhere.stderr
    assert made == ["gateway.log"]
    assert (nothing.exit_code, nothing.stdout) == (1, "")
    assert "holds no spilled entries" in nothing.stderr


def test_entries_in_the_log_are_put_back_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path, log = tmp_path / "ledger.sqlite3", tmp_path / "gateway.log"
    closed = Ledger(path)
    closed.close()
    for n in range(3):
        closed.observe(a_record(id=f"late{n}"))
    log.write_text("\n".join(["started", *caplog.messages]))

    said = [
        CliRunner().invoke(gateway_app, ["ledger", "restore", str(log), "--ledger", str(path)]).output
        for _ in range(2)
    ]
    assert said == [f"3 entries put back into {path}\n", f"0 entries put back into {path}\n"]
    (row,) = json.loads(_report("--ledger", str(path), "--by", "workspace", "--format", "json"))
    assert row["requests"] == 3
