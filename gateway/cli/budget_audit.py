"""`gateway budget audit` and `gateway budget repair`: the counters of money beside the ledgers, and having
them computed anew, through running gateways. What counts as a difference is `core/drift.py`'s.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Final

import typer

from gateway.cli.admin_client import (
    DEFAULT_URL,
    TOKEN_VARIABLE,
    AdminClient,
    AdminUnusable,
    JsonObject,
    TokenOption,
)
from gateway.cli.config import JsonOption
from gateway.cli.printing import plain
from gateway.core.drift import Reading, differences, merged
from gateway.core.ledger import usd
from gateway.settings.units import read_nanousd

UrlsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--url",
        help=f"Admin plane of a running gateway, {DEFAULT_URL} without it. Where each replica has a ledger "
        "of its own, repeat it for every replica: only together they say what the counters should have.",
    ),
]
ToleranceOption = Annotated[
    str, typer.Option(help="How many dollars a counter may be off, as calls around midnight make it.")
]

AGAIN_SECONDS: Final = 2.0
"""Between the two readings of an audit."""
LOOK_SECONDS: Final = 0.5
REBUILT_SECONDS: Final = 60.0
LATE_LOOKS: Final = 4
"""How often is looked after that: a replica that was not waited for brings its part some seconds later."""
DIFFER: Final = 3
"""Exit code."""


@dataclass(frozen=True, slots=True)
class Found:
    """What an audit came to."""

    checked: int
    rows: tuple[JsonObject, ...]
    """Of the counters that differ, as the admin API has them; `ledger` is the sum of all, and `difference`
    is added."""
    can_repair: bool
    rebuilding: bool

    def __str__(self) -> str:
        if self.rebuilding:
            return (
                "The counters of money are being computed anew from the ledgers; ask again in some seconds."
            )
        if not self.rows:
            return f"{self.checked:,} counters of money agree with the ledger."
        lines = [f"{len(self.rows):,} of {self.checked:,} counters of money differ from the ledger:"]
        for row in self.rows:
            whose = f" of {row['scope']} {row['subject']}" if row["subject"] else ""
            off = row["difference"]["nanousd"]
            what = f"{_money(abs(off))} {'more' if off > 0 else 'less'} than the ledger's"
            lines.append(
                f"  {plain(row['limit'] + whose)}, {row['window']}: counted "
                f"{_money(row['counted']['nanousd'])}, {what} {_money(row['ledger']['nanousd'])}"
            )
        return "\n".join(lines)


def audit(
    url: UrlsOption = None,
    tolerance: ToleranceOption = "$0.01",
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Compare the counters of money with the ledger.

    They are read twice, so that calls which are just being settled do not show.
    A counter that says less than the ledger lets more be spent than it should.
    Replicas with ledgers of their own: name all of them.

    Exit code 0: they agree. 1: a gateway did not answer, or refused. 2: the
    command is wrong. 3: they differ, or are being computed anew.
    """
    clients, most = _clients(url, token_env), _tolerance(tolerance)
    found = asyncio.run(_told(clients, most))
    print(_json(found) if as_json else found)
    raise typer.Exit(DIFFER if found.rows or found.rebuilding else 0)


def repair(
    url: UrlsOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be done.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    tolerance: ToleranceOption = "$0.01",
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Have the counters of money computed anew from the ledgers of all replicas.

    Says what differs, asks, begins, waits until it is done, and compares again.
    For the seconds that it takes each limit of money does what its
    on_store_failure says. What was presumed spent of calls that no ledger knows
    is forgotten. In Redis only: other stores keep their counters on one disk
    with the ledger.

    Exit code 0: they agree now, or --dry-run. 1: a gateway did not answer, or
    refused. 2: the command is wrong. 3: they differ still.
    """
    clients, most = _clients(url, token_env), _tolerance(tolerance)
    before = asyncio.run(_told(clients, most))
    if not as_json:
        print(before)
        if before.can_repair:
            print(
                "All counters of money in days, weeks and months are computed anew from the ledgers of all "
                "replicas. Meanwhile, for some seconds, each such limit does what its on_store_failure says: "
                "`refuse` refuses."
            )
        else:
            print("This store's counters cannot be computed anew while the gateway runs.")
    if dry_run:
        if as_json:
            print(_json(before))
        return
    if not yes:
        typer.confirm("Go on?", abort=True, err=as_json)
    after = asyncio.run(_repaired(clients, most))
    print(_json(after) if as_json else after)
    raise typer.Exit(DIFFER if after.rows or after.rebuilding else 0)


async def _repaired(clients: Sequence[AdminClient], tolerance: int) -> Found:
    await _sent(clients[0], "POST", "/v1/counters/repair")
    for _ in range(round(REBUILT_SECONDS / LOOK_SECONDS)):
        await asyncio.sleep(LOOK_SECONDS)
        if not any([(await _sent(each, "GET", "/v1/counters"))["rebuilding"] for each in clients]):
            break
    for _ in range(LATE_LOOKS):
        found = await _told(clients, tolerance)
        if not found.rows and not found.rebuilding:
            break
        await asyncio.sleep(LOOK_SECONDS)
    return found


async def _told(clients: Sequence[AdminClient], tolerance: int) -> Found:
    """Two readings where the first shows a difference."""
    first, answers = await _read(clients)
    if all(each.counted == each.ledger for each in first.values()):
        found: dict[str, int] = {}
    else:
        await asyncio.sleep(AGAIN_SECONDS)
        second, answers = await _read(clients)
        found = {key: off for key, off in differences(first, second).items() if abs(off) > tolerance}
        first = second
    rows = {row["key"]: row for answer in answers for row in answer["counters"] if row["key"] in found}
    return Found(
        checked=len(first),
        rows=tuple(
            {**row, "ledger": _as_money(first[key].ledger), "difference": _as_money(found[key])}
            for key, row in rows.items()
        ),
        can_repair=all(answer["can_repair"] for answer in answers),
        rebuilding=any(answer["rebuilding"] for answer in answers),
    )


async def _read(clients: Sequence[AdminClient]) -> tuple[dict[str, Reading], list[JsonObject]]:
    """One after the other; of replicas that share a ledger, one."""
    answers = [await _sent(each, "GET", "/v1/counters") for each in clients]
    ledgers = {answer["ledger"]: _readings(answer) for answer in answers}
    return merged(ledgers.values()), answers


def _readings(answer: JsonObject) -> dict[str, Reading]:
    return {
        row["key"]: Reading(
            counted=row["counted"]["nanousd"],
            set_aside=row["set_aside"]["nanousd"],
            ledger=row["ledger"]["nanousd"],
        )
        for row in answer["counters"]
    }


async def _sent(client: AdminClient, method: str, path: str) -> JsonObject:
    try:
        return await client.send(method, path)
    except AdminUnusable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _clients(urls: list[str] | None, token_env: str) -> list[AdminClient]:
    return [AdminClient.from_options(each, token_env) for each in urls or [DEFAULT_URL]]


def _tolerance(text: str) -> int:
    try:
        return read_nanousd(text)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--tolerance") from None


def _json(found: Found) -> str:
    return json.dumps(
        {
            "checked": found.checked,
            "differing": list(found.rows),
            "can_repair": found.can_repair,
            "rebuilding": found.rebuilding,
        },
        indent=2,
    )


def _as_money(nanousd: int) -> JsonObject:
    return {"nanousd": nanousd, "usd": usd(nanousd)}


def _money(nanousd: int) -> str:
    return f"${nanousd / 1e9:,.6f}"
