"""What the bench makes of its figures: bars, tables, the gate. `tests/e2e/test_bench_runs.py` runs it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.bars import BARS, hold
from tests.bench.gate import judge
from tests.bench.loads import Target
from tests.bench.processes import Cores
from tests.bench.rows import AGENT, EVENT, Book, Row
from tests.bench.steady import Pace, python_ms
from tests.bench.tables import BEGIN, END, as_markdown, as_text, compared, put_markdown


class _NoProcess:
    """Of a target whose rows do not ask it."""


def a_target(name: str) -> Target:
    return Target(name, 1, _NoProcess())  # type: ignore[arg-type]


def nothing() -> None: ...


def a_pace(*pieces_ms: float, patience_seconds: float = 60.0) -> Pace:
    """Of a core on which the fixed piece takes so long, one time after the other, and 10 ms ever after."""
    left = list(pieces_ms)

    def piece_ms() -> float:
        return left.pop(0) if left else 10.0

    return Pace(None, patience_seconds, wait_seconds=0.0, piece_ms=piece_ms)


def test_a_cell_that_fails_is_told_and_the_others_go_on() -> None:
    said: list[str] = []
    book = Book(said.append, a_pace())

    def take(target: Target) -> dict[str, float]:
        if target.name == "b":
            raise RuntimeError("it answered 529")
        return {"x": 2.0}

    book.turn([Row("x", take)], [a_target("a"), a_target("b"), a_target("c")], "round", nothing)

    assert book.medians() == {"x": {"a": 2.0, "c": 2.0}}
    assert book.failed == ["x, b: it answered 529"]
    assert "529" in "".join(said)


def test_a_spread_is_half_of_the_range_as_a_share_of_the_median() -> None:
    values = {"x": {"a": [(90.0, 10.0), (100.0, 10.0), (120.0, 10.0)], "b": [(5.0, 10.0)]}}
    book = Book(lambda _: None, a_pace(), values=values)

    assert book.spreads() == {"x": {"a": 0.15}}


def test_a_cell_of_a_slow_while_is_measured_again_and_counts_only_where_there_is_no_other() -> None:
    said: list[str] = []
    figures = iter((200.0, 190.0, 100.0))
    book = Book(said.append, a_pace(10.0, 10.0, 18.0, 18.0, 10.0))
    row = Row("x", lambda _: {"x": next(figures)})
    book.turn([row], [a_target("a")], "round", nothing)

    assert book.medians() == {"x": {"a": 100.0}}
    assert (book.spreads(), book.slow()) == ({"x": {}}, [])
    assert "200 while slow, again 190 while slow, again 100 (" in "".join(said)


def test_without_patience_a_slow_cell_is_kept_and_told() -> None:
    book = Book(lambda _: None, a_pace(10.0, 10.0, 18.0, patience_seconds=0.0))
    book.turn([Row("x", lambda _: {"x": 200.0})], [a_target("a")], "round", nothing)

    assert book.medians() == {"x": {"a": 200.0}}
    assert book.slow() == ["x, a"]


def test_what_is_measured_once_is_never_measured_again() -> None:
    taken: list[str] = []

    def take(target: Target) -> dict[str, float]:
        taken.append(target.name)
        return {"x": 1.0}

    book = Book(lambda _: None, a_pace(10.0, 18.0, 18.0))
    book.turn([Row("x", take, once=True)], [a_target("a")], "once", nothing)

    assert taken == ["a"]


def test_the_fixed_piece_of_python_is_long_enough_to_be_measured() -> None:
    assert 1.0 < python_ms() < 1_000.0


def test_each_bar_is_held_against_each_target_that_was_measured() -> None:
    results = {AGENT: {"gateway": 900.0, "with Redis": 1_100.0}, EVENT: {"nginx": 10.0, "gateway": 16.0}}
    outcomes = {(one.bar, one.target): one.met for one in hold(results, ["gateway", "with Redis"])}

    assert outcomes == {
        ("agent's request, ms CPU", "gateway"): True,
        ("agent's request, ms CPU", "with Redis"): False,
        ("streamed event, × nginx", "gateway"): False,
    }


def test_bars_are_of_rows_that_differ() -> None:
    assert len({bar.row for bar in BARS}) == len(BARS)


def test_tables_say_figures_spreads_and_multiples() -> None:
    lines = compared({"x": {"a": 10.0, "b": 1_234.4}}, {"x": {"b": 0.04}}, ["a", "b"], ["b"])

    assert as_markdown(lines) == (
        "|  | a | b | b × |\n| --- | ---: | ---: | ---: |\n| x | 10.0 | 1,234 ±4% | 123 |"
    )
    assert as_text(lines).splitlines()[1] == "x  10.0  1,234 ±4%  123"


def test_markdown_goes_between_the_marks_and_leaves_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "README.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    put_markdown(page, "new")
    put_markdown(page, "newer")

    assert page.read_text() == f"before\n{BEGIN}\n\nnewer\n\n{END}\nafter\n"


def test_the_readme_has_the_marks() -> None:
    text = (Path(__file__).parents[1] / "bench" / "README.md").read_text()

    assert text.count(BEGIN) == text.count(END) == 1


def test_the_gate_fails_for_a_multiple_that_has_grown(tmp_path: Path) -> None:
    baseline = tmp_path / "baseline.json"
    baseline.write_text('{"ratios": {"x, µs CPU": {"gateway": 10.0, "with Redis": 10.0}}}')

    worse = judge({"x, µs CPU": {"nginx": 1.0, "gateway": 12.0, "with Redis": 14.0}}, baseline)

    assert worse == ["x, µs CPU: with Redis is at 14.00 times nginx, and was at 10.00"]


def test_a_target_has_a_core_that_nothing_else_of_the_bench_uses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {2, 0, 5})
    several = Cores.split()
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3})

    assert several == Cores(frozenset({5}), frozenset({0, 2}))
    assert Cores.split() is None
