"""Whatever traffic comes: what the planner asks for is legal, what it expects is what is billed, and what it
loses is bounded. The bill is the simulator's, which shares no code with the planner."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.planner import Decision, Planner, PlannerOptions, Prices, Question, snapshot
from tests.support.remembered import dumped
from tests.unit.planner.conversations import Upstream, ask

BUDGET = settings(max_examples=60, deadline=None)

Step = tuple[float, int, int, int, int, int]

steps = st.lists(
    st.tuples(
        st.sampled_from([0.0, 0.3, 4.0, 30.0, 200.0, 400.0, 1500.0, 4000.0]),  # seconds since the last
        st.integers(0, 3),  # application
        st.integers(0, 5),  # session
        st.integers(0, 4),  # blocks added
        st.sampled_from([7, 300, 1500, 20_000]),  # tokens a block
        st.integers(0, 9),  # 0: the session's last block was edited; 1: it starts anew
    ),
    min_size=1,
    max_size=60,
)
prices = st.builds(
    Prices, read=st.sampled_from([0.1, 0.05, 0.025]), minimum_tokens=st.sampled_from([512, 1024, 4096])
)


def traffic(plan: Sequence[Step], price: Prices) -> list[tuple[float, Question]]:
    """Sessions of a few applications that grow, are edited, and start anew."""
    sessions: dict[tuple[int, int], list[tuple[str, int]]] = {}
    now, asked = 0.0, []
    for number, (pause, app, session, grown, tokens, event) in enumerate(plan):
        now += pause
        blocks = sessions.get((app, session))
        if blocks is None or event == 1:
            blocks = [(f"t{app}", 700), (f"s{app}", 900), (f"u{app}.{session}", tokens)]
        elif event == 0:
            blocks = [*blocks[:-1], (f"u{number}.edited", tokens)]
        blocks = blocks + [(f"{'ua'[at % 2]}{number}.{at}", tokens) for at in range(grown)]
        sessions[app, session] = blocks
        asked.append((now, ask(number, blocks[:60], price)))
    return asked


def legal(question: Question, decision: Decision) -> bool:
    blocks = [mark.block for mark in decision.marks]
    ttls = [mark.ttl for mark in decision.marks]
    return (
        len(blocks) <= 4
        and blocks == sorted(set(blocks))
        and all(0 <= block < len(question.keys) for block in blocks)
        and all(question.ends[block] >= question.prices.minimum_tokens for block in blocks)
        and ttls == sorted(ttls)
    )


@given(plan=steps, price=prices, opening=st.sampled_from([0.0, 5_000.0, 1e9]))
@BUDGET
def test_asks_for_what_is_legal_and_expects_what_is_billed(
    plan: list[Step], price: Prices, opening: float
) -> None:
    upstream = Upstream(Planner(PlannerOptions(capacity=1 << 12, opening_tokens=opening)))
    decisions = [(question, upstream.send(question, now)) for now, question in traffic(plan, price)]

    assert all(legal(question, decision) for question, decision in decisions)
    assert not upstream.surprises


@given(plan=steps, price=prices, opening=st.sampled_from([0.0, 5_000.0, 60_000.0]))
@BUDGET
def test_loss_never_exceeds_its_bound(plan: list[Step], price: Prices, opening: float) -> None:
    options = PlannerOptions(capacity=1 << 12, opening_tokens=opening)
    upstream = Upstream(Planner(options))
    for now, question in traffic(plan, price):
        upstream.send(question, now)
    upstream.run_until(1e6)

    bound = max(opening, options.regret_share * upstream.plain) + options.open_share * upstream.plain
    assert upstream.worst_loss <= bound + 1e-6


@given(plan=steps, price=prices)
@BUDGET
def test_restored_planner_goes_on_as_if_nothing_had_happened(plan: list[Step], price: Prices) -> None:
    options = PlannerOptions(capacity=1 << 12, warming=False, opening_tokens=1e9)
    upstream = Upstream(Planner(options))
    asked = traffic(plan, price)
    for now, question in asked:
        upstream.send(question, now)
    end = asked[-1][0] + 30.0
    upstream.run_until(end)
    other = Planner(options)

    assert snapshot.restore(other, snapshot.read(dumped(upstream.planner)))
    for number, (_, question) in enumerate(asked[-5:]):
        later = ask(10_000 + number, [("t0", 700), ("s0", 900), (f"u{number}", 5000)], price)
        for again in (question, later):
            first = upstream.planner.plan(again, end + number, may_wait=False)
            assert other.plan(again, end + number, may_wait=False) == first


@given(plan=steps, price=prices, unmarkable=st.sets(st.integers(0, 20)))
@BUDGET
def test_never_marks_what_may_not_be_marked(plan: list[Step], price: Prices, unmarkable: set[int]) -> None:
    planner = Planner(PlannerOptions(capacity=1 << 12, opening_tokens=1e9))
    for now, question in traffic(plan, price):
        guarded = Question(
            question.id,
            question.scope,
            question.account,
            question.keys,
            question.ends,
            question.kinds,
            question.prices,
            frozenset(unmarkable),
        )
        decision = planner.plan(guarded, now, may_wait=False)
        planner.billed(question.id, None, now)

        assert not unmarkable & {mark.block for mark in decision.marks}
        assert legal(guarded, decision)
