"""A model is recognised under all its names, and an unknown one gets the stated fallback facts."""

from __future__ import annotations

import pytest

from gateway.core.models import MAX_REMEMBERED_NAMES, ModelFacts, ModelNames, ModelTable
from tests.support.prices import model_table


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("claude-opus-5", "claude-opus-5"),
        ("claude-opus-5-5", "claude-opus-5-5"),
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("claude-haiku-4-5@20251001", "claude-haiku-4-5"),
        ("us.anthropic.claude-opus-4-1-20250805-v1:0", "claude-opus-4-1"),
        ("anthropic.claude-opus-4-7", "claude-opus-4-7"),
        ("claude-opus-4-0", "claude-opus-4"),
        ("claude-opus-4-20250514", "claude-opus-4"),
        ("claude-3-5-haiku-20241022", "claude-3-5-haiku"),
        ("claude-opus-6", None),
        ("claude-opus-5-5-preview", None),
        ("gpt", None),
        ("", None),
        ("claude-" + "x" * 1000, None),
    ],
)
def test_recognises_snapshots_aliases_and_the_spellings_of_clouds(name: str, model: str | None) -> None:
    assert model == model_table().canonical(name)


def test_gives_stated_facts_for_a_model_that_no_row_names() -> None:
    facts = model_table().facts("claude-opus-6")

    assert not facts.known
    assert facts.minimum_cacheable_tokens > 0
    assert facts.max_output_tokens == 128_000


@pytest.mark.parametrize(
    ("model", "minimum"),
    [
        ("claude-fable-5-2", 512),
        ("claude-opus-5-5", 512),
        ("claude-sonnet-5-5", 512),
        ("claude-haiku-5-5", 512),
        ("claude-opus-4-8", 1024),
        ("claude-sonnet-4-6", 1024),
        ("claude-opus-4-7", 2048),
        ("claude-haiku-4-5", 4096),
        ("claude-opus-4-6", 4096),
    ],
)
def test_knows_the_shortest_cacheable_prefix(model: str, minimum: int) -> None:
    assert minimum == model_table().facts(model).minimum_cacheable_tokens


def test_counts_about_thirty_per_cent_more_tokens_from_opus_4_7_on() -> None:
    table = model_table()
    ratio = table.facts("claude-opus-4-6").bytes_per_token / table.facts("claude-opus-4-7").bytes_per_token

    assert 1.25 < ratio < 1.35


def test_takes_globs_after_exact_names() -> None:
    names = ModelNames({"claude-a": ["house-*"], "claude-b": ["house-special"]})

    assert names.resolve("house-plain") == "claude-a"
    assert names.resolve("house-special") == "claude-b"


def test_refuses_a_name_that_means_two_models() -> None:
    with pytest.raises(ValueError, match="drop one"):
        ModelNames({"claude-a": ["x"], "claude-b": ["x"]})


def test_forgets_rather_than_grow_with_names_that_clients_make_up() -> None:
    facts = ModelFacts(id="a", minimum_cacheable_tokens=1, bytes_per_token=1.0)
    names = ModelNames({"a": []})
    table = ModelTable([facts], fallback=facts, names=names)
    for number in range(3 * MAX_REMEMBERED_NAMES):
        table.facts(f"made-up-{number}")

    assert len(names._remembered) <= MAX_REMEMBERED_NAMES
