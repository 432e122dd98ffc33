"""What is told of a store's operations: how long they took, and how they failed."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.adapters.measured_budgets import MeasuredBudgets
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.redis_fence import FENCED
from gateway.core.errors import StoreUnavailable
from tests.support.budgets import rid
from tests.support.clock import FakeClock


class Failing(MemoryBudgets):
    """Fails at what it is asked to release."""

    def __init__(self, error: StoreUnavailable) -> None:
        super().__init__(FakeClock())
        self._error = error

    async def release(self, reservation_id: Any) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (StoreUnavailable("no connection"), "unavailable"),
        (StoreUnavailable("no answer", outcome_known=False), "outcome_unknown"),
        (StoreUnavailable(f"Redis refuses: {FENCED} other generation."), "fenced"),
    ],
)
async def test_each_way_to_fail_is_told_by_its_name_and_raised_all_the_same(
    error: StoreUnavailable, kind: str
) -> None:
    took: list[str] = []
    failed: list[tuple[str, str]] = []
    store = MeasuredBudgets(
        Failing(error),
        took=lambda operation, seconds: took.append(operation),
        failed=lambda operation, why: failed.append((operation, why)),
    )

    await store.ping()
    with pytest.raises(StoreUnavailable):
        await store.release(rid("a"))

    assert (took, failed) == (["ping"], [("release", kind)])
