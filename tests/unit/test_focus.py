"""Rows have the columns of FOCUS 1.3 in their types, and sum to what was charged."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.focus import COLUMNS, KINDS, Charge, focus_rows
from gateway.core.ledger import usd

MANDATORY = {
    *("BilledCost", "BillingAccountId", "BillingAccountName", "BillingCurrency", "BillingPeriodEnd"),
    *("BillingPeriodStart", "ChargeCategory", "ChargeClass", "ChargeDescription", "ChargePeriodEnd"),
    *("ChargePeriodStart", "ContractedCost", "EffectiveCost", "HostProviderName", "InvoiceIssuerName"),
    *("ListCost", "PricingQuantity", "PricingUnit", "ProviderName", "PublisherName", "ServiceCategory"),
    *("ServiceName", "ServiceProviderName"),
}
MAY_BE_NULL = {"ChargeClass", "RegionId", "ResourceId", "SubAccountId", "SubAccountName", "SubAccountType"}
DECIMALS = {
    *("BilledCost", "EffectiveCost", "ListCost", "ContractedCost", "ConsumedQuantity", "PricingQuantity"),
    *("ListUnitPrice", "ContractedUnitPrice"),
}
INSTANTS = {"ChargePeriodStart", "ChargePeriodEnd", "BillingPeriodStart", "BillingPeriodEnd"}
OBJECTS = {"Tags", "SkuPriceDetails"}

CHARGE = Charge(
    day="2026-12-31",
    organisation="acme",
    workspace="search",
    model="claude-test-1",
    tier="standard",
    geography="-",
    price_id="claude-test-1@2026-01-01",
    guessed=False,
    fallback=False,
    tags='{"x-cost-centre": "4711"}',
    amounts=(
        (1_000, 3_000_000),
        (9_000, 2_700_003),
        (0, 0),
        (500, 3_000_000),
        (300, 4_500_000),
        (2, 20_000_000),
    ),
)

_amounts = st.tuples(st.integers(0, 10**13), st.integers(0, 10**16))


@given(st.lists(_amounts, min_size=len(KINDS), max_size=len(KINDS)))
def test_rows_sum_to_the_charge_and_have_the_right_types(amounts: list[tuple[int, int]]) -> None:
    rows = focus_rows(replace(CHARGE, amounts=tuple(amounts)))

    assert (
        sum(Decimal(row["BilledCost"] or "") for row in rows)
        == Decimal(sum(cost for _, cost in amounts)) / 10**9
    )
    assert sum(int(row["ConsumedQuantity"] or "") for row in rows) == sum(quantity for quantity, _ in amounts)
    for row in rows:
        assert tuple(row) == COLUMNS
        check_types(row)


def check_types(row: dict[str, str | None]) -> None:
    assert set(row) >= MANDATORY
    for name, value in row.items():
        if not value:
            assert value is None
            assert name in MAY_BE_NULL or (name.endswith("UnitPrice") and row["ConsumedQuantity"] == "0")
        elif name in DECIMALS:
            assert re.fullmatch(r"-?\d+(\.\d+)?", value)
        elif name in INSTANTS:
            assert re.fullmatch(r"\d{4}-\d\d-\d\dT00:00:00Z", value)
        elif name in OBJECTS:
            assert isinstance(json.loads(value), dict)
    if row["ListUnitPrice"] is not None:
        quantity = Decimal(row["PricingQuantity"] or "")
        off = Decimal(row["ListUnitPrice"]) * quantity - Decimal(row["ListCost"] or "")
        assert abs(off) <= quantity * Decimal("0.0000000005")


def test_a_row_by_hand() -> None:
    rows = focus_rows(CHARGE)
    read = rows[1]

    assert [row["SkuMeter"] for row in rows] == [
        "Uncached Input Tokens",
        "Cache Read Input Tokens",
        "Cache Write Input Tokens (1h)",
        "Output Tokens",
        "Web Searches",
    ]
    assert read["BilledCost"] == read["EffectiveCost"] == read["ListCost"] == usd(2_700_003) == "0.002700003"
    assert (read["ConsumedQuantity"], read["ConsumedUnit"]) == ("9000", "Tokens")
    assert (read["PricingQuantity"], read["PricingUnit"]) == ("0.009000", "1000000 Tokens")
    assert read["ListUnitPrice"] == "0.300000333"
    assert (read["ChargePeriodStart"], read["ChargePeriodEnd"]) == (
        "2026-12-31T00:00:00Z",
        "2027-01-01T00:00:00Z",
    )
    assert (read["BillingPeriodStart"], read["BillingPeriodEnd"]) == (
        "2026-12-01T00:00:00Z",
        "2027-01-01T00:00:00Z",
    )
    assert (read["SubAccountId"], read["SubAccountType"]) == ("search", "Workspace")
    assert read["SkuId"] == "claude-test-1:cache_read:standard"
    assert json.loads(read["SkuPriceDetails"] or "")["x_TokenCacheAction"] == "Read"
    assert (rows[4]["PricingQuantity"], rows[4]["PricingUnit"], rows[4]["ListUnitPrice"]) == (
        "0.002",
        "1000 Requests",
        "10.000000000",
    )


def test_own_columns_are_named_and_placed_as_the_specification_wants() -> None:
    own = [name for name in COLUMNS if name.startswith("x_")]
    assert list(COLUMNS[-len(own) :]) == own
    assert all(re.fullmatch("[A-Z][A-Za-z]+", name) for name in COLUMNS[: -len(own)])


@pytest.mark.parametrize(("guessed", "source"), [(False, "Provider"), (True, "Gateway")])
def test_what_is_guessed_is_marked_and_what_is_missing_is_null(guessed: bool, source: str) -> None:
    rows = focus_rows(replace(CHARGE, guessed=guessed, workspace="-"))

    assert {row["x_EstimateSource"] for row in rows} == {source}
    assert {row["SubAccountId"] for row in rows} == {row["SubAccountType"] for row in rows} == {None}
