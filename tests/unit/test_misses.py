from __future__ import annotations

import pytest

from gateway.core.misses import Miss, MissCause


@pytest.mark.parametrize("cause", list(MissCause))
def test_every_miss_is_explained(cause: MissCause) -> None:
    assert len(Miss(3, cause, 1200, 4.5).reason.split()) > 3


def test_a_change_is_told_with_its_place_and_its_looks() -> None:
    miss = Miss(2, MissCause.CHANGED, 1200, byte=17, looks_like="a timestamp")

    assert miss.reason == "block 2 changed at byte 17: a timestamp; 1,200 tokens cannot be read"
