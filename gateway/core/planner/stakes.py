"""What requests and warm-ups put at stake, on whose account, and what became of it. See `ledger.py`.

What was decided here is on the workspace's account: placed by the planner, or added by rule. What was not
decided here has another one, for its warm-ups only, so that they can neither spend nor earn what placing may
lose: it is credited with the reads that only a warm-up made possible.
"""

from __future__ import annotations

from gateway.core.planner.expecting import Boundaries
from gateway.core.planner.flights import Flight
from gateway.core.planner.ledger import Account, Bounds
from gateway.core.planner.reuse import Reuse
from gateway.core.planner.values import (
    FIVE_MINUTES_SECONDS,
    Decision,
    PlannerOptions,
    Question,
    Reported,
    Warm,
)
from gateway.core.planner.warming import Kept


class Stakes:
    def __init__(self, options: PlannerOptions, reuse: Reuse) -> None:
        self.accounts: dict[int, Account] = {}
        self.kept_accounts: dict[int, Account] = {}
        """Of warm-ups of what was not decided here."""
        self._reuse = reuse
        self._bounds = Bounds(
            opening=options.opening_tokens, share=options.regret_share, open_share=options.open_share
        )

    def account(self, account: int, *, decided: bool = True) -> Account:
        accounts = self.accounts if decided else self.kept_accounts
        found = accounts.get(account)
        if found is None:
            found = accounts[account] = Account()
        return found

    def promise(self, question: Question, where: Boundaries, block: int, begins_at: int) -> float:
        """What reads of what is written behind token `begins_at`, up to `block`, will earn within 5 min, by
        what was seen of their kind alone."""
        proven = self._reuse.proven(where.contexts_at(block)[-2:])
        return proven * max(0, question.ends[block] - begins_at) * (1.0 - question.prices.read)

    def allow(self, question: Question, premium: float, promise: float, now: float) -> bool:
        """Whether so much may be risked."""
        account = self.account(question.account)
        return account.may_stake(premium, promise, self._bounds, now, price=question.price)

    def allow_added(
        self, question: Question, decision: Decision, where: Boundaries, begins_at: int, now: float
    ) -> bool:
        """Whether breakpoints may be added that go by rule."""
        premium = decision.premium(question.prices)
        if premium <= 0.0:
            return True
        promise = self.promise(question, where, decision.marks[-1].block, begins_at)
        return self.allow(question, premium, promise, now)

    def send(
        self, question: Question, decision: Decision, where: Boundaries, begins_at: int, now: float
    ) -> None:
        """A request that was decided here goes out. What it writes up to `begins_at` is there already, or
        another request is writing it too."""
        premium = decision.premium(question.prices)
        promise = 0.0
        if premium > 0.0:
            promise = self.promise(question, where, decision.marks[-1].block, begins_at)
        until = now + FIVE_MINUTES_SECONDS
        self.account(question.account).stake(premium, promise, now, until, price=question.price)

    def bill(self, flight: Flight, usage: Reported, *, came: bool) -> None:
        """Its usage is known; `came`: it read what it was expected to."""
        plain = float(usage.total)
        if flight.decided:
            account, cost = self.account(flight.account), usage.cost(flight.prices)
            account.settle(flight.premium, plain=plain, cost=cost, price=flight.price, alone=flight.alone)
        elif not flight.warm_up:
            earned = flight.bridged * plain / flight.tokens if came and flight.tokens else 0.0
            self.account(flight.account, decided=False).earn(plain, earned, price=flight.price)

    def fail(self, flight: Flight) -> None:
        """It wrote nothing and was not billed."""
        if flight.decided:
            self.account(flight.account).settle(flight.premium, plain=0.0, cost=0.0, price=flight.price)

    def correct(self, warm: Warm, cost: float) -> None:
        """A warm-up, which counts as billed as expected, came to `cost`."""
        account = self.account(warm.account, decided=warm.decided)
        account.settle(0.0, plain=0.0, cost=cost - warm.cost, price=warm.price)

    def renew(self, kept: Kept, now: float) -> bool:
        """Whether a warm-up may be sent; if so, it counts as billed as expected."""
        account = self.account(kept.account, decided=kept.decided)
        if not account.may_stake(kept.cost, 0.0, self._bounds, now, price=kept.price):
            return False
        account.settle(0.0, plain=0.0, cost=kept.cost, price=kept.price)
        return True
