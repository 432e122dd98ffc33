"""Charts of measured curves as SVG: legible on light and on dark ground, no script, no font of its own. Where
the quantity spans decades both axes are logarithmic, so that what is linear climbs one in one. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from xml.sax.saxutils import escape

from tests.bench.growth_curve import Curve, fit

WIDTH, HEIGHT = 860, 400
_LEFT, _RIGHT, _TOP, _BOTTOM = 78, 196, 62, 48
_APART = 17
"""Between two names at the right edge, at least."""
_STYLE = """\
text{font:13px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#1f2328}
.title{font-size:16px;font-weight:600}.small{font-size:12px;fill:#59636e}
.ground{fill:#fff}.grid{stroke:#d1d9e0;stroke-width:.7}.line,.fit,.range{fill:none;stroke-width:2}
.fit{stroke-dasharray:3 4;stroke-width:1.2}.range{stroke-width:1.2;opacity:.6}
.s0{stroke:#2f6fd0}.s1{stroke:#1a7f4b}.s2{stroke:#c4552d}.s3{stroke:#8250df}
.d0{fill:#2f6fd0}.d1{fill:#1a7f4b}.d2{fill:#c4552d}.d3{fill:#8250df}
@media (prefers-color-scheme:dark){
text{fill:#e6edf3}.small{fill:#9198a1}.ground{fill:#0d1117}.grid{stroke:#30363d}
.s0{stroke:#5b9bf0}.s1{stroke:#3fb977}.s2{stroke:#e0784f}.s3{stroke:#b78cf2}
.d0{fill:#5b9bf0}.d1{fill:#3fb977}.d2{fill:#e0784f}.d3{fill:#b78cf2}}"""


class _Axis:
    """From nothing on, or over whole parts of decades."""

    def __init__(self, values: Sequence[float], begin: float, end: float, *, decades: bool) -> None:
        known = [value for value in values if value > 0] or [1.0]
        self.decades = decades
        self.low = _nice(min(known), down=True) if decades else 0.0
        self.high = max(_nice(max(known), down=False), self.low * 2)
        self._begin, self._room = begin, end - begin

    def at(self, value: float) -> float:
        return self._begin + self._share(max(value, self.low)) * self._room

    def along(self, steps: int) -> list[float]:
        """Values from end to end, as far from each other on the chart."""
        shares = [n / steps for n in range(steps + 1)]
        if not self.decades:
            return [self.high * share for share in shares]
        return [self.low * (self.high / self.low) ** share for share in shares]

    def ticks(self) -> list[float]:
        if not self.decades:
            return [self.high * n / 5 for n in range(6)]
        decades = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        steps = (1, 2, 5) if self.high / self.low <= 100 else (1,)
        found = [step * 10.0**decade for decade in decades for step in steps]
        return [tick for tick in found if self.low * 0.999 <= tick <= self.high * 1.001]

    def _share(self, value: float) -> float:
        if not self.decades:
            return value / self.high
        return math.log(value / self.low) / math.log(self.high / self.low)


def chart(title: str, note: str, curves: Sequence[Curve]) -> str:
    """The whole file. Each curve is a line with the range of its rounds, and dashed the straight line that
    fits it best; `note` stands below the title."""
    points = [(curve, curve.points) for curve in curves if curve.points]
    across = [p.x for _, each in points for p in each]
    decades = min(across) > 0 and max(across) > 30 * min(across)
    x = _Axis(across, _LEFT, WIDTH - _RIGHT, decades=decades)
    up = [v for _, each in points for p in each for v in (p.low, p.high)]
    y = _Axis(up, HEIGHT - _BOTTOM, _TOP, decades=decades)
    shapes = _grid(x, y, points[0][0].x_unit)
    ends: list[tuple[float, int, str]] = []
    for rank, (curve, each) in enumerate(points):
        line = fit(each)
        inside = [
            step
            for step in x.along(60)
            if each[0].x <= step <= each[-1].x and y.low <= line.at(step) <= y.high
        ]
        shapes.append(_path("fit", rank, [(x.at(step), y.at(line.at(step))) for step in inside]))
        shapes.append(_path("line", rank, [(x.at(p.x), y.at(p.y)) for p in each]))
        for p in each:
            shapes.append(_path("range", rank, [(x.at(p.x), y.at(p.low)), (x.at(p.x), y.at(p.high))]))
            shapes.append(
                f'<circle class="d{rank % 4}" cx="{x.at(p.x):.1f}" cy="{y.at(p.y):.1f}" r="3.2">'
                f"<title>{p.x:,g} {escape(curve.x_unit)}: {p.y:,.4g} {escape(curve.y_unit)}</title></circle>"
            )
        ends.append((y.at(each[-1].y), rank, curve.name))
    shapes += _names(ends)
    units = " / ".join(dict.fromkeys(curve.y_unit for curve, _ in points))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" '
        f'height="{HEIGHT}" role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}"/>'
        f'<text class="title" x="16" y="26">{escape(title)}</text>'
        f'<text class="small" x="16" y="46">{escape(units)}. {escape(note)}</text>{"".join(shapes)}</svg>\n'
    )


def _grid(x: _Axis, y: _Axis, unit: str) -> list[str]:
    left, right, floor = _LEFT, WIDTH - _RIGHT, HEIGHT - _BOTTOM
    shapes = []
    for tick in y.ticks():
        at = y.at(tick)
        shapes.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{at:.1f}" y2="{at:.1f}"/>')
        shapes.append(
            f'<text class="small" x="{left - 8}" y="{at + 4:.1f}" text-anchor="end">{tick:,g}</text>'
        )
    for tick in x.ticks():
        at = x.at(tick)
        shapes.append(f'<line class="grid" x1="{at:.1f}" x2="{at:.1f}" y1="{_TOP}" y2="{floor}"/>')
        shapes.append(
            f'<text class="small" x="{at:.1f}" y="{floor + 18}" text-anchor="middle">{tick:,.0f}</text>'
        )
    middle = (left + right) / 2
    shapes.append(
        f'<text class="small" x="{middle}" y="{HEIGHT - 10}" text-anchor="middle">{escape(unit)}</text>'
    )
    return shapes


def _names(ends: Sequence[tuple[float, int, str]]) -> list[str]:
    """Each at the end of its line, none on another."""
    shapes, lowest = [], -math.inf
    for at, rank, name in sorted(ends):
        lowest = max(at + 4, lowest + _APART)
        left = WIDTH - _RIGHT + 12
        shapes.append(
            f'<rect class="d{rank % 4}" x="{left}" y="{lowest - 9:.1f}" width="9" height="9" rx="2"/>'
        )
        shapes.append(f'<text class="small" x="{left + 14}" y="{lowest:.1f}">{escape(name)}</text>')
    return shapes


def _path(kind: str, rank: int, points: Sequence[tuple[float, float]]) -> str:
    if not points:
        return ""
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
    return f'<polyline class="{kind} s{rank % 4}" points="{path}"/>'


def _nice(value: float, *, down: bool) -> float:
    """The next of 1, 2, 5 and their decades, below or above."""
    decade = 10.0 ** math.floor(math.log10(value))
    steps = [decade * step for step in (1, 2, 5, 10)]
    return (
        max(s for s in steps if s <= value * 1.001) if down else min(s for s in steps if s >= value * 0.999)
    )
