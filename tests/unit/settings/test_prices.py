"""The shipped `prices.yaml` is complete, and a wrong one is refused with a reason that helps."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from pydantic import ValidationError

from gateway.settings.prices import PricesFile, to_tables
from gateway.settings.source import read_yaml
from tests.support.prices import PRICES_FILE, on, prices_file


def written() -> Any:
    return copy.deepcopy(read_yaml("prices.yaml", PRICES_FILE.read_bytes()).value)


def test_gives_a_date_and_a_source_for_everything() -> None:
    file = prices_file()

    assert str(file.as_of) == "2026-11-22"
    assert all(terms.source for terms in file.terms)
    assert all(price.source for model in file.models.values() for price in model.prices)


def test_knows_every_model_that_the_sdk_names() -> None:
    """But the one whose price no page states, which is retired."""
    import typing

    from anthropic.types import Model

    listed = {name for part in typing.get_args(Model) for name in typing.get_args(part)}
    prices, models = to_tables(prices_file())
    unknown = {name for name in listed if models.canonical(name) is None}

    assert unknown == {"claude-mythos-preview"}
    assert {name for name in listed if prices.factors(name, at=on("2026-11-22")).write_1h != 2.0} == set()


def test_reads_back_what_it_writes() -> None:
    file = prices_file()

    assert file == PricesFile.model_validate(file.model_dump(by_alias=True))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda file: file["models"]["claude-opus-5"].update(tokenizer="other"), "no tokenizer 'other'"),
        (lambda file: file["models"]["claude-opus-5"].update(aliases=["claude-opus-4-8"]), "drop one"),
        (lambda file: file["models"]["claude-opus-5"]["prices"][0].update(input=5.0), "not a price"),
        (lambda file: file["models"]["claude-opus-5"]["prices"][0].update(input="$1/0"), "not a number"),
        (lambda file: file["models"]["claude-opus-5"]["prices"][0].update(input="$0.1234567"), "pattern"),
        (lambda file: file["models"]["claude-opus-5"]["prices"][0].update({"from": "soon"}), "not a date"),
        (lambda file: file["models"]["claude-haiku-5-5"]["prices"].pop(), "no price for prompts above"),
        (lambda file: file["models"]["claude-opus-5"]["prices"].append(
            file["models"]["claude-opus-5"]["prices"][0]), "two prices"),
        (lambda file: file["terms"].append(file["terms"][0]), "two terms"),
        (lambda file: file["terms"][0].update(batch=0), "factor"),
        (lambda file: file["terms"][0].update(batch="1/0"), "not a number"),
        (lambda file: file.update(euros=True), "Extra inputs"),
    ],
)  # fmt: skip
def test_refuses_a_wrong_file_with_a_reason(change: Any, says: str) -> None:
    file = written()
    change(file)

    with pytest.raises(ValidationError, match=says):
        PricesFile.model_validate(file)
