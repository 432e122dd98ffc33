"""Everything that reads what strangers send, on the kept corpus and on some inputs that nobody thought of;
the same ones each time. `make fuzz SECONDS=600` tries new ones."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest

from tests.fuzz import run
from tests.fuzz.target import CORPUS, Mutants, Target, corpus_of, pure
from tests.fuzz.targets import TARGETS

SEED = 20_261_122


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)
async def test_what_strangers_send_is_read_or_refused(target: Target, tmp_path: Path) -> None:
    async with target.open(tmp_path) as check:
        for data in (*corpus_of(target), *islice(Mutants(target, SEED), target.rounds)):
            try:
                await check(data)
            except Exception as error:
                error.add_note(f"The input of target {target.name}: {data[:2_000]!r}")
                raise


def test_each_folder_of_the_corpus_belongs_to_a_target() -> None:
    assert {path.name for path in CORPUS.iterdir()} <= {target.name for target in TARGETS}


async def test_what_breaks_a_target_is_made_small_and_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check(data: bytes) -> None:
        assert b"bad" not in data

    fragile = Target(name="fragile", open=pure(check), seeds=lambda: [b"good, " * 9], words=(b"bad",))
    monkeypatch.setattr(run, "CORPUS", tmp_path)

    assert await run.fuzz([fragile], seconds=30, seed=1) == 1
    (kept,) = (tmp_path / "fragile").iterdir()
    assert kept.read_bytes() == b"bad"
