"""Lists of prompts are warmed in order, at one pace for all, and whoever leaves ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator

from gateway.core.prompt_lines import PromptLine, WarmedPrompt, read_prompt_lines
from gateway.core.warmup import WarmCause, WarmOutcome, WarmRequest, WarmState
from gateway.workers.prompt_warmer import PATIENCE_SECONDS, PromptWarmer
from tests.support.clock import FakeClock

LINE = b'{"model":"claude-opus-5-5","messages":[{"role":"user","content":"warmup"}]}\n'
WARMED = WarmOutcome(state=WarmState.WARMED, reason="Written.", exchange_id="gw_1")


class Warming:
    """Outcomes in order, the last one for ever; and when each was asked for."""

    def __init__(self, *outcomes: WarmOutcome) -> None:
        self.clock = FakeClock()
        self.asked_at: list[float] = []
        self._outcomes = list(outcomes)

    async def warm(self, request: WarmRequest) -> WarmOutcome:
        self.asked_at.append(self.clock.monotonic())
        if not self._outcomes:
            raise RuntimeError("a bug")
        return self._outcomes.pop(0) if len(self._outcomes) > 1 else self._outcomes[0]

    def warmer(self, per_minute: int = 60) -> PromptWarmer:
        return PromptWarmer(self.warm, self.clock, per_minute=per_minute)

    async def all_of(self, *lists: AsyncGenerator[WarmedPrompt, None]) -> list[WarmedPrompt]:
        async def collect() -> list[WarmedPrompt]:
            done: list[WarmedPrompt] = []

            async def take(outcomes: AsyncGenerator[WarmedPrompt, None]) -> None:
                async for outcome in outcomes:
                    done.append(outcome)

            await asyncio.gather(*map(take, lists))
            return done

        task = asyncio.get_running_loop().create_task(collect())
        while not task.done():
            if self.clock.sleeping:
                self.clock.advance(0.25)
            await asyncio.sleep(0)
        return task.result()

    @property
    def gaps(self) -> list[float]:
        return [later - earlier for earlier, later in zip(self.asked_at, self.asked_at[1:], strict=False)]


def prompts(count: int) -> tuple[PromptLine, ...]:
    return read_prompt_lines(LINE * count)[0]


async def test_prompts_are_warmed_in_order_at_the_configured_pace() -> None:
    warming = Warming(WARMED)
    done = await warming.all_of(
        warming.warmer(per_minute=30).warm("demo", "n", prompts(3), cause=WarmCause.ASKED)
    )

    assert [each.prompt.number for each in done] == [1, 2, 3]
    assert all(each.is_warm for each in done)
    assert warming.gaps == [2.0, 2.0]


async def test_two_lists_share_the_pace() -> None:
    warming = Warming(WARMED)
    warmer = warming.warmer()
    one = warmer.warm("demo", "a", prompts(2), cause=WarmCause.ASKED)
    two = warmer.warm("demo", "b", prompts(2), cause=WarmCause.SCHEDULE)
    await warming.all_of(one, two)

    assert warming.gaps == [1.0, 1.0, 1.0]


async def test_what_was_not_sent_takes_no_time() -> None:
    warming = Warming(WarmOutcome(state=WarmState.OVER_BUDGET, reason="Spent.", exchange_id="gw_1"))
    done = await warming.all_of(warming.warmer().warm("demo", "n", prompts(50), cause=WarmCause.ASKED))

    assert [each.is_warm for each in done] == [False] * 50
    assert sum(warming.gaps) == 0.0


async def test_a_prompt_that_upstream_puts_off_is_tried_once_more_after_the_pause() -> None:
    busy = WarmOutcome(
        state=WarmState.REFUSED, reason="Too fast.", exchange_id="gw_1", retry_after_seconds=7.0
    )
    warming = Warming(busy, WARMED)
    done = await warming.all_of(warming.warmer().warm("demo", "n", prompts(2), cause=WarmCause.ASKED))

    assert [each.is_warm for each in done] == [True, True]
    assert warming.gaps[0] == 7.0


async def test_patience_is_for_a_whole_list() -> None:
    busy = WarmOutcome(
        state=WarmState.REFUSED,
        reason="Too fast.",
        exchange_id="gw_1",
        retry_after_seconds=PATIENCE_SECONDS / 2,
    )
    warming = Warming(busy)
    done = await warming.all_of(
        warming.warmer(per_minute=6_000).warm("demo", "n", prompts(4), cause=WarmCause.ASKED)
    )

    assert [each.is_warm for each in done] == [False] * 4
    assert len(warming.asked_at) == 4 + 2
    assert PATIENCE_SECONDS <= sum(warming.gaps) < PATIENCE_SECONDS + 5


async def test_closed_early_it_warms_no_more() -> None:
    warming = Warming(WARMED)
    outcomes = warming.warmer().warm("demo", "n", prompts(3), cause=WarmCause.ASKED)
    await anext(outcomes)
    await outcomes.aclose()

    assert len(warming.asked_at) == 1


async def test_a_warm_up_that_breaks_is_one_prompt_that_is_not_warm() -> None:
    warming = Warming()
    done = await warming.all_of(warming.warmer().warm("demo", "n", prompts(2), cause=WarmCause.ASKED))

    assert [each.outcome.state for each in done] == [WarmState.FAILED] * 2
