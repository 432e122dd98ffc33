"""How warm-ups are accounted for: what a read counts, and when it does not."""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core import warming_book
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.placement import Occasion, Placement
from gateway.core.pricing import Factors
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import Workspace
from gateway.core.usage import Usage
from gateway.core.warming_book import UNREAD_RUNS, WarmedNow, WarmedPrefix, WarmingBook, WatchedPolicy
from gateway.core.warmup import WarmCause
from tests.support.bodies import MODEL, dump, single

KEY, DEEPER = PrefixKey(b"k" * 16), PrefixKey(b"d" * 16)
TOKENS, COST, SAVED = 10_000, 1_000, 12_000
LIFE = 300.0


def warm(
    book: WarmingBook,
    at: float,
    *,
    key: PrefixKey = KEY,
    tokens: int = TOKENS,
    lives: float = 15.0,
    cause: WarmCause = WarmCause.KEEP_ALIVE,
    name: str = "",
) -> WarmedPrefix:
    return book.warmed(
        WarmedNow(
            key=key,
            workspace=WorkspaceId("w"),
            model=MODEL,
            cause=cause,
            name=name,
            tokens=tokens,
            at=at,
            ttl_seconds=LIFE,
            lived_until=at + lives,
            cost_nanousd=COST,
            saved_by_read_nanousd=SAVED,
        )
    )


def only(book: WarmingBook) -> WarmedPrefix:
    (prefix,) = book.report()
    return prefix


def test_a_read_that_only_a_warm_up_made_possible_is_its_profit() -> None:
    book = WarmingBook()
    warm(book, 285.0)
    warm(book, 570.0)
    book.read(KEY, TOKENS, 700.0)
    prefix = only(book)

    assert (prefix.warm_ups, prefix.cost_nanousd) == (2, 2 * COST)
    assert (prefix.reads, prefix.bridged, prefix.saved_nanousd) == (1, 1, SAVED)
    assert prefix.profit_nanousd == SAVED - 2 * COST
    assert (prefix.last_read_at, prefix.warm_until) == (700.0, 1000.0)


def test_one_pause_is_bridged_once() -> None:
    """After the first read the entry lives by real calls, as it would have by its being written again."""
    book = WarmingBook()
    warm(book, 285.0)
    for at in (400.0, 500.0, 700.0):
        book.read(KEY, TOKENS, at)

    assert (only(book).reads, only(book).bridged) == (3, 1)


def test_a_read_that_would_have_come_in_time_anyway_saves_nothing() -> None:
    book = WarmingBook()
    warm(book, 285.0, lives=15.0)
    book.read(KEY, TOKENS, 299.0)

    assert (only(book).reads, only(book).saved_nanousd) == (1, 0)


def test_a_read_that_came_too_late_is_none_of_its() -> None:
    book = WarmingBook()
    warm(book, 285.0)
    book.read(KEY, TOKENS, 285.0 + LIFE + 1)

    assert (only(book).reads, only(book).bridged) == (1, 0), "somebody wrote it meanwhile"


def test_a_call_that_read_more_or_less_was_not_saved_by_it() -> None:
    book = WarmingBook()
    warm(book, 285.0)
    book.read(KEY, TOKENS + 500, 400.0)  # an entry behind it was alive
    warm(book, 2_000.0)
    book.read(KEY, TOKENS - 500, 2_100.0)  # it was written again
    book.read(KEY, TOKENS, 2_200.0)

    assert (only(book).reads, only(book).bridged) == (2, 0)


def test_what_was_warm_already_may_have_had_a_whole_lifetime_before_it() -> None:
    book = WarmingBook()
    warm(book, 0.0, lives=LIFE, cause=WarmCause.ASKED)
    book.read(KEY, TOKENS, LIFE - 1)

    assert (only(book).reads, only(book).bridged) == (1, 0)


def test_trap_31_warm_ups_that_nobody_reads_are_noticed() -> None:
    book = WarmingBook()
    prefixes = [warm(book, 1_000.0 * run, cause=WarmCause.SCHEDULE) for run in range(UNREAD_RUNS + 1)]

    assert [prefix.is_unread for prefix in prefixes] == [False] * UNREAD_RUNS + [True]
    book.read(KEY, TOKENS, 1_000.0 * UNREAD_RUNS + 10)
    assert not only(book).is_unread
    assert only(book).unread_runs == 0


def test_reads_are_counted_by_name_and_totals_by_cause() -> None:
    book = WarmingBook()
    warm(book, 0.0, cause=WarmCause.SCHEDULE, name="mornings", lives=0.0)
    book.read(KEY, TOKENS, 10.0)
    book.spent(WarmCause.ASKED, 7)
    book.spent(WarmCause.ASKED, 0)
    totals = book.totals()

    assert (book.reads_of("mornings"), book.reads_of("evenings")) == (1, 0)
    schedule = totals[WarmCause.SCHEDULE]
    assert (schedule.warm_ups, schedule.bridged, schedule.profit_nanousd) == (1, 1, SAVED - COST)
    assert (totals[WarmCause.ASKED].warm_ups, totals[WarmCause.ASKED].cost_nanousd) == (1, 7)


def test_is_bounded_and_forgets_what_nothing_happened_to() -> None:
    book = WarmingBook()
    keys = [PrefixKey(number.to_bytes(16)) for number in range(warming_book.MAX_PREFIXES + 1)]
    for key in keys:
        warm(book, 0.0, key=key)

    assert len(book) == warming_book.MAX_PREFIXES
    assert keys[0] not in book
    assert book.totals()[WarmCause.KEEP_ALIVE].warm_ups == len(keys)
    book.read(keys[0], TOKENS, 1.0)  # nothing happens


class Inner:
    """A policy that needs no keys and writes down what it is told."""

    needs_keys = False

    def __init__(self) -> None:
        self.told: list[str] = []

    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion,
    ) -> Placement:
        return Placement(reason="inner")

    def answered(self, call_id: str, at: float) -> None:
        self.told.append(f"answered {call_id}")

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        self.told.append(f"billed {call_id}")

    def failed(self, call_id: str, at: float, *, billed: bool = False) -> None:
        self.told.append(f"failed {call_id}, billed" if billed else f"failed {call_id}")


def plan(
    watched: WatchedPolicy, call: str, at: float, keys: Sequence[PrefixKey], warm_up: bool = False
) -> Placement:
    occasion = Occasion(call_id=call, at=at, scope=b"s", prices=Factors(0.1, 1.25, 2.0), warm_up=warm_up)
    space = Workspace(id=WorkspaceId("w"), organisation="o", upstream="u")
    facts = ModelFacts(id=MODEL, minimum_cacheable_tokens=512, bytes_per_token=3.5)
    return watched.plan(read_prompt(dump(single("q"))), keys, facts, space, occasion)


def test_calls_are_watched_for_what_they_read() -> None:
    book, inner = WarmingBook(), Inner()
    watched = WatchedPolicy(inner, book)
    assert WatchedPolicy(inner, book).needs_keys is False, "nothing is warm, so nothing is looked for"
    warm(book, 285.0)
    needs_keys = watched.needs_keys

    assert needs_keys
    assert plan(watched, "a", 400.0, [KEY, DEEPER]).reason == "inner"
    watched.answered("a", 401.0)
    watched.billed("a", Usage(cache_read_tokens=TOKENS), 402.0)
    plan(watched, "b", 500.0, [DEEPER])
    watched.billed("b", Usage(cache_read_tokens=TOKENS), 502.0)
    plan(watched, "c", 500.0, [KEY])
    watched.failed("c", 502.0)
    watched.billed("c", Usage(cache_read_tokens=TOKENS), 502.0)
    plan(watched, "d", 500.0, [KEY], warm_up=True)
    watched.billed("d", Usage(cache_read_tokens=TOKENS), 502.0)

    assert (only(book).reads, only(book).bridged, only(book).last_read_at) == (1, 1, 400.0)
    assert inner.told == ["answered a", "billed a", "billed b", "failed c", "billed c", "billed d"]
