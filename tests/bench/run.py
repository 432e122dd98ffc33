"""What the gateway costs beside nginx on the same machine, in the same run.

    python -m tests.bench.run [--out FILE] [--markdown FILE] [--rounds N] [--minutes M] [--streams N]
                              [--no-parts] [--no-memory] [--cpu-only] [--gate] [--no-pin] [--quick]
                              [--header LINE] [-- COMMAND ...]

COMMAND starts what is measured in the gateway's place; `{upstream}` in it becomes the mock's base URL and
`{port}` the port to listen on. Without one it is the whole gateway, everything on (`whole.py`): with the
embedded store, with Redis, and with one part after the other switched off. README.md beside this file says
what each number is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

from tests.bench.bars import hold
from tests.bench.course import Course, Plan
from tests.bench.gate import judge
from tests.bench.loads import QUICK, Sizes
from tests.bench.processes import Cores, Missing
from tests.bench.tables import (
    Lines,
    against_bars,
    as_markdown,
    as_text,
    compared,
    conditions_said,
    put_markdown,
    switched_off,
)

BUSY = 0.5
"""Load from which on the figures say something about the machine's other work too."""


def main() -> None:
    options = _options()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    plan = _plan(options)
    before = conditions() | {"target_cores": sorted(plan.cores.target) if plan.cores else []}
    if os.getloadavg()[0] > BUSY:
        _say(f"The machine is busy (load {os.getloadavg()[0]:.1f}): latencies will show it, CPU may.\n")

    def keep(course: Course) -> None:
        if options.out is not None:
            written = json.dumps(document(course, before), indent=1, ensure_ascii=False)
            options.out.parent.mkdir(parents=True, exist_ok=True)
            options.out.write_text(written + "\n")

    course = Course(plan, _say, keep)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with tempfile.TemporaryDirectory(prefix="bench-") as home, ExitStack() as stack:
            course.run(Path(home), stack)
    except (Missing, RuntimeError, KeyboardInterrupt) as error:
        course.main.failed.append(str(error) or "It was stopped.")
    keep(course)
    _say("\n" + report(course, before, as_text) + "\n")
    if options.markdown is not None:
        put_markdown(options.markdown, report(course, before, as_markdown))
    worse = judge(course.main.medians()) if options.gate else []
    if told := [*course.main.failed, *worse]:
        sys.exit("\n".join(["", *told]))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, help="where the results go, as JSON, after each row")
    parser.add_argument(
        "--markdown", type=Path, help="where the tables go; between its marks, if it has them"
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, default=22.0, help="no round begins that would end later")
    parser.add_argument("--streams", type=int, help="open at once, for the memory of one")
    parser.add_argument("--no-parts", action="store_true", help="do not switch parts off one by one")
    parser.add_argument("--no-memory", action="store_true", help="no memory, and so not many streams")
    parser.add_argument("--cpu-only", action="store_true", help="neither memory nor latencies nor parts")
    parser.add_argument("--gate", action="store_true", help="that, and fail where a ratio to nginx has grown")
    parser.add_argument("--no-pin", action="store_true", help="give the target no core of its own")
    parser.add_argument("--quick", action="store_true", help="only show that it runs: figures mean nothing")
    parser.add_argument("--header", action="append", default=[], help="a header line for every request")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    return parser.parse_args()


def _plan(options: argparse.Namespace) -> Plan:
    sizes = QUICK if options.quick else Sizes()
    cpu_only = options.cpu_only or options.gate
    return Plan(
        rounds=options.rounds,
        minutes=options.minutes,
        sizes=replace(sizes, streams=options.streams) if options.streams else sizes,
        cores=None if options.no_pin else Cores.split(),
        memory=not (cpu_only or options.no_memory),
        latencies=not cpu_only,
        parts=not (cpu_only or options.no_parts),
        command=tuple(part for part in options.command if part != "--"),
        headers=tuple(options.header),
    )


def conditions() -> dict[str, object]:
    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip()

    models = [
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    model = models[0].partition(":")[2].strip() if models else platform.machine()
    return {
        "commit": git("rev-parse", "HEAD"),
        "changed": bool(git("status", "--porcelain")),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "cpu": model,
        "cores": os.cpu_count(),
        "load_before": os.getloadavg()[0],
        "system": platform.platform(),
        "python": platform.python_version(),
    }


def document(course: Course, before: dict[str, object]) -> dict[str, object]:
    """All that is known. `before`: the conditions when it began."""
    results = course.main.medians()
    return {
        "conditions": before,
        "python_ms": course.pace.least_ms,
        "slow": course.slow,
        "load_after": os.getloadavg()[0],
        "minutes": (time.monotonic() - course.main.began) / 60,
        "rounds": course.rounds,
        "sizes": asdict(course.plan.sizes),
        "results": results,
        "parts": course.parts.medians(),
        "bars": [asdict(one) | {"met": one.met} for one in hold(results, course.measured)],
        "values": course.main.values,
        "parts_values": course.parts.values,
        "failed": course.main.failed,
    }


def report(course: Course, before: dict[str, object], form: Callable[[Lines], str]) -> str:
    """The conditions and all tables, one after the other."""
    results, spreads, measured = course.main.medians(), course.main.spreads(), course.measured
    told = before | {
        "load_after": os.getloadavg()[0],
        "python_ms": course.pace.least_ms,
        "slow": len(course.slow),
    }
    pieces = [conditions_said(told, course.rounds, course.plan.sizes.streams)]
    pieces.append(form(compared(results, spreads, course.names, measured)))
    if course.parts_names:
        parts = course.parts
        pieces.append(form(switched_off(parts.medians(), parts.spreads(), course.parts_names)))
    if outcomes := hold(results, measured):
        pieces.append(form(against_bars(outcomes)))
    return "\n\n".join(pieces)


def _say(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    main()
