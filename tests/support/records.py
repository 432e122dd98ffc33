"""Builders of exchange records: one honest default, changed where a test says so."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from gateway.core.bucket import Amounts, Reservation
from gateway.core.exchange import Basis, ExchangeRecord, State, Timings
from gateway.core.ids import KeyId, ReservationId, WorkspaceId
from gateway.core.placement import Breakpoint, Placement
from gateway.core.pricing import Cost
from gateway.core.principal import Principal
from gateway.core.prompt import TTL
from gateway.core.savings import Cohort, Savings
from gateway.core.usage import Report, Usage

_USAGE = Usage(
    uncached_input_tokens=100,
    cache_read_tokens=9_000,
    cache_write_5m_tokens=900,
    output_tokens=300,
    model="claude-test-1",
    service_tier="standard",
)
_COST = Cost(
    uncached_input_nanousd=300_000,
    cache_read_nanousd=2_700_001,
    cache_write_5m_nanousd=3_375_000,
    output_nanousd=4_500_000,
    counterfactual_nanousd=34_500_000,
    price_id="claude-test-1@2026-01-01",
)
_RECORD = ExchangeRecord(
    id="exchange-1",
    upstream_request_id="req_test_1",
    received_at=1_795_000_000.25,  # 2026-11-18
    endpoint="messages",
    method="POST",
    streaming=True,
    principal=Principal(workspace=WorkspaceId("search"), key_id=KeyId("k1"), key_name="search app"),
    route="direct",
    model="claude-test-1",
    state=State.ANSWERED,
    basis=Basis.REPORTED,
    status=200,
    error_code=None,
    upstream_error_type=None,
    attempts=1,
    usage=_USAGE,
    cost=_COST,
    savings=Savings(
        cohort=Cohort.PLACED, plain_nanousd=30_000_000, paid_nanousd=6_375_001, expected_read_tokens=8_900
    ),
    placement=Placement(
        breakpoints=(Breakpoint(block=2, ttl=TTL.FIVE_MINUTES, reason="the last stable block"),)
    ),
    placement_applied=True,
    plan_failed=False,
    client_marks=0,
    held_tokens=0,
    estimated_nanousd=40_000_000,
    overrun_nanousd=0,
    reservation=Reservation(
        id=ReservationId("exchange-1"), limits=(), amounts=Amounts(nanousd=40_000_000), lease_seconds=600
    ),
    binding_limit=None,
    shadow_refusals=(),
    store_degraded=False,
    request_bytes=131_072,
    response_bytes=8_192,
    report=Report(usage=_USAGE, message_id="msg_test_1", stop_reason="end_turn", complete=True),
    timings=Timings(
        total_seconds=2.5,
        body_read_seconds=0.001,
        overhead_seconds=0.0012,
        upstream_first_byte_seconds=0.7,
        first_token_seconds=0.8,
    ),
)


def a_record(**changes: Any) -> ExchangeRecord:
    """A streaming Messages call, answered in full, with a cache read; `changes` replace fields."""
    return replace(_RECORD, **changes)


def a_refused_record(**changes: Any) -> ExchangeRecord:
    """A call refused before its key was known."""
    nothing: dict[str, Any] = {
        "id": "exchange-2",
        "upstream_request_id": None,
        "principal": None,
        "route": None,
        "model": None,
        "streaming": False,
        "state": State.REFUSED,
        "basis": Basis.NONE,
        "status": 401,
        "error_code": "unauthenticated",
        "attempts": 0,
        "usage": None,
        "cost": None,
        "savings": None,
        "placement": None,
        "estimated_nanousd": 0,
        "reservation": None,
        "report": None,
        "response_bytes": 200,
        "timings": Timings(total_seconds=0.001),
    }
    return replace(_RECORD, **(nothing | changes))
