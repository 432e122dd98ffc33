"""What replicas on one Redis tell each other about audits of the money counters: who does the next one of a
ledger that they share, and what each ledger says where they have one each. Decides nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from heapq import nlargest
from pathlib import Path
from typing import Final

import msgspec

from gateway.adapters.redis_budgets import RedisBudgets
from gateway.adapters.redis_scripts import Script

MOST_SUMS: Final = 5_000
"""Of one ledger, the largest. Whoever adds them up learns of too little, never of too much."""
KEPT_MS: Final = 40 * 86_400_000

_LUA: Final = Path(__file__).parent / "lua"


class RedisAudits:
    """As one replica sees it; `replica` is unique to this start of the process. Every method raises
    `StoreUnavailable`."""

    def __init__(self, budgets: RedisBudgets, *, replica: str) -> None:
        self._scripts = budgets.scripts
        self._replica = replica
        self._tag = budgets.tag
        self._claim = Script((_LUA / "audit_claim.lua").read_text())
        self._sums = Script(budgets.clock_source + (_LUA / "audit_sums.lua").read_text())

    async def claim(self, ledger: str, seconds: float, *, taking: bool) -> bool:
        """Whether it is for this replica to audit a ledger, and for so long for no other one. `taking`: it
        is, whoever had that claim."""
        keys = [f"{self._tag}:audit:{ledger}"]
        args: list[str | int] = [self._replica, round(seconds * 1000), int(taking)]
        return bool(await self._scripts.run(self._claim, keys, args))

    async def told(
        self, ledger: str, sums: Mapping[str, int], silent_seconds: float
    ) -> tuple[Mapping[str, int], bool]:
        """Tell the others what a ledger says was spent, in nano-dollars by the counters' keys. Returns what
        theirs said when they told it last, added up: of those ledgers only that are in the counters. And
        whether each of these was told of within `silent_seconds`, so that its replica surely lives."""
        largest = dict(nlargest(MOST_SUMS, sums.items(), key=lambda each: each[1]))
        keys = [f"{self._tag}:audit:sums", f"{self._tag}:rebuild:ledgers"]
        args: list[str | int | bytes] = [
            *(ledger, msgspec.json.encode(largest), KEPT_MS, round(silent_seconds * 1000)),
        ]
        all_live, *texts = await self._scripts.run(self._sums, keys, args)
        others: Counter[str] = Counter()
        for text in texts:
            others.update(msgspec.json.decode(text, type=dict[str, int]))
        return others, bool(all_live)
