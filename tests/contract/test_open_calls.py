"""The file of the calls that a process has open: what its successor finds there, and how it stays small."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from gateway.adapters.open_calls import SLOT_BYTES, OpenCalls, left_behind
from gateway.core.bucket import Payer, Reservation
from gateway.core.presumed import Unsettled
from tests.support.budgets import reservation, rid
from tests.support.clock import FakeClock

CLOCK = FakeClock(1_790_000_000.0)
PAYER = Payer(
    received_at_ms=1_789_999_999_000,
    organisation="org",
    workspace="w",
    key_id="k",
    model="m",
    endpoint="messages",
    tags=(("x-team", "süd"),),
)


def held(name: str, **changes: object) -> Reservation:
    return structs.replace(reservation(name, nanousd=60), payer=structs.replace(PAYER, **changes))


def ids(found: tuple[Unsettled, ...]) -> list[str]:
    return [one.reservation_id for one in found]


class _Processes:
    """One after the other on one file. The one before is gone as if it was killed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._now: OpenCalls | None = None

    def start(self, *left: Path) -> OpenCalls:
        self.end()
        self._now = OpenCalls(self.path, CLOCK.now, left)
        return self._now

    def end(self) -> None:
        if self._now is not None:
            self._now.close()
            self._now = None


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[_Processes]:
    made = _Processes(tmp_path / "open-calls.txt")
    yield made
    made.end()


def test_what_is_open_is_found_by_the_next_process_with_all_that_its_entry_needs(
    processes: _Processes,
) -> None:
    one = processes.start()
    for name in "abc":
        one.add(held(name), degraded=name == "c")
    one.drop(rid("b"))

    a, c = processes.start().found()

    asked = held("a")
    assert a == Unsettled(
        reservation_id=rid("a"), amounts=asked.amounts, payer=PAYER, ended_at=CLOCK.now(), degraded=False
    )
    assert (c.reservation_id, c.degraded) == ("c", True)


def test_what_was_found_stays_until_it_is_settled_and_new_calls_go_elsewhere(processes: _Processes) -> None:
    processes.start().add(held("a"), degraded=False)
    two = processes.start()
    two.found()
    two.add(held("b"), degraded=False)
    three = processes.start()
    assert ids(three.found()) == ["a", "b"]
    three.forget()
    three.add(held("c"), degraded=False)

    assert ids(processes.start().found()) == ["c"]


def test_the_file_is_as_long_as_the_most_calls_that_were_open_at_a_time(processes: _Processes) -> None:
    one = processes.start()
    for number in range(1_000):
        one.add(held(f"{number}"), degraded=False)
        one.add(held(f"{number}"), degraded=False)
        if number >= 3:
            one.drop(rid(f"{number - 3}"))

    assert processes.path.stat().st_size <= 4 * SLOT_BYTES
    assert sorted(ids(processes.start().found())) == ["997", "998", "999"]


def test_a_process_that_ends_well_leaves_nothing(processes: _Processes) -> None:
    one = processes.start()
    one.add(held("a"), degraded=False)
    one.drop(rid("a"))
    one.drop(rid("a"))
    processes.end()

    assert processes.path.stat().st_size == 0
    assert processes.start().found() == ()


def test_a_line_that_is_too_long_goes_without_tags(processes: _Processes) -> None:
    tags = tuple((f"x-{number}", '"' * 200) for number in range(8))
    one = processes.start()
    one.add(held("a", tags=tags, model="\x01" * 200), degraded=False)
    one.add(held("b", tags=tags[:2]), degraded=False)

    a, b = processes.start().found()

    assert (a.payer.tags, a.payer.model) == ((), "\x01" * 200)
    assert b.payer.tags == tags[:2]


def test_batches_and_what_costs_nothing_are_not_written_down(processes: _Processes) -> None:
    one = processes.start()
    one.add(held("a", endpoint="batches"), degraded=False)
    one.add(structs.replace(held("b"), amounts=reservation("b", requests=1).amounts), degraded=False)

    assert not processes.path.exists()


def test_what_cannot_be_read_or_is_too_old_does_not_hide_the_rest(
    processes: _Processes, caplog: pytest.LogCaptureFixture
) -> None:
    one = processes.start()
    for name, at_ms in (
        ("torn", PAYER.received_at_ms),
        ("old", 1_789_900_000_000),
        ("a", PAYER.received_at_ms),
    ):
        one.add(held(name, received_at_ms=at_ms), degraded=False)
    with processes.path.open("r+b") as file:
        file.seek(20)
        file.write(b"]]\n")

    two = processes.start()
    assert ids(two.found()) == ["a"]
    assert "cannot be read" in caplog.text
    assert "old was open too long ago" in caplog.text
    two.forget()
    caplog.clear()
    assert processes.start().found() == ()
    assert caplog.text == "", "it is said once"


def test_a_disk_that_cannot_be_written_fails_no_call_and_is_said_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = OpenCalls(tmp_path / "missing" / "open-calls.txt", CLOCK.now)
    for name in "abc":
        one.add(held(name), degraded=False)
        one.drop(rid(name))
    (tmp_path / "missing").mkdir()
    one.add(held("d"), degraded=False)
    one.close()

    assert caplog.text.count("cannot be written") == 1
    assert ids(OpenCalls(tmp_path / "missing" / "open-calls.txt", CLOCK.now).found()) == ["d"]


def test_calls_of_workers_that_there_are_no_more_are_found_by_the_first(
    processes: _Processes, tmp_path: Path
) -> None:
    for name in ("open-calls.txt", "open-calls.txt.1", "open-calls.txt.2", "open-calls.txt.10"):
        worker = OpenCalls(tmp_path / name, CLOCK.now)
        worker.add(held(name), degraded=False)
        worker.close()
    left = left_behind(processes.path, 2)
    first = processes.start(*left)

    assert ids(first.found()) == ["open-calls.txt", "open-calls.txt.10", "open-calls.txt.2"]
    first.forget()
    assert processes.start(*left).found() == ()
    assert ids(OpenCalls(tmp_path / "open-calls.txt.1", CLOCK.now).found()) == ["open-calls.txt.1"]


def test_calls_of_a_process_that_lives_are_not_taken_for_lost(
    processes: _Processes, caplog: pytest.LogCaptureFixture
) -> None:
    processes.start().add(held("a"), degraded=False)
    other = OpenCalls(processes.path, CLOCK.now)

    assert other.found() == ()
    other.add(held("b"), degraded=False)
    assert "are not looked for" in caplog.text
    assert ids(processes.start().found()) == ["a"]
