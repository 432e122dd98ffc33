"""A soak of seconds with the checks of one of an hour."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.soak.chart import chart
from tests.soak.run import soak
from tests.soak.samples import Sample, growth


@pytest.mark.timeout(120)
async def test_under_faults_nothing_grows_nothing_stays_and_books_are_the_bill(tmp_path: Path) -> None:
    outcome = await soak(tmp_path, seconds=9, clients=8, seed=1, faults_every_seconds=1.0, forgets=False)

    assert outcome.problems() == [], outcome.report()
    assert outcome.books is not None and outcome.books.bill_nanousd > 0
    svg = chart(outcome.samples, title="A test", warm_up_seconds=outcome.warm_up_seconds)
    assert svg.count("<polyline") == 5


def test_a_leak_shows_as_growth() -> None:
    assert growth([_sample(at, at % 3) for at in range(90)], "tasks") < 0.5
    assert round(growth([_sample(at, at % 3 + at / 10) for at in range(91)], "tasks")) == 9


def _sample(at: float, tasks: float) -> Sample:
    return Sample(
        at=at,
        resident_bytes=0,
        descriptors=0,
        threads=0,
        tasks=tasks,
        exchanges=0,
        reservations=0,
        cpu_seconds=0,
    )
