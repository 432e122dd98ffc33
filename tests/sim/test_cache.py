"""The cache rules of the API, one test per documented rule (prompt caching page, 2026-08-21)."""

from __future__ import annotations

import pytest

from gateway.sim.cache import CacheScope, Outcome, Position, PromptCache, Ttl

SCOPE = CacheScope(workspace="wrkspc_a", model="m", speed="standard")
M5, H1 = Ttl.FIVE_MINUTES, Ttl.ONE_HOUR


def positions(count: int, marks: dict[int, Ttl], *, size: int = 1000, stem: str = "k") -> list[Position]:
    """Blocks 1..count of `size` tokens, breakpoints by block number; equal numbers have equal prefixes."""
    return [
        Position(key=f"{stem}{n}".encode(), end_tokens=n * size, mark=marks.get(n))
        for n in range(1, count + 1)
    ]


def ask(
    cache: PromptCache,
    blocks: list[Position],
    at: float = 0.0,
    *,
    scope: CacheScope = SCOPE,
    minimum: int = 512,
    publish: bool = True,
) -> Outcome:
    outcome = cache.open(scope, blocks, total_tokens=blocks[-1].end_tokens + 7, minimum_tokens=minimum, at=at)
    if publish:
        cache.publish(outcome)
    return outcome


def billed(outcome: Outcome) -> tuple[int, int, int, int]:
    return (
        outcome.read_tokens,
        outcome.write_1h_tokens,
        outcome.write_5m_tokens,
        outcome.uncached_tokens,
    )


def test_without_breakpoints_all_is_plain_input() -> None:
    assert billed(ask(PromptCache(), positions(3, {}))) == (0, 0, 0, 3007)


def test_one_breakpoint_writes_one_entry_and_nothing_before_it() -> None:
    """ "One breakpoint writes exactly one entry … nothing is written at other positions." """
    cache = PromptCache()
    ask(cache, positions(5, {5: M5}))

    assert len(cache) == 1
    # A shorter prompt of the same blocks finds no entry at its own end.
    assert billed(ask(cache, positions(4, {4: M5}))) == (0, 0, 4000, 7)


def test_each_of_several_breakpoints_writes_its_entry() -> None:
    cache = PromptCache()
    ask(cache, positions(6, {2: M5, 4: M5, 6: M5}))

    assert len(cache) == 3
    assert billed(ask(cache, positions(4, {4: M5}))) == (4000, 0, 0, 7)


def test_same_prefix_is_read_and_not_written_again() -> None:
    cache = PromptCache()

    assert billed(ask(cache, positions(3, {3: M5}))) == (0, 0, 3000, 7)
    assert billed(ask(cache, positions(3, {3: M5}))) == (3000, 0, 0, 7)


def test_lookback_reads_what_an_earlier_turn_wrote() -> None:
    """Documented example, turns 1 and 2: 10 blocks marked at 10, then 15 blocks marked at 15."""
    cache = PromptCache()
    ask(cache, positions(10, {10: M5}))

    assert billed(ask(cache, positions(15, {15: M5}))) == (10_000, 0, 5_000, 7)


def test_lookback_of_twenty_positions_includes_the_breakpoint() -> None:
    """Documented example, turn 3: 35 blocks marked at 35 check 35..16 and miss the entry at 15 by one."""
    cache = PromptCache()
    ask(cache, positions(15, {15: M5}))

    assert billed(ask(cache, positions(35, {35: M5}), publish=False)) == (0, 0, 35_000, 7)
    assert billed(ask(cache, positions(34, {34: M5}), publish=False)) == (15_000, 0, 19_000, 7)


def test_a_second_breakpoint_opens_its_own_lookback() -> None:
    """The same example: "a second breakpoint at 15 opens its own window and hits"."""
    cache = PromptCache()
    ask(cache, positions(15, {15: M5}))

    assert billed(ask(cache, positions(35, {15: M5, 35: M5}))) == (15_000, 0, 20_000, 7)


def test_the_longest_hit_of_all_breakpoints_counts() -> None:
    cache = PromptCache()
    ask(cache, positions(8, {2: M5, 8: M5}))

    assert billed(ask(cache, positions(9, {2: M5, 9: M5}))) == (8000, 0, 1000, 7)


def test_a_changed_block_ends_the_match_before_it() -> None:
    cache = PromptCache()
    ask(cache, positions(4, {2: M5, 4: M5}))
    changed = [*positions(3, {2: M5}), Position(key=b"other", end_tokens=4000, mark=M5)]

    assert billed(ask(cache, changed)) == (2000, 0, 2000, 7)


def test_a_breakpoint_on_a_changing_block_writes_every_time_and_never_reads() -> None:
    """The documented failing case: a timestamp in the marked block."""
    cache = PromptCache()
    for turn in range(3):
        stamped = [*positions(3, {}), Position(key=b"t%d" % turn, end_tokens=4000, mark=M5)]
        assert billed(ask(cache, stamped, at=turn)) == (0, 0, 4000, 7)


@pytest.mark.parametrize(("minimum", "expected"), [(3000, (0, 0, 3000, 7)), (3001, (0, 0, 0, 3007))])
def test_minimum_counts_the_whole_prefix_and_is_silent(
    minimum: int, expected: tuple[int, int, int, int]
) -> None:
    """Below the minimum both counters stay 0, without an error."""
    cache = PromptCache()

    assert billed(ask(cache, positions(3, {3: M5}), minimum=minimum)) == expected
    assert len(cache) == (1 if minimum == 3000 else 0)


@pytest.mark.parametrize(("ttl", "seconds"), [(M5, 300), (H1, 3600)])
def test_an_entry_lives_its_ttl_from_the_start_of_the_request(ttl: Ttl, seconds: float) -> None:
    """From the START: an answer that streams for four minutes leaves about one."""
    cache = PromptCache()
    outcome = ask(cache, positions(2, {2: ttl}), at=0, publish=False)
    cache.publish(outcome)  # whenever the first byte came

    assert ask(cache, positions(2, {2: ttl}), at=seconds + 0.001, publish=False).read_tokens == 0
    assert ask(cache, positions(2, {2: ttl}), at=seconds, publish=False).read_tokens == 2000


def test_a_hit_refreshes_from_its_own_start() -> None:
    cache = PromptCache()
    ask(cache, positions(2, {2: M5}), at=0)
    for at in (290, 580, 870):
        assert ask(cache, positions(2, {2: M5}), at=at).read_tokens == 2000

    assert ask(cache, positions(2, {2: M5}), at=870 + 301).read_tokens == 0


def test_a_hit_refreshes_with_the_ttl_of_the_entry_not_of_the_request() -> None:
    cache = PromptCache()
    ask(cache, positions(2, {2: H1}), at=0)
    ask(cache, positions(2, {2: M5}), at=3000)

    assert ask(cache, positions(2, {2: M5}), at=6000).read_tokens == 2000


def test_a_lookback_hit_refreshes_too() -> None:
    cache = PromptCache()
    ask(cache, positions(2, {2: M5}), at=0)
    ask(cache, positions(4, {4: M5}), at=200)

    assert ask(cache, positions(2, {2: M5}), at=450).read_tokens == 2000


def test_nothing_can_be_read_before_the_writing_response_began() -> None:
    """N identical cold requests in parallel are N writes; the next one after a first byte reads."""
    cache = PromptCache()
    racing = [ask(cache, positions(2, {2: M5}), publish=False) for _ in range(3)]

    assert [o.write_5m_tokens for o in racing] == [2000, 2000, 2000]
    cache.publish(racing[1])
    assert ask(cache, positions(2, {2: M5})).read_tokens == 2000


def test_of_racing_writes_the_longest_life_counts() -> None:
    cache = PromptCache()
    short = ask(cache, positions(2, {2: M5}), at=0, publish=False)
    long = ask(cache, positions(2, {2: H1}), at=1, publish=False)
    cache.publish(short)
    cache.publish(long)

    assert ask(cache, positions(2, {2: M5}), at=3000).read_tokens == 2000


def test_a_response_that_never_begins_leaves_nothing() -> None:
    cache = PromptCache()
    ask(cache, positions(2, {2: M5}), publish=False)

    assert len(cache) == 0


def test_mixed_ttls_are_billed_by_a_b_c() -> None:
    """A = longest hit, B = last 1h breakpoint after it, C = last breakpoint (the page's three cases)."""
    cache = PromptCache()
    blocks = positions(9, {2: H1, 5: H1, 9: M5})

    assert billed(ask(cache, blocks, publish=False)) == (0, 5000, 4000, 7)
    ask(cache, positions(2, {2: H1}))
    assert billed(ask(cache, blocks, publish=False)) == (2000, 3000, 4000, 7)
    ask(cache, positions(5, {5: H1}))
    assert billed(ask(cache, blocks)) == (5000, 0, 4000, 7)
    assert billed(ask(cache, blocks)) == (9000, 0, 0, 7)


def test_each_written_entry_keeps_its_own_ttl() -> None:
    cache = PromptCache()
    ask(cache, positions(4, {2: H1, 4: M5}), at=0)

    assert billed(ask(cache, positions(4, {2: H1, 4: M5}), at=400)) == (2000, 0, 2000, 7)


@pytest.mark.parametrize(
    "scope",
    [
        CacheScope(workspace="wrkspc_b", model="m", speed="standard"),
        CacheScope(workspace="wrkspc_a", model="n", speed="standard"),
        CacheScope(workspace="wrkspc_a", model="m", speed="fast"),
    ],
)
def test_entries_are_not_shared_between_workspaces_models_or_speeds(scope: CacheScope) -> None:
    """Per workspace since 2026-02-05; per model; no sharing between speeds (fast mode page)."""
    cache = PromptCache()
    ask(cache, positions(2, {2: M5}))

    assert ask(cache, positions(2, {2: M5}), scope=scope).read_tokens == 0


def test_expired_entries_do_not_pile_up() -> None:
    cache = PromptCache()
    for turn in range(2100):
        ask(cache, positions(1, {1: M5}, stem=f"s{turn}-"), at=turn)

    assert len(cache) < 1400
