"""Charges as FOCUS 1.3 wants them (FinOps Open Cost and Usage Specification, December 2025). Pure.

A row is what one day's use of one kind of tokens cost one workspace, of one model at one price, with one set
of tags: a token is on one row only, and the sum of the rows is the sum of the ledger. 1.3 has the names of
1.4 (`ServiceProviderName`) and still those of 1.2 (`ProviderName`), so readers of all three take it. Where it
departs from the specification:

- `BilledCost` is what the gateway reckoned, not what an invoice says; `gateway reconcile` compares the two.
- All four costs are the same: the price table knows one price, which may be the list's or a negotiated one.
- Costs are rounded up per call and kind, so unit prices are averages, to nine decimals: times the quantity
  they come to within half a billionth of a dollar, per unit, of the cost.
- `BillingAccountId` is the organisation in the gateway, and the host is taken to be the provider.
- There are no resources in this API: `ResourceId` is null.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta

from gateway.core.ledger import usd

VERSION = "1.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Charge:
    """One row of SQL: what one group of entries used of each kind. Texts are "-" where there is none."""

    day: str
    """As 2026-11-18, in UTC."""
    organisation: str
    workspace: str
    model: str
    tier: str
    """Service tier, such as "standard" or "batch"."""
    geography: str
    price_id: str
    guessed: bool
    """Whether usage was not reported in full."""
    fallback: bool
    """Whether the model had no price of its own."""
    tags: str
    """JSON object of strings."""
    amounts: tuple[tuple[int, int], ...]
    """Quantity and nano-dollars, in the order of `KINDS`."""

    @property
    def key(self) -> tuple[str | bool, ...]:
        """What makes rows of two ledgers the same charge; rows are read in its order."""
        return (
            self.day,
            self.organisation,
            self.workspace,
            self.model,
            self.tier,
            self.geography,
            self.price_id,
            self.guessed,
            self.fallback,
            self.tags,
        )


@dataclass(frozen=True, slots=True)
class Kind:
    """What is metered by itself."""

    name: str
    column: str
    """Of the ledger: its quantity. Beside it is `cost`."""
    cost: str
    meter: str
    unit: str
    priced_by: int
    """How many units the price is for."""
    details: tuple[tuple[str, str], ...]


def _tokens(name: str, meter: str, direction: str, *details: tuple[str, str]) -> Kind:
    details = (("x_TokenDirection", direction), *details)
    return Kind(name, f"{name}_tokens", f"{name}_nanousd", meter, "Tokens", 1_000_000, details)


_ACTION = "x_TokenCacheAction"
KINDS = (
    _tokens("uncached_input", "Uncached Input Tokens", "Input", (_ACTION, "Uncached")),
    _tokens("cache_read", "Cache Read Input Tokens", "Input", (_ACTION, "Read")),
    _tokens(
        "cache_write_5m",
        "Cache Write Input Tokens (5m)",
        "Input",
        (_ACTION, "Write"),
        ("x_CacheDuration", "5m"),
    ),
    _tokens(
        "cache_write_1h",
        "Cache Write Input Tokens (1h)",
        "Input",
        (_ACTION, "Write"),
        ("x_CacheDuration", "1h"),
    ),
    _tokens("output", "Output Tokens", "Output"),
    Kind("web_search", "web_search_requests", "server_tools_nanousd", "Web Searches", "Requests", 1_000, ()),
)

COLUMNS = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingAccountType",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "ContractedUnitPrice",
    "EffectiveCost",
    "HostProviderName",
    "InvoiceIssuerName",
    "ListCost",
    "ListUnitPrice",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "ResourceId",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceDetails",
    "SkuPriceId",
    "SubAccountId",
    "SubAccountName",
    "SubAccountType",
    "Tags",
    "x_EstimateSource",
    "x_PriceFallback",
)
"""In the order of the file; those of our own come last (column naming, FOCUS 1.3)."""

_SAME = {
    "BillingAccountType": "Organization",
    "BillingCurrency": "USD",
    "ChargeCategory": "Usage",
    "ChargeClass": None,
    "ChargeFrequency": "Usage-Based",
    "HostProviderName": "Anthropic",
    "InvoiceIssuerName": "Anthropic",
    "PricingCategory": "Standard",
    "ProviderName": "Anthropic",
    "PublisherName": "Anthropic",
    "ResourceId": None,
    "ServiceCategory": "AI and Machine Learning",
    "ServiceName": "Claude API",
    "ServiceProviderName": "Anthropic",
    "ServiceSubcategory": "Generative AI",
}


def focus_rows(charge: Charge) -> list[dict[str, str | None]]:
    """A row for each kind that was used or cost anything. None is null: an empty field in the file."""
    return [
        _row(charge, kind, quantity, nanousd)
        for kind, (quantity, nanousd) in zip(KINDS, charge.amounts, strict=True)
        if quantity or nanousd
    ]


def _row(charge: Charge, kind: Kind, quantity: int, nanousd: int) -> dict[str, str | None]:
    cost, price = usd(nanousd), _unit_price(kind, quantity, nanousd)
    workspace = _null(charge.workspace)
    values = {
        **_SAME,
        **_periods(date.fromisoformat(charge.day)),
        "BilledCost": cost,
        "ContractedCost": cost,
        "EffectiveCost": cost,
        "ListCost": cost,
        "ContractedUnitPrice": price,
        "ListUnitPrice": price,
        "BillingAccountId": charge.organisation,
        "BillingAccountName": charge.organisation,
        "ChargeDescription": f"{charge.model}: {kind.meter}",
        "ConsumedQuantity": str(quantity),
        "ConsumedUnit": kind.unit,
        "PricingQuantity": _share(quantity, kind.priced_by),
        "PricingUnit": f"{kind.priced_by} {kind.unit}",
        "RegionId": _null(charge.geography),
        "SkuId": f"{charge.model}:{kind.name}:{charge.tier}",
        "SkuMeter": kind.meter,
        "SkuPriceDetails": _details(charge, kind),
        "SkuPriceId": f"{charge.price_id}:{kind.name}",
        "SubAccountId": workspace,
        "SubAccountName": workspace,
        "SubAccountType": workspace and "Workspace",
        "Tags": charge.tags,
        "x_EstimateSource": "Gateway" if charge.guessed else "Provider",
        "x_PriceFallback": "true" if charge.fallback else "false",
    }
    return {name: values[name] for name in COLUMNS}


def _periods(day: date) -> dict[str, str]:
    """Ends are exclusive."""
    month = day.replace(day=1)
    return {
        "ChargePeriodStart": _instant(day),
        "ChargePeriodEnd": _instant(day + timedelta(days=1)),
        "BillingPeriodStart": _instant(month),
        "BillingPeriodEnd": _instant((month + timedelta(days=31)).replace(day=1)),
    }


def _instant(day: date) -> str:
    return f"{day.isoformat()}T00:00:00Z"


def _unit_price(kind: Kind, quantity: int, nanousd: int) -> str | None:
    """The average, half a billionth rounded up."""
    return usd((2 * nanousd * kind.priced_by + quantity) // (2 * quantity)) if quantity else None


def _share(quantity: int, of: int) -> str:
    places = len(str(of)) - 1
    return f"{quantity // of}.{quantity % of:0{places}d}"


def _details(charge: Charge, kind: Kind) -> str:
    model = {"x_ModelDeveloper": "Anthropic", "x_ModelId": charge.model, "x_ServiceTier": charge.tier}
    return json.dumps(dict(kind.details) | model, sort_keys=True)


def _null(text: str) -> str | None:
    return None if text == "-" else text
