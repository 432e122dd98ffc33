"""What is asked of a token endpoint, what is taken from its answer, and when."""

from __future__ import annotations

import json

import pytest

from gateway.core.federation import (
    GRANT_TYPE,
    TokenRequest,
    UpstreamToken,
    backoff_seconds,
    read_answer,
    refresh_at,
)

NOW = 1_800_000_000.0


def answer(**changed: object) -> bytes:
    fields = {"access_token": "sk-test-oat01-a", "token_type": "Bearer", "expires_in": 3600} | changed
    return json.dumps({name: value for name, value in fields.items() if value is not None}).encode()


def test_what_is_not_configured_is_not_sent() -> None:
    assert json.loads(TokenRequest(rule="fdrl_1", organisation="org").body("a.b.c")) == {
        "grant_type": GRANT_TYPE,
        "assertion": "a.b.c",
        "federation_rule_id": "fdrl_1",
        "organization_id": "org",
    }


def test_reads_the_token_and_its_end() -> None:
    token = read_answer(answer(), NOW)

    assert (token.text, token.expires_at) == ("sk-test-oat01-a", NOW + 3600)
    assert token.is_good(NOW + 3599) and not token.is_good(NOW + 3600)
    assert "oat01" not in repr(token)


def test_a_type_that_is_not_said_is_bearer() -> None:
    assert read_answer(answer(token_type=None), NOW).text == "sk-test-oat01-a"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"[" * 100_000,
        answer(token_type="mac"),
        answer(token_type=5),
        answer(access_token=None),
        answer(access_token=""),
        answer(access_token="a\r\nx: y"),
        answer(access_token=5),
        answer(expires_in=None),
        answer(expires_in=0),
        answer(expires_in=-5),
        answer(expires_in=True),
        answer(expires_in="3600"),
        answer(expires_in=10**9),
    ],
)
def test_an_answer_that_cannot_be_used_is_refused_without_a_word_of_it(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"answer|token") as caught:
        read_answer(body, NOW)

    assert "oat01" not in str(caught.value)


@pytest.mark.parametrize(
    ("life", "randomness", "expected"),
    [(3600, 0.0, 3480.0), (3600, 1.0, 3456.0), (60, 0.0, 30.0), (60, 1.0, 24.0)],
)
def test_a_token_is_replaced_before_its_end_and_at_half_of_a_short_life(
    life: float, randomness: float, expected: float
) -> None:
    token = UpstreamToken(text="t", got_at=NOW, expires_at=NOW + life)

    assert refresh_at(token, 120.0, randomness) == pytest.approx(NOW + expected)


def test_waits_longer_after_each_failure_up_to_a_minute() -> None:
    assert [backoff_seconds(n, 1.0) for n in (1, 2, 3, 7, 500)] == [1.0, 2.0, 4.0, 60.0, 60.0]
    assert backoff_seconds(1, 0.0) == 0.75
