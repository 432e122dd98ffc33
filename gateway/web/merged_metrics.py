"""One page of metrics from the pages of several workers: each sample with the label `worker`. Pure.

A counter of a worker never goes down: what a worker had counted when it was last read, before it died, is
added to what its successor counts. Left alone, its series would begin anew, and whoever reads them would miss
a counter that had reached by the next reading what it had shown before. Gauges of a dead worker are left out.

Pages are in Prometheus' text format or in OpenMetrics, as `adapters/prometheus.py` writes them.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace

_SAMPLE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[^\"}]|\"(?:[^\"\\]|\\.)*\")*\})? ([^ ]+)(.*)")
_COUNTED = frozenset({"counter", "histogram", "summary"})


@dataclass(slots=True)
class Family:
    """One metric of one page."""

    kind: str
    head: list[str]
    """Its comment lines."""
    samples: dict[str, tuple[str, str]] = field(default_factory=dict)
    """By name and labels: the value, and what follows it (an exemplar)."""


Page = dict[str, Family]
"""By name, without `_total`."""


@dataclass(frozen=True, slots=True)
class _Counted:
    """One worker's. Never changed: who renders sees what one reading or one death has left, and no half."""

    process: int = -1
    page: Page = field(default_factory=dict)
    """As it was last read of this process."""
    before: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """What its predecessors had counted, by family and sample."""


class WorkersMetrics:
    """What is known of the pages of workers. `process` tells a worker from its successor. Pages are read and
    rendered in threads, while the loop notices deaths: a page that came just before one must count once."""

    def __init__(self) -> None:
        self._counted: dict[int, _Counted] = {}
        self._lock = threading.Lock()
        """Held for an exchange of values only, so that the loop never waits for a page to be parsed."""

    def began(self, worker: int, process: int) -> None:
        """From now on the worker is this process; what the one before it had counted is kept."""
        with self._lock:
            counted = self._counted.get(worker, _Counted())
            self._counted[worker] = _Counted(process=process, before=_all_counted(counted))

    def read(self, worker: int, process: int, text: str) -> None:
        """What a worker's page says. One of a process that was replaced meanwhile is not taken."""
        page = parse(text)
        with self._lock:
            counted = self._counted[worker]
            if counted.process == process:
                self._counted[worker] = replace(counted, page=page)

    def render(self, alive: Collection[int]) -> str:
        """The page of all. Gauges only of those `alive`, whose pages were just read."""
        with self._lock:
            known = sorted(self._counted.items())
        return _written(
            (worker, _with(counted.page, counted.before, gauges=worker in alive)) for worker, counted in known
        )


def _all_counted(counted: _Counted) -> dict[str, dict[str, float]]:
    """By a process that has ended and by those before it."""
    found = {name: dict(samples) for name, samples in counted.before.items()}
    for name, family in counted.page.items():
        if family.kind in _COUNTED:
            kept = found.setdefault(name, {})
            for sample, (value, _) in family.samples.items():
                kept[sample] = kept.get(sample, 0.0) + float(value)
    return found


def parse(text: str) -> Page:
    """The families of a page. What is no sample is left out."""
    page: Page = {}
    family = Family("", [])
    for line in text.splitlines():
        if line.startswith("# "):
            _, what, name, *rest = [*line.split(" ", 3), ""]
            if what in ("HELP", "TYPE", "UNIT"):
                family = page.setdefault(name.removesuffix("_total"), Family("", []))
                family.head.append(line)
                if what == "TYPE":
                    family.kind = rest[0]
        elif (found := _SAMPLE.fullmatch(line)) is not None:
            name, labels, value, after = found.groups()
            family.samples[name + (labels or "")] = (value, after)
    return page


def _with(page: Page, before: Mapping[str, Mapping[str, float]], *, gauges: bool) -> Page:
    """A page with what was counted before it."""
    found: Page = {}
    for name, family in page.items():
        counts = family.kind in _COUNTED
        if not counts:
            found[name] = family if gauges else Family(family.kind, family.head)
            continue
        earlier = before.get(name, {})
        samples = dict(family.samples)
        for sample, count in earlier.items():
            value, after = samples.get(sample, ("0", ""))
            samples[sample] = (_number(float(value) + count), after)
        found[name] = Family(family.kind, family.head, samples)
    for name in before.keys() - page.keys():
        found[name] = Family("", [], {key: (_number(count), "") for key, count in before[name].items()})
    return found


def _written(parts: Iterable[tuple[int, Page]]) -> str:
    heads: dict[str, list[str]] = {}
    lines: dict[str, list[str]] = {}
    for worker, page in parts:
        for name, family in page.items():
            if family.head or name not in heads:
                heads[name] = heads.get(name) or family.head
            lines.setdefault(name, []).extend(
                f"{labelled(sample, worker)} {value}{after}"
                for sample, (value, after) in family.samples.items()
            )
    return "".join(f"{line}\n" for name, head in heads.items() for line in (*head, *lines[name]))


def labelled(sample: str, worker: int) -> str:
    """A sample's name and labels, with the worker's."""
    name, brace, labels = sample.partition("{")
    if not brace:
        return f'{name}{{worker="{worker}"}}'
    return f'{name}{{worker="{worker}"' + ("" if labels == "}" else ",") + labels


def _number(value: float) -> str:
    return repr(value).replace("inf", "+Inf")
