from __future__ import annotations

from gateway.core.allowance import ALL_WORKSPACES, BURST_SECONDS, BYTES_PER_SECOND, Allowance
from gateway.core.ids import WorkspaceId

ONE, OTHER = WorkspaceId("one"), WorkspaceId("other")
ALL = int(BYTES_PER_SECOND * BURST_SECONDS)


def test_what_is_used_up_comes_back_with_time() -> None:
    allowance = Allowance()

    assert allowance.take(ONE, ALL, 0.0)
    assert not allowance.take(ONE, 1, 0.0)
    assert allowance.take(ONE, 1, 1.0)


def test_one_workspace_does_not_take_from_another() -> None:
    allowance = Allowance()
    allowance.take(ONE, ALL, 0.0)

    assert allowance.take(OTHER, 1, 0.0)


def test_all_together_are_bounded_too() -> None:
    allowance = Allowance()
    taken = [allowance.take(WorkspaceId(str(number)), ALL, 0.0) for number in range(40)]

    assert sum(taken) <= ALL_WORKSPACES + 1


def test_a_clock_that_goes_back_gives_nothing() -> None:
    allowance = Allowance()
    allowance.take(ONE, ALL, 100.0)

    assert not allowance.take(ONE, 1, 50.0)
