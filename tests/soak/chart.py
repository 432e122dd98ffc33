"""A soak run as SVG: one small chart for each figure over time; legible on light and dark ground."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from xml.sax.saxutils import escape

from tests.soak.samples import MIB, Sample

WIDTH, HEIGHT = 860, 118
_LEFT, _RIGHT, _TOP, _BOTTOM = 66, 16, 34, 20
_MOST_POINTS = 400
_STYLE = """\
text{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#59636e}
.title{font-size:14px;font-weight:600;fill:#1f2328}.name{font-weight:600;fill:#1f2328}
.line{fill:none;stroke:#2f6fd0;stroke-width:1.5}.grid{stroke:#d1d9e0}.ground{fill:#fff}.warm{fill:#f0f3f6}
@media (prefers-color-scheme:dark){
text{fill:#9198a1}.title,.name{fill:#e6edf3}
.line{stroke:#5b9bf0}.grid{stroke:#3d444d}.ground{fill:#0d1117}.warm{fill:#161b22}}"""


@dataclass(frozen=True, slots=True)
class _Panel:
    name: str
    value: Callable[[Sample], float]


_PANELS = (
    _Panel("Resident memory, MiB", lambda sample: sample.resident_bytes / MIB),
    _Panel("Descriptors", lambda sample: sample.descriptors),
    _Panel("Tasks", lambda sample: sample.tasks),
    _Panel("Threads", lambda sample: sample.threads),
    _Panel("Open reservations", lambda sample: sample.reservations),
)


def chart(samples: Sequence[Sample], *, title: str, warm_up_seconds: float) -> str:
    """The whole file. The warm-up, which no bound looks at, has another ground."""
    step = max(1, len(samples) // _MOST_POINTS)
    shown = [*samples[::step], samples[-1]]
    height = 40 + len(_PANELS) * HEIGHT
    panels = "".join(
        f'<g transform="translate(0 {40 + place * HEIGHT})">{_panel(panel, shown, warm_up_seconds)}</g>'
        for place, panel in enumerate(_PANELS)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" '
        f'height="{height}" role="img"><title>{escape(title)}</title><style>{_STYLE}</style>'
        f'<rect class="ground" width="{WIDTH}" height="{height}"/>'
        f'<text class="title" x="16" y="26">{escape(title)}</text>{panels}</svg>\n'
    )


def _panel(panel: _Panel, samples: Sequence[Sample], warm_up_seconds: float) -> str:
    values = [panel.value(sample) for sample in samples]
    most, last = _round_up(max(values)), samples[-1].at
    across, down = WIDTH - _LEFT - _RIGHT, HEIGHT - _TOP - _BOTTOM

    def x(seconds: float) -> float:
        return _LEFT + across * seconds / last

    def y(value: float) -> float:
        return _TOP + down * (1 - value / most)

    points = " ".join(
        f"{x(sample.at):.1f},{y(value):.1f}" for sample, value in zip(samples, values, strict=True)
    )
    marks = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{y(value):.1f}" y2="{y(value):.1f}"/>'
        f'<text x="{_LEFT - 8}" y="{y(value) + 4:.1f}" text-anchor="end">{value:,g}</text>'
        for value in (0, most / 2, most)
    )
    minutes = "".join(
        f'<text x="{x(last * part / 4):.1f}" y="{HEIGHT - 4}" '
        f'text-anchor="{"end" if part == 4 else "middle"}">{last * part / 240:.3g} min</text>'
        for part in range(5)
    )
    return (
        f'<rect class="warm" x="{_LEFT}" y="{_TOP}" width="{across * warm_up_seconds / last:.1f}" '
        f'height="{down}"/><text class="name" x="{_LEFT}" y="{_TOP - 10}">{escape(panel.name)}</text>'
        f'{marks}{minutes}<polyline class="line" points="{points}"/>'
    )


def _round_up(value: float) -> float:
    """To a number that halves well."""
    for step in (2, 4, 10, 20, 40, 60, 80, 100, 160, 200, 240, 300, 400, 600, 800, 1000, 2000, 4000):
        if value <= step:
            return step
    return value
