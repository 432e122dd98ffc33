"""The lines of reports for machines, of the command and of the page: dollars are exact, as text with nine
decimals; columns are in one order, and new ones come after the known. CSV is as in RFC 4180. Pure.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence

from gateway.core.ledger import By, Loss, Total, iso_instant, loss_sentence, usd
from gateway.core.variance import PARTS, Variance

CAUSE = "cause"
"""In `--by`: not totals, but what misses cost, by cause and what else is asked for."""

Value = str | int | float | None
Row = dict[str, Value]


def total_row(by: Sequence[By], total: Total) -> Row:
    row: Row = {one.value: value for one, value in zip(by, total.group, strict=True)}
    row |= {
        "requests": total.requests,
        "refused": total.refused,
        "failed": total.failed,
        "uncached_input_tokens": total.uncached_input_tokens,
        "cache_read_tokens": total.cache_read_tokens,
        "cache_write_5m_tokens": total.cache_write_5m_tokens,
        "cache_write_1h_tokens": total.cache_write_1h_tokens,
        "output_tokens": total.output_tokens,
        "cache_read_ratio": _rounded(total.cache_read_ratio),
        "uncached_input_usd": usd(total.uncached_input_nanousd),
        "cache_read_usd": usd(total.cache_read_nanousd),
        "cache_write_5m_usd": usd(total.cache_write_5m_nanousd),
        "cache_write_1h_usd": usd(total.cache_write_1h_nanousd),
        "output_usd": usd(total.output_nanousd),
        "server_tools_usd": usd(total.server_tools_nanousd),
        "cost_usd": usd(total.cost_nanousd),
        "counterfactual_cost_usd": usd(total.counterfactual_nanousd),
        "input_plain_usd": usd(total.plain_nanousd),
        "input_paid_usd": usd(total.paid_nanousd),
        "saved_usd": usd(total.saved_nanousd),
        "saved_ratio": _rounded(total.saved_ratio),
        "lost_by_misses_usd": usd(total.miss_nanousd),
        "saved_by_holding_usd": usd(total.held_saved_nanousd),
        "shadow_paid_usd": usd(total.shadow_paid_nanousd),
        "shadow_usd": usd(total.shadow_nanousd),
        "guessed_usd": usd(total.guessed_nanousd),
        "fallback_usd": usd(total.fallback_nanousd),
        "web_search_requests": total.web_search_requests,
    }
    return row


def _rounded(ratio: float | None) -> float | None:
    return None if ratio is None else round(ratio, 6)


LOSS_COLUMNS = (CAUSE, "calls", "tokens", "lost_usd", "first_at", "last_at", "detail", "sentence")


def loss_row(by: Sequence[By], loss: Loss) -> Row:
    row: Row = {one.value: value for one, value in zip(by, loss.group, strict=True)}
    values: tuple[str | int, ...] = (
        loss.cause,
        loss.calls,
        loss.tokens,
        usd(loss.nanousd),
        iso_instant(loss.first_ms),
        iso_instant(loss.last_ms),
        loss.detail,
        loss_sentence(loss),
    )
    return row | dict(zip(LOSS_COLUMNS, values, strict=True))


def variance_columns(by: By) -> list[str]:
    amounts = [f"{name}_usd" for name in ("before", "after", "difference", *PARTS)]
    return [by.value, *amounts, "sentence"]


def variance_row(by: By, variance: Variance) -> Row:
    row: Row = {
        by.value: variance.name,
        "before_usd": usd(variance.before_nanousd),
        "after_usd": usd(variance.after_nanousd),
        "difference_usd": usd(variance.difference_nanousd),
    }
    parts = {f"{part}_usd": usd(amount) for part, amount in zip(PARTS, variance.parts, strict=True)}
    return row | parts | {"sentence": variance.sentence}


def csv_lines(columns: Sequence[str], rows: Iterable[Mapping[str, Value]]) -> Iterator[str]:
    """With a header even where there are no rows; each with its end of line."""
    line = io.StringIO()
    writer = csv.DictWriter(line, fieldnames=columns, lineterminator="\r\n")
    writer.writeheader()
    yield line.getvalue()
    for row in rows:
        line.seek(0)
        line.truncate()
        writer.writerow({name: _inert(value) for name, value in row.items()})
        yield line.getvalue()


def inert(text: str) -> str:
    """A text that a spreadsheet would take for a formula, with a ' in front, so that it is shown as it is."""
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def _inert(value: Value) -> Value:
    return inert(value) if isinstance(value, str) else value


_FORMULA = re.compile(r"[\t\r\n]|\s*[=+@\uff1d\uff0b\uff20\uff0d-]")
"""The wide forms are taken for one, too, where such letters are written."""
_NUMBER = re.compile(r"-?[0-9]*(\.[0-9]+)?")
"""Or the dash that stands for nothing."""
