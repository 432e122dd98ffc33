"""Which boundaries to write, and for how long: expected value over at most four breakpoints.

A block that is being paid for is worth writing when the next request that contains it comes soon enough,
often enough: for 5 min it costs 1.25 - 1 more now and saves 1.25 - r then where it would have been written
then, 1 - r where it would not. Whatever follows is the same either way, so that one step decides. Breakpoints
in a stretch that is written anyway cost nothing: each is another place to read from for a prompt that goes
on differently.

Pure arithmetic on candidates; what is known of prefixes comes in as chances.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from gateway.core.planner.values import MAX_BREAKPOINTS, Prices

MIN_ENDING = 0.02
"""No chain of reads is believed to end with a smaller chance than this after each."""


class Candidate(msgspec.Struct, gc=False):
    """A boundary that may be written."""

    block: int
    end: int
    five: float
    """Chance that the next request through it comes within 5 min."""
    hour: float
    """Chance that it comes later than that, within an hour."""
    lasting: bool
    """Whether an hour's TTL on it serves all later reads too, as long as none is too late; otherwise it is
    good for the next pause only, since the next request can write its own."""
    may_hour: bool = True
    layer: float = 0.0
    """What an hour's TTL on it gains beyond its own tokens, in token equivalents."""


Choice = tuple[Candidate, bool]
"""A candidate, and whether it is written for an hour."""


def gain_5m(candidate: Candidate, prices: Prices) -> float:
    """Expected gain per token of writing for 5 min, against not writing now."""
    premium = prices.write_5m - 1.0
    again = min(premium, candidate.five * (prices.write_5m - prices.read))
    return candidate.five * (1.0 - prices.read + again) - premium


def gain_1h(candidate: Candidate, prices: Prices) -> float:
    """Expected gain per token of writing for an hour, against not writing now."""
    chance = candidate.five + candidate.hour
    pauses = candidate.hour
    if candidate.lasting:
        pauses /= max(MIN_ENDING, 1.0 - chance)
    upgrade = pauses * (prices.write_5m - prices.read) - (prices.write_1h - prices.write_5m)
    gain = gain_5m(candidate, prices) + upgrade
    if not candidate.lasting:
        return gain
    premium = prices.write_1h - 1.0
    again = min(premium, chance * (prices.write_1h - prices.read))
    return max(gain, chance * (1.0 - prices.read + again) - premium)


def premium_of(choices: Sequence[Choice], read_end: int, prices: Prices) -> float:
    """What writing these costs beyond plain input."""
    if not choices:
        return 0.0
    hour_end = max((candidate.end for candidate, hour in choices if hour), default=read_end)
    last = choices[-1][0].end
    return (hour_end - read_end) * (prices.write_1h - 1.0) + (last - hour_end) * (prices.write_5m - 1.0)


def choose_writes(
    candidates: Sequence[Candidate],
    read_end: int,
    prices: Prices,
    slots: int = MAX_BREAKPOINTS,
    pending_end: int = 0,
) -> tuple[float, list[Choice]]:
    """The best set of at most `slots` candidates, in block order and 1h before 5m, and its expected gain.

    `candidates` are in block order and end beyond `read_end`, and beyond `pending_end`: up to there another
    request is writing, so that to write it again costs the premium and gains nothing. Exact, by dynamic
    programming over (last candidate, slots used, its TTL); quadratic in the number of candidates, which is
    small.
    """
    best: tuple[float, list[Choice]] = (0.0, [])
    begin = max(read_end, pending_end)
    ending_at: list[dict[tuple[int, bool], tuple[float, list[Choice]]]] = []
    for place, candidate in enumerate(candidates):
        ways = [(False, gain_5m(candidate, prices))]
        if candidate.may_hour:
            ways.append((True, gain_1h(candidate, prices)))
        here: dict[tuple[int, bool], tuple[float, list[Choice]]] = {}
        for hour, per_token in ways if slots else ():
            alone = (candidate.end - begin) * per_token + (candidate.layer if hour else 0.0)
            alone -= (begin - read_end) * ((prices.write_1h if hour else prices.write_5m) - 1.0)
            here[1, hour] = (alone, [(candidate, hour)])
        for before in range(place):
            span = candidate.end - candidates[before].end
            for (used, was_hour), (gain, path) in ending_at[before].items():
                for hour, per_token in ways if used < slots else ():
                    if hour and not was_hour:
                        continue
                    total = gain + span * per_token
                    known = here.get((used + 1, hour))
                    if known is None or total > known[0]:
                        here[used + 1, hour] = (total, [*path, (candidate, hour)])
        ending_at.append(here)
        for way in here.values():
            if way[0] > best[0]:
                best = way
    return best
