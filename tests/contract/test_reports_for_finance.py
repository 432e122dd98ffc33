"""`gateway report` by tag, team and days, as FOCUS, and against another period; over both kinds of ledger."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest
import typer
from msgspec.structs import replace
from typer.testing import CliRunner

from gateway.adapters.clock import SystemClock
from gateway.adapters.ledger_queries import read_charges, read_totals
from gateway.cli import app as gateway_app
from gateway.cli.statement import statement
from gateway.core.bucket import Payer, Presumed
from gateway.core.exchange import Basis, ExchangeRecord
from gateway.core.focus import COLUMNS
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.ledger import Dimension, Tag
from gateway.core.presumed import presumed_record
from gateway.core.principal import Principal
from gateway.settings.gateway import LEDGER_FILE, LEDGER_KEY_FILE
from tests.support.ledgers import ALWAYS, KEY, NOVEMBER, Books
from tests.support.records import a_record

CONFIG = Path(__file__).parents[2] / "config"
CALLER = Principal(workspace=WorkspaceId("search"), key_id=KeyId("k1"), key_name="app")
DAY = 86_400.0
Run = Callable[..., str]
STATEMENT = typer.Typer()
STATEMENT.command()(statement)


@pytest.fixture
def run(books: Books, tmp_path: Path) -> Run:
    """Over two days of October and three calls of November, two of them with a cost centre."""
    chat = replace(CALLER, workspace=WorkspaceId("chat"))
    tags = (("x-cost-centre", "4711"),)
    books.hold(
        [
            a_record(id="o1", received_at=NOVEMBER - 2 * DAY),
            a_record(id="o2", received_at=NOVEMBER - 1),
            a_record(id="n1", received_at=NOVEMBER, tags=tags),
            a_record(id="n2", received_at=NOVEMBER + DAY, tags=(*tags, ("x-user", 'it\'s "me"'))),
            a_record(
                id="n3", received_at=NOVEMBER + DAY, principal=chat, basis=Basis.PARTIAL, model="=cmd()"
            ),
        ]
    )
    (tmp_path / LEDGER_KEY_FILE).write_bytes(KEY)
    (tmp_path / LEDGER_FILE).symlink_to(books.outbox())
    text = (CONFIG / "workspaces.yaml").read_text().replace("\nissuers: {}\n", "\n")  # they come last
    config = tmp_path / "config"
    config.mkdir()
    for file in CONFIG.glob("*.yaml"):
        (config / file.name).write_text(file.read_text())
    (config / "workspaces.yaml").write_text(f"{text}\n  search:\n    team: findability\n  chat: {{}}\n")
    environ = {"GATEWAY_STATE__DIRECTORY": str(tmp_path), "COLUMNS": "200"}
    if books.shared is not None:
        environ |= {"GATEWAY_LEDGER__KIND": "postgres", "LEDGER_URL": books.shared.url}

    def invoke(*arguments: str, app: typer.Typer = gateway_app, code: int = 0) -> str:
        first = ["report"] if app is gateway_app else []
        result = CliRunner().invoke(app, [*first, *arguments, "--config", str(config)], env=environ)
        assert result.exit_code == code, result.output
        return result.output

    return invoke


def test_any_tag_and_team_is_a_dimension_and_what_has_none_is_a_line(books: Books, run: Run) -> None:
    by_tag = json.loads(run("--by", "tag:x-cost-centre", "--json"))
    by_team = json.loads(run("--by", "team,month", "--month", "2026-11", "--json"))

    assert [(row["tag:x-cost-centre"], row["requests"]) for row in by_tag] == [("-", 3), ("4711", 2)]
    assert [(row["team"], row["month"], row["requests"]) for row in by_team] == [
        ("findability", "2026-11", 2),
        ("-", "2026-11", 1),
    ]
    (user,) = (
        total for total in read_totals(books.source, (Tag("x-user"),), **ALWAYS) if total.requests == 1
    )
    assert user.group == ('it\'s "me"',)
    assert "no name of a header" in run("--by", "tag:x'; DROP", code=2)


def test_days_are_whole_and_both_ends_count(run: Run) -> None:
    def days(*arguments: str) -> list[str]:
        return sorted(row["day"] for row in json.loads(run("--by", "day", "--json", *arguments)))

    assert days("--from", "2026-10-31", "--to", "2026-11-01") == ["2026-10-31", "2026-11-01"]
    assert days("--from", "2026-11-02") == ["2026-11-02"]
    assert days("--to", "2026-10-30") == ["2026-10-30"]
    run("--from", "2026-11-02", "--to", "2026-11-01", code=2)
    run("--from", "2026-11-02", "--month", "2026-11", code=2)


def test_focus_sums_to_the_ledger_and_replaces_the_file_only_when_whole(
    books: Books, run: Run, tmp_path: Path
) -> None:
    path = tmp_path / "focus.csv"
    path.write_text("before")
    run("--focus", str(path))
    content = path.read_bytes()
    rows = list(csv.DictReader(io.StringIO(content.decode(), newline="")))
    (whole,) = read_totals(books.source, (), **ALWAYS)

    assert content.count(b"\r\n") == len(rows) + 1 == content.count(b"\n")
    assert tuple(rows[0]) == COLUMNS
    assert sum(Decimal(row["EffectiveCost"]) for row in rows) == Decimal(whole.cost_nanousd) / 10**9
    tokens = whole.prompt_tokens + whole.output_tokens
    assert sum(int(row["ConsumedQuantity"]) for row in rows) == tokens
    assert {row["x_EstimateSource"] for row in rows if row["SubAccountId"] == "chat"} == {"Gateway"}
    assert json.loads(rows[-1]["Tags"])["x-cost-centre"] == "4711"
    assert list(tmp_path.glob(".*part")) == []
    assert "cannot be written" in run("--focus", str(tmp_path / "missing" / "focus.csv"), code=2)
    assert run("--focus", "-", "--month", "2020-01").splitlines() == [",".join(COLUMNS)]


def test_charges_of_several_ledgers_are_added_up(books: Books, run: Run) -> None:
    once = list(read_charges([books.source], **ALWAYS))
    twice = list(read_charges([books.source, books.source], **ALWAYS))

    assert [charge.key for charge in twice] == [charge.key for charge in once]
    for one, two in zip(once, twice, strict=True):
        assert two.amounts == tuple((2 * quantity, 2 * cost) for quantity, cost in one.amounts)


def test_focus_sums_to_the_ledger_where_what_was_presumed_is_taken_back(books: Books, run: Run) -> None:
    """`a` is settled late, of `b` nobody can tell any more, and of `c` another ledger was told first."""
    tags = (("x-cost-centre", "lost"),)
    payer = Payer(
        received_at_ms=round(NOVEMBER * 1000), organisation="acme", workspace="search", model="m", tags=tags
    )

    def presumed(name: str, nanousd: int) -> ExchangeRecord:
        id, back = ReservationId(name), nanousd < 0
        return presumed_record(Presumed(reservation_id=id, payer=payer, nanousd=nanousd, taken_back=back))

    books.hold([presumed("a", 70_000), presumed("b", 50_000), presumed("a", -70_000)])
    assert _lost(books, run) == ["0.000050000"]
    books.hold([presumed("c", -80_000)])
    assert _lost(books, run) == ["-0.000030000"]
    books.hold([presumed("d", 30_000)])
    assert _lost(books, run) == []


def _lost(books: Books, run: Run) -> list[str]:
    """What the rows of such calls cost, after a look at the sum of all rows."""
    rows = list(csv.DictReader(io.StringIO(run("--focus", "-"), newline="")))
    (whole,) = read_totals(books.source, (), **ALWAYS)
    assert sum(Decimal(row["BilledCost"]) for row in rows) == Decimal(whole.cost_nanousd) / 10**9
    return [row["BilledCost"] for row in rows if "lost" in row["Tags"]]


def test_a_period_is_compared_with_another(books: Books, run: Run) -> None:
    rows = json.loads(run("--month", "2026-11", "--against", "2026-10", "--json"))
    text = run("--month", "2026-11", "--against", "2026-10-01..2026-10-31")
    lines = run("--from", "2026-11-02", "--to", "2026-11-02", "--against", "2026-10", "--csv").splitlines()

    for row in rows:
        parts = [Decimal(row[f"{part}_usd"]) for part in ("volume", "mix", "cache", "price")]
        assert sum(parts) == Decimal(row["difference_usd"])
    assert {row["workspace"]: row["difference_usd"] for row in rows} == {
        "chat": "0.010875001",
        "search": "0.000000000",
    }
    assert "chat cost $0.01 more ($0.00 to $0.01): it cost nothing before." in text
    assert lines[0].startswith("workspace,before_usd,after_usd,difference_usd,volume_usd,mix_usd")
    assert len(lines) == 3
    run("--against", "2026-10", code=2)
    run("--against", "before", "--month", "2026-11", code=2)
    run("--period", "24h", "--month", "2026-11", code=2)
    run("--period", "a day", code=2)
    run("--against", "2026-10", "--month", "2026-11", "--by", "cause", code=2)
    run("--against", "2026-1x", "--month", "2026-11", code=2)
    assert read_totals(books.source, (Dimension.TEAM,), **ALWAYS)


def test_each_cost_centre_has_a_statement_whose_lines_sum_to_its_spend(run: Run) -> None:
    found = json.loads(run("--month", "2026-11", "--by", "tag:x-cost-centre", "--json", app=STATEMENT))
    lines = list(
        csv.DictReader(io.StringIO(run("--month", "2026-11", "--by", "team", "--csv", app=STATEMENT)))
    )

    assert [(each["tag:x-cost-centre"], each["requests"]) for each in found] == [("4711", 2), ("-", 1)]
    for each in found:
        assert sum(Decimal(line["cost_usd"]) for line in each["lines"]) == Decimal(each["cost_usd"])
    assert [each["guessed_usd"] for each in found] == ["0.000000000", "0.010875001"]
    assert {line["team"] for line in lines} == {"findability", "-"}
    assert {line["model"] for line in lines} == {"claude-test-1", "'=cmd()"}
    assert sum(Decimal(line["cost_usd"]) for line in lines) == Decimal("0.032625003")


def test_a_statement_says_the_share_of_the_budget_and_what_saving_means(run: Run) -> None:
    text = run("--month", "2026-11", app=STATEMENT)
    (search,) = (
        each
        for each in json.loads(run("--month", "2026-11", "--json", app=STATEMENT))
        if each["workspace"] == "search"
    )

    assert search["budget_usd"] == "25.000000000"
    assert search["budget_share"] == 0.00087
    assert search["saved_usd"] == "0.047249998"
    assert "0.1% of the budget of $25.00." in text
    assert "at the price of uncached input, less what they did cost." in text
    assert "Guessed: $0.0109 rests on usage not reported in full." in text
    assert "No entries." in run("--month", "2020-01", app=STATEMENT)
    assert "not by model" in run("--by", "model", app=STATEMENT, code=2)


def test_only_the_month_that_is_not_over_has_a_forecast(books: Books, run: Run) -> None:
    now = SystemClock().now()
    books.hold([a_record(id=f"d{n}", received_at=now - n * DAY) for n in range(40)])
    (search, *_) = json.loads(run("--json", app=STATEMENT))
    past = json.loads(run("--json", "--month", "2020-01", app=STATEMENT))

    assert Decimal(search["forecast_usd"]) >= Decimal("0.010875001")
    assert "at the month's end" in search["forecast_sentence"]
    assert past == []
    assert "Forecast: what was spent before today" in run(app=STATEMENT)
