"""Which header lines cross, in each direction."""

from __future__ import annotations

import pytest

from gateway.core.headers import (
    betas,
    repeated,
    request_headers,
    response_headers,
    value_of,
    with_credential,
)


def test_trap_25_takes_every_credential_off_a_request() -> None:
    headers = [
        (b"authorization", b"Bearer a"),
        (b"x-api-key", b"a"),
        (b"api-key", b"a"),
        (b"proxy-authorization", b"a"),
        (b"cookie", b"a"),
    ]

    assert request_headers(headers, decoded=False, identity=False) == []


def test_trap_23_clients_do_not_choose_the_workspace() -> None:
    headers = [(b"anthropic-workspace-id", b"wrkspc_1")]

    assert request_headers(headers, decoded=False, identity=False) == []


def test_trap_21_keeps_what_it_does_not_know() -> None:
    headers = [(b"x-claude-code-session-id", b"s"), (b"x-new", b"1"), (b"anthropic-new", b"2")]

    assert request_headers(headers, decoded=False, identity=False) == headers


def test_trap_43_drops_hop_by_hop_headers_and_those_that_connection_names() -> None:
    headers = [
        (b"connection", b"keep-alive, X-Mine"),
        (b"x-mine", b"1"),
        (b"te", b"trailers"),
        (b"upgrade", b"h2c"),
        (b"transfer-encoding", b"chunked"),
        (b"host", b"gateway"),
        (b"content-length", b"3"),
        (b"expect", b"100-continue"),
        (b"accept", b"*/*"),
    ]

    assert request_headers(headers, decoded=False, identity=False) == [(b"accept", b"*/*")]


def test_a_connection_header_cannot_take_off_what_the_api_needs() -> None:
    headers = [(b"connection", b"anthropic-version"), (b"anthropic-version", b"2023-06-01")]

    assert value_of(request_headers(headers, decoded=False, identity=False), b"anthropic-version")


def test_trap_43_joins_repeated_betas_in_order() -> None:
    headers = [(b"anthropic-beta", b"b,a"), (b"accept", b"*/*"), (b"anthropic-beta", b"c")]

    assert request_headers(headers, decoded=False, identity=False) == [
        (b"anthropic-beta", b"b,a,c"),
        (b"accept", b"*/*"),
    ]


def test_trap_20_a_single_beta_line_crosses_byte_for_byte() -> None:
    headers = [(b"anthropic-beta", b"b , a,,c")]

    assert request_headers(headers, decoded=False, identity=False) == headers


def test_trap_35_asks_for_no_compression_where_the_answer_is_metered() -> None:
    headers = [(b"accept-encoding", b"gzip, br")]

    assert request_headers(headers, decoded=False, identity=True) == [(b"accept-encoding", b"identity")]
    assert request_headers(headers, decoded=False, identity=False) == headers


def test_trap_45_takes_off_the_encoding_of_a_body_that_was_decoded() -> None:
    headers = [(b"content-encoding", b"gzip")]

    assert request_headers(headers, decoded=True, identity=False) == []
    assert request_headers(headers, decoded=False, identity=False) == headers


def test_gateway_headers_and_tags_stop_here() -> None:
    headers = [(b"x-gateway-placement", b"off"), (b"x-team", b"search"), (b"baggage", b"a=b")]

    assert request_headers(headers, decoded=False, identity=False, drop=("x-team",)) == []


def test_trap_26_appends_the_beta_that_a_credential_needs() -> None:
    headers = [(b"anthropic-beta", b"a,b")]
    credential = [(b"authorization", b"Bearer t"), (b"anthropic-beta", b"oauth-2025-04-20,a")]

    assert with_credential(headers, credential) == [
        (b"anthropic-beta", b"a,b,oauth-2025-04-20"),
        (b"authorization", b"Bearer t"),
    ]


def test_trap_25_sets_exactly_one_credential() -> None:
    assert with_credential([(b"authorization", b"old")], [(b"authorization", b"new")]) == [
        (b"authorization", b"new")
    ]


def test_trap_49_advice_on_retries_survives_and_cookies_do_not() -> None:
    headers = [
        (b"retry-after", b"3"),
        (b"retry-after-ms", b"3000"),
        (b"x-should-retry", b"true"),
        (b"request-id", b"req_1"),
        (b"content-length", b"10"),
        (b"set-cookie", b"a=b"),
        (b"transfer-encoding", b"chunked"),
    ]

    assert response_headers(headers) == headers[:5]


@pytest.mark.parametrize("name", [b"authorization", b"x-api-key", b"anthropic-version", b"content-type"])
def test_names_a_header_that_must_not_occur_twice(name: bytes) -> None:
    assert repeated([(name, b"1"), (b"accept", b"*/*"), (name, b"2")]) == name
    assert repeated([(name, b"1"), (b"accept", b"*/*"), (b"accept", b"*/*")]) is None


def test_trap_34_a_stream_asks_proxies_not_to_hold_it_back() -> None:
    stream = (b"content-type", b"text/event-stream; charset=utf-8")
    told = (b"x-accel-buffering", b"yes")

    assert response_headers([stream]) == [stream, (b"x-accel-buffering", b"no")]
    assert response_headers([stream, told]) == [stream, told]
    assert response_headers([(b"content-type", b"application/json")]) == [
        (b"content-type", b"application/json")
    ]


def test_betas_are_one_list_over_all_lines() -> None:
    lines = [(b"anthropic-beta", b"one, two"), (b"accept", b"three"), (b"anthropic-beta", b" ,four,one")]

    assert betas(lines) == [b"one", b"two", b"four", b"one"]
    assert betas([]) == []
