from __future__ import annotations

import pytest

from gateway.core.misses import Looks, Miss, MissCause


@pytest.mark.parametrize("cause", list(MissCause))
def test_every_miss_is_explained(cause: MissCause) -> None:
    assert len(Miss(3, cause, 1200, 4.5).reason.split()) > 3


def test_a_change_is_told_with_its_place_and_its_looks() -> None:
    miss = Miss(2, MissCause.CHANGED, 12_400, byte=1_204, looks_like=Looks.TIMESTAMP, where="system[2]")

    assert miss.reason == (
        "system[2] changed at about byte 1,204, where a timestamp stands; "
        "12,400 tokens had to be processed again"
    )


def test_a_place_that_is_exact_is_not_told_as_about() -> None:
    miss = Miss(2, MissCause.CHANGED, 1, byte=17, looks_like=Looks.EDITED, where="system", exact=True)

    assert miss.reason.startswith("system was edited at byte 17;")


@pytest.mark.parametrize("looks", list(Looks))
def test_every_kind_of_change_has_a_sentence_with_its_place(looks: Looks) -> None:
    reason = Miss(2, MissCause.CHANGED, 1, byte=4, looks_like=looks, where="tools[3]").reason

    assert "tools[3]" in reason
    assert "{" not in reason
