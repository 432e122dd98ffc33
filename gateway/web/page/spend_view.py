"""What the screen about spend says beside its tables: figures, sentences, charts and links."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from urllib.parse import urlencode

from markupsafe import Markup

from gateway.core.ledger import SAVED_MEANS, month_bounds
from gateway.core.month_end import METHOD, MonthEnd
from gateway.core.periods import DAY_MS, HOUR_MS
from gateway.core.variance import PARTS, Variance
from gateway.web.page import showing
from gateway.web.page.asking import (
    Asked,
    as_of,
    command,
    periods,
    whole,
)
from gateway.web.page.charts import HALF, Band, Effect, Series, effect_bars, lines, stacked_bars
from gateway.web.page.rendering import PREFIX
from gateway.web.page.spend_found import BY, KIND, Found, ratio, stacks_of

NOTABLE_RISE = 0.25
NOTABLE_NANOUSD = 1_000_000_000
MOST_FINDINGS = 6


def spend_values(found: Found, now: float) -> dict[str, object]:
    asked, total, before = found.asked, found.total, whole(found.before)
    month = asked.span.month
    return {
        "asked": asked,
        "span": asked.span,
        "who": found.whole_variance.name,
        "books_as_of": as_of(found.state),
        "pruned": sorted(found.state.pruned_months),
        "trouble": found.state.trouble,
        "periods": periods(now),
        "by_choices": BY,
        "choices": _offered(found),
        "total": total,
        "before": before,
        "change_words": _change(total.cost_nanousd, before.cost_nanousd),
        "budget": found.budget,
        "budget_share": ratio(total.cost_nanousd, found.budget),
        "end": found.end,
        "findings": _findings(found),
        "variance": found.whole_variance,
        "reasons": _reasons_chart(found),
        "chart": _chart(found),
        "forecast_chart": _forecast_chart(found),
        "chips": _chips(found),
        "command": command(asked, by=() if asked.by == KIND else (asked.by,)),
        "against_command": command(asked, by=(), more="").split(" --by ")[0] + _against(asked),
        "month_csv": f"{PREFIX}/spend/month.csv?month={month}" if month else "",
        "focus_csv": f"{PREFIX}/spend/focus.csv?month={month}" if month else "",
        "saved_means": SAVED_MEANS,
        "method": METHOD,
    }


def _change(now: int, before: int) -> str:
    if not before:
        return "nothing to compare with"
    return f"{now / before - 1:+.0%} since".replace("-", "−")


def _against(asked: Asked) -> str:
    if asked.span.step_ms == HOUR_MS:
        return " --against before"
    first, last = (
        f"{datetime.fromtimestamp(ms / 1000, UTC):%Y-%m-%d}"
        for ms in (asked.span.before_start_ms, asked.span.before_end_ms - 1)
    )
    return f" --against {first}..{last}"


def _offered(found: Found) -> dict[str, list[tuple[str, str]]]:
    return {
        name: [("", "All"), *((value, found.key_names.get(value, value)) for value in values)]
        for name, values in found.choices.items()
    }


def _chips(found: Found) -> list[tuple[str, str]]:
    """What is looked at alone, each with the URL without it."""
    return [
        (f"{one.value}: {found.key_names.get(value, value)}", href_of(found.asked, **{one.value: None}))
        for one, value in found.asked.only.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something to look at: who it is about, what is the matter, and where to find out why."""

    name: str
    sentence: str
    why: str
    href: str
    tone: str
    nanousd: int


def _findings(found: Found) -> list[Finding]:
    """Who is over budget, will be, or spends much more than before; the worst first."""
    if found.asked.only or found.asked.by != "workspace":
        return []
    why_of = {one.name: one for one in found.variances}
    findings = []
    for name in sorted({total.group[0] for total in found.now}):
        one = why_of[name]
        budget, end = found.workspace_budgets.get(name) or found.budgets.get(name), found.ends.get(name)
        told = _matter(one, budget, end)
        if told is None:
            continue
        rank, sentence, over = told
        findings.append(
            Finding(
                name=name,
                sentence=sentence,
                why=one.sentence,
                href=href_of(found.asked, workspace=name, by="key"),
                tone=rank,
                nanousd=over,
            )
        )
    findings.sort(key=lambda each: (("bad", "warn", "").index(each.tone), -each.nanousd))
    return findings[:MOST_FINDINGS]


def _matter(one: Variance, budget: int | None, end: MonthEnd | None) -> tuple[str, str, int] | None:
    """Tone, sentence and by how much; None where nothing is the matter."""
    spent, usd = one.after_nanousd, showing.usd
    if budget and spent >= budget:
        of = f"{spent / budget:.0%} of its budget of {usd(budget)}"
        return "bad", f"{one.name} has spent {usd(spent)}: {of}.", spent - budget
    forecast = end.forecast_nanousd if end else None
    if budget and forecast is not None and forecast > budget:
        return (
            "warn",
            f"{one.name} is on the way to {usd(forecast)} at the month's end; its budget is {usd(budget)}.",
            forecast - budget,
        )
    rise = one.difference_nanousd
    if one.before_nanousd and rise > max(NOTABLE_NANOUSD, NOTABLE_RISE * one.before_nanousd):
        more = f"{rise / one.before_nanousd:.0%} more than in the period before"
        return "", f"{one.name} has spent {usd(spent)}, {more}.", rise
    return None


def _reasons_chart(found: Found) -> Markup | None:
    one = found.whole_variance
    if not one.before_nanousd or not one.after_nanousd:
        return None
    words = {
        "volume": "Volume",
        "mix": "Mix",
        "cache": "Caching",
        "price": "Prices",
    }
    return effect_bars(
        id="why",
        title=f"Why {one.name} cost more or less",
        description=one.sentence,
        effects=[
            Effect(name=words[part], value=amount, note=f"{words[part]}: {signed(amount)}")
            for part, amount in zip(PARTS, one.parts, strict=True)
        ],
        show=lambda value: signed(round(value)),
    )


def _chart(found: Found) -> dict[str, object]:
    """Spend by day or hour, stacked by what the table is split by, and its legend."""
    asked = found.asked
    stacks = stacks_of(found)
    points = [asked.span.step_name(at) for at, _ in found.steps]
    whole_words = f"Spend by {'hour' if asked.span.step_ms < DAY_MS else 'day'}"
    wholes = [sum(values[n] for _, values in stacks) for n in range(len(points))]
    most = max(range(len(points)), key=lambda n: wholes[n])
    return {
        "title": whole_words + (f", by {asked.by}" if len(stacks) > 1 else ""),
        "legend": [found.key_names.get(name, name) for name, _ in stacks],
        "svg": stacked_bars(
            id="daily",
            title=f"{whole_words}, {found.whole_variance.name}, {asked.span.words}, UTC",
            description=f"{showing.usd(sum(wholes))} in all; most on {points[most]}: "
            f"{showing.usd(wholes[most])}. The table below has all values.",
            unit="US dollars",
            points=[asked.span.label(at) for at, _ in found.steps],
            series=[
                Series(name=found.key_names.get(name, name), values=[float(value) for value in values])
                for name, values in stacks
            ],
            show=short_usd,
        ),
    }


def _forecast_chart(found: Found) -> Markup | None:
    """The month added up, with what is expected of its end and how far off that may be."""
    end, span = found.end, found.asked.span
    if end is None or end.forecast_nanousd is None:
        return None
    last_ms = month_bounds(span.month)[1]
    days = list(range(span.start_ms, last_ms, DAY_MS))
    spent, at, so_far = [], 0, [whole(totals).cost_nanousd for _, totals in found.steps]
    for amount in so_far:
        at += amount
        spent.append(float(at))
    today = len(spent) - 1
    expected: list[float | None] = [None] * len(days)
    sum_before = spent[today] - so_far[today]
    expected[today] = spent[today]
    for n, amount in enumerate(end.expected_nanousd):
        sum_before += amount
        if n:
            expected[today + n] = sum_before
    off = end.off or 0.0
    last = max(1, len(days) - 1 - today)
    band = Band(
        low=[
            None if value is None else max(spent[today], value * (1 - off * (n - today) / last))
            for n, value in enumerate(expected)
        ],
        high=[
            None if value is None else value * (1 + off * (n - today) / last)
            for n, value in enumerate(expected)
        ],
    )
    return lines(
        id="month",
        title=f"{span.month} added up, and what is expected of its end",
        description=end.sentence,
        unit="US dollars",
        points=[span.label(day) for day in days],
        series=[
            Series(name="spent", values=[*spent, *[None] * (len(days) - len(spent))]),
            Series(name="expected", values=expected),
        ],
        show=short_usd,
        band=band if end.off is not None else None,
        level=("budget", float(found.budget)) if found.budget else None,
        width=HALF,
        height=300,
    )


def href_of(asked: Asked, **changes: str | None) -> str:
    return f"{PREFIX}/spend?{urlencode(asked.query(**changes))}"


def signed(nanousd: int) -> str:
    cents = round(abs(nanousd) / 10_000_000)
    sign = "" if not cents else "+" if nanousd > 0 else "−"
    return f"{sign}${cents / 100:,.2f}"


def short_usd(nanousd: float) -> str:
    dollars = nanousd / 1e9
    if dollars >= 1_000_000:
        return f"${dollars / 1e6:,.2f}M"
    if dollars >= 10_000:
        return f"${dollars / 1e3:,.1f}k"
    return f"${dollars:,.0f}" if dollars == round(dollars) else showing.usd(round(nanousd))
