"""What a call sets aside, is refused for and is told, through the real pipeline in a world of fakes."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gateway.core.bucket import Amounts, Decision, Reservation
from gateway.core.errors import BudgetExhausted, Unbounded
from gateway.core.headers import Headers
from gateway.core.ids import ReservationId, WorkspaceId
from gateway.core.limits import Limit, Limits, Mode, Period, Scope, Unit
from gateway.core.rules import EstimateMode, LimitHeaders
from gateway.core.rules import Unbounded as WhenUnbounded
from gateway.core.thresholds import Crossing
from tests.support.fakes import KEY, STREAM_HEAD, FakeReply, Played, World, a_body, a_message, a_stream

DEMO = WorkspaceId("demo")
SEARCHING = {"tools": [{"type": "web_search_20260209", "name": "web_search"}]}


def a_limit(id: str, **changes: Any) -> Limit:
    values: dict[str, Any] = {
        "scope": Scope.WORKSPACE,
        "unit": Unit.NANOUSD,
        "amount": 10**12,
        "period": Period.CALENDAR_DAY,
        **changes,
    }
    return Limit(id=id, **values)


AT_ONCE = a_limit("at-once", unit=Unit.CONCURRENT, period=Period.OPEN, amount=1)


def a_world(tmp_path: Path, *limits: Limit, answers: int = 1, **rules: Any) -> World:
    world = World(tmp_path, *(Played(pieces=[a_message()]) for _ in range(answers)))
    world.rules = replace(world.rules, limits=Limits(limits), **rules)
    return world


def strictly(world: World, unbounded: WhenUnbounded = WhenUnbounded.REFUSE) -> None:
    demo = replace(world.rules.workspaces[DEMO], estimate=EstimateMode.STRICT, unbounded=unbounded)
    world.rules = replace(world.rules, workspaces={DEMO: demo})


def with_tags(*tags: tuple[bytes, bytes]) -> Headers:
    return [(b"x-api-key", KEY.encode()), *tags]


def rate_limits(headers: Headers) -> dict[bytes, bytes]:
    return {name: value for name, value in headers if name.startswith(b"anthropic-")}


@pytest.mark.parametrize(
    "named",
    [
        {"fallbacks": [{"model": "claude-fable-5-2"}]},
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": "claude-fable-5-2"}]},
    ],
    ids=lambda named: next(iter(named)),
)
async def test_a_limit_for_some_models_binds_calls_that_name_one_as_fallback_or_advisor(
    tmp_path: Path, named: dict[str, Any]
) -> None:
    fable = a_limit("fable", amount=1, models=("claude-fable-*",))
    world = a_world(tmp_path, fable, a_limit("all"), answers=1)
    await world.call()
    with pytest.raises(BudgetExhausted) as refused:
        await world.call(body=a_body(**named))

    assert refused.value.limit_id == "fable"
    assert world.upstream.opened == 1


async def test_a_second_request_at_the_same_time_is_refused_and_one_after_it_is_not(tmp_path: Path) -> None:
    world = World(tmp_path, Played(headers=STREAM_HEAD, pieces=a_stream()), Played(pieces=[a_message()]))
    world.rules = replace(world.rules, limits=Limits((AT_ONCE,)))
    first = asyncio.get_running_loop().create_task(
        world.pipeline.handle(world.make_call(), FakeReply(world.stage))
    )
    for _ in range(1_000):
        if world.upstream.opened:
            break
        await asyncio.sleep(0)

    with pytest.raises(BudgetExhausted) as refused:
        await world.pipeline.handle(world.make_call(), FakeReply(world.stage))
    await first
    await world.tasks.drain(5.0)
    reply = await world.call()

    assert (refused.value.limit_id, refused.value.retry_after_seconds) == ("at-once", 1.0)
    assert reply.status == 200
    assert [record.status for record in world.seen.records if record.error_code is None] == [200, 200]


async def test_a_refusal_that_arrives_after_the_place_was_given_back_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store refuses, then closes the call that is over, and that answer is here first."""
    world = World(tmp_path, *(Played(headers=STREAM_HEAD, pieces=a_stream()) for _ in range(2)))
    world.rules = replace(world.rules, limits=Limits((AT_ONCE,)))
    reserve, settle, may_settle = world.memory.reserve, world.memory.settle, asyncio.Event()
    refused = 0

    async def slow(reservation_id: ReservationId, actual: Amounts) -> None:
        await may_settle.wait()
        await settle(reservation_id, actual)

    async def late(reservation: Reservation) -> Decision:
        nonlocal refused
        decision = await reserve(reservation)
        if not decision.allowed:
            refused += 1
            may_settle.set()
            await world.tasks.drain(5.0)
        return decision

    monkeypatch.setattr(world.memory, "settle", slow)
    monkeypatch.setattr(world.memory, "reserve", late)
    replies = [FakeReply(world.stage) for _ in range(2)]
    for reply in replies:
        await world.pipeline.handle(world.make_call(), reply)
    await world.tasks.drain(5.0)

    assert refused == 1, "or this proves nothing"
    assert [reply.status for reply in replies] == [200, 200]


async def test_the_books_have_what_a_call_cost_before_its_reservation_is_closed(tmp_path: Path) -> None:
    """A replica that dies in between leaves an entry, which it settles when it is back, and never a counter
    that no entry explains."""
    is_written = asyncio.Event()

    async def written() -> None:
        await is_written.wait()

    world = World(tmp_path, Played(pieces=[a_message()]), written=written)
    await world.pipeline.handle(world.make_call(), FakeReply(world.stage))
    for _ in range(100):
        await asyncio.sleep(0)
    (record,) = world.seen.records
    assert await world.spent_nanousd() == 0
    assert [each.id for each in world.pipeline.open_reservations()] == ["gw_1"]
    is_written.set()
    await world.tasks.drain(5.0)

    assert record.cost is not None
    assert await world.spent_nanousd() == record.cost.total_nanousd > 0
    assert await world.open_reservations() == 0


async def test_a_release_does_not_wait_for_the_books(tmp_path: Path) -> None:
    async def written() -> None:
        raise AssertionError("it costs nothing: there is nothing that the books must explain")

    world = World(tmp_path, Played(status=429, pieces=[b"{}"]), written=written)
    await world.call()

    assert await world.open_reservations() == 0


@pytest.mark.parametrize("target", ["/v1/messages/count_tokens", "/v1/models"])
async def test_what_is_free_takes_a_place_and_no_money(tmp_path: Path, target: str) -> None:
    world = a_world(tmp_path, AT_ONCE, a_limit("nothing", amount=0))
    body = a_body() if "count" in target else b""
    await world.call(body=body, method="POST" if body else "GET", target=target)

    (record,) = world.seen.records
    assert record.reservation is not None
    assert [bound.limit.id for bound in record.reservation.limits] == ["at-once"]
    assert record.reservation.amounts.concurrent == 1
    assert await world.open_reservations() == 0


async def test_each_value_of_a_tag_has_what_is_left_to_it(tmp_path: Path) -> None:
    user = a_limit("user", scope=Scope.TAG, tag="x-user", unit=Unit.REQUESTS, amount=1)
    world = a_world(tmp_path, user, answers=3, tag_headers=("x-user",))
    await world.call(headers=with_tags((b"x-user", b"ann")))
    await world.call(headers=with_tags((b"x-user", b"ben")))
    await world.call(headers=with_tags())

    with pytest.raises(BudgetExhausted, match="x-user 'ann' has reached the limit 'user'"):
        await world.call(headers=with_tags((b"x-user", b"ann")))


async def test_a_pool_is_drawn_on_by_all_and_its_members_by_themselves(tmp_path: Path) -> None:
    requests = {"unit": Unit.REQUESTS, "subjects": ("demo",)}
    world = a_world(
        tmp_path,
        a_limit("pool", amount=5, shared=True, **requests),
        a_limit("member", amount=1, **requests),
        answers=2,
    )
    await world.call()

    with pytest.raises(BudgetExhausted) as refused:
        await world.call()

    assert refused.value.limit_id == "member"


async def test_a_strict_workspace_refuses_what_nothing_bounds(tmp_path: Path) -> None:
    world = a_world(tmp_path, a_limit("day"), answers=0)
    strictly(world)

    with pytest.raises(Unbounded, match=r"'day'.*the API runs tools for it") as refused:
        await world.call(body=a_body(**SEARCHING))

    (record,) = world.seen.records
    assert (refused.value.code, record.error_code, record.reservation) == ("unbounded", "unbounded", None)
    assert world.upstream.opened == 0


@pytest.mark.parametrize(
    "why", ["it is allowed", "no limit of dollars is enforced", "it is estimated", "it is"]
)
async def test_what_nothing_bounds_goes_through_where_nothing_is_promised(tmp_path: Path, why: str) -> None:
    shadow = why == "no limit of dollars is enforced"
    world = a_world(tmp_path, a_limit("day", mode=Mode.SHADOW if shadow else Mode.ENFORCE))
    if why != "it is estimated":
        strictly(world, WhenUnbounded.ALLOW if why == "it is allowed" else WhenUnbounded.REFUSE)
    reply = await world.call(body=a_body(**({} if why == "it is" else SEARCHING)))

    assert reply.status == 200


@pytest.mark.parametrize("status", [400, 404, 529])
async def test_a_loop_on_an_error_of_upstream_ends_at_a_limit_of_requests(
    tmp_path: Path, status: int
) -> None:
    few = a_limit("few", unit=Unit.REQUESTS, amount=3, period=Period.MINUTE)
    world = a_world(tmp_path, few, a_limit("day"), answers=0)
    world.upstream.script += [Played(status=status, pieces=[b"{}"])] * 3
    for _ in range(3):
        assert (await world.call()).status == status

    with pytest.raises(BudgetExhausted) as refused:
        await world.call()

    assert refused.value.limit_id == "few"
    assert await world.spent_nanousd() == 0


async def test_what_is_never_priced_is_refused_where_a_limit_of_dollars_is_enforced(tmp_path: Path) -> None:
    world = a_world(tmp_path, a_limit("day"), a_limit("few", unit=Unit.REQUESTS), answers=2)
    with pytest.raises(Unbounded, match=r"'day'.*POST /v1/sessions"):
        await world.call(method="POST", target="/v1/sessions?beta=true")
    listed = await world.call(method="GET", target="/v1/sessions?beta=true")
    demo = replace(world.rules.workspaces[DEMO], unbounded=WhenUnbounded.ALLOW)
    world.rules = replace(world.rules, workspaces={DEMO: demo})
    allowed = await world.call(method="POST", target="/v1/sessions?beta=true")

    assert (listed.status, allowed.status, world.upstream.opened) == (200, 200, 2)


async def test_limits_that_are_not_of_dollars_let_it_pass(tmp_path: Path) -> None:
    world = a_world(tmp_path, a_limit("few", unit=Unit.REQUESTS), a_limit("seen", mode=Mode.SHADOW))

    assert (await world.call(method="POST", target="/v1/complete")).status == 200


UPSTREAMS = (
    (b"content-type", b"application/json"),
    (b"request-id", b"req_up"),
    (b"anthropic-ratelimit-requests-remaining", b"999"),
    (b"anthropic-ratelimit-unified-status", b"allowed"),
    (b"anthropic-priority-input-tokens-limit", b"10000"),
    (b"anthropic-organization-id", b"org_1"),
)


@pytest.mark.parametrize(
    ("mode", "limited", "status", "requests", "others"),
    [
        (LimitHeaders.OWN, True, 200, b"9", False),
        (LimitHeaders.OWN, False, 200, b"999", True),
        (LimitHeaders.OWN, True, 429, b"999", True),
        (LimitHeaders.UPSTREAM, True, 200, b"999", True),
        (LimitHeaders.OFF, True, 200, None, False),
        (LimitHeaders.OFF, False, 200, None, False),
    ],
)
async def test_answers_describe_the_callers_own_limits_in_place_of_upstreams(
    tmp_path: Path, mode: LimitHeaders, limited: bool, status: int, requests: bytes | None, others: bool
) -> None:
    world = World(tmp_path, Played(status=status, headers=UPSTREAMS, pieces=[a_message()]))
    rate = a_limit("rate", unit=Unit.REQUESTS, amount=10, period=Period.MINUTE)
    limits = Limits((rate,) if limited else ())
    world.rules = replace(world.rules, limits=limits, limit_headers=mode)

    headers = rate_limits((await world.call()).headers)

    assert headers.get(b"anthropic-ratelimit-requests-remaining") == requests
    assert (b"anthropic-ratelimit-unified-status" in headers) is others
    assert (b"anthropic-priority-input-tokens-limit" in headers) is others
    assert headers[b"anthropic-organization-id"] == b"org_1"


@pytest.mark.parametrize("mode", LimitHeaders)
async def test_a_refusal_describes_them_too(tmp_path: Path, mode: LimitHeaders) -> None:
    rate = a_limit("rate", unit=Unit.REQUESTS, amount=10, period=Period.MINUTE)
    world = a_world(tmp_path, rate, a_limit("money", amount=1), answers=0, limit_headers=mode)

    with pytest.raises(BudgetExhausted) as refused:
        await world.call()

    told = (b"anthropic-ratelimit-requests-remaining", b"10") in refused.value.headers
    assert told is (mode is LimitHeaders.OWN)


async def test_the_call_that_leads_past_a_threshold_says_so_and_the_next_does_not(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # 10 x $4 and 20 x $20 per million: 440,000 nano-dollars each
    tag = a_limit("user", scope=Scope.TAG, tag="x-user", amount=10**8, warn_at=(0.001,))
    world = a_world(
        tmp_path,
        a_limit("day", amount=10**8, warn_at=(0.006, 0.01)),
        tag,
        answers=3,
        tag_headers=("x-user",),
    )
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            await world.call(headers=with_tags((b"x-user", b"ann@example.com")))

    assert [record.crossed for record in world.seen.records] == [
        (Crossing("user", "ann@example.com", 0.001),),
        (Crossing("day", "demo", 0.006),),
        (Crossing("day", "demo", 0.01),),
    ]
    assert caplog.messages == [
        "limit user is spent to 0.1%",
        "limit day for demo is spent to 0.6%",
        "limit day for demo is spent to 1%",
    ]


async def test_reads_that_were_expected_and_did_not_come_are_charged_in_the_end(tmp_path: Path) -> None:
    tokens = a_limit("free", unit=Unit.INPUT_TOKENS), a_limit("counted", unit=Unit.PROMPT_TOKENS)
    world = a_world(tmp_path, *tokens, answers=0)
    world.upstream.script.append(Played(pieces=[a_message(input_tokens=100, cache_read_input_tokens=40)]))
    await world.call()

    principal = world.rules.keyring.identify(KEY, world.clock.now())
    free, counted = await world.memory.peek(world.rules.limits.binding(principal, ""))
    assert (free.spent, counted.spent) == (100, 140)
