"""A measured curve, the line through it, and in words how far it is one. Pure; `growth.py` measures."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

STRAIGHT = 0.15
"""A curve whose points lie this near to one line is called linear: medians of few rounds on a machine that
others load are no better."""
FLAT = 0.1
"""Of the least value: what a curve may rise over its whole range and still be called flat."""


@dataclass(frozen=True, slots=True)
class Point:
    """The median of some rounds, with the least and the greatest of them."""

    x: float
    y: float
    low: float
    high: float


@dataclass(slots=True, kw_only=True)
class Curve:
    """One cost against one quantity. `rounds` are as measured, by quantity."""

    chart: str
    name: str
    x_unit: str
    y_unit: str
    rounds: dict[float, list[float]] = field(default_factory=dict)

    def note(self, x: float, y: float) -> None:
        self.rounds.setdefault(x, []).append(y)

    @property
    def points(self) -> list[Point]:
        return [
            Point(x, statistics.median(ys), min(ys), max(ys)) for x, ys in sorted(self.rounds.items()) if ys
        ]


@dataclass(frozen=True, slots=True)
class Line:
    """`start + slope * x`, and how far the worst point is off it, as a share of the point."""

    start: float
    slope: float
    worst: float

    def at(self, x: float) -> float:
        return self.start + self.slope * x


def fit(points: Sequence[Point]) -> Line:
    """The line with the least squares of relative residuals: a small cost counts as much as a large one."""
    if len(points) < 2:
        return Line(points[0].y if points else 0.0, 0.0, 0.0)
    weights = [1.0 / max(point.y, 1e-9) ** 2 for point in points]
    whole = sum(weights)
    mean_x = sum(w * p.x for w, p in zip(weights, points, strict=True)) / whole
    mean_y = sum(w * p.y for w, p in zip(weights, points, strict=True)) / whole
    spread = sum(w * (p.x - mean_x) ** 2 for w, p in zip(weights, points, strict=True))
    slope = (
        sum(w * (p.x - mean_x) * (p.y - mean_y) for w, p in zip(weights, points, strict=True)) / spread
        if spread
        else 0.0
    )
    start = mean_y - slope * mean_x
    return Line(start, slope, max(abs(start + slope * p.x - p.y) / max(p.y, 1e-9) for p in points))


def bend(points: Sequence[Point]) -> Point | None:
    """The first point, from the fourth on, that the line through those before it misses by more than
    `STRAIGHT`; None where there is none."""
    for count in range(3, len(points)):
        line, point = fit(points[:count]), points[count]
        if abs(point.y - line.at(point.x)) > STRAIGHT * point.y:
            return point
    return None


def in_words(curve: Curve) -> str:
    """What the curve does, for people."""
    points = curve.points
    if len(points) < 3:
        return "too few points to say"
    least, most = min(p.y for p in points), max(p.y for p in points)
    span = f"from {_short(points[0].x)} to {_short(points[-1].x)} {curve.x_unit}"
    if most - least <= FLAT * max(least, 1e-9):
        return f"flat {span}: {_short(statistics.median(p.y for p in points))} {curve.y_unit}"
    line = fit(points)
    said = f"{_short(line.start)} {'+' if line.slope >= 0 else '-'} {_short(abs(line.slope))} per unit"
    if line.worst <= STRAIGHT:
        return f"linear {span}: {said}, no point further off than {line.worst:.0%}"
    where = bend(points)
    if where is None:
        return f"near a line {span}: {said}, the worst point {line.worst:.0%} off"
    before = fit(points[: [p.x for p in points].index(where.x)])
    expected = before.at(where.x)
    line_before = (
        f"{_short(before.start)} {'+' if before.slope >= 0 else '-'} {_short(abs(before.slope))} per unit"
    )
    if where.y < expected:
        there = f"{_short(where.y)} at {_short(where.x)} {curve.x_unit}"
        return f"grows more slowly than a line: {there}, not {line_before}"
    return (
        f"linear below {_short(where.x)} {curve.x_unit} ({line_before}), where it is "
        f"{where.y / max(expected, 1e-9) - 1:.0%} dearer than that line"
    )


def as_json(curve: Curve) -> Mapping[str, object]:
    line = fit(curve.points)
    return {
        "chart": curve.chart,
        "name": curve.name,
        "x": curve.x_unit,
        "y": curve.y_unit,
        "points": [[p.x, p.y, p.low, p.high] for p in curve.points],
        "line": {"start": line.start, "slope": line.slope, "worst": line.worst},
        "words": in_words(curve),
    }


def from_json(stored: Mapping[str, object]) -> Curve:
    """What `as_json` wrote, one round for each of median, least and greatest."""
    curve = Curve(
        chart=str(stored["chart"]), name=str(stored["name"]), x_unit=str(stored["x"]), y_unit=str(stored["y"])
    )
    points = stored["points"]
    assert isinstance(points, list)
    for x, y, low, high in points:
        curve.rounds[float(x)] = [float(low), float(y), float(high)]
    return curve


class Curves:
    """Those of one run, by chart and name, in the order in which they were first noted."""

    def __init__(self, told: Callable[[str], None] = lambda _: None) -> None:
        self._all: dict[tuple[str, str], Curve] = {}
        self._told = told

    def note(self, chart: str, name: str, x: tuple[float, str], y: tuple[float, str]) -> None:
        """One round: the quantity and the cost, each with its unit."""
        curve = self._all.setdefault((chart, name), Curve(chart=chart, name=name, x_unit=x[1], y_unit=y[1]))
        curve.note(x[0], y[0])
        self._told(f"{chart}: {name}: {_short(x[0])} {x[1]}: {_short(y[0])} {y[1]}")

    def all(self) -> list[Curve]:
        return list(self._all.values())

    def of(self, chart: str) -> list[Curve]:
        return [curve for curve in self._all.values() if curve.chart == chart]


def _short(value: float) -> str:
    if value == 0 or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"
