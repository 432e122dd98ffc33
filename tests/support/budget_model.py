"""What budgets mean, counted in the plainest way: the judge over all stores in the property tests.

It shares no arithmetic with them: it counts in fractions, and finds its windows by asking the calendar.
"""

from __future__ import annotations

from datetime import datetime
from fractions import Fraction
from math import ceil
from typing import Any
from zoneinfo import ZoneInfo

from gateway.core.bucket import Amounts
from gateway.core.limits import BoundLimit, Mode, Period
from tests.support.budgets import PERIOD_MS


class Model:
    """Budgets as one would explain them on a whiteboard."""

    def __init__(self) -> None:
        self.windows: dict[tuple[str, str], dict[str, int]] = {}
        self.debts: dict[str, tuple[Fraction, int]] = {}
        self.given_back: dict[str, int] = {}
        self.reservations: dict[str, dict[str, Any]] = {}

    def spent_and_open(self, limit: BoundLimit, now_ms: int) -> tuple[int, int]:
        rule_ = limit.limit
        if rule_.period.is_calendar:
            window = self.windows.get((rule_.id, self.label(limit, now_ms)), {"spent": 0, "open": 0})
            return window["spent"], window["open"]
        if rule_.period is Period.OPEN:  # nothing is counted: those that are open can be looked at
            held_open = [held["taken"] for held in self.reservations.values() if held["state"] == "open"]
            return 0, sum(taken[rule_.id][2] for taken in held_open if rule_.id in taken)
        debt, at = self.debts.get(rule_.id, (Fraction(0), now_ms))
        left = max(Fraction(0), debt - Fraction((now_ms - at) * rule_.amount, PERIOD_MS[rule_.period]))
        self.debts[rule_.id] = (left, now_ms)
        for held in self.reservations.values():
            if rule_.id in held["lowest"]:
                held["lowest"][rule_.id] = min(held["lowest"][rule_.id], left)
        return -(-left.numerator // left.denominator), 0

    def label(self, limit: BoundLimit, now_ms: int) -> str:
        local = datetime.fromtimestamp(now_ms / 1000, ZoneInfo(limit.limit.timezone))
        year, week, _ = local.isocalendar()
        return {
            Period.CALENDAR_DAY: f"{local:%Y-%m-%d}",
            Period.CALENDAR_WEEK: f"{year}-W{week}",
            Period.CALENDAR_MONTH: f"{local:%Y-%m}",
        }[limit.limit.period]

    def reserve(self, name: str, limits: tuple[BoundLimit, ...], amounts: Amounts, now_ms: int) -> bool:
        for limit in limits:
            spent, open_ = self.spent_and_open(limit, now_ms)
            want = amounts.of(limit.limit.unit)
            too_much = want > 0 and want > limit.limit.capacity - spent - open_
            if too_much and limit.limit.mode is Mode.ENFORCE:
                return False
        taken, then, lowest = {}, {}, {}
        for limit in limits:
            want = amounts.of(limit.limit.unit)
            label = self.label(limit, now_ms) if limit.limit.period.is_calendar else ""
            taken[limit.limit.id] = (limit, label, want)
            if limit.limit.period is Period.OPEN:
                continue
            self.book(limit, label, now_ms, spent=0 if label else want, open_=want if label else 0)
            if not label:
                id = limit.limit.id
                lowest[id] = self.debts[id][0]
                then[id] = (lowest[id], self.given_back.get(id, 0))
        self.reservations[name] = {
            "state": "open",
            "taken": taken,
            "at": now_ms,
            "then": then,
            "lowest": lowest,
        }
        return True

    def close(self, name: str, actual: Amounts, now_ms: int) -> None:
        held = self.reservations.get(name)
        if held is None or held["state"] == "closed":
            return
        for limit, label, want in held["taken"].values():
            cost = actual.of(limit.limit.unit)
            if limit.limit.period is Period.OPEN:
                continue
            if not label:  # a rate has counted it as spent, and some of that has come back with time
                self.spent_and_open(limit, now_ms)
                back = self.back(limit, held, want - cost, want, now_ms)
                self.book(limit, label, now_ms, spent=cost - want if cost > want else -back, open_=0)
            elif held["state"] == "open":
                self.book(limit, label, now_ms, spent=cost, open_=-want)
            else:  # the sweep has counted it as spent
                self.book(limit, label, now_ms, spent=cost - want, open_=0)
        held["state"] = "closed"

    def back(
        self, limit: BoundLimit, held: dict[str, Any], too_much: int, want: int, now_ms: int
    ) -> Fraction:
        """What a rate gives back: never more than the lowest it was since, whose history a model can keep."""
        id = limit.limit.id
        drained = Fraction((now_ms - held["at"]) * limit.limit.amount, PERIOD_MS[limit.limit.period])
        level, given_back = held["then"][id]
        left = want - drained
        if now_ms - held["at"] < 86_400_000:
            left = max(left, level - drained - (self.given_back.get(id, 0) - given_back))
        back: Fraction = max(Fraction(0), min(Fraction(too_much), left))
        assert back <= held["lowest"][id]
        self.given_back[id] = self.given_back.get(id, 0) + ceil(back)
        return back

    def sweep(self, name: str, now_ms: int) -> None:
        held = self.reservations[name]
        for limit, label, want in held["taken"].values():
            if label:
                self.book(limit, label, now_ms, spent=want, open_=-want)
        held["state"] = "swept"

    def book(self, limit: BoundLimit, label: str, now_ms: int, *, spent: int | Fraction, open_: int) -> None:
        if label:
            assert isinstance(spent, int)
            window = self.windows.setdefault((limit.limit.id, label), {"spent": 0, "open": 0})
            window["spent"] += spent
            window["open"] += open_
            return
        self.spent_and_open(limit, now_ms)
        debt, at = self.debts[limit.limit.id]
        self.debts[limit.limit.id] = (max(Fraction(0), debt + spent), at)
        self.spent_and_open(limit, now_ms)
