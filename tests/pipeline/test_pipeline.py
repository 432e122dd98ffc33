"""One call through the real pipeline, in a world of fakes: what goes up, what comes back, what is booked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from gateway.core.errors import (
    BadRequest,
    BudgetExhausted,
    ClientGone,
    Forbidden,
    NotFound,
    Unauthenticated,
    UpstreamCut,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.core.exchange import Basis, ExchangeRecord, State
from gateway.core.headers import value_of
from gateway.core.ids import PrefixKey
from gateway.core.models import ModelFacts
from gateway.core.placement import Breakpoint, Occasion, Placement
from gateway.core.prompt import TTL, Prompt
from gateway.core.retry import MAX_ATTEMPTS, RetryBudget
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Workspace
from gateway.ports import UpstreamRequest
from tests.support.fakes import (
    CREDENTIAL,
    KEY,
    STREAM_HEAD,
    FakeReply,
    Played,
    World,
    a_body,
    a_message,
    a_stream,
    an_event,
)


def sent(request: UpstreamRequest) -> bytes:
    return b"".join(request.body)


async def test_relays_a_plain_answer_and_settles_on_reported_usage(tmp_path: Path) -> None:
    answer = a_message(input_tokens=100, output_tokens=20)
    world = World(tmp_path, Played(pieces=[answer[:10], answer[10:]]))
    reply = await world.call()

    record = world.seen.records[0]
    assert (reply.status, reply.body, reply.finished) == (200, answer, True)
    assert (record.state, record.basis, record.attempts) == (State.ANSWERED, Basis.REPORTED, 1)
    assert record.cost is not None
    # 100 x $4 and 20 x $20 per million
    assert record.cost.total_nanousd == 100 * 4_000 + 20 * 20_000
    assert await world.spent_nanousd() == record.cost.total_nanousd
    assert await world.open_reservations() == 0


async def test_relays_a_stream_byte_for_byte(tmp_path: Path) -> None:
    events = a_stream(5)
    world = World(tmp_path, Played(headers=STREAM_HEAD, pieces=events))
    reply = await world.call(FakeReply(world.stage, slow=True), body=a_body(stream=True))

    record = world.seen.records[0]
    assert reply.body == b"".join(events)
    assert reply.finished
    assert record.streaming
    assert record.usage is not None
    assert (record.usage.uncached_input_tokens, record.usage.output_tokens) == (10, 15)


async def test_sends_one_upstream_credential_and_none_of_the_clients(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[a_message()]))
    await world.call(
        headers=[
            (b"x-api-key", KEY.encode()),
            (b"authorization", b"Bearer " + KEY.encode()),
            (b"anthropic-beta", b"one-2026-01-01"),
            (b"anthropic-workspace-id", b"wrkspc_other"),
            (b"x-unknown", b"kept"),
        ]
    )

    headers = world.upstream.requests[0].headers
    assert KEY.encode() not in b"".join(value for _, value in headers)
    assert [value for _, value in headers].count(b"Bearer " + CREDENTIAL) == 1
    assert value_of(headers, b"anthropic-workspace-id") is None
    assert value_of(headers, b"x-unknown") == b"kept"
    assert value_of(headers, b"anthropic-beta") == b"one-2026-01-01"


async def test_adds_breakpoints_and_nothing_else(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[a_message()]))
    reply = await world.call()

    forwarded = json.loads(sent(world.upstream.requests[0]))
    marks = json.dumps(forwarded).count("cache_control")
    assert marks == len(world.seen.records[0].placement.breakpoints) > 0  # type: ignore[union-attr]
    assert value_of(reply.headers, b"x-gateway-breakpoints") == str(marks).encode()


async def test_sends_the_same_bytes_where_the_request_opts_out(tmp_path: Path) -> None:
    body = json.dumps(a_body(), indent=3).encode()
    world = World(tmp_path, Played(pieces=[a_message()]))
    await world.call(body=body, headers=[(b"x-api-key", KEY.encode()), (b"x-gateway-placement", b"off")])

    assert world.upstream.requests[0].body == (body,)


class Broken(RulePolicy):
    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion | None = None,
    ) -> Placement:
        raise RuntimeError("no plan")


class Illegal(RulePolicy):
    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion | None = None,
    ) -> Placement:
        points = tuple(Breakpoint(0, TTL.FIVE_MINUTES, "") for _ in range(6))
        return Placement(breakpoints=points)


@pytest.mark.parametrize("policy", [Broken(), Illegal()])
async def test_sends_the_clients_bytes_when_planning_fails(policy: Broken | Illegal, tmp_path: Path) -> None:
    body = json.dumps(a_body()).encode()
    world = World(tmp_path, Played(pieces=[a_message()]), policy=policy)
    reply = await world.call(body=body)

    assert reply.status == 200
    assert world.upstream.requests[0].body == (body,)
    assert world.seen.records[0].plan_failed


class Careless(RulePolicy):
    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion | None = None,
    ) -> Placement:
        raise UnicodeDecodeError("utf-8", prompt.body, 0, 1, f"bad start of {prompt.body.decode()}")


async def test_trap_71_a_failure_of_planning_is_logged_by_type_and_place_without_content(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world = World(tmp_path, Played(pieces=[a_message()]), policy=Careless())
    await world.call()

    (logged,) = caplog.messages
    assert "UnicodeDecodeError" in logged
    assert "You are brief" not in caplog.text


@pytest.mark.parametrize(
    "headers", [[], [(b"x-api-key", b"cgw_unknown")], [(b"authorization", b"Basic abc")]]
)
async def test_refuses_who_is_unknown_before_reading_the_body(
    headers: list[tuple[bytes, bytes]], tmp_path: Path
) -> None:
    world = World(tmp_path)
    with pytest.raises(Unauthenticated):
        await world.call(headers=headers)

    assert world.stage.passed == 0
    assert world.seen.records[0].state is State.REFUSED


async def test_refuses_a_header_that_occurs_twice(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(BadRequest, match="two anthropic-version"):
        await world.call(
            headers=[
                (b"x-api-key", KEY.encode()),
                (b"anthropic-version", b"2023-06-01"),
                (b"anthropic-version", b"2026-10-21"),
            ]
        )


@pytest.mark.parametrize(
    ("target", "error"),
    [
        ("/v1/organizations/users", Forbidden),
        ("/v1/%6frganizations/users", Forbidden),
        ("/v1/files/../organizations", Forbidden),
        ("/messages", NotFound),
    ],
)
async def test_relays_no_administration(target: str, error: type[Exception], tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(error):
        await world.call(target=target)

    assert world.upstream.opened == 0


async def test_releases_the_reservation_when_upstream_rejects(tmp_path: Path) -> None:
    body = b'{"type":"error","error":{"type":"rate_limit_error","message":"slow"}}'
    world = World(tmp_path, Played(status=429, pieces=[body]))
    reply = await world.call()

    record = world.seen.records[0]
    assert (reply.status, reply.body) == (429, body)
    assert (record.state, record.basis, record.cost) == (State.ANSWERED, Basis.NONE, None)
    assert record.upstream_error_type == "rate_limit_error"
    assert await world.spent_nanousd() == 0


async def test_tries_again_only_where_nothing_was_sent(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        Played(error=UpstreamUnreachable("refused", request_sent=False)),
        Played(pieces=[a_message()]),
    )
    reply = await world.call()

    assert reply.status == 200
    assert world.seen.records[0].attempts == 2


@pytest.mark.parametrize(
    "error",
    [UpstreamUnreachable("reset", request_sent=True), UpstreamTimeout("silent", request_sent=True)],
)
async def test_trap_39_does_not_repeat_what_may_have_been_billed(
    error: UpstreamUnreachable | UpstreamTimeout, tmp_path: Path
) -> None:
    world = World(tmp_path, Played(error=error), Played(pieces=[a_message()]))
    with pytest.raises(type(error)):
        await world.call()

    record = world.seen.records[0]
    assert (record.attempts, record.state, record.basis) == (1, State.FAILED, Basis.ESTIMATED)
    assert await world.spent_nanousd() > 0


@pytest.mark.parametrize("count", [b"0", b"00", b"", b"-1", b"one"])
async def test_the_first_try_of_a_client_is_tried_again(count: bytes, tmp_path: Path) -> None:
    refused = UpstreamUnreachable("refused", request_sent=False)
    world = World(tmp_path, Played(error=refused), Played(pieces=[a_message()]))
    reply = await world.call(headers=[(b"x-api-key", KEY.encode()), (b"x-stainless-retry-count", count)])

    assert reply.status == 200


@pytest.mark.parametrize("count", [b"1", b"10", b"9" * 5_000], ids=["1", "10", "long"])
async def test_trap_50_does_not_repeat_what_a_client_is_already_repeating(
    count: bytes, tmp_path: Path
) -> None:
    refused = UpstreamUnreachable("refused", request_sent=False)
    world = World(tmp_path, Played(error=refused), Played(pieces=[a_message()]))
    with pytest.raises(UpstreamUnreachable):
        await world.call(headers=[(b"x-api-key", KEY.encode()), (b"x-stainless-retry-count", count)])

    assert world.seen.records[0].attempts == 1
    assert await world.spent_nanousd() == 0


async def test_retries_are_a_tenth_of_the_calls_however_many_fail(tmp_path: Path) -> None:
    """An upstream that takes no connection is not asked thrice by everybody."""
    calls = 40
    refused = Played(error=UpstreamUnreachable("refused", request_sent=False))
    world = World(tmp_path, *[refused] * (MAX_ATTEMPTS * calls))
    for _ in range(calls):
        with pytest.raises(UpstreamUnreachable):
            await world.call()

    attempts = [record.attempts for record in world.seen.records]
    assert attempts[:5] == [MAX_ATTEMPTS] * 5
    assert world.upstream.opened == sum(attempts) <= calls + RetryBudget.BURST + calls // 10


async def test_a_stream_without_its_last_event_was_cut(tmp_path: Path) -> None:
    """A close-delimited body ends cleanly although upstream was cut: only `message_stop` tells."""
    world = World(tmp_path, Played(headers=STREAM_HEAD, pieces=a_stream()[:-1]))
    reply = FakeReply(world.stage)
    with pytest.raises(UpstreamCut):
        await world.call(reply, body=a_body(stream=True))

    record = world.seen.records[0]
    assert not reply.finished
    assert (record.state, record.basis) == (State.CUT_BY_UPSTREAM, Basis.PARTIAL)
    assert record.usage is not None
    assert record.usage.output_tokens == 9


async def test_a_stream_in_an_encoding_that_nobody_here_reads_ends_as_its_framing_does(
    tmp_path: Path,
) -> None:
    """Upstream was asked for none; that the copy cannot be read is no reason to cut the original."""
    head = (*STREAM_HEAD, (b"content-encoding", b"br"))
    world = World(tmp_path, Played(headers=head, pieces=[b"\x8b\x0a\x80brotli's\x03"]))
    reply = await world.call()

    assert (reply.finished, reply.body) == (True, b"\x8b\x0a\x80brotli's\x03")
    assert world.seen.records[0].basis is Basis.ESTIMATED


async def test_a_stream_that_never_said_its_output_was_not_cut_and_is_booked_by_its_text(
    tmp_path: Path,
) -> None:
    events = [event for event in a_stream(300) if b"message_delta" not in event]
    world = World(tmp_path, Played(headers=STREAM_HEAD, pieces=events))
    reply = await world.call(body=a_body(stream=True))

    record = world.seen.records[0]
    assert reply.finished
    assert record.basis is Basis.PARTIAL
    assert record.usage is not None
    assert record.usage.output_tokens > 300


async def test_trap_40_a_stream_that_ends_in_an_error_event_is_relayed_and_booked(tmp_path: Path) -> None:
    error = an_event("error", error={"type": "overloaded_error", "message": "busy"})
    world = World(tmp_path, Played(headers=STREAM_HEAD, pieces=[*a_stream()[:3], error]))
    reply = await world.call(body=a_body(stream=True))

    record = world.seen.records[0]
    assert reply.finished
    assert reply.body.endswith(error)
    assert record.upstream_error_type == "overloaded_error"
    assert record.basis is Basis.PARTIAL


async def test_books_what_was_seen_when_upstream_is_cut(tmp_path: Path) -> None:
    world = World(
        tmp_path, Played(headers=STREAM_HEAD, pieces=a_stream()[:4], ends_with=UpstreamCut("reset"))
    )
    with pytest.raises(UpstreamCut):
        await world.call(body=a_body(stream=True))

    record = world.seen.records[0]
    assert (record.state, record.basis) == (State.CUT_BY_UPSTREAM, Basis.PARTIAL)
    assert await world.spent_nanousd() == record.cost.total_nanousd > 0  # type: ignore[union-attr]


async def test_a_client_that_leaves_cuts_upstream(tmp_path: Path) -> None:
    world = World(tmp_path, Played(headers=STREAM_HEAD, pieces=a_stream()))
    with pytest.raises(ClientGone):
        await world.call(FakeReply(world.stage, leaves=ClientGone("gone")), body=a_body(stream=True))

    assert (world.upstream.opened, world.upstream.closed) == (1, 1)
    assert world.seen.records[0].state is State.CUT_BY_CLIENT


async def test_refuses_when_the_budget_is_spent_and_holds_nothing(tmp_path: Path) -> None:
    world = World(tmp_path)
    with pytest.raises(BudgetExhausted) as refusal:
        await world.call(body=a_body(model="claude-fable-5", max_tokens=100, system="word " * 6_000_000))

    record = world.seen.records[0]
    assert refusal.value.limit_id == record.binding_limit
    assert "never fit" in refusal.value.message
    assert record.state is State.REFUSED
    assert await world.spent_nanousd() == 0
    assert await world.open_reservations() == 0


class Clumsy:
    def observe(self, record: ExchangeRecord) -> None:
        raise RuntimeError("cannot")


async def test_one_observers_failure_does_not_reach_the_others(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[a_message()]))
    world.observers.insert(0, Clumsy())
    reply = await world.call()

    assert reply.status == 200
    assert len(world.seen.records) == 1
    assert world.failed_observers == ["Clumsy"]
