"""What a batch turned out to use, summed from its result lines as they come. Pure.

A line is one JSON object: `{"custom_id": ..., "result": {"type": ..., "message" | "error": ...}}`. Only items
that succeeded are billed (batch processing page, 2026-08-21). Nothing of a line is kept but its usage.
"""

from __future__ import annotations

import msgspec

from gateway.core.answer import MAX_BODY_BYTES, BodyReader
from gateway.core.batch import Settled
from gateway.core.batch_shares import Share, ShareSum, sorted_shares
from gateway.core.bucket import Amounts
from gateway.core.exchange import Basis
from gateway.core.ledger import billed
from gateway.core.pricing import PriceTable
from gateway.core.usage import Report, Usage

MAX_LINE_BYTES = MAX_BODY_BYTES
"""A longer line cannot be read, and its batch is booked at what was set aside."""

_Key = tuple[str, str | None, str, bool, bool]


class ResultSums:
    """Reads the lines of one batch's results. Never raises; keeps one line and a few sums.

    `at`: the instant whose prices hold. Upstream does not say when it ran an item; all are taken to have run
    when the batch ended.
    """

    def __init__(self, prices: PriceTable, *, at: float) -> None:
        self._prices = prices
        self._at = at
        self._line = bytearray()
        self._sums: dict[_Key, ShareSum] = {}
        self._input_tokens = self._prompt_tokens = self._output_tokens = self._nanousd = 0
        self._lines = 0
        self._unread = 0

    def feed(self, data: bytes) -> bool:
        """Take what came. Returns False, as `Answer.pump` asks: it is never congested."""
        *ended, rest = data.split(b"\n")
        for piece in ended:
            self._keep(piece)
            self._end_line()
        self._keep(rest)
        return False

    def end(self) -> None:
        """There is no more: a last line need not end with a line break."""
        self._end_line()

    def is_whole(self, items: int) -> bool:
        """Whether every one of so many items has a line, and each could be read."""
        return self._lines == items and not self._unread

    def settled(self, *, items: int, ended_at: float, ledger: str, at: float) -> Settled:
        """What is to be booked. Shares are kept apart by what sets entries apart in the books: model, place,
        price and whether anything was charged."""
        shares: tuple[Share, ...] = sorted_shares(self._sums.values())
        return Settled(
            basis=Basis.REPORTED,
            ended_at=ended_at,
            amounts=Amounts(
                requests=items,
                input_tokens=self._input_tokens,
                prompt_tokens=self._prompt_tokens,
                output_tokens=self._output_tokens,
                nanousd=self._nanousd,
            ),
            shares=shares,
            ledger=ledger,
            at=at,
        )

    def _keep(self, piece: bytes) -> None:
        if len(self._line) <= MAX_LINE_BYTES:
            self._line += piece

    def _end_line(self) -> None:
        line, self._line = bytes(self._line).strip(), bytearray()
        if not line:
            return
        self._lines += 1
        kind = _kind_of(line)
        if kind in _UNBILLED:
            return
        reader = BodyReader()
        reader.feed(line)
        report = reader.report()
        if kind != "succeeded" or report.usage is None:
            self._unread += 1
            return
        self._add(report, report.usage)

    def _add(self, report: Report, usage: Usage) -> None:
        cost = self._prices.cost(usage, model=report.model, at=self._at, batch=True, report=report)
        model = report.model or "unknown"
        key = (model, usage.inference_geo, cost.price_id, cost.fallback, cost.total_nanousd > 0)
        sums = self._sums.get(key)
        if sums is None:
            sums = self._sums[key] = ShareSum(model)
        sums.add(usage, cost)
        tokens = billed(usage)
        self._input_tokens += tokens.prompt_tokens - tokens.cache_read_tokens
        self._prompt_tokens += tokens.prompt_tokens
        self._output_tokens += tokens.output_tokens
        self._nanousd += cost.total_nanousd


_UNBILLED = frozenset({"errored", "canceled", "expired"})


class _Result(msgspec.Struct):
    type: str = ""


class _Line(msgspec.Struct):
    result: _Result


_LINE = msgspec.json.Decoder(_Line)


def _kind_of(line: bytes) -> str:
    if len(line) > MAX_LINE_BYTES:
        return ""
    try:
        return _LINE.decode(line).result.type
    except (msgspec.MsgspecError, ValueError, RecursionError):
        return ""
