"""Which boundaries to write, and for how long: expected value over at most four breakpoints.

A block that was just paid for is worth keeping cached when the next request that contains it comes soon
enough, often enough: written for 5 min it costs 1.25 - 1 more now and saves 1.25 - r then (it would have
been written then), or 1 - r where it would still not have been. Whatever happens after that next request is
the same either way, so that one step decides. Breakpoints in a stretch that is written anyway cost nothing:
each is another place where a prompt that goes on differently can be read from.

Pure arithmetic on candidates; what is known of prefixes comes in as chances.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gateway.core.planner.values import MAX_BREAKPOINTS, Prices

MIN_ENDING = 0.02
"""No chain of reads is believed to end with a smaller chance than this each time."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A boundary that may be written."""

    block: int
    end: int
    five: float
    """Chance that the next request through it comes within 5 min."""
    hour: float
    """Chance that it comes later than that, within an hour."""
    shared: bool
    """Whether prompts of other sessions are expected at it, again and again."""
    layer: float = 0.0
    """What an hour's TTL on it gains beyond its own tokens, in token equivalents."""


def gain_5m(candidate: Candidate, prices: Prices) -> float:
    """Expected gain per token of writing for 5 min, against not writing now."""
    premium = prices.write_5m - 1.0
    again = min(premium, candidate.five * (prices.write_5m - prices.read))
    return candidate.five * (1.0 - prices.read + again) - premium


def gain_1h(candidate: Candidate, prices: Prices) -> float:
    """Expected gain per token of writing for an hour, against not writing now."""
    premium = prices.write_1h - 1.0
    chance = candidate.five + candidate.hour
    again = min(premium, chance * (prices.write_1h - prices.read))
    alone = chance * (1.0 - prices.read + again) - premium
    pauses = candidate.hour
    if candidate.shared:
        pauses /= max(MIN_ENDING, 1.0 - chance)
    upgrade = pauses * (prices.write_5m - prices.read) - (prices.write_1h - prices.write_5m)
    over = gain_5m(candidate, prices) + upgrade
    return max(over, alone) if candidate.shared else over


def choose_writes(
    candidates: Sequence[Candidate], read_end: int, prices: Prices, slots: int = MAX_BREAKPOINTS
) -> tuple[float, list[tuple[Candidate, bool]]]:
    """The best set of at most `slots` candidates, in block order, 1h before 5m; and its expected gain.

    `candidates` are in block order and end beyond `read_end`. Exact: dynamic programming over (candidate,
    slots used, TTL), in time quadratic in the number of candidates.
    """
    best_gain, best_set = 0.0, []
    # state[(hour)][n] of the prefix that ends in candidate j: (gain, path)
    states: list[dict[tuple[int, bool], tuple[float, list[tuple[Candidate, bool]]]]] = []
    for j, candidate in enumerate(candidates):
        per_token = (gain_5m(candidate, prices), gain_1h(candidate, prices))
        here: dict[tuple[int, bool], tuple[float, list[tuple[Candidate, bool]]]] = {}
        for hour in (False, True):
            bonus = candidate.layer if hour else 0.0
            here[1, hour] = ((candidate.end - read_end) * per_token[hour] + bonus, [(candidate, hour)])
        for i in range(j):
            span = candidate.end - candidates[i].end
            for (used, was_hour), (gain, path) in states[i].items():
                if used >= slots:
                    continue
                for hour in (False, True):
                    if hour and not was_hour:
                        continue
                    total = gain + span * per_token[hour]
                    known = here.get((used + 1, hour))
                    if known is None or total > known[0]:
                        here[used + 1, hour] = (total, [*path, (candidate, hour)])
        states.append(here)
        for gain, path in here.values():
            if gain > best_gain:
                best_gain, best_set = gain, path
    return best_gain, best_set
