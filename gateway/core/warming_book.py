"""Profit and loss of warm-ups: what each warmed prefix cost, and what real calls saved by it.

A read saves what writing the prefix again would have cost above reading it (the 5m write less the read, at
the model's price), and it counts only where nothing but a warm-up had kept the entry alive, and nothing
behind it was read: once per pause that was bridged. What is not known is taken against warming.

A replica counts the reads of its own calls. Pure and bounded; nothing here decides what is warmed.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.warmup import WarmCause

if TYPE_CHECKING:
    from gateway.core.models import ModelFacts
    from gateway.core.placement import Occasion, Placement, PlacementPolicy
    from gateway.core.prompt import Prompt
    from gateway.core.rules import Workspace
    from gateway.core.usage import Usage

MAX_PREFIXES = 2_048
"""Beyond it the one that nothing happened to for longest is added to the totals and forgotten."""
MAX_CALLS = 1 << 14
UNREAD_RUNS = 5
"""After so many warm-ups in a row that nobody read, warming says so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmedPrefix:
    """How one warmed prefix stands. Instants are epoch seconds."""

    key: PrefixKey
    workspace: WorkspaceId
    model: str
    cause: WarmCause
    """Of its latest warm-up, as is the name."""
    name: str
    tokens: int
    warm_ups: int = 0
    cost_nanousd: int = 0
    reads: int = 0
    """By real calls, while it was warm."""
    bridged: int = 0
    """Of these, how many only a warm-up made possible."""
    saved_nanousd: int = 0
    last_read_at: float | None = None
    warm_until: float = 0.0
    unread_runs: int = 0
    """Warm-ups in a row, up to the latest, after which nobody came."""

    @property
    def profit_nanousd(self) -> int:
        return self.saved_nanousd - self.cost_nanousd

    @property
    def is_unread(self) -> bool:
        return self.unread_runs >= UNREAD_RUNS


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmingTotals:
    """All warm-ups of one cause since the start, those of forgotten prefixes too."""

    warm_ups: int = 0
    cost_nanousd: int = 0
    reads: int = 0
    bridged: int = 0
    saved_nanousd: int = 0

    @property
    def profit_nanousd(self) -> int:
        return self.saved_nanousd - self.cost_nanousd


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmedNow:
    """One warm-up that upstream has answered, as the book needs it."""

    key: PrefixKey
    workspace: WorkspaceId
    model: str
    cause: WarmCause
    name: str
    tokens: int
    """As upstream counted them."""
    at: float
    """When it was sent: lifetimes run from there (prompt caching docs, 2026-08-21)."""
    ttl_seconds: float
    lived_until: float
    """How long the entry would have lived without it, at most; in the past where it had to be written."""
    cost_nanousd: int
    saved_by_read_nanousd: int


@dataclass(slots=True)
class _Account:
    prefix: WarmedPrefix
    natural_until: float
    """Until when it lives by real calls alone."""
    ttl_seconds: float
    saved_by_read_nanousd: int
    read_since: bool = True
    """Whether somebody came since the latest warm-up."""


class WarmingBook:
    """Told of warm-ups and of the reads of real calls. `saved` is told what a read saved, in nano-dollars,
    and whose. Not safe for threads."""

    def __init__(self, saved: Callable[[WorkspaceId, int], None] | None = None) -> None:
        self._saved = saved
        self._accounts: OrderedDict[PrefixKey, _Account] = OrderedDict()
        self._totals: dict[WarmCause, WarmingTotals] = {cause: WarmingTotals() for cause in WarmCause}
        self._reads_by_name: dict[str, int] = {}

    def __contains__(self, key: PrefixKey) -> bool:
        return key in self._accounts

    def __len__(self) -> int:
        return len(self._accounts)

    def warmed(self, warmed: WarmedNow) -> WarmedPrefix:
        """Enter a warm-up. The prefix as it stands now."""
        account = self._accounts.get(warmed.key)
        if account is None:
            account = self._open(warmed)
        prefix = account.prefix
        account.prefix = replace(
            prefix,
            cause=warmed.cause,
            name=warmed.name,
            tokens=warmed.tokens,
            warm_ups=prefix.warm_ups + 1,
            cost_nanousd=prefix.cost_nanousd + warmed.cost_nanousd,
            warm_until=max(prefix.warm_until, warmed.at + warmed.ttl_seconds),
            unread_runs=0 if account.read_since else prefix.unread_runs + 1,
        )
        account.ttl_seconds = warmed.ttl_seconds
        account.saved_by_read_nanousd = warmed.saved_by_read_nanousd
        account.read_since = False
        self._accounts.move_to_end(warmed.key)
        self._add(warmed.cause, warm_ups=1, cost_nanousd=warmed.cost_nanousd)
        return account.prefix

    def spent(self, cause: WarmCause, cost_nanousd: int) -> None:
        """Enter what a warm-up cost that warmed nothing; 0 for one that was not billed."""
        if cost_nanousd:
            self._add(cause, warm_ups=1, cost_nanousd=cost_nanousd)

    def read(self, key: PrefixKey, tokens: int, at: float) -> None:
        """A real call that was sent at `at`, and whose prompt begins with this prefix, read so many tokens.
        Less than the prefix has: it was written again, and lives by real calls from there."""
        account = self._accounts.get(key)
        if account is None:
            return
        prefix = account.prefix
        if tokens >= prefix.tokens:
            only_this = tokens == prefix.tokens  # more: an entry behind it was alive by itself
            bridged = only_this and account.natural_until < at <= prefix.warm_until
            saved = account.saved_by_read_nanousd if bridged else 0
            account.prefix = replace(
                prefix,
                reads=prefix.reads + 1,
                bridged=prefix.bridged + bridged,
                saved_nanousd=prefix.saved_nanousd + saved,
                last_read_at=at,
                warm_until=max(prefix.warm_until, at + account.ttl_seconds),
                unread_runs=0,
            )
            account.read_since = True
            self._add(prefix.cause, reads=1, bridged=int(bridged), saved_nanousd=saved)
            if saved and self._saved is not None:
                self._saved(prefix.workspace, saved)
            self._reads_by_name[prefix.name] = self._reads_by_name.get(prefix.name, 0) + 1
        account.natural_until = max(account.natural_until, at + account.ttl_seconds)

    def reads_of(self, name: str) -> int:
        """How often prefixes that were warmed under this name were read since the start."""
        return self._reads_by_name.get(name, 0)

    def report(self) -> tuple[WarmedPrefix, ...]:
        """All known prefixes, those that cost most first."""
        prefixes = [account.prefix for account in self._accounts.values()]
        return tuple(sorted(prefixes, key=lambda prefix: -prefix.cost_nanousd))

    def totals(self) -> dict[WarmCause, WarmingTotals]:
        return dict(self._totals)

    def _open(self, warmed: WarmedNow) -> _Account:
        account = self._accounts[warmed.key] = _Account(
            prefix=WarmedPrefix(
                key=warmed.key,
                workspace=warmed.workspace,
                model=warmed.model,
                cause=warmed.cause,
                name=warmed.name,
                tokens=warmed.tokens,
            ),
            natural_until=warmed.lived_until,
            ttl_seconds=warmed.ttl_seconds,
            saved_by_read_nanousd=warmed.saved_by_read_nanousd,
        )
        if len(self._accounts) > MAX_PREFIXES:
            self._accounts.popitem(last=False)
        return account

    def _add(self, cause: WarmCause, **more: int) -> None:
        totals = self._totals[cause]
        self._totals[cause] = replace(totals, **{name: getattr(totals, name) + n for name, n in more.items()})


class WatchedPolicy:
    """A placement policy that lets the book know which warmed prefixes real calls read. Decides nothing."""

    def __init__(self, policy: PlacementPolicy, book: WarmingBook) -> None:
        self._policy = policy
        self._book = book
        self._calls: OrderedDict[str, tuple[float, tuple[PrefixKey, ...]]] = OrderedDict()

    @property
    def needs_keys(self) -> bool:
        return self._policy.needs_keys or len(self._book) > 0

    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion,
    ) -> Placement:
        if len(self._book) and not occasion.warm_up:
            warmed = tuple(key for key in keys if key in self._book)
            if warmed:
                self._calls[occasion.call_id] = (occasion.at, warmed)
                if len(self._calls) > MAX_CALLS:
                    self._calls.popitem(last=False)
        return self._policy.plan(prompt, keys, facts, workspace, occasion)

    def answered(self, call_id: str, at: float) -> None:
        self._policy.answered(call_id, at)

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        sent_at, keys = self._calls.pop(call_id, (0.0, ()))
        for key in keys:
            self._book.read(key, usage.cache_read_tokens, sent_at)
        self._policy.billed(call_id, usage, at)

    def failed(self, call_id: str, at: float, *, billed: bool = False) -> None:
        self._calls.pop(call_id, None)
        self._policy.failed(call_id, at, billed=billed)
