from __future__ import annotations

from collections.abc import Sequence
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.planner.choose import Choice
from gateway.core.planner.placing import Outlook, as_fixed, place
from gateway.core.planner.reuse import AGES, Chances
from gateway.core.planner.values import Question, Why
from tests.unit.planner.conversations import ask


def chances(five: float, hour: float = 0.0) -> Chances:
    return Chances(five, hour, (0.0,) * AGES)


def outlook(
    tail: Chances,
    *,
    read_at: int = -1,
    hour_at: int = -1,
    alive: Sequence[int] = (),
    shared: dict[int, Chances] | None = None,
    trust: float = 0.9,
    pending_at: int = -1,
) -> Outlook:
    return Outlook(read_at, hour_at, alive, tail, shared or {}, trust, pending_at)


def yes(premium: float, choices: Sequence[Choice]) -> bool:
    return True


def turn(blocks: int, *, unmarkable: Sequence[int] = ()) -> Question:
    """A conversation of so many blocks of 1,000 tokens behind a system prompt."""
    names = [("s0", 2000)] + [(f"{'ua'[at % 2]}{at}", 1000) for at in range(blocks - 1)]
    return ask(1, names, unmarkable=frozenset(unmarkable))


def placed(question: Question, expected: Outlook) -> list[tuple[int, str, Why]]:
    return [(mark.block, mark.ttl, mark.why) for mark in place(question, expected, yes).marks]


def test_unlikely_prompt_is_left_alone() -> None:
    decision = place(turn(4), outlook(chances(0.1)), yes)

    assert (decision.marks, decision.why) == ((), Why.NOTHING_PAYS)


def test_short_prompt_is_left_alone_and_says_why() -> None:
    assert place(ask(1, [("u1", 900)]), outlook(chances(0.9)), yes).why is Why.TOO_SHORT


def test_shared_prefix_is_written_without_the_tail() -> None:
    expected = outlook(chances(0.05), shared={0: chances(0.8)})

    assert placed(turn(4), expected) == [(0, "5m", Why.WRITE_SHARED)]


def test_likely_turn_is_written_to_its_end() -> None:
    decision = place(turn(4), outlook(chances(0.8)), yes)

    assert decision.marks[-1].block == 3
    assert decision.write_5m_tokens == 5000


def test_long_prefix_is_kept_for_an_hour_by_a_short_block_behind_it() -> None:
    expected = outlook(chances(0.8, 0.1), read_at=30)

    assert (31, "1h", Why.WRITE_LAYER) in placed(turn(34), expected)


def test_distrusted_layers_are_not_used() -> None:
    expected = outlook(chances(0.8, 0.1), read_at=30, trust=0.4)

    assert all(ttl == "5m" for _, ttl, _ in placed(turn(34), expected))


def test_layer_is_worth_less_where_layers_are_believed_less() -> None:
    """At this chance the layer's gain is just above its premium for a firm believer, and below for others."""
    question = turn(12)
    firm = placed(question, outlook(chances(0.8, 0.07), read_at=9, trust=1.0))
    weak = placed(question, outlook(chances(0.8, 0.07), read_at=9, trust=0.6))

    assert (10, "1h", Why.WRITE_LAYER) in firm
    assert all(ttl == "5m" for _, ttl, _ in weak)


def test_older_hour_entry_is_prolonged_at_no_cost() -> None:
    expected = outlook(chances(0.8, 0.1), read_at=10, hour_at=9)

    assert (9, "5m", Why.REFRESH) in placed(turn(12), expected)


def test_read_position_is_marked_where_the_writes_are_out_of_its_reach() -> None:
    names = [("s0", 2000)] + [(f"u{at}", 100) for at in range(60)]
    question = ask(1, names, unmarkable=frozenset(range(11, 60)))
    expected = outlook(chances(0.9), read_at=10)

    assert [mark.block for mark in place(question, expected, yes).marks] == [10, 60]


def test_what_is_cached_is_read_where_nothing_pays() -> None:
    decision = place(turn(4), outlook(chances(0.01), read_at=0), yes)

    assert [(mark.block, mark.why) for mark in decision.marks] == [(0, Why.READ)]
    assert (decision.read_tokens, decision.write_5m_tokens, decision.why) == (2000, 0, Why.READ)


def test_unmarkable_blocks_are_walked_around() -> None:
    marks = place(turn(6, unmarkable=[5]), outlook(chances(0.9)), yes).marks

    assert marks[-1].block == 4


def test_left_over_breakpoints_stand_where_prompts_may_fork() -> None:
    marks = placed(turn(8), outlook(chances(0.9), shared={0: chances(0.5)}))

    assert [block for block, _, _ in marks] == [0, 5, 6, 7]


def test_refused_premium_is_tried_cheaper_before_it_is_given_up() -> None:
    def at_most_1000(premium: float, choices: Sequence[Choice]) -> bool:
        return premium <= 1000

    expected = outlook(chances(0.8), shared={0: chances(0.5, 0.45)})
    decision = place(turn(6), expected, at_most_1000)

    assert decision.why is Why.LOSS_BOUND
    assert [(mark.block, mark.ttl) for mark in decision.marks] == [(0, "5m")]


def test_never_more_than_four_and_hours_come_first() -> None:
    shared = {at: chances(0.9 - at / 100, 0.05) for at in range(0, 12, 2)}
    expected = outlook(chances(0.7, 0.05), read_at=1, hour_at=0, alive=[0], shared=shared)
    marks = place(turn(40), expected, yes).marks

    assert len(marks) <= 4
    ttls = [mark.ttl for mark in marks if mark.block > 1]
    assert ttls == sorted(ttls)


def test_clients_own_breakpoints_are_taken_as_they_are() -> None:
    decision = as_fixed(turn(4), ((3, False), (1, True)), 0)

    assert [(mark.block, mark.ttl, mark.why) for mark in decision.marks] == [
        (1, "1h", Why.CLIENT),
        (3, "5m", Why.CLIENT),
    ]
    assert (decision.read_tokens, decision.write_1h_tokens, decision.write_5m_tokens) == (2000, 1000, 2000)


def test_prefix_that_another_request_writes_is_not_written_twice() -> None:
    expected = outlook(chances(0.8), shared={0: chances(0.9)}, pending_at=3)
    decision = place(turn(4), expected, yes)

    assert (decision.marks, decision.why) == ((), Why.TWIN)


def test_long_stretch_behind_what_another_request_writes_is_written() -> None:
    expected = outlook(chances(0.8), shared={0: chances(0.9)}, pending_at=0)

    assert placed(turn(30), expected)[-1] == (29, "5m", Why.WRITE_TAIL)


# What is said of a breakpoint is what it was set for.


def reasons(question: Question, expected: Outlook) -> dict[int, str]:
    return {mark.block: mark.reason for mark in place(question, expected, yes).marks}


def test_a_short_turn_that_keeps_a_long_prefix_is_not_said_to_be_written_for_the_next_one() -> None:
    """Nobody expects it soon; but 21,000 tokens are worth a thousand, should it come within the hour."""
    question = turn(21)
    expected = outlook(chances(0.0, 0.07), read_at=19)
    decision = place(question, expected, yes)
    (mark,) = [mark for mark in decision.marks if mark.block == 20]

    assert (mark.why, mark.hour, mark.tokens, mark.keeps) == (Why.WRITE_LAYER, True, 1_000, 21_000)
    assert mark.reason == (
        "writes 1,000 tokens for 1 h to keep 21,000 tokens before it readable for as long: 7% likely to be "
        "read next 5 min to 1 h from now, which is worth the price"
    )
    assert decision.reason == "in all 21,000 tokens are expected to be read and 1,000 to be written"


def test_a_turn_that_pays_by_itself_says_what_its_hour_keeps_as_well() -> None:
    said = reasons(turn(21), outlook(chances(0.5, 0.3), read_at=19))[20]

    assert said.startswith("writes 1,000 tokens for 1 h that the next turn would begin with: 50% likely")
    assert said.endswith("; and keeps 21,000 tokens before it readable for as long")


def test_what_an_older_entry_keeps_anyway_is_no_evidence() -> None:
    said = reasons(turn(21), outlook(chances(0.0, 0.3), read_at=19, hour_at=4))[20]

    assert "to keep 15,000 tokens before it" in said


def test_an_hour_that_may_not_be_lost_is_said_to_be_left_out() -> None:
    def no_hours(premium: float, choices: Sequence[Choice]) -> bool:
        return not any(hour for _, hour in choices)

    decision = place(turn(4), outlook(chances(0.01, 0.95)), no_hours)
    last = decision.marks[-1]

    assert (last.ttl, last.cut) == ("5m", True)
    assert "for 5 min" in last.reason
    assert last.reason.endswith("1 h seemed to pay, and costs more than may be lost on trying")
    assert decision.reason == "writing more may pay, but the share that may be lost on trying is used up"


@given(seed=st.integers(0, 2**32))
def test_nothing_is_said_to_be_written_for_what_is_unlikely(seed: int) -> None:
    """Whoever reads that the next turn, or others, would begin with it, finds odds beside it that pay; but
    where it is said that more was wanted and not allowed."""
    random = Random(seed)

    def some() -> Chances:
        five = random.random() ** random.choice((1, 6))
        return chances(five, (1 - five) * random.random() ** random.choice((1, 6)))

    blocks = random.randrange(1, 30)
    read_at = random.randrange(-1, blocks)
    expected = outlook(
        some(),
        read_at=read_at,
        hour_at=random.choice((-1, random.randrange(-1, read_at + 1))),
        shared={block: some() for block in range(blocks) if random.random() < 0.1},
        pending_at=random.choice((-1, random.randrange(-1, blocks))),
    )
    limit = random.choice((1e9, random.random() * 5_000))
    decision = place(turn(blocks), expected, lambda premium, _: premium <= limit)

    for mark in decision.marks:
        if mark.why in (Why.WRITE_TAIL, Why.WRITE_SHARED) and not mark.cut:
            assert mark.chance_1h > 0.2
        elif mark.why is Why.WRITE_LAYER:
            assert mark.hour
            assert mark.chance_1h > mark.chance_5m
            assert 0 < mark.keeps <= decision.read_tokens
    written = decision.write_5m_tokens + decision.write_1h_tokens
    assert bool(written) == any("writes" in mark.reason for mark in decision.marks)
