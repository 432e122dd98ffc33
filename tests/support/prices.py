"""The tables of the shipped `config/prices.yaml`, and instants to ask them about."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from gateway.core.models import ModelTable
from gateway.core.pricing import PriceTable
from gateway.settings.prices import PricesFile
from gateway.settings.source import read_yaml

PRICES_FILE = Path(__file__).parents[2] / "config" / "prices.yaml"


@cache
def prices_file() -> PricesFile:
    document = read_yaml(str(PRICES_FILE), PRICES_FILE.read_bytes())
    assert document.problems == []
    return PricesFile.model_validate(document.value)


@cache
def price_table() -> PriceTable:
    return prices_file().price_table()


@cache
def model_table() -> ModelTable:
    return prices_file().model_table()


def on(day: str) -> float:
    """Noon of a day, UTC, in epoch seconds."""
    return datetime.fromisoformat(f"{day}T12:00:00").replace(tzinfo=UTC).timestamp()


NOW = on("2026-11-22")
