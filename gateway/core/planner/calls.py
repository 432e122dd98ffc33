"""The planner's numbers of calls, and back: it knows requests by integers, the gateway by their ids."""

from __future__ import annotations

from collections import OrderedDict

from gateway.core.planner.warming import MAX_KEPT

MAX_REMEMBERED = 3 * MAX_KEPT
"""Calls whose prompts may be asked for again. Beyond it those asked for longest ago are forgotten."""


class Calls:
    """Those in flight; and, after their end too, those whose prompts are kept."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}
        self._calls: dict[int, str] = {}
        self._kept: OrderedDict[int, str] = OrderedDict()
        self._last = 0

    def __len__(self) -> int:
        return len(self._numbers)

    def number(self, call_id: str) -> int:
        """The call's number, from now on where it has none."""
        number = self._numbers.get(call_id)
        if number is None:
            self._last += 1
            number = self._numbers[call_id] = self._last
            self._calls[number] = call_id
        return number

    def find(self, call_id: str) -> int | None:
        return self._numbers.get(call_id)

    def call(self, number: int) -> str | None:
        """The call in flight that has this number."""
        return self._calls.get(number)

    def end(self, call_id: str) -> int | None:
        """Its number, which it loses."""
        number = self._numbers.pop(call_id, None)
        if number is not None:
            del self._calls[number]
        return number

    def keep(self, number: int, call_id: str) -> None:
        self._kept[number] = call_id
        if len(self._kept) > MAX_REMEMBERED:
            self._kept.popitem(last=False)

    def kept(self, number: int) -> str | None:
        """The call with this number, over or not; remembered anew."""
        call_id = self._kept.get(number)
        if call_id is not None:
            self._kept.move_to_end(number)
        return call_id
