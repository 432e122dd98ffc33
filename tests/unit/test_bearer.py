"""Tokens before their signature is looked at: form, header, claims."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.core.bearer import (
    MAX_TOKEN_BYTES,
    Algorithm,
    BadToken,
    Issuer,
    check_claims,
    issuer_of,
    looks_like_token,
    read_token,
)
from tests.support.tokens import by_hand

NOW = 1_800_000_000.0
HEADER = {"alg": "ES256", "kid": "key-1", "typ": "JWT"}
CLAIMS = {"iss": "https://issuer.test", "aud": "gateway", "sub": "app", "exp": NOW + 60}
ISSUER = Issuer(
    name="test",
    issuer="https://issuer.test",
    audiences=("gateway", "gateway-2"),
    algorithms=frozenset({Algorithm.ES256}),
    leeway_seconds=30.0,
    subject="sub",
    rules=(),
)


def test_reads_what_was_signed() -> None:
    raw = by_hand(HEADER, CLAIMS)
    token = read_token(raw)

    assert (token.algorithm, token.key_id, token.signature) == (Algorithm.ES256, "key-1", b"signature")
    assert raw.rpartition(b".")[0] == token.signed
    assert issuer_of(token) == "https://issuer.test"


@pytest.mark.parametrize(
    ("header", "says"),
    [
        ({"alg": "none"}, "taken are RS256"),
        ({"alg": "None"}, "taken are"),
        ({"alg": "HS256"}, "taken are"),
        ({"alg": "RS512"}, "taken are"),
        ({"alg": ["ES256"]}, "taken are"),
        ({"kid": "key-1"}, "taken are"),
        ({**HEADER, "crit": ["exp"]}, "`crit`"),
        ({**HEADER, "crit": []}, "`crit`"),
        ({**HEADER, "b64": False, "crit": ["b64"]}, "`crit`"),
        ({**HEADER, "typ": "logout+jwt"}, "`typ`"),
        ({**HEADER, "typ": 1}, "`typ`"),
        ({**HEADER, "kid": 5}, "well-formed"),
        ({**HEADER, "kid": ""}, "well-formed"),
        ({**HEADER, "kid": "k" * 300}, "well-formed"),
        (b'{"alg":"ES256","alg":"none"}', "well-formed"),
        (b"[]", "well-formed"),
        (b"\xff", "well-formed"),
        (b'{"alg":NaN}', "well-formed"),
        ({**HEADER, "x5c": ["A" * 2_000]}, "well-formed"),
    ],
)
def test_a_header_that_is_not_taken_is_refused(header: object, says: str) -> None:
    with pytest.raises(BadToken, match=says):
        read_token(by_hand(header, CLAIMS))


@pytest.mark.parametrize(
    "raw",
    [
        b"..",
        b"a.b",
        b"a.b.c.d",
        b"eyJhbGciOiJFUzI1NiJ9..",
        b"eyJhbGciOiJFUzI1NiJ9.e30=.c2ln",
        b"eyJhbGciOiJFUzI1NiJ9.e30\n.c2ln",
        b"eyJhbGciOiJFUzI1NiJ9.e3 0.c2ln",
        "eyJhbGciOiJFUzI1NiJ9.e30.é".encode(),
        b"eyJhbGciOiJFUzI1NiJ9.e.c2ln",
    ],
)
def test_what_has_not_the_form_of_a_token_is_refused(raw: bytes) -> None:
    with pytest.raises(BadToken, match="well-formed"):
        read_token(raw)


@pytest.mark.parametrize(
    "claims",
    [
        b'{"sub":"a","sub":"b"}',
        b'{"a":{"sub":"a","sub":"b"}}',
        b'{"exp":Infinity}',
        b"[" * 2_500 + b"]" * 2_500,
        b'{"a":' * 1_000 + b"1" + b"}" * 1_000,
        b'"text"',
        b"",
    ],
)
def test_claims_that_two_readers_could_read_differently_are_refused(claims: bytes) -> None:
    """Deep ones that the parser takes have no issuer; both are refusals."""
    with pytest.raises(BadToken):
        issuer_of(read_token(by_hand(HEADER, claims)))


def test_a_long_token_is_refused_by_its_size_alone() -> None:
    with pytest.raises(BadToken, match="longer than 8192"):
        read_token(b"\xff" * (MAX_TOKEN_BYTES + 1))


def test_headers_that_bring_a_key_along_are_not_looked_at() -> None:
    strange = {
        "jku": "http://169.254.169.254/",
        "x5u": "file:///etc/passwd",
        "jwk": {"kty": "oct", "k": "AA"},
    }
    token = read_token(by_hand({**HEADER, **strange}, CLAIMS))

    assert not any(name in repr(token) for name in strange)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"aud": "other"}, "`aud`"),
        ({"aud": None}, "`aud`"),
        ({"aud": []}, "`aud`"),
        ({"aud": {"gateway": True}}, "`aud`"),
        ({"aud": ["other", 5]}, "`aud`"),
        ({"aud": "gateway "}, "`aud`"),
        ({"exp": NOW - 30}, "expired"),
        ({"exp": None}, "never expires"),
        ({"exp": "1900000000"}, "no number"),
        ({"exp": True}, "no number"),
        ({"exp": 10**400}, "no number"),
        ({"nbf": NOW + 31}, "not valid yet"),
        ({"iat": NOW + 31}, "not valid yet"),
        ({"nbf": "soon"}, "no number"),
    ],
)
def test_claims_that_do_not_hold_now_and_here_are_refused(changed: dict[str, object], says: str) -> None:
    token = read_token(by_hand(HEADER, CLAIMS | changed))

    with pytest.raises(BadToken, match=says):
        check_claims(token, ISSUER, NOW)


@pytest.mark.parametrize(
    "changed",
    [
        {"aud": ["other", "gateway-2"]},
        {"exp": NOW - 29.5},
        {"nbf": NOW + 30, "iat": NOW + 30},
        {"exp": 1.9e9},
    ],
)
def test_claims_that_hold_are_good_until_the_end_and_the_leeway(changed: dict[str, object]) -> None:
    claims = CLAIMS | changed
    until = check_claims(read_token(by_hand(HEADER, claims)), ISSUER, NOW)

    assert float(str(claims["exp"])) + 30 == until


def test_an_algorithm_that_its_issuer_does_not_use_is_refused() -> None:
    token = read_token(by_hand(HEADER, CLAIMS))
    other = replace(ISSUER, algorithms=frozenset({Algorithm.RS256}))

    with pytest.raises(BadToken, match="method"):
        check_claims(token, other, NOW)


@pytest.mark.parametrize("issuer", [None, "", 5, ["https://issuer.test"]])
def test_a_token_without_an_issuer_is_refused(issuer: object) -> None:
    with pytest.raises(BadToken, match="names no issuer"):
        issuer_of(read_token(by_hand(HEADER, {**CLAIMS, "iss": issuer})))


def test_no_message_holds_any_of_the_token() -> None:
    canary = "canary-7c1f"
    for raw in (by_hand({"alg": canary}, CLAIMS), by_hand(HEADER, {"iss": canary, "aud": canary})):
        with pytest.raises(BadToken) as caught:
            check_claims(read_token(raw), ISSUER, NOW)

        assert canary not in str(caught.value)
        assert raw.decode() not in str(caught.value)


def test_only_what_has_two_dots_is_read_as_a_token() -> None:
    assert looks_like_token(by_hand(HEADER, CLAIMS))
    assert not looks_like_token(b"cgw_00000000_00000000000000000000000000000000000000")
    assert not looks_like_token(json.dumps(HEADER).encode())
