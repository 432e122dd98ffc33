"""What callers are told of their rate limits here, in the API's own words."""

from __future__ import annotations

from datetime import UTC, datetime

from gateway.core.bucket import Verdict
from gateway.core.limit_headers import limit_headers
from gateway.core.limits import BoundLimit, Limit, Mode, Period, Scope, Unit

AT = datetime(2026, 11, 22, 14, 46, 24, 1, UTC).timestamp()


def a_verdict(unit: Unit, remaining: int, amount: int = 100, mode: Mode = Mode.ENFORCE) -> Verdict:
    limit = Limit(
        id=unit.value,
        scope=Scope.KEY,
        unit=unit,
        amount=amount,
        period=Period.OPEN if unit is Unit.CONCURRENT else Period.MINUTE,
        mode=mode,
    )
    return Verdict(
        bound=BoundLimit(limit=limit, bucket_id=unit.value),
        allowed=True,
        remaining=remaining,
        retry_after_seconds=0.0,
        reset_at=None if unit is Unit.CONCURRENT else AT,
    )


def test_a_limit_is_told_in_the_apis_names_and_formats() -> None:
    assert limit_headers([a_verdict(Unit.REQUESTS, 7)]) == [
        (b"anthropic-ratelimit-requests-limit", b"100"),
        (b"anthropic-ratelimit-requests-remaining", b"7"),
        (b"anthropic-ratelimit-requests-reset", b"2026-11-22T14:46:25Z"),
    ]


def test_of_each_family_the_tightest_limit_is_told_and_tokens_is_the_tightest_of_all() -> None:
    verdicts = [
        a_verdict(Unit.REQUESTS, 50),
        a_verdict(Unit.REQUESTS, 400, amount=1_000),
        a_verdict(Unit.INPUT_TOKENS, 90),
        a_verdict(Unit.PROMPT_TOKENS, 60),
        a_verdict(Unit.OUTPUT_TOKENS, 30),
    ]
    headers = {name.decode(): int(value) for name, value in limit_headers(verdicts) if b"reset" not in name}

    assert headers == {
        "anthropic-ratelimit-requests-limit": 1_000,
        "anthropic-ratelimit-requests-remaining": 400,
        "anthropic-ratelimit-input-tokens-limit": 100,
        "anthropic-ratelimit-input-tokens-remaining": 60,
        "anthropic-ratelimit-tokens-limit": 100,
        "anthropic-ratelimit-tokens-remaining": 30,
        "anthropic-ratelimit-output-tokens-limit": 100,
        "anthropic-ratelimit-output-tokens-remaining": 30,
    }


def test_what_has_no_family_or_is_not_enforced_is_not_told() -> None:
    assert not limit_headers(
        [
            a_verdict(Unit.NANOUSD, 1),
            a_verdict(Unit.CONCURRENT, 1),
            a_verdict(Unit.REQUESTS, 1, mode=Mode.SHADOW),
        ]
    )
