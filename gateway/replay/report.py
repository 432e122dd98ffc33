"""What a replay found, as rows and sentences. How they are shown is the command's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.replay.run import Replay, Result
from gateway.replay.tariffs import Cost

NONE, AUTOMATIC, RECORDED, LEARNED = "none", "automatic-5m", "recorded", "learned"


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One contestant. `cost` is in the report's unit, its warm-ups included."""

    name: str
    what: str
    cost: float
    saved: float
    """Share of what no caching costs; negative where it costs more."""
    of_bound: float | None
    """Its cost, where the bound is 1."""
    read_share: float
    written_tokens: int
    wasted_tokens: int
    held: int
    mean_hold_seconds: float
    max_hold_seconds: float
    warm_ups: int
    warm_cost: float
    best_fixed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """One trace. Costs are of the prompts: what is generated costs the same under every policy."""

    title: str
    requests: int
    prompt_tokens: int
    seconds: float
    in_dollars: bool
    """Else costs are millions of uncached input tokens' worth."""
    bound: float
    output_usd: float
    rows: tuple[Row, ...]
    advice: tuple[str, ...]
    notes: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "trace": self.title,
            "requests": self.requests,
            "prompt_tokens": self.prompt_tokens,
            "seconds": round(self.seconds, 3),
            "unit": "usd" if self.in_dollars else "million_input_tokens",
            "bound": round(self.bound, 9),
            "output_usd": round(self.output_usd, 9) if self.in_dollars else None,
            "policies": [row_values(row) for row in self.rows],
            "advice": list(self.advice),
            "notes": list(self.notes),
        }


def row_values(row: Row) -> dict[str, str | int | float | bool | None]:
    """One contestant for machines."""
    return {
        "policy": row.name,
        "cost": round(row.cost, 9),
        "saved_share": round(row.saved, 6),
        "cost_of_bound": None if row.of_bound is None else round(row.of_bound, 6),
        "read_share": round(row.read_share, 6),
        "written_tokens": row.written_tokens,
        "wasted_tokens": row.wasted_tokens,
        "held_requests": row.held,
        "mean_hold_seconds": round(row.mean_hold_seconds, 6),
        "max_hold_seconds": round(row.max_hold_seconds, 6),
        "warm_ups": row.warm_ups,
        "warm_up_cost": round(row.warm_cost, 9),
        "best_fixed": row.best_fixed,
    }


def report_on(
    title: str, replay: Replay, results: Sequence[Result], shown: Sequence[str], notes: Sequence[str] = ()
) -> Report:
    """`results` must have `none` among them; of all only those named in `shown` become rows."""
    in_dollars = all(result.cost.usd is not None for result in results)

    def amount(cost: Cost) -> float:
        return cost.usd or 0.0 if in_dollars else cost.tokens / 1e6

    plain = next(amount(result.cost) for result in results if result.name == NONE)
    chosen = [result for result in results if result.name in shown]
    fixed = [result for result in chosen if result.fixed]
    best = min(fixed, key=lambda result: amount(result.cost), default=None)
    bound = amount(replay.bound)
    rows = []
    for result in chosen:
        total, cost = result.bill.total, amount(result.cost)
        rows.append(
            Row(
                name=result.name,
                what=result.what,
                cost=cost,
                saved=1.0 - cost / plain if plain else 0.0,
                of_bound=cost / bound if bound else None,
                read_share=result.read_share,
                written_tokens=total.write_5m + total.write_1h,
                wasted_tokens=result.wasted_tokens,
                held=result.held,
                mean_hold_seconds=result.mean_hold_seconds,
                max_hold_seconds=result.max_hold_seconds,
                warm_ups=result.warm_ups,
                warm_cost=amount(result.warm_bill.cost) if result.warm_ups else 0.0,
                best_fixed=result is best,
            )
        )
    return Report(
        title=title,
        requests=replay.requests,
        prompt_tokens=replay.prompt_tokens,
        seconds=replay.seconds,
        in_dollars=in_dollars,
        bound=bound,
        output_usd=replay.output_usd,
        rows=tuple(rows),
        advice=tuple(_advice(rows)),
        notes=(*notes, *_compared_with_reports(replay, results, in_dollars)),
    )


def show_cost(amount: float, in_dollars: bool) -> str:
    """For people."""
    if not in_dollars:
        return f"{amount:,.3f}M"
    return f"${amount:,.2f}" if amount >= 100 else f"${amount:,.4f}"


def _advice(rows: Sequence[Row]) -> list[str]:
    by_name = {row.name: row for row in rows}
    sentences = []
    automatic, learned, recorded = by_name.get(AUTOMATIC), by_name.get(LEARNED), by_name.get(RECORDED)
    if automatic is not None:
        sentences.append(f"Automatic caching would have cost {_against_none(automatic)} here.")
    best = next((row for row in rows if row.best_fixed), None)
    if best is not None and len([row for row in rows if row.name != LEARNED]) > 1:
        if best.name == NONE:
            sentences.append("Of the fixed rules none saves anything: not to cache is the best of them.")
        else:
            sentences.append(f"The best fixed rule is `{best.name}`, at {_against_none(best)}.")
    if learned is not None:
        rest = ""
        if best is not None and best is not automatic and best.cost:
            rest = f", {_against(learned, best)} the best fixed rule"
        sentences.append(f"`learned` costs {_against_none(learned)}{rest}.")
    if learned is not None and recorded is not None and recorded.cost:
        sentences.append(f"Against what was sent, `learned` costs {_against(learned, recorded)} it.")
    return sentences


def _against_none(row: Row) -> str:
    if abs(row.saved) < 0.0005:
        return "as much as none"
    return f"{abs(row.saved):.1%} {'less' if row.saved > 0 else 'more'} than none"


def _against(row: Row, other: Row) -> str:
    share = 1.0 - row.cost / other.cost
    return "as much as" if abs(share) < 0.0005 else f"{abs(share):.1%} {'less' if share > 0 else 'more'} than"


def _compared_with_reports(replay: Replay, results: Sequence[Result], in_dollars: bool) -> list[str]:
    """How far the simulator's reckoning of what was sent is from what upstream reported."""
    recorded = next((result for result in results if result.name == RECORDED), None)
    actual = replay.actual.cost
    if recorded is None or not replay.billed_requests:
        return []
    reckoned, reported = recorded.cost, actual
    ours = reckoned.usd if in_dollars else reckoned.tokens / 1e6
    theirs = reported.usd if in_dollars else reported.tokens / 1e6
    if not ours or not theirs:
        return []
    return [
        f"By their usage reports the prompts of {replay.billed_requests:,} requests cost "
        f"{show_cost(theirs, in_dollars)}; reckoned here, as recorded: {show_cost(ours, in_dollars)} "
        f"({ours / theirs - 1.0:+.1%})."
    ]
