"""Quantiles learned from bills: close, cautious where little was seen, bounded, and kept over a restart."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

import pytest

from gateway.core import learned_estimates
from gateway.core.learned_estimates import (
    FADING_CALLS,
    MAX_RECORDS,
    Guess,
    Kind,
    Learned,
    LearnedEstimates,
    enough,
)
from gateway.core.usage import Usage

KIND = Kind("demo", "claude-opus-5-5", 12, streams=True, thinks=False, loops=False, foreseen=True)
GUESS = Guess(KIND, prompt_tokens=1_000, read_tokens=800)


def bill(output: int = 100, *, prompt: int = 1_000, read: int = 800) -> Usage:
    return Usage(uncached_input_tokens=prompt - read, cache_read_tokens=read, output_tokens=output)


def taught(count: int, usage: Usage | None = None) -> LearnedEstimates:
    learned = LearnedEstimates()
    for _ in range(count):
        learned.billed(GUESS, usage or bill())
    return learned


@pytest.mark.parametrize(("quantile", "calls"), [(0.5, 6), (0.9, 30), (0.95, 60), (0.99, 300)])
def test_says_nothing_before_three_bills_can_lie_beyond_the_quantile(quantile: float, calls: int) -> None:
    assert enough(quantile) == calls
    assert taught(calls - 1).expect(KIND, quantile) == Learned(None, None, None)
    assert None not in taught(calls).expect(KIND, quantile)


@pytest.mark.parametrize("quantile", [0.5, 0.8, 0.9, 0.99])
@pytest.mark.parametrize(
    "law",
    [lambda dice: dice.lognormvariate(6.0, 1.2), lambda dice: 50 * dice.paretovariate(1.1)],
    ids=["lognormal", "Pareto"],
)
def test_finds_the_quantile_of_heavy_tails(quantile: float, law: Callable[[Random], float]) -> None:
    dice, learned = Random(5), LearnedEstimates()
    outputs = [max(1, int(law(dice))) for _ in range(FADING_CALLS - 1)]
    for output in outputs:
        learned.billed(GUESS, bill(output))
    exact = sorted(outputs)[int(quantile * len(outputs))]
    found = learned.expect(KIND, quantile).output_tokens

    assert found is not None
    assert exact * 0.99 <= found <= exact * 1.14


@pytest.mark.parametrize("calls", [500, 3 * FADING_CALLS])
def test_asking_on_the_way_does_not_change_the_answers(calls: int) -> None:
    """For this quantile or that, while older calls fade."""
    dice, learned = Random(6), LearnedEstimates()
    for number in range(calls):
        learned.billed(GUESS, bill(int(dice.lognormvariate(5.0, 1.0))))
        learned.expect(KIND, 0.5 if number % 3 else 0.95)
    fresh = LearnedEstimates()
    assert fresh.restore(learned.snapshot())

    for quantile in (0.9, 0.5, 0.99, 0.8):
        assert learned.expect(KIND, quantile) == fresh.expect(KIND, quantile)


def test_input_is_learned_as_a_ratio_to_what_was_estimated() -> None:
    ratio = taught(50, bill(prompt=1_300)).expect(KIND, 0.9).input_ratio

    assert ratio is not None
    assert 1.3 <= ratio < 1.346


@pytest.mark.parametrize(("prompt", "ratio"), [(1, 0.25), (90_000, 4.0)])
def test_a_ratio_is_never_beyond_reason(prompt: int, ratio: float) -> None:
    assert taught(50, bill(prompt=prompt, read=0)).expect(KIND, 0.9).input_ratio == ratio


def test_reads_that_come_as_expected_fall_short_by_next_to_nothing() -> None:
    assert taught(50).expect(KIND, 0.9).read_shortfall == pytest.approx(0.0, abs=0.001)


def test_reads_that_often_do_not_come_are_not_relied_on() -> None:
    """Every fifth misses: at 0.9 that is too often, at 0.7 it is not."""
    learned = LearnedEstimates()
    for number in range(100):
        learned.billed(GUESS, bill(read=800 if number % 5 else 0))

    assert learned.expect(KIND, 0.9).read_shortfall == 1.0
    assert learned.expect(KIND, 0.7).read_shortfall == pytest.approx(0.0, abs=0.001)


def test_all_rounds_of_a_loop_count() -> None:
    once = bill(60, prompt=1_000)
    learned = taught(50, Usage(output_tokens=60, iterations=(once, once, once)))

    found = learned.expect(KIND, 0.9)
    assert found.input_ratio == pytest.approx(3.0, rel=0.035)
    assert found.output_tokens == pytest.approx(180, rel=0.12)


@pytest.mark.parametrize(
    "other",
    [
        KIND._replace(workspace="other"),
        KIND._replace(model="claude-haiku-5-5"),
        KIND._replace(loops=True),
    ],
)
def test_workspaces_models_and_loops_are_learned_apart(other: Kind) -> None:
    assert taught(50).expect(other, 0.9) == Learned(None, None, None)


def test_answers_are_learned_by_their_room_and_prompts_are_not() -> None:
    found = taught(50).expect(KIND._replace(room=3, streams=False), 0.9)

    assert found.output_tokens is None
    assert found.input_ratio is not None


def test_what_changed_is_believed_after_a_while() -> None:
    learned = taught(FADING_CALLS, bill(5_000))
    for _ in range(2 * FADING_CALLS):
        learned.billed(GUESS, bill(50))

    found = learned.expect(KIND, 0.9).output_tokens
    assert found is not None
    assert found < 60


def test_memory_is_bounded_and_what_is_used_stays() -> None:
    learned = taught(40)
    for number in range(MAX_RECORDS):
        learned.billed(Guess(KIND._replace(workspace=f"w{number}"), 1_000, 800), bill())
        if number % 100 == 0:
            learned.billed(GUESS, bill())

    assert len(learned) == MAX_RECORDS
    assert learned.expect(KIND, 0.9).output_tokens is not None


def test_what_was_learned_survives_a_restart() -> None:
    before, after = taught(200, bill(777)), LearnedEstimates()

    assert after.restore(before.snapshot())
    assert after.expect(KIND, 0.9) == before.expect(KIND, 0.9)
    assert after.snapshot() == before.snapshot()


@pytest.mark.parametrize("harm", ["nothing", "noise", "cut", "version", "size", "scale", "overfull"])
def test_a_damaged_memory_is_not_taken_up(harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = taught(50).snapshot()
    overfull = bytes(80) + b"\xff" * (2 * 97 - 80)
    spoiled = {
        "nothing": b"",
        "noise": b"\x93hello",
        "cut": data[:-9],
        "size": data.replace(bytes(40), bytes(39)),
        "scale": data.replace(b"\x97\x02\xa4demo", b"\x97\x07\xa4demo"),
        "overfull": data[: -len(overfull)] + overfull,
    }
    after = taught(60, bill(9))
    known = after.expect(KIND, 0.9)
    if harm == "version":
        monkeypatch.setattr(learned_estimates, "_MADE_BY", b"another")

    assert not after.restore(spoiled.get(harm, data))
    assert after.expect(KIND, 0.9) == known


def test_a_prompt_or_answer_of_nothing_teaches_nothing_wrong() -> None:
    learned = LearnedEstimates()
    for _ in range(50):
        learned.billed(Guess(KIND._replace(room=0), 0, 0), Usage())

    assert learned.expect(KIND._replace(room=0), 0.9) == Learned(None, None, None)
