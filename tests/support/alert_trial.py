"""Whether an alert that is shipped fires on what a gateway really exposed.

Pages of metrics are read before and after something was made to go wrong. A rule wants to see that for
minutes, hours or a day; so what happened between two readings is taken to happen again and again, or once,
and Prometheus itself (promtool) evaluates the shipped expressions, with their ranges and `for`, over that.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from ruamel.yaml import YAML

from tests.deploy.shipped import alerts, read_by, recorded
from tests.e2e.whole.calls import eventually
from tests.support.prometheus_server import checked, metric_names
from tests.support.stack import Stack

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_TARGET = 'job="gateway",instance="one:9090"'
_CUMULATIVE = frozenset({"counter", "histogram"})


@dataclass(frozen=True, slots=True)
class Page:
    """What one reading showed: values by series, as Prometheus would name them. `at`: seconds since the epoch
    by the clock of who made it."""

    at: float
    values: dict[str, float]
    cumulative: frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """`quiet` and `wrong` are each two readings: between those of `quiet` all was well, between those of
    `wrong` it was not. `over` is a last one, when it was mended: counters stand still from then on. None
    where that is all that it takes.

    `every`: after how many seconds what is between two readings happens again. `once`: the wrong thing
    happens a single time. `lasts`: for how many seconds it is wrong, where that is not as long as the rule
    looks back. `growing`: gauges that go on as counters do.
    """

    quiet: tuple[Page, Page]
    wrong: tuple[Page, Page]
    over: Page | None = None
    every: int = 60
    once: bool = False
    lasts: int | None = None
    growing: frozenset[str] = frozenset()


def page(stack: Stack) -> Page:
    """What Prometheus would read now."""
    text = stack.service.metrics.render("text/plain")[1].decode()
    return page_of(text, at=stack.service._clock.now())


async def booked(stack: Stack) -> Page:
    """The same, once all calls that have ended are told and settled."""
    await eventually(lambda: not stack.service.pipeline._closing)
    return page(stack)


def page_of(text: str, *, at: float) -> Page:
    values: dict[str, float] = {}
    cumulative: set[str] = set()
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = ",".join((_TARGET, *(f'{name}="{value}"' for name, value in sample.labels.items())))
            series = f"{sample.name}{{{labels}}}"
            values[series] = sample.value
            if family.type in _CUMULATIVE:
                cumulative.add(series)
    return Page(at, values, frozenset(cumulative))


def value(of: Page, metric: str, **labels: str) -> float:
    """The sum over what has these labels; 0 where nothing has."""
    wanted = [f'{name}="{text}"' for name, text in labels.items()]
    return sum(
        number
        for series, number in of.values.items()
        if series.partition("{")[0] == metric and all(each in series for each in wanted)
    )


def assert_fires(alert: str, folder: Path, trial: Trial) -> None:
    """Silent while all is well, firing while it is not, and silent again afterwards."""
    rule = alerts()[alert]
    names = _recorded_by(rule["expr"])
    recording = [{"record": name, "expr": recorded()[name]} for name in names]
    expressions = [rule["expr"], *(recorded()[name] for name in names)]
    _write(folder / "rules.yaml", {"groups": [{"name": "trial", "rules": [*recording, rule]}]})

    back = sum(_longest(r"\[(\w+)\]", expressions)) + max(_longest(r"offset (\w+)", expressions), default=0)
    lasts = trial.lasts or max(_seconds(rule.get("for", "0s")), 0 if trial.once else back) + 120
    # Behind the last sample, Prometheus goes on with it for five minutes.
    steps = [seconds // trial.every + 2 for seconds in (back, lasts, back + 420)]
    series = list(_series(trial, steps, read_by(rule["expr"])))
    assert series, f"nothing that {alert} reads is on any page"
    firing = f'clamp_max(count(ALERTS{{alertname="{alert}",alertstate="firing"}}), 1) or vector(0)'
    ends = [(sum(steps[: number + 1]) - 1) * trial.every for number in range(3)]
    expected = [
        {"expr": firing, "eval_time": f"{end}s", "exp_samples": [{"labels": "{}", "value": fires}]}
        for end, fires in zip(ends, (0, 1, 0), strict=True)
    ]
    case = {"interval": f"{trial.every}s", "input_series": series, "promql_expr_test": expected}
    test = {"rule_files": ["rules.yaml"], "evaluation_interval": f"{trial.every}s", "tests": [case]}
    _write(folder / "trial.yaml", test)
    checked("promtool", "test", "rules", str(folder / "trial.yaml"))


def _series(trial: Trial, steps: list[int], needed: set[str]) -> Iterator[dict[str, str]]:
    """As promtool wants them: the three stretches of time, of so many steps each, of what the rule reads."""
    before, after = trial.wrong
    stretches = [trial.quiet, trial.wrong, (after, trial.over or after)]
    pages = {id(page): page for stretch in stretches for page in stretch}.values()
    for name in sorted({name for page in pages for name in page.values}):
        metric = name.partition("{")[0]
        if metric not in needed:
            continue
        counts = metric in trial.growing or any(name in page.cumulative for page in pages)
        stands_at, parts = trial.quiet[0].values.get(name, 0.0), []
        for number, ((start, end), length) in enumerate(zip(stretches, steps, strict=True)):
            if name not in end.values:
                parts.append(f"_x{length}")
                continue
            grows = 0.0
            if not counts:
                stands_at = end.values[name]
                if metric.endswith("_timestamp_seconds"):  # promtool's time begins at 0
                    stands_at += steps[0] * trial.every - before.at
            elif number < 2:
                grows = end.values[name] - start.values.get(name, 0.0)
            once = trial.once and number == 1
            parts.append(_line(stands_at + grows, 0.0 if once else grows, length))
            stands_at += grows * (1 if once else length)
        yield {"series": name, "values": " ".join(parts)}


def _line(first: float, grows: float, length: int) -> str:
    return f"{first:.9f}{grows:+.9f}x{length - 1}"


def _recorded_by(expression: str) -> list[str]:
    """What is recorded and read by an expression, through others, in the order of the file."""
    found: set[str] = set()
    waiting = [expression]
    while waiting:
        new = (metric_names(waiting.pop()) & recorded().keys()) - found
        found |= new
        waiting += [recorded()[name] for name in new]
    return [name for name in recorded() if name in found]


def _longest(pattern: str, expressions: Iterable[str]) -> list[int]:
    """Of each expression that has any."""
    found = ([_seconds(text) for text in re.findall(pattern, expression)] for expression in expressions)
    return [max(each) for each in found if each]


@cache
def _seconds(duration: str) -> int:
    return sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"(\d+)([smhd])", duration))


def _write(path: Path, content: Any) -> None:
    YAML(typ="safe").dump(content, path)
