"""A gateway between two proxies that cut: many calls side by side, each cut at a place of its own, and what
the books and the bill say of each of them."""

from __future__ import annotations

import asyncio
import json
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from gateway.core.limits import Unit
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.bill import BillLine
from gateway.sim.pacing import Pacing
from tests.support.chaos_proxy import ChaosProxy, Spoil
from tests.support.raw_client import RawClient
from tests.support.stack import WORKSPACES, Stack, a_simulator, a_stack

MODEL = "claude-opus-5-5"
MAX_TOKENS = 40
OUTPUT_NANOUSD = 20_000
"""Of one token of this model: $20 for a million."""
EVENT_END = b"\n\n"
HEAD_END = b"\r\n\r\n"
PACING = Pacing(events_per_second=100)
STRICT = WORKSPACES.replace("demo: {upstream: default}", "demo: {upstream: default, estimate: strict}")
"""So that what is set aside is no guess: a call cannot cost more."""
_ENTRIES = """
SELECT json_extract(tags, '$.x-team'), basis, state, estimated_nanousd, output_nanousd,
    uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd + cache_write_1h_nanousd
FROM entries
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One call. `client` and `upstream` are what is done to the answer on its way to the client, and from
    upstream; `sending` to the request on its way upstream, from the mark in its head on."""

    name: str
    stream: bool = True
    client: Spoil = field(default_factory=Spoil)
    upstream: Spoil = field(default_factory=Spoil)
    sending: Spoil = field(default_factory=Spoil)


class Booked(NamedTuple):
    name: str
    basis: str
    state: str
    estimated_nanousd: int
    output_nanousd: int
    input_nanousd: int

    @property
    def nanousd(self) -> int:
        return self.output_nanousd + self.input_nanousd


@dataclass
class Ends:
    """What the clients saw, by the name of the case: status or 0, body, whether it ended as it should."""

    seen: dict[str, tuple[int, bytes, bool]] = field(default_factory=dict)


@dataclass(kw_only=True)
class Between:
    stack: Stack
    to_gateway: ChaosProxy
    to_upstream: ChaosProxy

    async def play(self, cases: Sequence[Case]) -> Ends:
        """All of them at once."""
        ends = Ends()
        for case in cases:
            mark = _mark(case.name)
            self.to_gateway.marked[mark] = (Spoil(), case.client)
            self.to_upstream.marked[mark] = (case.sending, case.upstream)
        await asyncio.gather(*(self._call(case, ends) for case in cases))
        return ends

    async def _call(self, case: Case, ends: Ends) -> None:
        body = {
            "model": MODEL,
            "max_tokens": MAX_TOKENS,
            "stream": case.stream,
            "messages": [{"role": "user", "content": "Say 15 words."}],
        }
        async with await RawClient.connect(self.to_gateway.port) as client:
            headers = (
                b"x-api-key: " + self.stack.keys["demo"].encode(),
                b"anthropic-version: 2023-06-01",
                b"content-type: application/json",
                b"x-team: " + case.name.encode(),
                b"x-cut: " + _mark(case.name),
                b"connection: close",
            )
            try:
                await client.post("/v1/messages", json.dumps(body).encode(), *headers)
                answer = await client.response()
                ends.seen[case.name] = answer.status, answer.body, answer.complete
            except (EOFError, ConnectionError, ValueError, IndexError):  # the head was cut, or spoilt
                ends.seen[case.name] = 0, b"", False

    async def at_rest(self, seconds: float = 40) -> None:
        """Until every exchange is settled and the simulator has no request open."""
        pipeline = self.stack.service.pipeline
        async with asyncio.timeout(seconds):
            while pipeline.open or pipeline.open_reservations():  # noqa: ASYNC110  # it offers no event for it
                await asyncio.sleep(0.02)
        await self.stack.simulator.idle()

    async def counted(self) -> tuple[int, int]:
        """Spent and set aside of the month's dollars, in nano-dollars."""
        service = self.stack.service
        principal = service.rules.keyring.identify(self.stack.keys["demo"], 0.0)
        verdicts = await service.spending.budgets.peek(service.rules.limits.binding(principal, MODEL))
        (verdict,) = [each for each in verdicts if each.bound.limit.unit is Unit.NANOUSD]
        return verdict.spent, verdict.set_aside

    def bill(self) -> dict[str, list[BillLine]]:
        """Its lines by the case that they are for."""
        case_of = {each.request_id: each.header("x-cut") or "" for each in self.stack.simulator.requests}
        lines: dict[str, list[BillLine]] = defaultdict(list)
        for line in self.stack.simulator.bill.lines:
            lines[case_of[line.request_id].strip(";")].append(line)
        return lines


@asynccontextmanager
async def between_proxies(
    folder: Path, *, settings: str = "", environ: Mapping[str, str] | None = None
) -> AsyncIterator[Between]:
    simulator = a_simulator(PACING)
    await simulator.start()
    try:
        async with ChaosProxy(int(simulator.url.rpartition(":")[2])) as to_upstream:
            route = {
                **(environ or {}),
                "GATEWAY_UPSTREAMS__DEFAULT__BASE_URL": f"http://127.0.0.1:{to_upstream.port}",
            }
            async with (
                a_stack(
                    folder, simulator=simulator, environ=route, workspaces=STRICT, settings=settings
                ) as stack,
                ChaosProxy(int(stack.url.rpartition(":")[2])) as to_gateway,
            ):
                yield Between(stack=stack, to_gateway=to_gateway, to_upstream=to_upstream)
    finally:
        await simulator.stop()


def booked(state: Path) -> list[Booked]:
    """Of a gateway that has stopped."""
    with closing(sqlite3.connect(state / LEDGER_FILE)) as connection:
        return [Booked(*row) for row in connection.execute(_ENTRIES)]


def fault_in(entry: Booked, lines: Sequence[BillLine]) -> str:
    """What is wrong with how a call is booked, beside its lines of the bill; nothing: empty.

    Reported: to the nano-dollar. Partial: its input to the nano-dollar, and of its output no less than was
    billed, at most what it may generate. Estimated: no less than the bill, and no more than was set aside.
    None: not billed."""
    billed = sum(line.cost_nanousd for line in lines)
    right = {
        "reported": entry.nanousd == billed,
        "partial": 0 <= entry.nanousd - billed < MAX_TOKENS * OUTPUT_NANOUSD
        and entry.input_nanousd == sum(_input_nanousd(line) for line in lines),
        "estimated": billed <= entry.nanousd == entry.estimated_nanousd,
        "none": entry.nanousd == 0 == billed,
    }
    return "" if right.get(entry.basis) else f"{entry}, billed {billed}"


def _input_nanousd(line: BillLine) -> int:
    return line.cost_nanousd - int(line.usage["output_tokens"]) * OUTPUT_NANOUSD


def _mark(name: str) -> bytes:
    return name.encode() + b";"
