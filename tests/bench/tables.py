"""A run of the bench as text, and as Markdown that can stand in the README."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bench.bars import Outcome
from tests.bench.rows import Results, figure

BEGIN, END = "<!-- the last run: written by --markdown -->", "<!-- end of the last run -->"

Lines = list[list[str]]
"""Cells, the header first."""


def compared(results: Results, spreads: Results, names: Sequence[str], multiples: Sequence[str]) -> Lines:
    """Each row beside the first target's, and for those in `multiples` as a multiple of it."""
    lines = [["", *names, *(f"{name} ×" for name in multiples)]]
    for metric, row in results.items():
        spread = spreads.get(metric, {})
        cells = [_cell(row, spread, name) for name in names]
        base = row.get(names[0], 0.0)
        for name in multiples:
            cells.append(figure(row[name] / base) if base > 0 and name in row else "")
        lines.append([metric, *cells])
    return lines


def switched_off(parts: Results, spreads: Results, names: Sequence[str]) -> Lines:
    """Rows are targets here: all parts on, and without one of them each."""
    lines = [["", *parts]]
    for name in names:
        lines.append([name, *(_cell(row, spreads.get(metric, {}), name) for metric, row in parts.items())])
    return lines


def against_bars(outcomes: Sequence[Outcome]) -> Lines:
    lines = [["bar", "at most", "target", "found", "met"]]
    for one in outcomes:
        found = [one.target, figure(one.found), "yes" if one.met else "NO"]
        lines.append([one.bar, f"{one.most:g}", *found])
    return lines


def as_text(lines: Lines) -> str:
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("  ".join(_aligned(line, widths)).rstrip() for line in lines)


def as_markdown(lines: Lines) -> str:
    header, *rest = ("| " + " | ".join(line) + " |" for line in lines)
    rule = "| --- |" + " ---: |" * (len(lines[0]) - 1)
    return "\n".join([header, rule, *rest])


def conditions_said(conditions: Mapping[str, object], rounds: int, streams: int) -> str:
    """The paragraph above the tables."""
    said = (
        f"On {str(conditions['at'])[:10]}, commit {str(conditions['commit'])[:10]}"
        f"{' and changes' if conditions['changed'] else ''}, Python {conditions['python']} "
        f"(a fixed piece of it in {conditions['python_ms']:.1f} ms at best), uvloop, "
        f"{conditions['cpu']}, {conditions['cores']} cores, load {conditions['load_before']:.1f} before and "
        f"{conditions['load_after']:.1f} after. "
    )
    if conditions.get("target_cores"):
        said += "Each target ran on a core that nothing else of the bench used. "
    if slow := conditions.get("slow"):
        said += f"For {slow} of the cells that core was never quick. "
    said += f"Medians of {rounds} round{'s' if rounds > 1 else ''}; ± is half of what lies between the least "
    return said + f"and the greatest. `Many streams` are {streams:,} at once, with 4 events a second each."


def put_markdown(path: Path, text: str) -> None:
    """Between the marks where the file has them, else all of the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = path.read_text() if path.exists() else ""
    if BEGIN in before and END in before:
        head, rest = before.split(BEGIN, 1)
        text = f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}"
    path.write_text(text if text.endswith("\n") else text + "\n")


def _cell(row: Mapping[str, float], spread: Mapping[str, float], name: str) -> str:
    if name not in row:
        return ""
    return figure(row[name]) + (f" ±{spread[name]:.0%}" if name in spread else "")


def _aligned(line: Sequence[str], widths: Sequence[int]) -> list[str]:
    first, *others = zip(line, widths, strict=True)
    return [first[0].ljust(first[1]), *(cell.rjust(width) for cell, width in others)]
