"""From files to reports: which of them belong together, who takes part, what is left out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gateway.core.planner import PlannerOptions, Prices
from gateway.replay.contestants import contestants
from gateway.replay.report import NONE, RECORDED, Report, report_on
from gateway.replay.request import Request
from gateway.replay.run import Replay
from gateway.replay.trace import Span, TraceError, TraceFile, recorded_requests
from gateway.replay.verify import planner_options

POLICIES = tuple(contestant.name for contestant in contestants())
_PROGRESS_EVERY = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What to replay, and who takes part."""

    policies: tuple[str, ...] = POLICIES
    span: Span = field(default_factory=Span)
    workspaces: tuple[str, ...] = ()
    """Of recordings; empty: all."""
    prices: Prices = field(default_factory=Prices)
    """Of traces that name no model."""


def together(files: Sequence[TraceFile]) -> list[list[TraceFile]]:
    """All recordings are parts of one traffic; each trace in the public form is one by itself."""
    recordings = [file for file in files if file.header is not None]
    others = [[file] for file in files if file.header is None]
    return ([recordings] if recordings else []) + others


def play(files: Sequence[TraceFile], choice: Choice, progress: Callable[[int], None]) -> Report:
    """Replay what belongs together. `progress` is told how many bytes have been read. Raises `TraceError`
    where nothing is left to replay."""
    header = files[0].header
    wanted = {*choice.policies, NONE} - (set() if header is not None else {RECORDED})
    options = planner_options(header.options) if header is not None else PlannerOptions()
    replay = Replay([contestant for contestant in contestants(options) if contestant.name in wanted])
    for count, request in enumerate(_requests(files, choice)):
        replay.add(request)
        if count % _PROGRESS_EVERY == 0:
            progress(sum(file.bytes_read for file in files))
    if not replay.requests:
        raise TraceError(f"{_title(files)} holds no request that was asked for.")
    notes = [f"{file.path.name} ends in the middle: read as far as it goes." for file in files if file.cut]
    return report_on(_title(files), replay, replay.finish(), choice.policies, notes)


def _requests(files: Sequence[TraceFile], choice: Choice) -> Iterator[Request]:
    public = files[0].header is None
    for request in files[0].requests(choice.prices) if public else recorded_requests(files):
        if request.at not in choice.span:
            if request.at >= choice.span.end:
                return
            continue
        if choice.workspaces and request.workspace not in choice.workspaces:
            continue
        yield request


def _title(files: Sequence[TraceFile]) -> str:
    more = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0].path.name}{more}"
