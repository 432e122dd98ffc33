"""`python -m tests.fuzz.run --seconds 600`: new inputs for every target, until something breaks or time is
up.

What breaks is made smaller and put into the corpus, where the ordinary tests replay it for ever."""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import secrets
import sys
import tempfile
import time
import traceback
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

from tests.fuzz.mutate import smaller
from tests.fuzz.target import CORPUS, Check, Mutants, Target
from tests.fuzz.targets import TARGETS

SLICE_SECONDS = 1.0
"""For one target, before it is another's turn."""


@dataclass(slots=True)
class _Tally:
    tried: int = 0
    seconds: float = 0.0
    found: int = 0


async def fuzz(targets: list[Target], *, seconds: float, seed: int) -> int:
    """How many inputs broke something. Each target is given up after its first one."""
    tallies = {target.name: _Tally() for target in targets}
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        async with AsyncExitStack() as stack:
            checks: dict[str, Check] = {}
            mutants = {}
            for target in targets:
                scratch = Path(folder) / target.name
                scratch.mkdir()
                checks[target.name] = await stack.enter_async_context(target.open(scratch))
                mutants[target.name] = Mutants(target, seed)
            while time.monotonic() - started < seconds and not all(t.found for t in tallies.values()):
                for target in targets:
                    tally = tallies[target.name]
                    if not tally.found:
                        await _slice(target, checks[target.name], mutants[target.name], tally)
    for name, tally in tallies.items():
        rate = tally.tried / tally.seconds if tally.seconds else 0.0
        print(f"{name:<12} {tally.tried:>9,} inputs  {rate:>9,.0f}/s  {tally.found} found")
    return sum(tally.found for tally in tallies.values())


async def _slice(target: Target, check: Check, mutants: Mutants, tally: _Tally) -> None:
    began = time.monotonic()
    for data in mutants:
        tally.tried += 1
        try:
            await check(data)
        except Exception:
            tally.found += 1
            print(f"\n{target.name}: {traceback.format_exc(limit=-4)}", file=sys.stderr)
            await _keep(target, check, data)
            break
        if time.monotonic() - began > SLICE_SECONDS:
            break
    tally.seconds += time.monotonic() - began


async def _keep(target: Target, check: Check, data: bytes) -> None:
    async def fails(shorter: bytes) -> bool:
        try:
            await check(shorter)
        except Exception:
            return True
        return False

    data = await smaller(data, fails)
    place = CORPUS / target.name / f"found-{hashlib.sha256(data).hexdigest()[:10]}"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(data)
    print(f"{target.name}: kept as {place}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=None, help="another one each time, unless given")
    parser.add_argument("--target", action="append", choices=sorted(target.name for target in TARGETS))
    chosen = parser.parse_args()
    seed = secrets.randbits(32) if chosen.seed is None else chosen.seed
    targets = [target for target in TARGETS if not chosen.target or target.name in chosen.target]
    print(f"seed {seed}")
    found = asyncio.run(fuzz(targets, seconds=chosen.seconds, seed=seed))
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
