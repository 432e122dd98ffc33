"""Both sides of a reconciliation, put into cells: values in, cells out. Pure.

A cell is a day (UTC), an account of the provider, a model, a service tier and a kind of token. Why the two
sides of a cell differ is `reconcile.py`'s to say; where the values come from, `adapters/booked.py`'s and
`adapters/claude_reports.py`'s.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from fractions import Fraction

ANY_MODEL = "-"
"""Of what the provider does not count by model: searches, containers, sessions."""
STANDARD = "standard"
BATCH = "batch"


class Kind(StrEnum):
    UNCACHED_INPUT = "uncached_input"
    CACHE_READ = "cache_read"
    CACHE_WRITE_5M = "cache_write_5m"
    CACHE_WRITE_1H = "cache_write_1h"
    OUTPUT = "output"
    WEB_SEARCH = "web_search"
    """Counted in searches."""
    OTHER = "other"
    """Dollars without a count: containers, sessions."""


TOKEN_KINDS = (
    Kind.UNCACHED_INPUT,
    Kind.CACHE_READ,
    Kind.CACHE_WRITE_5M,
    Kind.CACHE_WRITE_1H,
    Kind.OUTPUT,
)


class Cause(StrEnum):
    """Why the two sides differ, in the order in which causes are asked."""

    MIDNIGHT = "midnight"
    """A call around midnight (UTC), which each side counts on another day."""
    ITERATIONS = "iterations"
    """An answer of several iterations, which the ledger books under one model and the provider under each."""
    GUESSED = "guessed"
    """Entries whose usage was not reported in full: what the guess was off."""
    NOT_CHARGED = "not_charged"
    """Answers that show usage and cost nothing, as refusals before any output."""
    BATCHES = "batches"
    """Batches that were created here and are not booked yet."""
    OTHER_TRAFFIC = "other_traffic"
    """An account, or a model of one, that no entry of the ledger is about."""
    WITHOUT_USAGE = "without_usage"
    """More on their side, in an account in which calls were relayed whose usage the gateway cannot read."""
    TOO_RECENT = "too_recent"
    """Entries that are younger than the reports' delay."""
    PRICE = "price"
    """The tokens agree, the dollars do not."""
    ROUNDING = "rounding"


@dataclass(frozen=True, slots=True)
class Amount:
    tokens: int = 0
    nanousd: Fraction = Fraction(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Booked:
    """The sum of the ledger's entries of one day, route, model and tier that are alike in every flag."""

    day: date
    route: str
    model: str
    tier: str = STANDARD
    entries: int
    amounts: Mapping[Kind, Amount]
    guessed: bool = False
    not_charged: bool = False
    iterated: bool = False
    recent: bool = False
    may_be_next_day: bool = False
    may_be_previous_day: bool = False
    most_nanousd: int = 0
    """What the entries may have cost at most: the larger of what was booked and what was set aside."""
    prices: frozenset[str] = frozenset()
    """Names of prices that they were booked at; two of them, where there were more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """Calls whose usage the gateway did not read, on one day."""

    day: date
    route: str
    batches: int = 0
    other: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Billed:
    """One figure of the provider's reports: tokens of a usage row, or dollars of a cost row."""

    day: date
    workspace_id: str
    api_key_id: str | None = None
    model: str = ANY_MODEL
    tier: str = STANDARD
    kind: Kind
    amount: Amount
    charged_nanousd: Fraction = Fraction(0)
    """After discounts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is compared with what: some upstreams of the gateway with an account of the provider."""

    name: str
    routes: frozenset[str]
    ids: frozenset[str] | None
    """Workspaces or API keys of the provider; None takes whatever no other account claims."""


@dataclass(frozen=True, slots=True)
class Place:
    day: date
    account: str
    model: str
    tier: str


@dataclass(frozen=True, slots=True)
class Explanation:
    cause: Cause
    tokens: int
    """What it adds to our tokens to come nearer to theirs."""
    nanousd: Fraction
    note: str = ""


@dataclass(slots=True, kw_only=True)
class Cell:
    """One place and kind, while it is worked out. Capacities bound how many tokens a cause may explain."""

    kind: Kind
    ours: Amount = Amount()
    theirs: Amount = Amount()
    guessed: int = 0
    not_charged: int = 0
    iterated: int = 0
    recent: int = 0
    next_day: int = 0
    previous_day: int = 0
    theirs_by_model: dict[tuple[str, str], int] = field(default_factory=dict)
    """Of what is compared over all models: theirs, by model and tier."""
    figures: int = 0
    """Amounts of the cost report in it, each of which may be rounded."""
    explanations: list[Explanation] = field(default_factory=list)
    unexplained: Amount = Amount()

    @property
    def rest(self) -> int:
        """Tokens of theirs that are still to be explained; negative where they have fewer."""
        explained = sum(item.tokens for item in self.explanations)
        return self.theirs.tokens - self.ours.tokens - explained

    @property
    def price(self) -> Fraction:
        """Nano-dollars per token that cost anything: ours, or theirs where there are none of ours."""
        charged = self.ours.tokens - self.not_charged
        if charged > 0:
            return self.ours.nanousd / charged
        return self.theirs.nanousd / self.theirs.tokens if self.theirs.tokens else Fraction(0)

    def explain(self, cause: Cause, tokens: int, note: str = "") -> None:
        if tokens:
            worth = Fraction(0) if cause is Cause.NOT_CHARGED else tokens * self.price
            self.explanations.append(Explanation(cause, tokens, worth, note))


@dataclass(slots=True)
class Group:
    """The cells of one place, and what is known of its entries as a whole."""

    cells: dict[Kind, Cell] = field(default_factory=dict)
    entries: int = 0
    most_guessed_nanousd: Fraction = Fraction(0)
    prices: set[str] = field(default_factory=set)

    def cell(self, kind: Kind) -> Cell:
        return self.cells.setdefault(kind, Cell(kind=kind))


class Books:
    """Both sides, put into cells by account."""

    def __init__(self, accounts: Sequence[Account], *, others: bool) -> None:
        """`others`: also what the provider has in accounts that are none of these."""
        self.groups: dict[Place, Group] = {}
        self.seen: set[tuple[str, str, str]] = set()
        """Account, model and tier of all that the ledger has entries of."""
        self.relayed: dict[str, list[Relayed]] = {}
        self._by_route = {route: account.name for account in accounts for route in account.routes}
        self._by_id = {id_: account.name for account in accounts for id_ in account.ids or ()}
        self._rest = next((account.name for account in accounts if account.ids is None), None)
        self._others = others

    def add_booked(self, booked: Booked) -> None:
        """Entries of routes that no account names are left out."""
        account = self._by_route.get(booked.route)
        if account is None:
            return
        self.seen.add((account, booked.model, booked.tier))
        for kind, amount in booked.amounts.items():
            model, tier = _place_of(kind, booked.model, booked.tier)
            group = self.groups.setdefault(Place(booked.day, account, model, tier), Group())
            cell = group.cell(kind)
            cell.ours = _add(cell.ours, amount)
            cell.guessed += amount.tokens * booked.guessed
            cell.not_charged += amount.tokens * booked.not_charged
            cell.iterated += amount.tokens * booked.iterated
            cell.recent += amount.tokens * booked.recent
            cell.next_day += amount.tokens * booked.may_be_next_day
            cell.previous_day += amount.tokens * booked.may_be_previous_day
        group = self.groups.setdefault(Place(booked.day, account, booked.model, booked.tier), Group())
        group.entries += booked.entries
        group.most_guessed_nanousd += booked.most_nanousd * booked.guessed
        group.prices |= booked.prices

    def add_relayed(self, calls: Relayed) -> None:
        account = self._by_route.get(calls.route)
        if account is not None:
            self.relayed.setdefault(account, []).append(calls)

    def add_billed(self, figure: Billed) -> bool:
        """False where it is in no account that is compared."""
        ids = (figure.api_key_id or "", figure.workspace_id)
        account = next((self._by_id[id_] for id_ in ids if id_ in self._by_id), self._rest)
        if account is None:
            if not self._others:
                return False
            account = figure.workspace_id
        model, tier = _place_of(figure.kind, figure.model, figure.tier)
        group = self.groups.setdefault(Place(figure.day, account, model, tier), Group())
        cell = group.cell(figure.kind)
        cell.theirs = _add(cell.theirs, figure.amount)
        cell.figures += figure.amount.tokens == 0
        if model == ANY_MODEL:
            source = (figure.model, figure.tier)
            cell.theirs_by_model[source] = cell.theirs_by_model.get(source, 0) + figure.amount.tokens
        return True


def _place_of(kind: Kind, model: str, tier: str) -> tuple[str, str]:
    """Where a figure is compared: what is not made of tokens, over all models."""
    return (model, tier) if kind in TOKEN_KINDS else (ANY_MODEL, STANDARD)


def _add(one: Amount, other: Amount) -> Amount:
    return Amount(one.tokens + other.tokens, one.nanousd + other.nanousd)


def add_up(amounts: Iterable[Amount]) -> Amount:
    tokens, nanousd = 0, Fraction(0)
    for amount in amounts:
        tokens += amount.tokens
        nanousd += amount.nanousd
    return Amount(tokens, nanousd)
