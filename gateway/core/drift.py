"""How far counters of money are from the ledger, told apart from calls that are just being settled. Pure;
what is read where is `workers/auditing.py`'s, or the command's that asks several replicas.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """One counter beside the ledger's sum for it, in nano-dollars. The counter was read after the ledger."""

    counted: int
    set_aside: int
    ledger: int


def lasting(first: Reading, second: Reading) -> int:
    """The difference that no call under way explains, of two readings one after the other: above zero where
    the counter says more than the ledger, below where it says less, and so lets more be spent.

    A call is in the ledger before it is settled in the counter. So what the counter said in the first reading
    is in the ledger by the second; and what the ledger has and the counter has not is still set aside."""
    over = first.counted - second.ledger
    if over > 0:
        return over
    short = min(each.ledger - each.set_aside - each.counted for each in (first, second))
    return -max(short, 0)


def differences(first: Mapping[str, Reading], second: Mapping[str, Reading]) -> dict[str, int]:
    """Those of counters that are in both, by key, where there is one."""
    found = {key: lasting(first[key], now) for key, now in second.items() if key in first}
    return {key: nanousd for key, nanousd in found.items() if nanousd}


def merged(parts: Iterable[Mapping[str, Reading]]) -> dict[str, Reading]:
    """One reading of several ledgers, which say each its part of what the same counters have; in the order in
    which they were read."""
    found: dict[str, Reading] = {}
    for part in parts:
        for key, reading in part.items():
            before = found[key].ledger if key in found else 0
            found[key] = Reading(
                counted=reading.counted, set_aside=reading.set_aside, ledger=before + reading.ledger
            )
    return found
