"""On whose account what goes."""

from __future__ import annotations

import pytest

from gateway.core.planner import Planner, PlannerOptions, Prices, Question, Reported, Why
from tests.unit.planner.conversations import ACCOUNT, Blocks, ask

READ = Prices(read=0.1)


def marked(number: int, blocks: Blocks, **more: object) -> Question:
    """As its client marks it: at the end."""
    return ask(number, blocks, READ, fixed=((len(blocks) - 1, False),), decided=False, **more)


class Alive:
    """What upstream has cached of five-minute entries."""

    def __init__(self, planner: Planner) -> None:
        self.planner = planner
        self.until: dict[int, float] = {}
        self.warmed = self.read = 0
        self.number = 0

    def goes_by(self, begin: float, end: float) -> None:
        for at in range(int(begin), int(end), 5):
            for warm in self.planner.woken(float(at)):
                self.warmed += 1
                assert self.until.get(warm.key, 0.0) > at
                self.until[warm.key] = at + 300.0
                self.planner.warmed(warm, Reported(0, warm.tokens, 0, 0))

    def asks(self, blocks: Blocks, now: float, **more: object) -> None:
        self.number += 1
        question = marked(self.number, blocks, **more)
        self.planner.plan(question, now, may_wait=False)
        alive = [at for at, key in enumerate(question.keys) if self.until.get(key, 0.0) > now]
        read = question.ends[alive[-1]] if alive else 0
        self.read += read > 0
        self.until[question.keys[-1]] = now + 300.0
        self.planner.billed(question.id, Reported(0, read, question.ends[-1] - read, 0), now + 2.0)


def paused(planner: Planner, calls: int, pause: float = 360.0) -> Alive:
    """Conversations whose clients mark their ends, and pause for longer than an entry lives."""
    alive, now = Alive(planner), 1e6
    for number in range(calls):
        session, turn = divmod(number, 15)
        blocks = [("s1", 50_000)] + [(f"{'ua'[n % 2]}{session}.{n}", 500) for n in range(1 + 2 * turn)]
        alive.goes_by(now, now + pause)
        now += pause
        alive.asks([(f"s{session}", 50_000), *blocks[1:]], now)
    return alive


def test_warm_ups_of_what_clients_mark_pay_for_themselves_and_go_on() -> None:
    planner = Planner(PlannerOptions(capacity=1 << 14, layered_trust=0.0))
    alive = paused(planner, 300)
    account = planner.stakes.kept_accounts[ACCOUNT]

    assert planner.accounts == {}
    assert alive.warmed > 250
    assert alive.read > 250
    assert account.plain > 10e6
    assert account.saved > 5e6


def test_warm_ups_that_nobody_reads_are_bounded_by_the_account() -> None:
    planner = Planner(PlannerOptions(capacity=1 << 14, layered_trust=0.0, opening_tokens=60_000.0))
    alive = paused(planner, 60)
    before, account = alive.warmed, planner.stakes.kept_accounts[ACCOUNT]
    saved, plain = account.saved, account.plain
    account.saved = 0.0
    alive.goes_by(1e6 + 60 * 360.0, 1e6 + 60 * 360.0 + 40_000.0)

    assert saved > 0.0
    assert account.plain == plain
    assert (alive.warmed - before) * 5_000 <= 60_000 + 0.005 * plain


def test_a_read_that_needed_no_warm_up_earns_nothing() -> None:
    planner = Planner(PlannerOptions(capacity=1 << 14, layered_trust=0.0))
    paused(planner, 60, pause=60.0)

    assert planner.stakes.kept_accounts[ACCOUNT].saved == 0.0


def by_rule(number: int, price: float = 1.0) -> Question:
    return ask(number, [(f"s{number}", 10_000)], fixed=((0, False),), otherwise=(), price=price)


def test_what_is_added_by_rule_is_refused_where_the_account_does_not_allow_it() -> None:
    planner = Planner(PlannerOptions(capacity=1 << 14, opening_tokens=20_000.0))
    decisions = []
    for number in range(40):
        decision = planner.plan(by_rule(number), 400.0 * number)
        decisions.append(decision)
        written = decision.write_5m_tokens
        planner.billed(number, Reported(10_000 - written, 0, written, 0), 400.0 * number + 1.0)
    added = [decision for decision in decisions if decision.marks]

    assert len(added) == 8
    assert decisions[-1].why is Why.LOSS_BOUND
    assert planner.accounts[ACCOUNT].saved == -20_000.0


def test_what_is_added_by_rule_is_at_stake_until_it_is_billed() -> None:
    planner = Planner(PlannerOptions(capacity=1 << 14))
    planner.plan(by_rule(1), 0.0)
    at_stake = planner.accounts[ACCOUNT].at_stake
    planner.failed(1)

    assert at_stake == 2_500.0
    assert planner.accounts[ACCOUNT].at_stake == 0.0


def test_what_is_added_to_a_clients_breakpoints_has_to_earn_more_than_these_save() -> None:
    """Their own system prompt is read each time; what is added is written and never read."""
    planner = Planner(PlannerOptions(capacity=1 << 14, opening_tokens=20_000.0))
    own, added, cached_until = ((0, False),), 0, 0.0
    for number in range(60):
        now = 60.0 * number
        blocks = [("s", 50_000), (f"u{number}", 10_000)]
        fixed = (*own, (1, False))
        decision = planner.plan(ask(number, blocks, fixed=fixed, otherwise=own, own=own), now)
        read = 50_000 if cached_until > now else 0
        written = 60_000 - read if decision.why is Why.CLIENT else 50_000 - read
        planner.billed(number, Reported(60_000 - read - written, read, written, 0), now + 1.0)
        added += decision.why is Why.CLIENT
        cached_until = now + 300.0

    assert added == 8
    assert planner.accounts[ACCOUNT].saved == pytest.approx(-20_000.0)


@pytest.mark.parametrize("price", [1.0, 4_000.0])
def test_the_opening_is_as_many_tokens_at_any_price(price: float) -> None:
    planner = Planner(PlannerOptions(capacity=1 << 14, opening_tokens=20_000.0))
    added = 0
    for number in range(40):
        added += len(planner.plan(by_rule(number, price), 400.0 * number).marks)
        planner.billed(number, None, 400.0 * number + 1.0)

    assert added == 8


def test_what_a_cheap_model_saved_is_not_staked_many_times_over_by_a_dear_one() -> None:
    planner = Planner(PlannerOptions(capacity=1 << 14, opening_tokens=1_000.0))
    planner.stakes.account(ACCOUNT).settle(0.0, plain=20_000.0, cost=10_000.0, price=1.0)

    assert planner.plan(by_rule(1, price=1.0), 0.0).marks
    assert not planner.plan(by_rule(2, price=10.0), 400.0).marks
