"""Weeks of calls that cost the same, for what looks for hours that do not."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.exchange import ExchangeRecord
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.misses import Miss, MissCause
from gateway.core.placement import Placement
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.savings import Cohort, Savings
from gateway.core.usage import Usage
from tests.support.records import a_record

NOW = datetime(2026, 11, 18, 14, 20, tzinfo=UTC).timestamp()
HOUR = 3_600.0
USD = 1_000_000_000


def a_call(number: int, at: float, *, read: bool = True, workspace: str = "search") -> ExchangeRecord:
    """100,000 tokens for $1 plain; a dime where they are read."""
    paid = USD // 10 if read else USD
    usage = Usage(cache_read_tokens=100_000 if read else 0, uncached_input_tokens=0 if read else 100_000)
    cost = Cost(
        cache_read_nanousd=paid if read else 0,
        uncached_input_nanousd=0 if read else paid,
        counterfactual_nanousd=USD,
        price_id="p",
    )
    miss = Miss(block=0, cause=MissCause.CHANGED, tokens=90_000, looks_like="an added tool", where="tools[3]")
    return a_record(
        id=f"{workspace}-{at}-{number}",
        received_at=at,
        principal=Principal(workspace=WorkspaceId(workspace), key_id=KeyId("k1"), key_name="app"),
        usage=usage,
        cost=cost,
        savings=Savings(
            cohort=Cohort.PLACED,
            plain_nanousd=USD,
            paid_nanousd=paid,
            miss_cause=None if read else MissCause.CHANGED,
            miss_nanousd=0 if read else 9 * USD // 10,
        ),
        placement=Placement(breakpoints=(), miss=None if read else miss),
    )


def seven_weeks(workspace: str = "search") -> list[ExchangeRecord]:
    """Ten calls in each hour from 13 to 15, on each of the last seven days and on that day of seven weeks."""
    start = datetime(2026, 11, 18, 13, tzinfo=UTC).timestamp()
    return [
        a_call(number, start - day * 24 * HOUR + hour * HOUR + 60 * number, workspace=workspace)
        for day in (*range(1, 7), *range(7, 50, 7))
        for hour in range(2)
        for number in range(10)
    ]
