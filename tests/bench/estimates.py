"""How well what is set aside fits what is billed, on made-up traffic with heavy tails; and what it costs.

    python -m tests.bench.estimates [--calls N] [--seed N]

Four apps, each in a workspace of its own. Bytes per token differ by app and from call to call, answers follow
a lognormal or a Pareto law up to `max_tokens`, and of the cache reads that were expected some do not come.
Bills are the simulator's. The first calls of each app teach; overruns are counted from then on.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from statistics import quantiles
from time import perf_counter_ns

from gateway.core.estimate import Estimate, estimate_spend
from gateway.core.learned_estimates import LearnedEstimates
from gateway.core.placement import Breakpoint, Placement
from gateway.core.prompt import TTL, Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import EstimateMode
from gateway.core.typical import block_tokens
from gateway.core.usage import Usage, read_usage
from gateway.sim.bill import cost_nanousd
from gateway.sim.wire import JsonObject
from tests.support.bodies import agent_body, desk_body, dump, single
from tests.support.prices import NOW, model_table, price_table

TAUGHT_BY = 300
"""Calls of each app of which overruns do not count yet."""


@dataclass(frozen=True, slots=True)
class App:
    """One kind of traffic. `density` is the typical factor on the tokens that bytes suggest."""

    name: str
    prompts: tuple[Prompt, ...]
    density: float
    read_share: float
    miss_chance: float
    answer: Callable[[Random], float]


@dataclass(slots=True)
class Tally:
    """What was set aside for one app, and billed, in nano-dollars."""

    calls: int = 0
    overruns: int = 0
    set_aside: int = 0
    billed: int = 0
    by_max_tokens: int = 0
    """What strict mode would have set aside."""
    overrun_nanousd: int = 0

    @property
    def share(self) -> float:
        return self.overruns / self.calls


def apps() -> list[App]:
    """A support desk, an agent that thinks, a classifier, and one that writes long texts."""
    desk = [read_prompt(dump(desk_body(turns=turns, stream=True))) for turns in (0, 4, 12)]
    agent = [
        read_prompt(dump(agent_body(turns=turns, size=size, thinking={"type": "adaptive"})))
        for turns, size in ((5, 60_000), (20, 120_000), (60, 300_000))
    ]
    labels = [read_prompt(dump(single("x" * size, max_tokens=1_024))) for size in (900, 2_500)]
    texts = [
        read_prompt(dump(single("x" * size, max_tokens=64_000, stream=True))) for size in (4_000, 30_000)
    ]
    return [
        App("desk", tuple(desk), 0.9, 0.8, 0.05, lambda dice: dice.lognormvariate(5.7, 0.9)),
        App("agent", tuple(agent), 1.15, 0.93, 0.03, lambda dice: 90 * dice.paretovariate(1.3)),
        App("labels", tuple(labels), 0.8, 0.0, 0.0, lambda dice: dice.uniform(4, 20)),
        App("texts", tuple(texts), 1.0, 0.0, 0.0, lambda dice: dice.lognormvariate(8.0, 1.1)),
    ]


def simulate(quantile: float, *, calls: int, seed: int, learn: bool = True) -> dict[str, Tally]:
    """So many calls of each app, by the app's name."""
    dice, learned = Random(seed), LearnedEstimates()
    tallies = {}
    for app in apps():
        tally = tallies[app.name] = Tally()
        for number in range(calls):
            prompt = dice.choice(app.prompts)
            placement = _placement(prompt, app)
            estimate = _estimate(prompt, placement, EstimateMode.ESTIMATE, app, quantile, learned)
            usage = _billed(prompt, placement, app, dice)
            nanousd = cost_nanousd(prompt.model, usage, NOW)
            if learn and estimate.guess is not None:
                learned.billed(estimate.guess, read_usage(usage))
            if number < TAUGHT_BY:
                continue
            tally.calls += 1
            tally.overruns += nanousd > estimate.nanousd
            tally.overrun_nanousd += max(0, nanousd - estimate.nanousd)
            tally.set_aside += estimate.nanousd
            tally.billed += nanousd
            strict = _estimate(prompt, placement, EstimateMode.STRICT, app, quantile, learned)
            tally.by_max_tokens += strict.nanousd
    return tallies


def _estimate(
    prompt: Prompt,
    placement: Placement,
    mode: EstimateMode,
    app: App,
    quantile: float,
    learned: LearnedEstimates,
) -> Estimate:
    return estimate_spend(
        prompt,
        placement,
        model_table().facts(prompt.model),
        price_table(),
        mode=mode,
        at=NOW,
        output_cap_tokens=8_192,
        workspace=app.name,
        quantile=quantile,
        learned=learned,
        default_geo="global",
    )


def _placement(prompt: Prompt, app: App) -> Placement:
    """As a policy that knows what is cached would say it."""
    tokens = block_tokens(prompt, model_table().facts(prompt.model))[-1]
    if not app.read_share:
        return Placement(prompt_tokens=tokens)
    read = int(tokens * app.read_share)
    last = Breakpoint(len(prompt.blocks) - 1, TTL.FIVE_MINUTES, "as in a conversation")
    return Placement(
        breakpoints=(last,), prompt_tokens=tokens, read_tokens=read, write_5m_tokens=tokens - read
    )


def _billed(prompt: Prompt, placement: Placement, app: App, dice: Random) -> JsonObject:
    tokens = int(placement.prompt_tokens * app.density * dice.lognormvariate(0.0, 0.08)) + 300
    read = 0
    if app.read_share and dice.random() >= app.miss_chance:
        read = int(tokens * app.read_share * dice.uniform(0.97, 1.0))
    written = tokens - read if app.read_share else 0
    return {
        "input_tokens": tokens - read - written,
        "cache_read_input_tokens": read,
        "cache_creation_input_tokens": written,
        "cache_creation": {"ephemeral_5m_input_tokens": written, "ephemeral_1h_input_tokens": 0},
        "output_tokens": min(prompt.max_tokens or 0, max(1, int(app.answer(dice)))),
    }


def nanoseconds(calls: int, seed: int) -> tuple[list[int], list[int]]:
    """Of telling of a bill, and of asking, over 200 workspaces."""
    dice, learned = Random(seed), LearnedEstimates()
    app = apps()[1]
    guesses = [
        _estimate(app.prompts[1], _placement(app.prompts[1], app), EstimateMode.ESTIMATE, app, 0.9, learned)
        for _ in range(1)
    ]
    guess = guesses[0].guess
    assert guess is not None
    kinds = [guess.kind._replace(workspace=f"workspace {number}") for number in range(200)]
    usages: list[Usage] = [
        read_usage(_billed(app.prompts[1], _placement(app.prompts[1], app), app, dice)) for _ in range(500)
    ]
    told, asked = [], []
    for number in range(calls):
        kind, usage = dice.choice(kinds), dice.choice(usages)
        one = type(guess)(kind, guess.prompt_tokens, guess.read_tokens)
        began = perf_counter_ns()
        learned.billed(one, usage)
        between = perf_counter_ns()
        learned.expect(kind, 0.9)
        ended = perf_counter_ns()
        if number * 2 > calls:
            told.append(between - began)
            asked.append(ended - between)
    return told, asked


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--calls", type=int, default=4_000)
    parser.add_argument("--seed", type=int, default=7)
    chosen = parser.parse_args()
    print("quantile app      overruns  overrun/bill  set aside/bill  strict/bill")
    for quantile, learn in ((0.9, False), (0.5, True), (0.8, True), (0.9, True), (0.95, True), (0.99, True)):
        tallies = simulate(quantile, calls=chosen.calls, seed=chosen.seed, learn=learn)
        for name, tally in tallies.items():
            print(
                f"{quantile if learn else 'constants':<9}{name:8} {tally.share:8.1%}"
                f"{tally.overrun_nanousd / tally.billed:13.2%}{tally.set_aside / tally.billed:15.2f}x"
                f"{tally.by_max_tokens / tally.billed:12.1f}x"
            )
    for what, times in zip(("a bill", "asking"), nanoseconds(40_000, chosen.seed), strict=True):
        cuts = quantiles(times, n=100)
        mean = sum(times) / len(times)
        print(f"{what}: mean {mean / 1e3:.2f} us, median {cuts[49] / 1e3:.2f}, 99% {cuts[98] / 1e3:.2f}")


if __name__ == "__main__":
    main()
