"""How the gateway's cost grows: CPU and memory against the size of bodies, blocks, limits, workspaces, known
prefixes, open streams, events, the ledger, replicas.

    python -m tests.bench.growth [--quick] [--rounds N] [--only NAME,...] [--out FILE] [--charts DIRECTORY]

CPU is what the scheduler counted for the process that is measured, so that a busy machine spoils it less than
a clock; each point is the median of `--rounds` rounds, least and greatest are kept beside it. With `--out` of
an earlier run, what `--only` names is measured anew and the rest stays as it was, each curve with its own
commit and date. `growth_curve.py` says when a curve counts as linear.
"""

from __future__ import annotations

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.bench import growth_calls, growth_stores
from tests.bench.growth_chart import chart
from tests.bench.growth_curve import Curves, as_json, from_json
from tests.bench.growth_whole import bench_key
from tests.bench.loads import Bench
from tests.bench.processes import Measured, compiled, free_port
from tests.bench.run import conditions


@dataclass(frozen=True, slots=True)
class Ground:
    """What all measurements share."""

    upstream: str
    bench: Bench
    home: Path


Round = Callable[[Curves, Ground, bool], None]
"""One round of some charts; the flag asks for fewer and smaller points."""


def _body(curves: Curves, ground: Ground, quick: bool) -> None:
    sizes = (1_000, 20_000, 120_000, 500_000, 1_000_000, 2_000_000, 4_000_000, 8_000_000)
    growth_calls.body_size(curves, ground.upstream, sizes[:4] if quick else sizes)


def _blocks(curves: Curves, ground: Ground, quick: bool) -> None:
    counts = (10, 30, 100, 300, 1_000, 2_000, 5_000)
    growth_calls.blocks(curves, ground.upstream, counts[::2] if quick else counts)


def _limits(curves: Curves, ground: Ground, quick: bool) -> None:
    growth_calls.limits(curves, ground.upstream, (0, 4, 24) if quick else (0, 4, 8, 16, 24), ground.home)


def _workspaces(curves: Curves, ground: Ground, quick: bool) -> None:
    counts = (1, 100, 500) if quick else (1, 10, 100, 500, 2_000, 5_000)
    growth_calls.workspaces(curves, ground.upstream, counts, 11.0 if quick else 21.0)


def _streams(curves: Curves, ground: Ground, quick: bool) -> None:
    counts = (100, 300, 1_000) if quick else (100, 300, 1_000, 2_000, 3_000)
    growth_calls.streams(curves, ground.upstream, ground.bench, counts)


def _events(curves: Curves, ground: Ground, quick: bool) -> None:
    rates = (5_000, 10_000, 20_000) if quick else (5_000, 10_000, 20_000, 40_000)
    growth_calls.events(curves, ground.upstream, ground.bench, rates)


def _prefixes(curves: Curves, ground: Ground, quick: bool) -> None:
    powers = (12, 14, 16) if quick else (12, 14, 16, 18, 20)
    growth_stores.prefixes(curves, ground.upstream, [2**power for power in powers])


def _ledger(curves: Curves, ground: Ground, quick: bool) -> None:
    growth_stores.ledger(
        curves, ground.home, (1_000, 10_000, 30_000) if quick else (10_000, 100_000, 1_000_000)
    )


def _replicas(curves: Curves, ground: Ground, quick: bool) -> None:
    growth_stores.replicas(curves, ground.upstream, ground.home, (1, 2) if quick else (1, 2, 3))


def _postgres(curves: Curves, ground: Ground, quick: bool) -> None:
    growth_stores.postgres(curves, ground.home, (1_000, 5_000) if quick else (2_000, 10_000, 30_000))


ROUNDS: dict[str, Round] = {
    "body": _body,
    "blocks": _blocks,
    "limits": _limits,
    "workspaces": _workspaces,
    "streams": _streams,
    "events": _events,
    "prefixes": _prefixes,
    "ledger": _ledger,
    "replicas": _replicas,
    "postgres": _postgres,
}
TITLES = {
    "body": "CPU of a request by the size of its body",
    "blocks": "CPU of a request of 1 MB by its blocks",
    "limits": "CPU of a 1 kB request by the limits that bind it",
    "workspaces": "CPU of a 1 kB request by configured workspaces",
    "idle": "CPU without calls by configured workspaces",
    "start": "CPU of a start by configured workspaces",
    "held": "Memory by configured workspaces that called",
    "series": "The metrics page by workspaces that called",
    "page": "CPU of one metrics page by workspaces that called",
    "streams": "Memory by open streams",
    "events": "CPU of an event by events a second",
    "prefixes": "CPU of planning by the table of known prefixes",
    "prefixes held": "Memory by the table of known prefixes",
    "ledger": "CPU of adding to the ledger by its entries",
    "ledger size": "Disk by the ledger's entries",
    "report": "CPU of a report by the ledger's entries",
    "sums": "CPU of making the ledger's sums",
    "replicas": "CPU of an agent's request by replicas on one Redis",
    "postgres": "Disk of PostgreSQL by shipped entries",
}
"""Of the charts that are drawn; what is not here is in the JSON only."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer and smaller points")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default=",".join(ROUNDS), help=f"of {', '.join(ROUNDS)}")
    parser.add_argument("--out", type=Path, help="where the curves go, as JSON")
    parser.add_argument("--charts", type=Path, help="where a chart of each goes, as SVG")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    stated = conditions() | {"rounds": options.rounds}
    curves = Curves(lambda line: print(line, flush=True))
    _measure(curves, options)
    measured = [{**as_json(curve), "conditions": stated} for curve in curves.all()]
    print("\n" + "\n".join(f"{each['chart']}, {each['name']}: {each['words']}" for each in measured))
    document = _together(options.out, measured)
    if options.out is not None:
        options.out.write_text(json.dumps({"curves": document}, indent=1, ensure_ascii=False) + "\n")
    if options.charts is not None:
        draw(document, options.charts)


def draw(document: Sequence[dict[str, Any]], into: Path) -> None:
    """A file for each chart that has a title."""
    into.mkdir(parents=True, exist_ok=True)
    for name, title in TITLES.items():
        mine = [each for each in document if each["chart"] == name]
        if mine:
            told = mine[0]["conditions"]
            rounds = f"Median of {told['rounds']} rounds" if told["rounds"] > 1 else "One round"
            note = f"{rounds}, {told['at'][:10]}; dashed: the nearest straight line"
            picture = chart(title, note, [from_json(each) for each in mine])
            (into / f"{name.replace(' ', '-')}.svg").write_text(picture)


def _measure(curves: Curves, options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="growth-") as folder:
        home = Path(folder)
        port = free_port()
        mock = Measured([str(compiled("mock", home)), str(port)], log=home / "mock.log")
        try:
            mock.await_port(port)
            bench = Bench(home, [f"authorization: Bearer {bench_key()}"])
            ground = Ground(f"http://127.0.0.1:{port}", bench, home)
            for name in options.only.split(","):
                began = time.monotonic()
                for _ in range(options.rounds):
                    ROUNDS[name](curves, ground, options.quick)
                print(f"{name}: {time.monotonic() - began:.0f} s", flush=True)
        finally:
            mock.end()


def _together(out: Path | None, measured: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was measured now, and what an earlier run of the same file has beside it."""
    if out is None or not out.exists():
        return measured
    now = {(each["chart"], each["name"]): each for each in measured}
    before = {(each["chart"], each["name"]): each for each in json.loads(out.read_text())["curves"]}
    return list((before | now).values())


if __name__ == "__main__":
    main()
