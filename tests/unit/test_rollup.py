"""What is kept of hourly sums; that they say what the ledger says is tests/contract/test_ledger_rollup.py."""

from __future__ import annotations

from gateway.core.ledger import Dimension
from gateway.core.rollup import KEPT, RollupState


def test_every_dimension_is_kept_or_follows_from_what_is() -> None:
    assert set(Dimension) - set(KEPT) == {Dimension.TEAM, Dimension.DAY, Dimension.MONTH}


def test_sums_are_complete_once_they_have_been() -> None:
    assert not RollupState(entries=5, waiting=2).complete
    assert RollupState(as_of=1.0, waiting=2).complete
