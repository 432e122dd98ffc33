"""Charts are drawn in proportion, escaped, and say each value to who does not see it."""

from __future__ import annotations

import re
from xml.etree import ElementTree

from markupsafe import Markup

from gateway.web.page import showing
from gateway.web.page.charts import Band, Effect, Series, effect_bars, lines, stacked_bars


def _show(value: float) -> str:
    return f"${value:,.2f}"


def _parsed(svg: Markup) -> ElementTree.Element:
    return ElementTree.fromstring(str(svg))


def test_bars_are_as_high_as_their_values_and_stand_on_each_other() -> None:
    svg = stacked_bars(
        id="x",
        title="Spend",
        description="two days",
        unit="US dollars",
        points=["Nov 1", "Nov 2"],
        series=[Series(name="a", values=[10.0, 0.0]), Series(name="b", values=[30.0, 20.0])],
        show=_show,
    )
    bars = [bar.attrib for bar in _parsed(svg).iter("rect")]
    heights = [float(bar["height"]) for bar in bars]

    assert [bar["class"] for bar in bars] == ["c1", "c2", "c2"]
    assert abs(heights[1] / heights[0] - 3.0) < 0.02
    assert abs(float(bars[1]["y"]) + heights[1] - float(bars[0]["y"])) < 0.2
    assert [title.text for title in _parsed(svg).iter("title")] == [
        "Spend",
        "Nov 1, a: $10.00",
        "Nov 1, b: $30.00",
        "Nov 2, b: $20.00",
    ]


def test_where_there_is_nothing_the_axis_says_nothing_but_that() -> None:
    svg = stacked_bars(
        id="x",
        title="Spend",
        description="nothing yet",
        unit="US dollars",
        points=["Nov 1", "Nov 2"],
        series=[Series(name="a", values=[0.0, 0.0])],
        show=_show,
    )

    assert [text.text for text in _parsed(svg).iter("text")] == ["US dollars", "$0.00", "Nov 1", "Nov 2"]


def test_names_from_outside_are_text_and_there_is_no_style_attribute() -> None:
    evil = '<script>"&'
    svg = stacked_bars(
        id="x",
        title=evil,
        description=evil,
        unit=evil,
        points=[evil],
        series=[Series(name=evil, values=[1.0])],
        show=lambda value: evil,
    )
    _parsed(svg)

    assert "<script" not in svg
    assert not re.search(r"\sstyle=|\son[a-z]+=", svg)


def test_a_line_breaks_where_nothing_is_known_and_nothing_at_all_is_a_chart_too() -> None:
    svg = lines(
        id="x",
        title="Read",
        description="d",
        unit="read",
        points=["a", "b", "c", "d"],
        series=[Series(name="read", values=[0.5, None, 0.25, 1.0])],
        show=showing.percent,
        band=Band(low=[None, None, 0.2, 0.9], high=[None, None, 0.3, 1.0]),
        level=("budget", 0.75),
        top=1.0,
    )
    parsed = _parsed(svg)
    assert [len(line.attrib["points"].split()) for line in parsed.iter("polyline")] == [1, 2]
    assert len(next(parsed.iter("polygon")).attrib["points"].split()) == 4
    empty = stacked_bars(id="x", title="t", description="d", unit="u", points=[], series=[], show=_show)
    assert list(_parsed(empty).iter("rect")) == []


def test_effects_go_to_either_side_of_nothing() -> None:
    svg = effect_bars(
        id="x",
        title="t",
        description="d",
        effects=[
            Effect(name="more", value=30.0),
            Effect(name="less", value=-10.0),
            Effect(name="no", value=0.0),
        ],
        show=_show,
    )
    parsed = _parsed(svg)
    zero = float(next(parsed.iter("line")).attrib["x1"])
    more, less, none = ((float(bar.attrib["x"]), float(bar.attrib["width"])) for bar in parsed.iter("rect"))

    assert abs(more[0] - zero) < 0.2
    assert abs(less[0] + less[1] - zero) < 0.2
    assert abs(more[1] / less[1] - 3.0) < 0.1
    assert none[1] == 1.0
