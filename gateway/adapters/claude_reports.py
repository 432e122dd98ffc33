"""The provider's usage and cost reports, fetched page by page into typed values. Both generations of them:

- `analytics/usage` and `analytics/cost`, beta `analytics-usage-cost-2026-08-24` (SDK 2.12, 2026-11);
- `usage_report/messages` and `cost_report`, which these replace (usage and cost API page, 2026-08-21).

They need a key of the Admin API; it is asked for at each request, and is in no error and no log. Shapes are
in `claude_report_shapes.py`; what is made of the figures is `core/reconcile.py`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from datetime import date, timedelta
from fractions import Fraction
from types import TracebackType
from typing import Self, TypeVar

import aiohttp
import msgspec

from gateway.adapters.claude_report_shapes import (
    CostBucket,
    CostRow,
    Generation,
    Page,
    ProviderReports,
    ReportsUnavailable,
    UsageBucket,
    UsageRow,
)
from gateway.core.reconcile_cells import Billed
from gateway.ports import Clock

NEWER_VERSION = "2026-10-21"
OLDER_VERSION = "2023-06-01"
BETA = "analytics-usage-cost-2026-08-24"
MAX_DAYS = 31
"""Of one query of the newer reports, and buckets on a page of the older ones."""
MAX_ROWS = 1_000
MAX_PAGES = 10_000
MAX_PAGE_BYTES = 64 << 20
ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.5
MAX_WAIT_SECONDS = 60.0
MAX_MESSAGE_CHARS = 200
_NANOUSD_PER_CENT = 10_000_000
_RETRIED = frozenset({408, 429, 500, 502, 503, 504, 529})
_NOT_HERE = frozenset({400, 403, 404})
"""Answers by which an organisation says that it has not got the newer reports: the path or the beta is
unknown, or not for it."""

CredentialLines = Callable[[], Sequence[tuple[bytes, bytes]]]
Query = list[tuple[str, str]]
AnyPage = TypeVar("AnyPage", Page[UsageRow], Page[CostRow], Page[UsageBucket], Page[CostBucket])


class _Error(msgspec.Struct):
    message: str = ""


class _ErrorBody(msgspec.Struct):
    error: _Error


class ClaudeReports:
    """Reads the reports of one organisation. `credential` gives the header line of an Admin API key."""

    def __init__(
        self,
        base_url: str,
        *,
        credential: CredentialLines,
        clock: Clock,
        proxy: str | None = None,
        timeout_seconds: float = 60.0,
    ) -> None:
        """`timeout_seconds` bounds each request; a report is tried `ATTEMPTS` times."""
        self._base = f"{base_url}/v1/organizations/"
        self._credential = credential
        self._clock = clock
        self._proxy = proxy
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=timeout_seconds))

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._session.close()

    async def fetch(
        self, first: date, last: date, *, generation: Generation | None = None, by_key: bool = False
    ) -> ProviderReports:
        """All figures from `first` to `last`, both included, by day, workspace, model and tier, and `by_key`
        by API key as well.

        Where no generation is said, the newer one, or else the older. Raises `ReportsUnavailable`, and
        whatever the credential raises.
        """
        if generation is Generation.OLDER:
            return await self._older(first, last, by_key)
        try:
            return await self._newer(first, last, by_key)
        except ReportsUnavailable as error:
            if generation is not None or error.status not in _NOT_HERE:
                raise
            newer = error
        try:
            return await self._older(first, last, by_key)
        except ReportsUnavailable as older:
            raise ReportsUnavailable(f"{newer} And of the older reports: {older}") from older

    async def _newer(self, first: date, last: date, by_key: bool) -> ProviderReports:
        billed: list[Billed] = []
        decimals = 0
        dimensions = ["workspace_id", "model", "service_tier", *(["api_key_id"] if by_key else [])]
        by = [("group_by[]", name) for name in dimensions]
        while first <= last:
            until = min(last, first + timedelta(days=MAX_DAYS - 1))
            query = [
                *_bounds(first, until),
                ("time_bucket_width", "1d"),
                ("order_by", "time"),
                ("order", "asc"),
                ("limit", str(MAX_ROWS)),
                *by,
            ]
            async for page in self._pages("analytics/usage", query, Page[UsageRow], BETA):
                for row in page.data:
                    billed.extend(row.read())
            kinds = [("group_by[]", "cost_type"), ("group_by[]", "token_type")]
            async for costs in self._pages("analytics/cost", query + kinds, Page[CostRow], BETA):
                for cost in costs.data:
                    billed.extend(_read(cost))
                    decimals = max(decimals, _decimals(cost.amounts()))
            first = until + timedelta(days=1)
        return _reports(Generation.ANALYTICS, billed, decimals)

    async def _older(self, first: date, last: date, by_key: bool) -> ProviderReports:
        if by_key:
            raise ReportsUnavailable("The older cost report does not tell API keys apart; map workspaces.")
        billed: list[Billed] = []
        decimals = 0
        # Whether a bucket that ends with the range is in it, the reference leaves open: ask for one more.
        beyond = last + timedelta(days=1)
        query = [*_bounds(first, beyond), ("bucket_width", "1d"), ("limit", str(MAX_DAYS))]
        by = [("group_by[]", name) for name in ("workspace_id", "model", "service_tier")]
        async for page in self._pages("usage_report/messages", query + by, Page[UsageBucket]):
            for bucket in page.data:
                billed.extend(bucket.read())
        by = [("group_by[]", name) for name in ("workspace_id", "description")]
        async for costs in self._pages("cost_report", query + by, Page[CostBucket]):
            for cost in costs.data:
                billed.extend(_read(cost))
                decimals = max(decimals, _decimals(cost.amounts()))
        within = [figure for figure in billed if first <= figure.day <= last]
        return _reports(Generation.OLDER, within, decimals)

    async def _pages(
        self, path: str, query: Query, shape: type[AnyPage], beta: str | None = None
    ) -> AsyncIterator[AnyPage]:
        """Every page in turn. A page that names itself as the next one ends in an error, not in a loop."""
        decoder = msgspec.json.Decoder(shape)
        token: str | None = None
        for _ in range(MAX_PAGES):
            body = await self._get(path, [*query, ("page", token)] if token else query, beta)
            try:
                page = decoder.decode(body)
            except (msgspec.DecodeError, ValueError) as error:
                raise ReportsUnavailable(f"{path} cannot be read: {error}.") from error
            yield page
            if not page.has_more or not page.next_page:
                return
            if page.next_page == token:
                break
            token = page.next_page
        raise ReportsUnavailable(f"{path} does not come to an end.")

    async def _get(self, path: str, query: Query, beta: str | None) -> bytes:
        """One page's body, after as many attempts as it takes and `ATTEMPTS` allows."""
        wait_seconds = FIRST_WAIT_SECONDS
        for attempt in range(1, ATTEMPTS + 1):
            asked_seconds: float | None = None
            try:
                status, asked_seconds, body = await self._ask(path, query, beta)
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = ReportsUnavailable(f"{path} could not be fetched: {type(error).__name__}.")
            else:
                if status == 200:
                    return body
                message = _message(body)
                failure = ReportsUnavailable(
                    f"{path} was answered with {status}{message and ': '}{message}.", status=status
                )
                if status not in _RETRIED:
                    raise failure
            if attempt == ATTEMPTS:
                raise failure
            await self._clock.sleep(
                min(MAX_WAIT_SECONDS, wait_seconds if asked_seconds is None else asked_seconds)
            )
            wait_seconds *= 2
        raise AssertionError("the last attempt returns or raises")

    async def _ask(self, path: str, query: Query, beta: str | None) -> tuple[int, float | None, bytes]:
        """Status, how many seconds to wait if it says so, and the body. Redirects are not followed: they
        would carry the key elsewhere."""
        headers = [(name.decode(), value.decode()) for name, value in self._credential()]
        headers.append(("anthropic-version", NEWER_VERSION if beta else OLDER_VERSION))
        if beta:
            headers.append(("anthropic-beta", beta))
        async with self._session.get(
            self._base + path, params=query, headers=headers, proxy=self._proxy, allow_redirects=False
        ) as response:
            body = bytearray()
            async for part in response.content.iter_any():
                body += part
                if len(body) > MAX_PAGE_BYTES:
                    raise ReportsUnavailable(f"A page of {path} is larger than {MAX_PAGE_BYTES} bytes.")
            return response.status, _seconds(response.headers.get("retry-after")), bytes(body)


def _bounds(first: date, last: date) -> Query:
    """RFC 3339, the end exclusive."""
    return [
        ("starting_at", f"{first.isoformat()}T00:00:00Z"),
        ("ending_at", f"{(last + timedelta(days=1)).isoformat()}T00:00:00Z"),
    ]


def _read(row: CostRow | CostBucket) -> list[Billed]:
    try:
        return list(row.read())
    except ValueError as error:
        raise ReportsUnavailable(f"The cost report cannot be read: {error}.") from error


def _reports(generation: Generation, billed: list[Billed], decimals: int) -> ProviderReports:
    return ProviderReports(
        generation=generation,
        billed=tuple(billed),
        smallest_nanousd=Fraction(_NANOUSD_PER_CENT, 10**decimals),
    )


def _decimals(amounts: Iterable[str]) -> int:
    return max((len(amount.partition(".")[2]) for amount in amounts), default=0)


def _seconds(text: str | None) -> float | None:
    """A `retry-after` in seconds; its other form, a date, counts as none."""
    return float(text) if text and re.fullmatch(r"\d{1,6}(\.\d{1,6})?", text) else None


def _message(body: bytes) -> str:
    """What the API's error envelope says, fit for a terminal."""
    try:
        text = msgspec.json.decode(body, type=_ErrorBody).error.message[:MAX_MESSAGE_CHARS]
    except msgspec.DecodeError:
        return ""
    return text if text.isprintable() else ""
