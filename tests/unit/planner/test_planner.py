from __future__ import annotations

import pytest

from gateway.core.misses import MissCause
from gateway.core.planner import Planner, PlannerOptions, Prices, Reported, Warm, Why
from gateway.core.planner.flights import MAX_FLIGHTS
from gateway.core.planner.index import table_bytes
from gateway.core.planner.reuse import BYTES
from tests.unit.planner.conversations import Blocks, Upstream, ask, bill

SMALL = PlannerOptions(capacity=1 << 14)
BOLD = PlannerOptions(capacity=1 << 14, opening_tokens=1e9)
SYSTEM = [("s1", 3000)]


def turns(session: int, count: int) -> Blocks:
    """A session's prompt at its n-th turn."""
    names = [f"{'ua'[at % 2]}{session}.{at}" for at in range(2 * count - 1)]
    return [*SYSTEM, *((name, 400) for name in names)]


def test_empty_prompt_is_left_alone() -> None:
    assert Planner(SMALL).plan(ask(1, []), 0.0).why is Why.EMPTY


def test_conversation_is_read_from_its_second_turn_on() -> None:
    upstream = Upstream(Planner(BOLD))
    reads = [upstream.send(ask(n, turns(1, 1 + n)), 20.0 * n).read_tokens for n in range(6)]

    assert reads[0] == 0
    assert all(later > earlier for later, earlier in zip(reads[2:], reads[1:], strict=False))
    assert not upstream.surprises


def test_one_shot_traffic_is_soon_left_alone() -> None:
    upstream = Upstream(Planner(SMALL))
    for number in range(400):
        upstream.send(ask(number, [(f"u{number}", 5000)]), 5.0 * number)
    upstream.run_until(5000.0)
    decision = upstream.send(ask(900, [("u900", 5000)]), 5000.0)

    assert decision.marks == ()
    assert upstream.cost - upstream.plain <= 0.005 * upstream.plain


def test_template_of_many_prompts_is_cached_without_what_differs() -> None:
    upstream = Upstream(Planner(SMALL))
    for number in range(300):
        decision = upstream.send(ask(number, [("s1", 3000), (f"u{number}", 4000)]), 4.0 * number)

    assert [mark.block for mark in decision.marks] == [0]
    assert upstream.cost < 0.7 * upstream.plain


def test_template_without_a_system_prompt_is_found_by_where_prompts_part() -> None:
    upstream = Upstream(Planner(SMALL))
    for number in range(300):
        decision = upstream.send(ask(number, [("u1", 3000), (f"u{number + 2}", 4000)]), 4.0 * number)

    assert [mark.block for mark in decision.marks] == [0]
    assert decision.read_tokens == 3000


def test_request_planned_again_under_its_id_replaces_the_first() -> None:
    planner = Planner(BOLD)
    planner.plan(ask(1, turns(1, 2)), 0.0)
    stake = planner.accounts[11].at_stake
    planner.plan(ask(1, turns(1, 2)), 1.0)

    assert planner.accounts[11].at_stake == stake


def test_unknown_ids_are_nothing() -> None:
    planner = Planner(SMALL)
    planner.answered(7, 1.0)
    planner.billed(7, Reported(1, 0, 0, 0), 1.0)
    planner.failed(7)

    assert planner.accounts == {}


def test_shadow_bills_as_expected() -> None:
    planner = Planner(BOLD)
    question = ask(1, turns(1, 2))
    decision = planner.plan(question, 0.0)
    planner.billed(1, None, 1.0)

    account = planner.accounts[11]
    assert account.plain == question.ends[-1]
    assert account.saved == pytest.approx(account.plain - bill(question, decision).cost(Prices()))


def test_entry_that_upstream_lost_is_believed_gone_and_said_to_be() -> None:
    planner = Planner(BOLD)
    for n in range(3):
        question = ask(n, turns(1, 1 + n))
        decision = planner.plan(question, 20.0 * n)
        planner.billed(n, bill(question, decision), 20.0 * n + 1)
    question = ask(3, turns(1, 4))
    assert planner.plan(question, 60.0).read_tokens > 0
    planner.billed(3, Reported(question.ends[-1], 0, 0, 0), 61.0)
    again = planner.plan(ask(4, turns(1, 3)), 62.0)

    assert again.miss is not None
    assert again.miss.cause is MissCause.GONE_EARLY


def test_estimated_token_counts_that_run_high_or_low_are_no_loss() -> None:
    """In the gateway lengths are estimates; a read in proportion to the prompt is what was expected."""
    planner = Planner(BOLD)
    for n in range(4):
        question = ask(n, turns(1, 1 + n))
        decision = planner.plan(question, 20.0 * n)
        seen = bill(question, decision)
        scaled = Reported(
            *(round(1.4 * part) for part in (seen.uncached, seen.read, seen.write_5m, seen.write_1h))
        )
        planner.billed(n, scaled, 20.0 * n + 1)

    assert planner.plan(ask(9, turns(1, 5)), 90.0).miss is None


def layered_reading(planner: Planner, read: bool, number: int) -> None:
    """A session with a pause over which only a layered entry can have lived."""
    blocks = turns(number, 1)
    for step, at in enumerate((0.0, 20.0, 40.0)):
        blocks = turns(number, 2 + 10 * step)
        question = ask(10 * number + step, blocks)
        decision = planner.plan(question, 5000.0 * number + at)
        planner.billed(question.id, bill(question, decision), 5000.0 * number + at + 1)
    question = ask(10 * number + 5, turns(number, 23))
    decision = planner.plan(question, 5000.0 * number + 1500.0)
    usage = bill(question, decision) if read else Reported(question.ends[-1], 0, 0, 0)
    planner.billed(question.id, usage, 5000.0 * number + 1501.0)


def test_belief_in_layered_entries_follows_what_is_billed() -> None:
    doubted = Planner(PlannerOptions(capacity=1 << 14, opening_tokens=1e9, warming=False))
    confirmed = Planner(PlannerOptions(capacity=1 << 14, opening_tokens=1e9, warming=False))
    for number in range(12):
        layered_reading(doubted, False, number)
        layered_reading(confirmed, True, number)

    assert doubted.trust < 0.5 < 0.9 < confirmed.trust


def test_clients_own_breakpoints_are_learned_from_and_not_touched() -> None:
    planner = Planner(SMALL)
    first = planner.plan(ask(1, turns(1, 1), fixed=((1, False),)), 0.0)
    planner.billed(1, bill(ask(1, turns(1, 1)), first), 1.0)
    second = planner.plan(ask(2, turns(1, 2), fixed=((3, False),)), 20.0)

    assert [(mark.block, mark.why) for mark in second.marks] == [(3, Why.CLIENT)]
    assert (second.read_tokens, second.write_5m_tokens) == (3400, 800)


def test_entry_that_another_replica_wrote_is_read() -> None:
    planner = Planner(SMALL)
    question = ask(1, turns(1, 2))
    planner.learn_entry(question.keys[0], hour=False, until=200.0, now=1.0)

    assert planner.plan(question, 2.0).read_tokens == 3000


def test_expired_prefix_is_explained() -> None:
    upstream = Upstream(Planner(PlannerOptions(capacity=1 << 14, opening_tokens=1e9, warming=False)))
    upstream.send(ask(1, turns(1, 2)), 0.0)
    decision = upstream.send(ask(2, turns(1, 3)), 4000.0)

    assert decision.miss is not None
    assert decision.miss.cause is MissCause.EXPIRED
    assert decision.miss.seconds >= 400.0


SESSIONS = 40
PAUSES = (0.0, 20.0, 440.0, 460.0, 880.0, 900.0)
"""Instants of a session's turns: after every other one it pauses for seven minutes."""


def pausing(sessions: int) -> list[tuple[float, Blocks]]:
    """Overlapping sessions that pause, in the order of time."""
    events = sorted((60.0 * s + at, s, turn) for s in range(sessions) for turn, at in enumerate(PAUSES))
    return [
        (at, [(f"{'ua'[n % 2]}{session}.{n}", 12_000) for n in range(1 + 2 * turn)])
        for at, session, turn in events
    ]


def test_prefixes_worth_it_are_kept_alive_and_it_pays() -> None:
    cost, warmed = {}, {}
    for warming in (False, True):
        upstream = Upstream(Planner(PlannerOptions(capacity=1 << 14, layered_trust=0.0, warming=warming)))
        for number, (at, blocks) in enumerate(pausing(60)):
            upstream.send(ask(number, blocks, Prices(read=0.025)), at)
        upstream.run_until(9000.0)
        saved = sum(account.saved for account in upstream.planner.accounts.values())
        cost[warming], warmed[warming] = upstream.cost, upstream.warmed
        assert not upstream.surprises
        assert saved == pytest.approx(upstream.plain - upstream.cost)

    assert (warmed[False], warmed[True] > 30) == (0, True)
    assert cost[True] < 0.8 * cost[False]


def paused_once(**more: bool) -> Planner:
    """Sessions that pause, up to where some may be warmed."""
    planner = Planner(PlannerOptions(capacity=1 << 14, layered_trust=0.0))
    for number, (at, blocks) in enumerate(pausing(SESSIONS)):
        planner.plan(ask(number, blocks, Prices(read=0.025), **more), at, may_wait=False)
        planner.billed(number, None, at + 1.0)
    return planner


def first_warm_ups(planner: Planner) -> tuple[list[Warm], float, float]:
    """The warm-ups asked for first, when, and what had been saved until then."""
    now = 60.0 * (SESSIONS - 1) + 900.0
    while (wake := planner.next_wake()) is not None:
        now = max(now, wake)
        saved = planner.accounts[11].saved
        warms = planner.woken(now)
        if warms:
            return warms, now, saved
    raise AssertionError("nothing is warmed")


def test_warm_up_that_read_nothing_is_charged_and_its_entry_believed_gone() -> None:
    planner = paused_once()
    warms, now, saved = first_warm_ups(planner)
    for warm in warms:
        planner.warmed(warm, Reported(warm.tokens, 0, 0, 0))

    assert all(planner.table.expires[planner.table.find(warm.key)] <= now for warm in warms)
    assert planner.accounts[11].saved == pytest.approx(saved - sum(warm.tokens for warm in warms))


def test_warm_up_that_was_not_sent_costs_and_keeps_nothing() -> None:
    planner = paused_once()
    warms, now, saved = first_warm_ups(planner)
    kept_until = [planner.table.expires[planner.table.find(warm.key)] for warm in warms]
    for warm in warms:
        planner.not_warmed(warm, now)

    assert all(until > now for until in kept_until)
    assert all(planner.table.expires[planner.table.find(warm.key)] <= now for warm in warms)
    assert planner.accounts[11].saved == pytest.approx(saved)


@pytest.mark.parametrize("goes_on", [False, True])
def test_prefix_that_was_read_in_time_is_not_warmed(goes_on: bool) -> None:
    """Its first lifetime is over when it is asked about, but a later turn has begun another."""
    planner, began = paused_once(), 4000.0
    blocks = [(f"{'ua'[n % 2]}99.{n}", 12_000) for n in range(5)]
    for number, at in enumerate((0.0, 20.0, *([150.0] if goes_on else []))):
        planner.plan(ask(900 + number, blocks[: 1 + 2 * number], Prices(read=0.025)), began + at)
        planner.billed(900 + number, None, began + at + 1.0)
    warms = planner.woken(began + 310.0)

    assert any(warm.request == 901 for warm in warms) is not goes_on


def test_request_that_cannot_be_warmed_is_not() -> None:
    assert paused_once().next_wake() is not None
    assert paused_once(warmable=False).next_wake() is None


def test_warming_stops_with_the_readers() -> None:
    upstream = Upstream(Planner(SMALL))
    for number in range(60):
        upstream.send(ask(number, turns(1, 1 + number)), 300.0 * number)
    upstream.run_until(300.0 * 60)
    before = upstream.cost
    upstream.run_until(10 * 24 * 3600.0)

    assert upstream.cost - before < 0.5 * 60 * 800
    assert upstream.planner.next_wake() is None


def test_loss_is_bounded_whatever_the_traffic_does() -> None:
    """Sessions that go on until the planner believes in them, and then never again."""
    options = PlannerOptions(capacity=1 << 14, opening_tokens=5_000.0)
    upstream, now, number = Upstream(Planner(options)), 0.0, 0
    for session in range(300):
        for turn in range(2 if session < 100 else 1):
            now += 7.0
            number += 1
            upstream.send(ask(number, [*turns(session, 2 + turn)[1:], (f"u{number}", 9000)]), now)
    upstream.run_until(now + 8000.0)
    bound = (
        max(options.opening_tokens, options.regret_share * upstream.plain)
        + options.open_share * upstream.plain
    )

    assert upstream.worst_loss <= bound


def test_forgets_flights_that_are_never_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.core.planner.planner.MAX_FLIGHTS", 100)
    planner = Planner(BOLD)
    for number in range(150):
        planner.plan(ask(number, [(f"u{number}", 5000)]), float(number), may_wait=False)

    assert len(planner._flights) == 100
    assert MAX_FLIGHTS > 100


def test_stated_memory_of_a_million_prefixes() -> None:
    assert table_bytes(1_000_000) + BYTES < 60e6


def test_breakpoints_that_were_not_decided_here_are_in_nobodys_account() -> None:
    planner = Planner(BOLD)
    for number, decided in ((1, False), (2, True)):
        question = ask(number, [(f"u{number}", 5_000)], fixed=((0, False),), decided=decided)
        planner.plan(question, 0.0)
        planner.billed(number, Reported(0, 0, 5_000, 0), 1.0)

    assert planner.accounts[11].plain == 5_000
    assert planner.accounts[11].saved == -1_250


def test_says_what_was_known_and_whether_it_went_on() -> None:
    planner = Planner(BOLD)
    planner.billed(1, None, 0.0)
    new = planner.plan(ask(1, [("s1", 30_000), ("u1", 100)]), 0.0)
    other = planner.plan(ask(2, [("s1", 30_000), ("u2", 100)]), 0.1, may_wait=False)
    again = planner.plan(ask(3, [("s1", 30_000), ("u1", 100)]), 0.2, may_wait=False)

    assert (new.known_to, new.known_goes_on) == (-1, False)
    assert (other.known_to, other.known_goes_on) == (0, True)
    assert (again.known_to, again.known_goes_on, again.read_at) == (1, False, -1)
