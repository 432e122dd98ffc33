"""A bar chart of a replay as SVG: legible on light and on dark ground, no script, no font of its own."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from gateway.replay.report import Report, Row, show_cost

WIDTH = 860
_LEFT, _RIGHT, _TOP, _BAR, _GAP, _BOTTOM = 150, 180, 64, 20, 9, 46
_APART = 60
"""Labels nearer to each other than this are written as one."""
_STYLE = """\
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}.small{font-size:12px;fill:#59636e}
.bar{fill:#8c959f}.best{fill:#2f6fd0}.learned{fill:#1a7f4b}.worse{fill:#c4552d}
.line{stroke:#59636e;stroke-dasharray:4 3}.ground{fill:#fff}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.small{fill:#9198a1}.ground{fill:#0d1117}
.bar{fill:#768390}.best{fill:#5b9bf0}.learned{fill:#3fb977}.worse{fill:#e0784f}.line{stroke:#9198a1}}"""


def chart(reports: Sequence[Report]) -> str:
    """The whole file: one panel for each report, its costs relative to no caching."""
    panels, top = [], 0
    for report in reports:
        height = _height(report)
        panels.append(f'<g transform="translate(0 {top})">{_panel(report, height)}</g>')
        top += height
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {top}" width="{WIDTH}" height="{top}" '
        f'role="img"><title>Cost of prompts by caching policy</title><style>{_STYLE}</style>'
        f'<rect class="ground" width="{WIDTH}" height="{top}"/>{"".join(panels)}</svg>\n'
    )


def _height(report: Report) -> int:
    return _TOP + len(report.rows) * (_BAR + _GAP) + _BOTTOM


def _panel(report: Report, height: int) -> str:
    rows = sorted(report.rows, key=lambda row: row.cost)
    full = max([row.cost for row in rows] + [1e-12])
    plain = next((row.cost for row in rows if row.name == "none"), None)
    scale = (WIDTH - _LEFT - _RIGHT) / full
    unit = "" if report.in_dollars else "; in millions of uncached input tokens"
    floor = _TOP + len(rows) * (_BAR + _GAP)
    parts = [
        f'<text class="title" x="16" y="26">{escape(report.title)}</text>',
        f'<text class="small" x="16" y="46">Cost of the prompts of {report.requests:,} requests, '
        f"{report.prompt_tokens / 1e6:,.1f}M tokens, warm-ups included{unit}</text>",
    ]
    for place, row in enumerate(rows):
        parts.append(_bar(row, report, _TOP + place * (_BAR + _GAP), scale))
    marks = [("bound", report.bound)] + ([] if plain is None else [("none", plain)])
    if plain is not None and (plain - report.bound) * scale < _APART:
        marks = [("bound and none" if plain > report.bound else "bound", report.bound)]
    for name, cost in marks:
        x = _LEFT + cost * scale
        parts.append(f'<line class="line" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 6}" y2="{floor + 4}"/>')
        parts.append(f'<text class="small" x="{x:.1f}" y="{floor + 20}" text-anchor="middle">{name}</text>')
    parts.append(
        f'<text class="small" x="16" y="{height - 8}">bound: what no policy can go below, even one that '
        "knows what is to come</text>"
    )
    return "".join(parts)


def _bar(row: Row, report: Report, top: float, scale: float) -> str:
    kind = "best" if row.best_fixed else "learned" if row.name == "learned" else "bar"
    if row.saved < -0.0005:
        kind = "worse"
    width = max(1.0, row.cost * scale)
    change = "" if row.name == "none" else f"{-row.saved:+.0%}".replace("-", "−")
    best = " best fixed rule" if row.best_fixed else ""
    middle = top + _BAR / 2 + 4.5
    return (
        f'<text x="{_LEFT - 10}" y="{middle}" text-anchor="end">{escape(row.name)}</text>'
        f'<rect class="{kind}" x="{_LEFT}" y="{top}" width="{width:.1f}" height="{_BAR}" rx="3"/>'
        f'<text x="{_LEFT + width + 8:.1f}" y="{middle}">{show_cost(row.cost, report.in_dollars)}'
        f'<tspan class="small" dx="6">{change}{best}</tspan></text>'
    )
