"""What estimates were off by: learned from bills, for estimate mode. Pure: no clock, no IO.

Three figures, each a quantile of what was really billed and not a mean, since a limit is overrun by the calls
that cost more than usual: input tokens billed for one that was estimated, and the share of the expected cache
reads that did not come, by workspace and model; output tokens by these, by the power of two of `max_tokens`,
and by whether the call streams and thinks. A figure is used once enough calls were seen, and fades as more
come. What they are multiplied with is `estimate.py`'s.
"""

from __future__ import annotations

import struct
from array import array
from collections import OrderedDict
from dataclasses import dataclass
from math import ceil, log2
from typing import NamedTuple

import msgspec

from gateway.core.usage import Usage

MAX_RECORDS = 8_192
"""The least recently billed give way. A record takes about half a kilobyte."""
FADING_CALLS = 2_048
"""Whenever so many count in a record, all of them count for half from then on."""
_ONE = 16
"""What a call adds to a count: so it can be halved, and halved again."""


class Kind(NamedTuple):
    """What calls have in common that are expected to be off by as much."""

    workspace: str
    model: str
    """A model's id from the price table, so that there are not many."""
    room: int
    """How many bits `max_tokens` has."""
    streams: bool
    thinks: bool
    loops: bool
    """Whether the API runs tools for it: every round bills the prompt again."""
    foreseen: bool
    """Whether the reads were expected by who knows what is cached."""


class Learned(NamedTuple):
    """The figures of one kind; None where too few calls were seen."""

    input_ratio: float | None
    """Input tokens billed for each that was estimated."""
    read_shortfall: float | None
    """Of the reads that were expected, the share that is not to be relied on."""
    output_tokens: int | None


@dataclass(frozen=True, slots=True)
class Guess:
    """What was expected of one call before anything learned was applied: what its bill is held against."""

    kind: Kind
    prompt_tokens: int
    read_tokens: int


def enough(quantile: float) -> int:
    """How many calls must have been seen before a figure is used: so many that three lie beyond the quantile;
    30 for 0.9."""
    return ceil(3.0 / (1.0 - quantile) - 1e-9)


class LearnedEstimates:
    """Not safe for threads; no call blocks. Bounded by `MAX_RECORDS`."""

    def __init__(self) -> None:
        self._records: OrderedDict[_Key, _Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def expect(self, kind: Kind, quantile: float) -> Learned:
        """What is known of that kind of call, such that a share `quantile` of them is billed no more."""
        least = enough(quantile) * _ONE
        values = []
        for key in _keys(kind):
            record = self._records.get(key)
            values.append(None if record is None or record.total < least else record.at(quantile))
        ratio, shortfall, output = values
        return Learned(ratio, shortfall, None if output is None else int(output))

    def billed(self, guess: Guess, usage: Usage) -> None:
        """A call was billed in full. Not to be told of answers that were cut, or of usage that is a guess."""
        parts = usage.iterations or (usage,)
        prompt = sum([part.prompt_tokens for part in parts])
        by_input, by_reads, by_output = _keys(guess.kind)
        if prompt and guess.prompt_tokens:
            self._record(by_input).add(prompt / guess.prompt_tokens)
            if guess.read_tokens:
                read = sum([part.cache_read_tokens for part in parts]) / prompt
                self._record(by_reads).add(1.0 - read * guess.prompt_tokens / guess.read_tokens)
        if guess.kind.room:
            self._record(by_output).add(sum([part.output_tokens for part in parts]))

    def snapshot(self) -> bytes:
        """All that was learned, to be given to `restore`."""
        records = [(key, record.counts.tobytes()) for key, record in self._records.items()]
        return _ENCODER.encode(_Snapshot(made_by=_MADE_BY, records=records))

    def restore(self, data: bytes) -> bool:
        """Take up what another process had learned, in place of what was learned so far. False, and nothing
        is changed, where it is damaged or of another version. Raises nothing."""
        try:
            taken = _DECODER.decode(data)
        except msgspec.DecodeError:
            return False
        if taken.made_by != _MADE_BY:
            return False
        records: OrderedDict[_Key, _Record] = OrderedDict()
        for key, counts in taken.records[-MAX_RECORDS:]:
            scale = _SCALES.get(key[0]) if key else None
            if scale is None or len(counts) != 2 * len(scale.edges):
                return False
            record = records[key] = _Record(scale, array("H", counts))
            if record.total >= FADING_CALLS * _ONE:
                return False
        self._records = records
        return True

    def _record(self, key: _Key) -> _Record:
        record = self._records.get(key)
        if record is None:
            if len(self._records) >= MAX_RECORDS:
                self._records.popitem(last=False)
            record = self._records[key] = _Record(_SCALES[key[0]])
        else:
            self._records.move_to_end(key)
        return record


_Key = tuple[str | int | bool, ...]
"""The first says which figure, and so by which scale."""


def _keys(kind: Kind) -> tuple[_Key, _Key, _Key]:
    workspace, model, room, streams, thinks, loops, foreseen = kind
    return (
        (0, workspace, model, loops),
        (1, workspace, model, loops, foreseen),
        (2, workspace, model, room, streams, thinks, loops),
    )


class _Scale:
    """Places for values between `low` and `high`, by equal steps of their logarithm; the first also takes
    what is below, the last what is above."""

    __slots__ = ("edges", "low", "per_octave")

    def __init__(self, low: float, high: float, places: int) -> None:
        self.low = low
        self.per_octave = (places - 1) / log2(high / low)
        self.edges: list[float] = [low * 2.0 ** (place / self.per_octave) for place in range(places)]
        """The largest value of each place."""


_RATIOS = _Scale(0.25, 4.0, 81)
"""A bill may be at most four times what bytes suggest; steps of 3.5%."""
_SHORTFALLS = _Scale(2.0**-10, 1.0, 41)
"""Steps of 19%."""
_OUTPUTS = _Scale(16.0, 2.0**20, 97)
"""Steps of 12%."""
_SCALES: dict[str | int, _Scale] = dict(enumerate((_RATIOS, _SHORTFALLS, _OUTPUTS)))


class _Record:
    """How often values were seen, the older ones faded."""

    __slots__ = ("_above", "_place", "counts", "scale", "total")

    def __init__(self, scale: _Scale, counts: array[int] | None = None) -> None:
        self.scale = scale
        self.counts = array("H", bytes(2 * len(scale.edges))) if counts is None else counts
        self.total = sum(self.counts)
        self._place = len(scale.edges) - 1
        """Where the quantile was last, from where it is looked for: it moves little from call to call."""
        self._above = 0
        """The sum of the counts beyond it."""

    def add(self, value: float) -> None:
        scale, counts = self.scale, self.counts
        place = 0
        if value > scale.low:
            place = min(ceil(log2(value / scale.low) * scale.per_octave), len(counts) - 1)
        counts[place] += _ONE
        self.total += _ONE
        if place > self._place:
            self._above += _ONE
        if self.total >= FADING_CALLS * _ONE:
            self.counts = array("H", [count // 2 for count in counts])
            self.total = sum(self.counts)
            self._place, self._above = len(counts) - 1, 0

    def at(self, quantile: float) -> float:
        """The least value on the scale that a share `quantile` of those seen do not exceed."""
        counts, place, above = self.counts, self._place, self._above
        beyond = (1.0 - quantile) * self.total + 1e-6
        while above > beyond:
            place += 1
            above -= counts[place]
        while place > 0 and above + counts[place] <= beyond:
            above += counts[place]
            place -= 1
        self._place, self._above = place, above
        return self.scale.edges[place]


class _Snapshot(msgspec.Struct, frozen=True):
    """Counts are in the machine's own order."""

    made_by: bytes
    records: list[tuple[tuple[str | int | bool, ...], bytes]]


_MADE_BY = struct.pack("=4d", 1, _ONE, FADING_CALLS, sum(sum(scale.edges) for scale in _SCALES.values()))
"""Changes where counts mean something else, or bytes have another order: then nothing is taken up."""
_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Snapshot)
