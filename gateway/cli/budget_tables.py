"""What `gateway budget` prints for people: how limits stand, what was changed, by whom and why. Texts come
from other people and from clients: nothing in them may act on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from gateway.cli.admin_client import JsonObject

_VERBS = {"override": "set to", "grant": "granted", "freeze": "frozen"}
SCARCE = 0.1
"""What is left below this share of the amount is shown in another colour."""


def print_budgets(answer: JsonObject) -> None:
    """A row for each limit, then a sentence for each change."""
    budgets = answer["budgets"]
    changes = [*answer["freezes"], *(made for each in budgets for made in each["adjustments"])]
    if budgets:
        _print_table(budgets)
    else:
        print("No limit binds this.")
    for made in {made["id"]: made for made in changes}.values():
        print(sentence(made))


def _print_table(budgets: Sequence[JsonObject]) -> None:
    table = Table(box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    for heading in ("limit", "whose", "per"):
        table.add_column(heading, no_wrap=True)
    for heading in ("amount", "spent", "set aside", "left"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("full again", "runs out", ""):
        table.add_column(heading, no_wrap=True)
    for each in budgets:
        changed = "*" if each["amount"] != each["configured"] else ""
        table.add_row(
            _plain(each["limit"]),
            _whose(each),
            _words(each["period"].removeprefix("calendar_")) if each["period"] != "open" else "at a time",
            each["amount"]["text"] + changed,
            *(each[name]["text"] for name in ("spent", "set_aside", "left")),
            _instant(each["resets_at"]),
            _instant(each["runs_out_at"]),
            "shadow" if each["mode"] == "shadow" else "",
            style=_style(each),
        )
    _console(table).print(table)


def print_history(answer: JsonObject) -> None:
    """A row for each entry."""
    table = Table("when", "who", "what", "why", "id", box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    for each in answer["entries"]:
        acted = each["taken_back"] or each
        what = _what(each)
        table.add_row(
            _instant(acted["at"]),
            _plain(acted["by"]),
            escape(f"took back: {what}" if each["taken_back"] else what),
            _plain(acted["reason"]),
            each["id"],
        )
    if not table.row_count:
        print("Nothing was changed yet.")
        return
    _console(table).print(table)
    if answer["next_before"] is not None:
        print(f"Older ones: gateway budget history --before {answer['next_before']}")


def sentence(made: JsonObject) -> str:
    """One change, as it stands."""
    said = f"{made['id']}: {_what(made)}, by {_text(made['by'])}: {_text(made['reason']).rstrip('.')}."
    taken = made["taken_back"]
    if taken is not None:
        said += f" Taken back by {_text(taken['by'])}: {_text(taken['reason']).rstrip('.')}."
    return said


def _what(made: JsonObject) -> str:
    subject = _text(made["subject"])
    if made["kind"] == "freeze":
        return f"{made['scope']} {subject} frozen"
    whose = f" of {made['scope']} {subject}" if subject else ""
    amount = made["amount"]["text"]
    what = f"{_text(made['limit'])}{whose} {_VERBS[made['kind']]} {amount}"
    return f"{what} more, until {_instant(made['ends_at'])}" if made["kind"] == "grant" else what


def _whose(budget: JsonObject) -> str:
    subject = _plain(budget["subject"]) or "(shared)"
    return f"{budget['scope']} {subject}"


def _style(budget: JsonObject) -> str:
    left, amount = budget["left"]["value"], budget["amount"]["value"]
    if budget["mode"] == "shadow" or left > SCARCE * amount:
        return ""
    return "yellow" if left > 0 else "red"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _instant(at: str | None) -> str:
    return "" if at is None else at.replace("T", " ").replace(":00Z", "Z").replace("Z", " UTC")


def _text(text: str) -> str:
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def _plain(text: str) -> str:
    return escape(_text(text))


def _console(table: Table) -> Console:
    """A pipe has no width, and a terminal that is too narrow had better break lines than lose figures."""
    if not sys.stdout.isatty():
        return Console(width=250)
    return Console(width=max(Console().width, Console(width=250).measure(table).minimum))
