"""Errors, and what a client gets for each."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from gateway.core.errors import (
    BudgetExhausted,
    Draining,
    GatewayError,
    StoreUnavailable,
    Unauthenticated,
    UpstreamCut,
    UpstreamUnreachable,
)
from gateway.web.faults import FAULTS, render, stream_error


def codes(kind: type[GatewayError] = GatewayError) -> Iterator[str]:
    yield kind.code
    for below in kind.__subclasses__():
        yield from codes(below)


def test_every_error_has_one_row_and_every_row_an_error() -> None:
    grouping = {"internal_error"}  # classes that only group carry their parent's code

    assert set(codes()) | grouping == set(FAULTS)


def header(error: GatewayError, name: bytes) -> bytes | None:
    return dict(render(error, "gw_1").headers).get(name)


def test_trap_47_the_envelope_is_the_apis_own() -> None:
    rendered = render(Unauthenticated(), "gw_1")

    assert json.loads(rendered.body) == {
        "type": "error",
        "error": {"type": "authentication_error", "message": Unauthenticated().message},
        "request_id": "gw_1",
    }
    assert dict(rendered.headers)[b"request-id"] == b"gw_1"
    assert dict(rendered.headers)[b"content-length"] == b"%d" % len(rendered.body)


def test_a_401_ends_the_retries_of_agents() -> None:
    """Claude Code takes a 401 without this header for passing, and retries for minutes."""
    assert header(Unauthenticated(), b"x-should-retry") == b"false"


def test_no_message_names_a_credential_header() -> None:
    """Claude Code shows any error that contains the name as an invalid key."""
    assert "x-api-key" not in Unauthenticated().message


def exhausted(wait: float | None) -> BudgetExhausted:
    return BudgetExhausted("spent", limit_id="month", reset_at=1.8e9, retry_after_seconds=wait)


@pytest.mark.parametrize("wait", [None, 61.0, 2_000_000.0])
def test_a_long_wait_is_a_refusal_and_no_retry(wait: float | None) -> None:
    """SDKs obey any `retry-after`, for weeks if told so."""
    assert header(exhausted(wait), b"retry-after") is None
    assert header(exhausted(wait), b"x-should-retry") == b"false"


def test_a_short_wait_is_worth_a_retry() -> None:
    assert header(exhausted(2.1), b"retry-after") == b"3"
    assert header(exhausted(2.1), b"x-should-retry") == b"true"


def test_a_spent_budget_names_its_limit_and_reset() -> None:
    assert header(exhausted(None), b"x-gateway-limit") == b"month"
    assert header(exhausted(None), b"x-gateway-limit-reset") == b"Fri, 15 Jan 2027 08:00:00 GMT"


@pytest.mark.parametrize("error", [Draining("d"), StoreUnavailable("s")])
def test_what_passes_is_a_529(error: GatewayError) -> None:
    assert render(error, "gw_1").status == 529


def test_asks_for_a_retry_only_where_nothing_was_sent() -> None:
    assert header(UpstreamUnreachable("u", request_sent=False), b"x-should-retry") == b"true"
    assert header(UpstreamUnreachable("u", request_sent=True), b"x-should-retry") is None


@pytest.mark.parametrize(
    "seen", ["event: ping\ndata: {}\n\n", 'event: content_block_delta\ndata: {"ty', "event: pi"]
)
def test_trap_39_a_cut_stream_ends_in_an_error_event_wherever_it_was_cut(seen: str) -> None:
    """The last event of what the client has read is of type `error`, whatever half line came before."""
    text = seen + stream_error(UpstreamCut("cut"), "gw_1").decode()
    last = [event for event in text.split("\n\n") if event.strip()][-1]
    names = [line.removeprefix("event: ") for line in last.splitlines() if line.startswith("event: ")]

    assert names[-1] == "error"
    assert text.endswith("\n\n")
