"""A world for the pipeline without sockets or real time: an upstream that plays what it is told, a client
that takes what it is sent, and a stage on which every await can be cut short.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gateway.adapters.guarded_budgets import GuardedBudgets
from gateway.adapters.memory_budgets import MemoryBudgets
from gateway.adapters.no_peers import NoPeers
from gateway.core.bucket import Amounts, Decision, Presumed, Reservation, Verdict
from gateway.core.endpoints import route
from gateway.core.errors import UpstreamFailure
from gateway.core.exchange import ExchangeRecord
from gateway.core.headers import Header, Headers
from gateway.core.ids import ReservationId, WorkspaceId
from gateway.core.limits import BoundLimit
from gateway.core.placement import PlacementPolicy
from gateway.core.principal import RANDOM_BYTES, mint_key
from gateway.core.recent import RecentBodies
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Rules
from gateway.pipeline import Pipeline
from gateway.placing import Flights, Placing
from gateway.ports import BodyStream, Call, InboundBody, UpstreamRequest
from gateway.settings import build_keyring, build_rules, load_settings, packaged_directory
from gateway.tasks import TaskSet
from tests.support.clock import FakeClock

KEY, KEY_RECORD = mint_key(
    random_bytes=bytes(range(RANDOM_BYTES)), name="test", workspace=WorkspaceId("demo"), created_at=0.0
)
CREDENTIAL = b"sk-test-upstream"
MODEL = "claude-opus-5-5"


class Stage:
    """Counts the awaits that a run passes, and cuts the one it was told to, by cancelling the run."""

    def __init__(self, cut_at: int | None = None) -> None:
        self.cut_at = cut_at
        self.passed = 0

    async def step(self) -> None:
        self.passed += 1
        if self.passed == self.cut_at:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
        await asyncio.sleep(0)


@dataclass
class Played:
    """What upstream answers to one attempt: pieces of a body, or an error."""

    status: int = 200
    headers: Headers = ((b"content-type", b"application/json"), (b"request-id", b"req_up"))
    pieces: Sequence[bytes] = ()
    error: Exception | None = None
    """Raised instead of the head."""
    ends_with: Exception | None = None
    """Raised after the last piece."""


@dataclass
class FakeAnswer:
    status: int
    headers: Headers
    pieces: list[bytes]
    ends_with: Exception | None
    stage: Stage

    async def pump(self, feed: Callable[[bytes], bool]) -> bool:
        while self.pieces:
            await self.stage.step()
            if feed(self.pieces.pop(0)):
                return False
        if self.ends_with is not None:
            raise self.ends_with
        return True


class FakeUpstream:
    """`ports.Upstream` that plays `script`, one entry per attempt."""

    def __init__(self, script: Sequence[Played], stage: Stage) -> None:
        self.script = list(script)
        self.stage = stage
        self.requests: list[UpstreamRequest] = []
        self.opened = 0
        self.closed = 0

    @asynccontextmanager
    async def open(self, request: UpstreamRequest) -> AsyncIterator[FakeAnswer]:
        self.requests.append(request)
        played = self.script.pop(0)
        self.opened += 1
        try:
            await self.stage.step()
            if not isinstance(played.error, UpstreamFailure) or played.error.request_sent:
                request.on_sent()
            await self.stage.step()
            if played.error is not None:
                raise played.error
            await self.stage.step()
            yield FakeAnswer(played.status, played.headers, list(played.pieces), played.ends_with, self.stage)
        finally:
            self.closed += 1

    async def close(self) -> None:
        return


class FakeReply:
    """`ports.Reply` into a buffer. `slow`: congested after every write. `leaves_at`: gone at that write."""

    def __init__(self, stage: Stage, *, slow: bool = False, leaves: Exception | None = None) -> None:
        self.stage = stage
        self.slow = slow
        self.leaves = leaves
        self.status = 0
        self.headers: list[Header] = []
        self.body = b""
        self.finished = False

    @property
    def started(self) -> bool:
        return self.status != 0

    def start(self, status: int, headers: Headers) -> None:
        self.status, self.headers = status, list(headers)

    def write(self, data: bytes) -> bool:
        if self.leaves is not None:
            raise self.leaves
        self.body += data
        return self.slow

    async def drained(self) -> None:
        await self.stage.step()

    def finish(self) -> None:
        self.finished = True

    def abort(self) -> None:
        return


class StagedBudgets:
    """The memory store, with an await before and after each act: the store may have acted although its
    answer never arrives."""

    def __init__(self, store: MemoryBudgets, stage: Stage, failure: Exception | None = None) -> None:
        self.store = store
        self.stage = stage
        self.failure = failure

    async def reserve(self, reservation: Reservation) -> Decision:
        await self.stage.step()
        if self.failure is not None:
            raise self.failure
        decision = await self.store.reserve(reservation)
        await self.stage.step()
        return decision

    async def settle(self, reservation_id: ReservationId, actual: Amounts) -> None:
        await self.store.settle(reservation_id, actual)

    async def release(self, reservation_id: ReservationId) -> None:
        await self.store.release(reservation_id)

    async def renew(self, reservation_id: ReservationId, lease_seconds: float) -> None:
        await self.store.renew(reservation_id, lease_seconds)

    async def sweep(self, ledger: str) -> tuple[Presumed, ...]:
        return await self.store.sweep(ledger)

    async def booked(self, ledger: str, entry_ids: Sequence[str]) -> None:
        await self.store.booked(ledger, entry_ids)

    async def peek(self, limits: Sequence[BoundLimit]) -> tuple[Verdict, ...]:
        return await self.store.peek(limits)

    async def ping(self) -> None:
        await self.store.ping()

    async def close(self) -> None:
        await self.store.close()


@dataclass
class Seen:
    """An observer that keeps what it is told."""

    records: list[ExchangeRecord] = field(default_factory=list)

    def observe(self, record: ExchangeRecord) -> None:
        self.records.append(record)


class World:
    """A pipeline and everything around it, for one call or several."""

    def __init__(
        self,
        tmp_path: Path,
        *script: Played,
        stage: Stage | None = None,
        policy: PlacementPolicy | None = None,
        store_failure: Exception | None = None,
        environ: dict[str, str] | None = None,
        config: Path | None = None,
        written: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self.stage = stage or Stage()
        self.clock = FakeClock()
        self.rules = make_rules(tmp_path, environ or {}, config)
        self.memory = MemoryBudgets(self.clock)
        self.budgets = StagedBudgets(self.memory, self.stage, store_failure)
        self.guard = GuardedBudgets(self.budgets, self.clock)
        self.upstream = FakeUpstream(script, self.stage)
        self.seen = Seen()
        self.tasks = TaskSet()
        self.failed_observers: list[str] = []
        self.observers: list[Any] = [self.seen]
        self.pipeline = Pipeline(
            rules=lambda: self.rules,
            admit=lambda: None,
            placing=Placing(
                policy or RulePolicy(),
                self.clock,
                peers=NoPeers(),
                flights=Flights(),
                hold_seconds=8.0,
                recent=RecentBodies(1 << 20),
            ),
            upstream=self.upstream,
            budgets=self.guard,
            observers=self.observers,
            clock=self.clock,
            tasks=self.tasks,
            random=lambda: 0.0,
            observer_failed=self.failed_observers.append,
            written=written,
        )
        self._calls = 0

    async def call(self, reply: FakeReply | None = None, **changed: Any) -> FakeReply:
        """Handle one call to its end, settlement included; re-raises what the pipeline raises."""
        reply = reply or FakeReply(self.stage)
        task = asyncio.get_running_loop().create_task(self.pipeline.handle(self.make_call(**changed), reply))
        try:
            await self._until_done(task)
        finally:
            await self.tasks.drain(5.0)
        return reply

    async def _until_done(self, task: asyncio.Task[None]) -> None:
        for _ in range(10_000):
            if task.done():
                break
            if self.clock.sleeping:
                self.clock.advance(1.0)
            await asyncio.sleep(0)
        await task

    def make_call(
        self,
        body: dict[str, Any] | bytes | None = None,
        *,
        method: str = "POST",
        target: str = "/v1/messages",
        headers: Headers | None = None,
        stream_body: BodyStream | None = None,
    ) -> Call:
        self._calls += 1
        data = body if isinstance(body, bytes) else json.dumps(body or a_body()).encode()

        async def read() -> InboundBody:
            await self.stage.step()
            return InboundBody(data, decoded=False)

        return Call(
            id=f"gw_{self._calls}",
            endpoint=route(method, target),
            method=method,
            target=target,
            headers=[(b"x-api-key", KEY.encode()), (b"anthropic-version", b"2023-06-01")]
            if headers is None
            else headers,
            received_at=self.clock.now(),
            started=self.clock.monotonic(),
            public_base="http://gateway.test",
            read_body=read,
            stream_body=lambda: stream_body,
        )

    async def open_reservations(self) -> int:
        """How many the store still holds, found by letting every lease pass."""
        self.clock.advance(10 * self.rules.lease_seconds)
        return len(await self.memory.sweep("test"))

    async def spent_nanousd(self) -> int:
        """What the month's budget of workspace demo was charged."""
        principal = self.rules.keyring.identify(KEY, self.clock.now())
        verdicts = await self.memory.peek(self.rules.limits.binding(principal, MODEL))
        return next(v.spent for v in verdicts if v.bound.limit.unit == "nanousd")


def make_rules(tmp_path: Path, environ: dict[str, str], config: Path | None = None) -> Rules:
    """The shipped configuration, with one key and its state in `tmp_path`. The secret of prefixes is not
    drawn: what is chosen by a digest is the same at each run."""
    tmp_path.mkdir(parents=True, exist_ok=True)
    (tmp_path / "prefix.secret").write_text("0123456789abcdef" * 4)
    variables = {
        "ANTHROPIC_API_KEY": CREDENTIAL.decode(),
        "GATEWAY_STATE__DIRECTORY": str(tmp_path),
        **environ,
    }
    settings = load_settings(config or packaged_directory(), variables)
    return build_rules(settings, build_keyring(settings, [KEY_RECORD]), 1)


def a_body(**changed: Any) -> dict[str, Any]:
    """A call with a long system prompt, so that there is something to cache."""
    return {
        "model": MODEL,
        "max_tokens": 100,
        "system": "You are brief. " * 500,
        "messages": [
            {"role": "user", "content": "First question"},
            {"role": "assistant", "content": "An answer"},
            {"role": "user", "content": "Second question"},
        ],
        **changed,
    }


def a_message(**usage: int) -> bytes:
    """A plain answer of the API."""
    counts = {"input_tokens": 10, "output_tokens": 20} | usage
    return json.dumps(
        {
            "id": "msg_1",
            "type": "message",
            "role": "assistant",
            "model": MODEL,
            "content": [],
            "usage": counts,
        }
    ).encode()


def an_event(name: str, **data: Any) -> bytes:
    return f"event: {name}\ndata: {json.dumps({'type': name, **data})}\n\n".encode()


def a_stream(words: int = 3) -> list[bytes]:
    """The events of a streamed answer, one piece each: 10 input tokens, 3 of output for each word."""
    usage = {"input_tokens": 10, "output_tokens": 1}
    start = {"id": "msg_1", "type": "message", "role": "assistant", "model": MODEL, "usage": usage}
    return [
        an_event("message_start", message=start),
        an_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        *(
            an_event("content_block_delta", index=0, delta={"type": "text_delta", "text": "words "})
            for _ in range(words)
        ),
        an_event("content_block_stop", index=0),
        an_event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 3 * words}),
        an_event("message_stop"),
    ]


STREAM_HEAD: Headers = ((b"content-type", b"text/event-stream"), (b"request-id", b"req_up"))
