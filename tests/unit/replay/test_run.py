"""What contestants pay. Bills of tiny traces are reckoned by hand: a read 0.1, writes 1.25 and 2."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest

from gateway.core.planner import Kind, Prices, Reported
from gateway.replay.contestants import Contestant, Move, Rule, WarmUp, contestants
from gateway.replay.request import Marks, Request
from gateway.replay.run import Replay, Result
from gateway.replay.trace import TraceFile
from gateway.sim.wire import ApiError
from tests.unit.replay.workloads import WORKLOADS, herd, public_rows, write_trace

KINDS = {"t": Kind.TOOLS, "s": Kind.SYSTEM, "u": Kind.USER, "a": Kind.ASSISTANT}
HEAD = (("s1", 2_000), ("u1", 500))
NEXT_TURN = (*HEAD, ("a1", 100), ("u2", 400))


def a_request(number: int, at: float, blocks: Sequence[tuple[str, int]], **changed: object) -> Request:
    """Blocks by name and tokens; a name's first letter is its kind."""
    keys, ends, end, path = array("Q"), [], 0, ""
    for name, tokens in blocks:
        path += f"/{name}"
        end += tokens
        keys.append(hash(path) & (1 << 64) - 1)
        ends.append(end)
    kinds = bytes(KINDS[name[0]] for name, _ in blocks)
    return Request(
        number=number,
        at=at,
        keys=keys,
        ends=ends,
        kinds=kinds,
        prices=Prices(),
        **changed,  # type: ignore[arg-type]
    )


def played(requests: Iterable[Request], *names: str) -> dict[str, Result]:
    chosen: list[Contestant] = [one for one in contestants() if not names or one.name in names]
    replay = Replay(chosen)
    for request in requests:
        replay.add(request)
    return {result.name: result for result in replay.finish()}


def cost(requests: Iterable[Request], name: str) -> float:
    return played(requests, name)[name].cost.tokens


def two_turns(gap: float) -> list[Request]:
    return [a_request(0, 0.0, HEAD), a_request(1, gap, NEXT_TURN)]


@pytest.mark.parametrize(
    ("name", "gap", "expected"),
    [
        ("none", 10.0, 2_500 + 3_000),
        ("automatic-5m", 10.0, 2_500 * 1.25 + 2_500 * 0.1 + 500 * 1.25),
        ("automatic-5m", 299.0, 2_500 * 1.25 + 2_500 * 0.1 + 500 * 1.25),
        ("automatic-5m", 301.0, 2_500 * 1.25 + 3_000 * 1.25),
        ("automatic-1h", 301.0, 2_500 * 2 + 2_500 * 0.1 + 500 * 2),
        ("automatic-1h", 3_601.0, 2_500 * 2 + 3_000 * 2),
        ("system-5m", 10.0, 2_000 * 1.25 + 500 + 2_000 * 0.1 + 1_000),
        ("system-1h", 400.0, 2_000 * 2 + 500 + 2_000 * 0.1 + 1_000),
        ("system+last", 10.0, 2_500 * 1.25 + 2_500 * 0.1 + 500 * 1.25),
        ("two-turns", 10.0, 2_500 * 1.25 + 2_500 * 0.1 + 500 * 1.25),
        # The second prompt's first byte comes before anything can be read.
        ("automatic-5m", 0.5, 2_500 * 1.25 + 3_000 * 1.25),
    ],
)
def test_tiny_bills_are_as_reckoned_by_hand(name: str, gap: float, expected: float) -> None:
    assert cost(two_turns(gap), name) == pytest.approx(expected)


def test_below_the_minimum_nothing_is_cached() -> None:
    short = [a_request(number, 10.0 * number, (("s1", 900), ("u1", 100))) for number in range(3)]

    assert cost(short, "automatic-5m") == 3_000


def test_blocks_that_take_no_breakpoint_are_passed_over() -> None:
    requests = [a_request(n, 10.0 * n, NEXT_TURN, unmarkable=frozenset({3, 2})) for n in range(2)]

    assert cost(requests, "automatic-5m") == pytest.approx(2_500 * 1.25 + 500 + 2_500 * 0.1 + 500)


def test_what_is_written_and_never_read_is_wasted() -> None:
    requests = [
        a_request(0, 0.0, HEAD),
        a_request(1, 10.0, NEXT_TURN),
        a_request(2, 1_000.0, (("s9", 5_000),)),
        a_request(3, 2_000.0, (("s8", 3_000),)),
    ]
    results = played(requests)

    # Of the first conversation its second turn was never read; the last write outlives the trace.
    assert results["automatic-5m"].wasted_tokens == 500 + 5_000
    assert results["automatic-1h"].wasted_tokens == 0
    assert results["none"].wasted_tokens == 0


def test_read_share_is_of_the_prompts() -> None:
    assert played(two_turns(10.0))["automatic-5m"].read_share == pytest.approx(2_500 / 5_500)


def test_a_herd_is_held_for_its_first_and_pays_one_write(tmp_path: Path) -> None:
    path = write_trace(tmp_path / "t.gz", public_rows(herd(bursts=1)))
    results = played(TraceFile(path).requests(Prices()))
    learned, naive = results["learned"], results["system-5m"]

    assert 0.0 < learned.max_hold_seconds < 3.0
    assert learned.held == 11
    assert learned.mean_hold_seconds == pytest.approx(learned.hold_seconds / learned.requests)
    assert learned.requests == naive.requests == 12
    assert naive.bill.total.write_5m == 12 * 20_000
    assert learned.bill.total.write_5m < 2 * 20_400
    assert naive.held == 0


class WarmsOnce:
    """Writes, and prolongs once before the entry expires."""

    name, what, fixed, replays_warm_ups = "warms", "", False, False

    def __init__(self) -> None:
        self.first: Request | None = None
        self.due: float | None = None
        self.paid: list[Reported] = []

    def plan(self, request: Request, at: float, *, may_wait: bool) -> Move:
        if self.first is None:
            self.first, self.due = request, at + 285.0
        return Move(((0, False),))

    def billed(self, request: Request, usage: Reported, at: float) -> None:
        """Learns nothing."""

    def woken(self, at: float) -> Sequence[WarmUp]:
        self.due = None
        assert self.first is not None
        return [WarmUp(self.first, 0, ((0, False),), self.paid.append)]

    def next_wake(self) -> float | None:
        return self.due


def test_a_warm_up_is_billed_and_keeps_its_entry() -> None:
    contestant = WarmsOnce()
    replay = Replay([contestant])
    replay.add(a_request(0, 0.0, (("s1", 2_000), ("u1", 100))))
    replay.add(a_request(1, 500.0, (("s1", 2_000), ("u2", 100))))
    (result,) = replay.finish()

    assert result.cost.tokens == pytest.approx(2_000 * 1.25 + 100 + 2_000 * 0.1 + 2_000 * 0.1 + 100)
    assert result.warm_ups == 1
    assert result.warm_bill.cost.tokens == pytest.approx(200.0)
    assert contestant.paid == [Reported(0, 2_000, 0, 0)]
    assert result.read_share == pytest.approx(2_000 / 4_200)


def test_nobody_is_woken_after_the_last_request() -> None:
    replay = Replay([WarmsOnce()])
    replay.add(a_request(0, 0.0, (("s1", 2_000),)))

    assert replay.finish()[0].warm_ups == 0


def test_warm_ups_of_the_trace_are_those_of_what_was_sent() -> None:
    requests = [
        a_request(0, 0.0, (("s1", 2_000), ("u1", 100)), sent=((0, False),)),
        a_request(1, 290.0, (("s1", 2_000),), sent=((0, False),), warm_up=True),
        a_request(2, 500.0, (("s1", 2_000), ("u2", 100)), sent=((0, False),)),
    ]
    results = played(requests, "none", "recorded")

    assert results["none"].cost.tokens == 4_200
    assert results["recorded"].warm_ups == 1
    assert results["recorded"].cost.tokens == pytest.approx(2_500 + 100 + 200 + 200 + 100)


@pytest.mark.parametrize(
    ("marks", "why"),
    [
        (tuple((at, False) for at in range(5)), "maximum of 4"),
        (((0, False), (1, True)), "must not come after"),
    ],
)
def test_what_the_api_refuses_ends_the_replay(marks: Marks, why: str) -> None:
    replay = Replay([Rule("bad", "", lambda request: marks)])

    with pytest.raises(ApiError, match=why):
        replay.add(a_request(0, 0.0, [(f"u{number}", 1_000) for number in range(6)]))


@pytest.mark.parametrize("marks", [((9, False),), ((1, False), (0, False)), ((1, False),)])
def test_a_breakpoint_on_no_block_ends_the_replay(marks: Marks) -> None:
    replay = Replay([Rule("bad", "", lambda request: marks)])

    with pytest.raises(ValueError, match="breakpoint"):
        replay.add(a_request(0, 0.0, HEAD, unmarkable=frozenset({1})))


def test_scopes_share_nothing() -> None:
    requests = [a_request(number, 10.0 * number, HEAD, scope=number) for number in range(2)]

    assert played(requests)["automatic-5m"].bill.total.read == 0


def test_models_have_prices_and_minimums_of_their_own() -> None:
    """Haiku 4.5 caches from 4,096 tokens on; Sonnet 5.5 costs $2, a write 2.50, and a read 0.10 since
    2026-10-07."""
    at = 1_794_000_000.0  # in November 2026
    requests = [
        a_request(number, at + 10.0 * number, HEAD, model=model, scope=scope)
        for number, (model, scope) in enumerate(
            [
                ("claude-sonnet-5-5", 1),
                ("claude-sonnet-5-5", 1),
                ("claude-haiku-4-5", 2),
                ("claude-haiku-4-5", 2),
            ]
        )
    ]
    found = played(requests)["automatic-5m"].cost

    assert found.usd == pytest.approx((2_500 * 2.5 + 2_500 * 0.1 + 2 * 2_500 * 1.0) / 1e6)


def test_a_model_that_the_price_table_lacks_costs_token_equivalents() -> None:
    known = a_request(0, 1.8e9, HEAD, model="claude-opus-5-5")
    strange = a_request(1, 1.8e9 + 1, HEAD, model="someone-elses-model", scope=2)
    found = played([known, strange])["none"].cost

    assert (found.usd, found.tokens) == (None, 5_000)


def test_reported_lengths_stretch_the_estimates() -> None:
    """The gateway estimated 2,500 tokens; 3,000 were billed."""
    requests = [
        a_request(number, 10.0 * number, HEAD, billed=Reported(3_000, 0, 0, 0)) for number in range(2)
    ]
    bill = played(requests)["system-5m"].bill.total

    assert (bill.write_5m, bill.read, bill.prompt) == (2_400, 2_400, 6_000)


@pytest.mark.parametrize("name", sorted(WORKLOADS))
def test_nobody_goes_below_the_bound(tmp_path: Path, name: str) -> None:
    path = write_trace(tmp_path / "t.gz", public_rows(WORKLOADS[name]()))
    replay = Replay([one for one in contestants() if one.name != "recorded"])
    for request in TraceFile(path).requests(Prices()):
        replay.add(request)
    results = replay.finish()

    assert replay.bound.tokens <= min(result.cost.tokens for result in results) + 1e-6
    assert all(result.requests == replay.requests for result in results)
    none, learned = (next(r for r in results if r.name == n) for n in ("none", "learned"))
    assert learned.cost.tokens <= 1.01 * none.cost.tokens + 65_536  # what it may lose, and may have open
