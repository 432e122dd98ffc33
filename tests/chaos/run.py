"""`python -m tests.chaos.run --seed N`: three replicas, one Redis, a simulated API whose bill is checked at
each line, hundreds of clients, and faults drawn from the seed. Prints what was checked, with numbers; exits
with 1 where a check fails.

The seed decides which faults strike, in which order, where and for how long; what the machine is doing at
that moment it cannot decide, so a failure may take more than one try to come again.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.chaos.checks import Finding, check, guesses, settled
from tests.chaos.clients import Clients
from tests.chaos.faults import ALL, Faults
from tests.chaos.world import World

LIMIT_PER_SECOND_AND_CLIENT = 45_000
"""Nano-dollars: so that about half of what clients could spend in a run is allowed."""
LOSING = {"failover", "flushall", "old_snapshot"}
ALWAYS = ("kill", "pause", "lost_reply", "script_flush")
ONE_OF = (("restart",), ("failover",), ("flushall",), ("old_snapshot",))


@dataclass
class Outcome:
    seed: int
    faults: Counter[str]
    findings: list[Finding]
    listed: list[str]
    deaths: int
    used_up: bool = False
    """Whether the limit let nothing through in the end."""
    notes: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return all(finding.good for finding in self.findings)


def faults_of(seed: int) -> tuple[str, ...]:
    """Those of a seed where none are named: the small ones, and one that takes the store away or back."""
    return (*ALWAYS, *ONE_OF[seed % len(ONE_OF)])


async def play(seed: int, *, seconds: float, clients: int, kinds: Sequence[str], folder: Path) -> Outcome:
    """One run from an empty folder. Goes on after `seconds` until the limit is used up."""
    limit = round(LIMIT_PER_SECOND_AND_CLIENT * seconds * clients)
    async with World(folder=folder, limit_nanousd=limit, sentinels="failover" in kinds) as world:
        loop = asyncio.get_running_loop()
        callers, faults = Clients(world, clients, seed), Faults(world, tuple(kinds), seed)
        until = loop.time() + seconds
        await asyncio.gather(callers.run(until), faults.run(until))
        await world.all_listen()
        await world.simulator.idle(10)
        findings = [await settled(world)]
        codes = await asyncio.gather(*(replica.end() for replica in world.replicas))
        findings += check(world, callers.ends, callers.hung, lost=bool(LOSING & set(faults.seen)))
        outcome = Outcome(
            seed=seed,
            faults=faults.seen,
            findings=sorted(findings, key=lambda finding: finding.name),
            listed=guesses(world),
            deaths=sum(replica.deaths for replica in world.replicas),
        )
        outcome.used_up = callers.used_up
        if not callers.used_up:
            outcome.notes.append("the limit was not used up")
        if any(codes):
            outcome.notes.append(f"replicas ended with {codes}")
        return outcome


def broken(seed: int, error: Exception) -> Outcome:
    """A run that its own tools did not bring to its end shows nothing, and so counts as a failure."""
    finding = Finding("the run ends", good=False, says=f"{type(error).__name__}: {error}")
    return Outcome(seed=seed, faults=Counter(), findings=[finding], listed=[], deaths=0)


def say(outcome: Outcome, *, every_guess: bool) -> None:
    faults = ", ".join(f"{count} {name}" for name, count in sorted(outcome.faults.items()))
    print(f"seed {outcome.seed}: {faults}; {outcome.deaths} replicas died")
    for finding in outcome.findings:
        print(f"  {'ok  ' if finding.good else 'FAIL'} {finding.name}: {finding.says}")
    for line in outcome.notes + (outcome.listed if every_guess else []):
        print(line)
    sys.stdout.flush()


def main() -> int:
    options = argparse.ArgumentParser(prog="python -m tests.chaos.run", description=__doc__)
    options.add_argument("--seed", type=int, default=1)
    options.add_argument("--seeds", help="many, as 1..20")
    options.add_argument("--seconds", type=float, default=20.0)
    options.add_argument("--clients", type=int, default=300)
    options.add_argument("--faults", help=f"of {','.join(ALL)}; without it, the seed chooses")
    options.add_argument("--keep", action="store_true", help="leave the folder, to look into it")
    given = options.parse_args()
    first, _, last = (given.seeds or f"{given.seed}").partition("..")
    outcomes = []
    for seed in range(int(first), int(last or first) + 1):
        kinds = given.faults.split(",") if given.faults else faults_of(seed)
        folder = Path(tempfile.mkdtemp(prefix=f"chaos{seed}-"))
        try:
            run = play(seed, seconds=given.seconds, clients=given.clients, kinds=kinds, folder=folder)
            outcomes.append(asyncio.run(run))
        except Exception as error:
            if not given.seeds:
                raise
            outcomes.append(broken(seed, error))
        finally:
            if given.keep:
                print(f"kept: {folder}")
            else:
                shutil.rmtree(folder, ignore_errors=True)
        say(outcomes[-1], every_guess=not given.seeds)
    if given.seeds:
        print(table(outcomes))
    bad = [outcome.seed for outcome in outcomes if not outcome.good]
    if bad:
        print(f"failed with seed {', '.join(map(str, bad))}")
    return 1 if bad else 0


def table(outcomes: Sequence[Outcome]) -> str:
    """Fault by outcome."""
    lines = ["", "| fault | struck | in runs | runs that failed |", "|---|---|---|---|"]
    for name in sorted({name for outcome in outcomes for name in outcome.faults}):
        struck = [outcome for outcome in outcomes if outcome.faults[name]]
        failed = [str(outcome.seed) for outcome in struck if not outcome.good]
        times = sum(outcome.faults[name] for outcome in struck)
        lines.append(f"| {name} | {times} | {len(struck)} | {', '.join(failed) or 'none'} |")
    used_up = sum(outcome.used_up for outcome in outcomes)
    lines.append(f"\nThe limit was used up in {used_up} of {len(outcomes)} runs.")
    return "\n".join(lines)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
