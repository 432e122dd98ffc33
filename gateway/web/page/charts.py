"""Charts as SVG, drawn on the server: stacked bars, lines with a band, bars to either side of nothing. Pure.

No script, no style attribute and no colour in here: classes name what a shape is, `static/charts.css` says
how that looks on light and on dark ground. Each chart has a title and a description for who does not see it,
each shape a title that says its value; and the page shows the same numbers in a table. What is drawn is
bounded by `MAX_POINTS` and `MAX_SERIES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH = 1160
HALF = 620
"""Of a chart beside another one."""
_LEFT, _RIGHT, _TOP, _BOTTOM = 74, 14, 26, 34
MAX_POINTS = 400
MAX_SERIES = 5
"""As many as there are colours that can be told apart; the last is for all others together."""
_TICKS = 4
_LABEL_WIDTH = 66
"""Labels of the horizontal axis need so much room each."""

Show = Callable[[float], str]
"""A value as people read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """One value for each point; None where there is none."""

    name: str
    values: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Between two values at each point, where both are known."""

    low: Sequence[float | None]
    high: Sequence[float | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One bar of `effect_bars`: to the right where it is above nothing."""

    name: str
    value: float
    note: str = ""


def stacked_bars(
    *,
    id: str,
    title: str,
    description: str,
    unit: str,
    points: Sequence[str],
    series: Sequence[Series],
    show: Show,
    height: int = 280,
) -> Markup:
    """A bar for each point, its series on top of each other, the first at the bottom. Values below nothing
    are not drawn. `unit` is written at the vertical axis; `id` is unique on the page."""
    assert len(points) <= MAX_POINTS
    assert len(series) <= MAX_SERIES
    wholes = [sum(_above(one.values[n]) for one in series) for n in range(len(points))]
    frame = _Frame(WIDTH, height, len(points), max(wholes, default=0.0))
    shapes = []
    for n, point in enumerate(points):
        floor = 0.0
        for rank, one in enumerate(series):
            value = _above(one.values[n])
            if value <= 0.0:
                continue
            upper, lower = frame.y(floor + value), frame.y(floor)
            floor += value
            shapes.append(
                f'<rect class="c{rank + 1}" x="{frame.x(n) + frame.gap / 2:.1f}" y="{upper:.1f}" '
                f'width="{frame.step - frame.gap:.1f}" height="{max(0.5, lower - upper):.1f}">'
                f"<title>{escape(point)}, {escape(one.name)}: {escape(show(value))}</title></rect>"
            )
    return _svg(id, title, description, frame, [*_axes(frame, points, unit, show), *shapes])


def lines(
    *,
    id: str,
    title: str,
    description: str,
    unit: str,
    points: Sequence[str],
    series: Sequence[Series],
    show: Show,
    band: Band | None = None,
    level: tuple[str, float] | None = None,
    top: float | None = None,
    width: int = WIDTH,
    height: int = 240,
) -> Markup:
    """A line for each series; the second and later ones are broken, as what is expected is. `level` is a line
    across with its name; `top` is where the vertical axis ends at least."""
    assert len(points) <= MAX_POINTS
    values = [value for one in series for value in one.values if value is not None]
    values += [value for value in (band.high if band else ()) if value is not None]
    values += [level[1]] if level else []
    frame = _Frame(width, height, len(points), max([*values, top or 0.0]))
    shapes = []
    if band is not None:
        ends = [
            (n, low, high)
            for n, (low, high) in enumerate(zip(band.low, band.high, strict=True))
            if low is not None and high is not None
        ]
        upper = [f"{frame.middle(n):.1f},{frame.y(high):.1f}" for n, _, high in ends]
        lower = [f"{frame.middle(n):.1f},{frame.y(low):.1f}" for n, low, _ in reversed(ends)]
        if ends:
            shapes.append(f'<polygon class="band" points="{" ".join([*upper, *lower])}"/>')
    if level is not None:
        y = frame.y(level[1])
        shapes.append(
            f'<line class="level" x1="{_LEFT}" x2="{frame.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        )
        shapes.append(f'<text class="level" x="{_LEFT + 8}" y="{y - 6:.1f}">{escape(level[0])}</text>')
    for rank, one in enumerate(series):
        shapes += _line(frame, points, one, rank, show)
    return _svg(id, title, description, frame, [*_axes(frame, points, unit, show), *shapes])


def effect_bars(*, id: str, title: str, description: str, effects: Sequence[Effect], show: Show) -> Markup:
    """Bars to the left and right of nothing, one below the other, each with its name and value."""
    width, left, right, row = 640, 92, 118, 30
    height = row * len(effects) + 8
    most = max((abs(effect.value) for effect in effects), default=0.0) or 1.0
    least = min(0.0, *(effect.value for effect in effects)) if effects else 0.0
    greatest = max(0.0, *(effect.value for effect in effects)) if effects else most
    span = (greatest - least) or 1.0
    room = width - left - right - (90 if least < 0 else 0)
    begin = left + (90 if least < 0 else 0)
    zero = begin - least / span * room
    shapes = [f'<line class="zero" x1="{zero:.1f}" x2="{zero:.1f}" y1="2" y2="{height - 4}"/>']
    for n, effect in enumerate(effects):
        top, length = 6 + n * row, abs(effect.value) / span * room
        more = effect.value >= 0
        shapes.append(
            f'<text x="0" y="{top + 15}">{escape(effect.name)}</text>'
            f'<rect class="{"more" if more else "less"}" x="{zero if more else zero - length:.1f}" y="{top}" '
            f'width="{max(1.0, length):.1f}" height="20" rx="2"><title>{escape(effect.note)}</title></rect>'
            f'<text class="value" x="{zero + length + 8 if more else zero - length - 8:.1f}" y="{top + 15}" '
            f'text-anchor="{"start" if more else "end"}">{escape(show(effect.value))}</text>'
        )
    return _whole(id, title, description, width, height, shapes, "effects")


class _Frame:
    """Where values come to lie."""

    def __init__(self, width: int, height: int, points: int, most: float) -> None:
        self.width = width
        self.height = height
        self.step = (width - _LEFT - _RIGHT) / max(1, points)
        self.gap = min(6.0, self.step * 0.25)
        self.ticks = _nice_ticks(most)
        self._scale = (height - _TOP - _BOTTOM) / (self.ticks[-1] or 1.0)

    def x(self, point: int) -> float:
        return _LEFT + point * self.step

    def middle(self, point: int) -> float:
        return self.x(point) + self.step / 2

    def y(self, value: float) -> float:
        return self.height - _BOTTOM - value * self._scale


def _nice_ticks(most: float) -> list[float]:
    """From nothing to at least `most`, in steps of 1, 2, 2.5 or 5 times a power of ten; none to nothing."""
    if not (most > 0 and math.isfinite(most)):
        return [0.0]
    rough = most / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1.0, 2.0, 2.5, 5.0, 10.0) if power * factor >= rough * 0.999)
    count = math.ceil(most / step - 0.001)
    return [step * n for n in range(max(1, count) + 1)]


def _axes(frame: _Frame, points: Sequence[str], unit: str, show: Show) -> Iterator[str]:
    yield f'<text class="unit" x="{_LEFT - 8}" y="12" text-anchor="end">{escape(unit)}</text>'
    for tick in frame.ticks:
        y = frame.y(tick)
        kind = "axis" if tick == 0 else "grid"
        yield f'<line class="{kind}" x1="{_LEFT}" x2="{frame.width - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        told = escape(show(tick))
        yield f'<text class="tick" x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{told}</text>'
    every = max(1, math.ceil(_LABEL_WIDTH / frame.step))
    for n in range(0, len(points), every):
        if frame.middle(n) + _LABEL_WIDTH / 2 <= frame.width:
            yield (
                f'<text class="tick" x="{frame.middle(n):.1f}" y="{frame.height - _BOTTOM + 18}" '
                f'text-anchor="middle">{escape(points[n])}</text>'
            )


def _line(frame: _Frame, points: Sequence[str], one: Series, rank: int, show: Show) -> Iterator[str]:
    runs: list[list[int]] = [[]]
    for n, value in enumerate(one.values):
        if value is None:
            runs.append([])
        else:
            runs[-1].append(n)
    known = [_above(value) for value in one.values]
    for run in runs:
        if run:
            path = " ".join(f"{frame.middle(n):.1f},{frame.y(known[n]):.1f}" for n in run)
            yield f'<polyline class="line l{rank + 1}" points="{path}"/>'
    for n, value in enumerate(one.values):
        if value is not None:
            yield (
                f'<circle class="dot l{rank + 1}" cx="{frame.middle(n):.1f}" cy="{frame.y(known[n]):.1f}" '
                f'r="{2.5 if len(points) <= 60 else 1.2}">'
                f"<title>{escape(points[n])}, {escape(one.name)}: {escape(show(value))}</title></circle>"
            )


def _above(value: float | None) -> float:
    return max(0.0, value or 0.0)


def _svg(id: str, title: str, description: str, frame: _Frame, shapes: Sequence[str]) -> Markup:
    kind = "half" if frame.width < WIDTH else ""
    return _whole(id, title, description, frame.width, frame.height, shapes, kind)


def _whole(
    id: str, title: str, description: str, width: int, height: int, shapes: Sequence[str], kind: str
) -> Markup:
    # Each piece of text in the shapes was escaped where it was put in; all else is numbers and our own words.
    return Markup(  # noqa: S704
        f'<svg class="chart {kind}" viewBox="0 0 {width} {height}" role="img" '
        f'aria-labelledby="{id}-title" aria-describedby="{id}-desc">'
        f'<title id="{id}-title">{escape(title)}</title><desc id="{id}-desc">{escape(description)}</desc>'
        f"{''.join(shapes)}</svg>"
    )
