"""What is shown of a call, open or over: numbers and names of it, and of open ones what is expected."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from gateway.adapters.live_calls import KEPT, KEPT_SECONDS, LiveCalls
from gateway.core.claims import subject_id
from gateway.core.exchange import Exchange, State, Timings
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.live import MAX_MODEL, Told, bounded, ended_call, merged, open_call, reason_of
from gateway.core.placement import Breakpoint, Placement
from gateway.core.principal import Principal
from gateway.core.prompt import TTL
from gateway.core.usage import Usage
from tests.support.clock import FakeClock
from tests.support.records import a_record, a_refused_record

ADA = Principal(workspace=WorkspaceId("demo"), key_id=KeyId("k1"), key_name="ada")
PLACEMENT = Placement(
    breakpoints=(
        Breakpoint(0, TTL.FIVE_MINUTES, "tools"),
        Breakpoint(3, TTL.FIVE_MINUTES, "system"),
        Breakpoint(5, TTL.FIVE_MINUTES, "tools"),
    ),
    prompt_tokens=1_000,
    read_tokens=600,
    write_5m_tokens=300,
)


def an_exchange(call_id: str = "gw_1", started: float = 990.0) -> Exchange:
    return Exchange(
        id=call_id,
        endpoint="messages",
        method="POST",
        received_at=1_800_000_000.0,
        started=started,
        state=State.RELAYING,
        status=200,
        principal=ADA,
        model="m" * 500,
        streaming=True,
        placement=PLACEMENT,
        estimated_nanousd=70,
        response_bytes=12,
    )


def test_an_open_call_shows_what_is_expected_and_set_aside() -> None:
    call = open_call(an_exchange(), 1_000.0, "a")

    assert (call.open, call.duration_seconds, call.state, call.status) == (True, 10.0, "relaying", 200)
    assert (call.workspace, call.key_id, call.key_name) == ("demo", "k1", "ada")
    assert (call.prompt_tokens, call.read_tokens, call.write_tokens) == (1_000, 600, 300)
    assert (call.output_tokens, call.cost_nanousd, call.set_aside_nanousd) == (None, None, 70)
    assert (call.cohort, call.breakpoints, call.reason) == ("placed", 3, "tools; system")
    assert len(call.model) == MAX_MODEL


def test_a_call_of_nobody_yet_has_no_names() -> None:
    call = open_call(
        Exchange(id="gw", endpoint="messages", method="POST", received_at=1.0, started=2.0), 1.0, "a"
    )

    assert (call.workspace, call.model, call.prompt_tokens, call.duration_seconds) == ("", "", None, 0.0)


def test_an_ended_call_shows_what_was_billed() -> None:
    record = a_record()
    usage, cost = record.usage, record.cost
    assert usage is not None
    assert cost is not None
    call = ended_call(record, "a")

    assert not call.open
    assert call.prompt_tokens == usage.prompt_tokens
    assert call.read_tokens == usage.cache_read_tokens
    assert call.output_tokens == usage.output_tokens
    assert call.cost_nanousd == cost.total_nanousd


def test_iterations_are_summed() -> None:
    part = Usage(uncached_input_tokens=1, cache_read_tokens=10, cache_write_5m_tokens=100, output_tokens=7)
    call = ended_call(a_record(usage=replace(part, iterations=(part, part))), "a")

    assert (call.prompt_tokens, call.read_tokens, call.write_tokens, call.output_tokens) == (222, 20, 200, 14)


def test_a_refusal_shows_why_and_that_nothing_was_billed() -> None:
    call = ended_call(a_refused_record(), "a")

    assert (call.state, call.status, call.error_code) == ("refused", 401, "unauthenticated")
    assert (call.prompt_tokens, call.output_tokens, call.cost_nanousd, call.cohort) == (
        None,
        None,
        None,
        None,
    )


def test_a_reason_without_breakpoints_is_the_placements() -> None:
    assert reason_of(Placement(reason="the prompt is short")) == "the prompt is short"
    assert reason_of(None) == ""


def test_what_ended_is_kept_for_minutes_and_the_open_ones_come_first() -> None:
    clock = FakeClock()
    exchanges = [an_exchange("young", 999.0), an_exchange("old", 900.0)]
    live = LiveCalls(lambda: exchanges, clock)
    timings = replace(a_record().timings, total_seconds=1.0)
    for name in ("first", "second"):
        live.observe(a_record(id=name, received_at=clock.now(), timings=timings))

    assert [call.id for call in live.told().calls] == ["old", "young", "second", "first"]
    clock.advance(KEPT_SECONDS + 1.0)
    assert [call.id for call in live.told().calls] == ["old", "young"]


def test_what_is_kept_is_bounded_and_the_newest() -> None:
    clock = FakeClock()
    live = LiveCalls(list, clock)
    for number in range(KEPT + 3):
        live.observe(a_record(id=str(number), received_at=clock.now()))
    ids = [call.id for call in live.told().calls]

    assert (len(ids), ids[0], ids[-1]) == (KEPT, str(KEPT + 2), "3")


def told(opened: int, ended: int, replica: str = "a") -> Told:
    """The longest call began first; the last of them ended last."""
    calls = [open_call(an_exchange(f"open {n}", 900.0 + n), 1_000.0, replica) for n in range(opened)]
    timings = Timings(total_seconds=0.0)
    calls += [
        ended_call(a_record(id=f"ended {n}", received_at=1_000.0 - n, timings=timings), replica)
        for n in range(ended)
    ]
    return Told(calls=calls, whole_since=400.0)


def test_lists_of_several_become_one_in_the_order_of_each() -> None:
    both = merged([told(2, 2), told(2, 2, "b"), Told(calls=[], whole_since=500.0, left_out=3)])

    assert [call.id for call in both.calls] == [
        *("open 0", "open 0", "open 1", "open 1"),
        *("ended 0", "ended 0", "ended 1", "ended 1"),
    ]
    assert {call.replica for call in both.calls} == {"a", "b"}
    assert (both.whole_since, both.left_out) == (500.0, 3), "as much as the one that knows least"


@pytest.mark.parametrize(
    ("opened", "ended", "kept", "left_out", "whole_since"),
    [
        (2, 2, (2, 2), 0, 400.0),
        (10, 0, (6, 0), 4, 400.0),
        (0, 10, (0, 6), 0, 994.0),
        (10, 10, (3, 3), 7, 997.0),
        (1, 10, (1, 5), 0, 995.0),
        (10, 1, (5, 1), 5, 400.0),
    ],
)
def test_what_is_told_is_bounded_and_says_what_it_lacks(
    opened: int, ended: int, kept: tuple[int, int], left_out: int, whole_since: float
) -> None:
    cut = bounded(told(opened, ended), 6)
    ids = [call.id for call in cut.calls]

    assert ids == [f"open {n}" for n in range(kept[0])] + [f"ended {n}" for n in range(kept[1])]
    assert (cut.left_out, cut.whole_since) == (left_out, whole_since)


def test_of_more_than_is_kept_it_is_said_from_when_on_nothing_is_missing() -> None:
    clock = FakeClock()
    live = LiveCalls(list, clock)
    timings = Timings(total_seconds=0.0)
    for number in range(KEPT + 1):
        live.observe(a_record(received_at=clock.now() + number / 1_000, timings=timings))

    assert live.told().whole_since == pytest.approx(clock.now() + 0.001)


def test_sentences_by_rule_and_those_that_were_learned_read_alike() -> None:
    point = Breakpoint(0, TTL.FIVE_MINUTES, "The last tool.")

    assert reason_of(Placement(breakpoints=(point,), reason="Placed by rule.")) == (
        "The last tool; Placed by rule"
    )


@pytest.mark.parametrize("known", [True, False])
def test_the_last_use_of_a_key_is_known(known: bool) -> None:
    live = LiveCalls(list, FakeClock())
    live.observe(a_record(received_at=5.0, principal=ADA) if known else a_refused_record())

    assert dict(live.last_used) == ({"k1": 5.0} if known else {})


def test_nothing_is_kept_of_the_subjects_of_tokens_beyond_their_calls() -> None:
    """Keys are few, subjects without end: each job of a pipeline may be one."""
    live = LiveCalls(list, FakeClock())
    for number in range(2 * KEPT):
        job = replace(ADA, key_id=subject_id("ci", f"job-{number}"))
        live.observe(a_record(received_at=5.0, principal=job))

    assert dict(live.last_used) == {}
