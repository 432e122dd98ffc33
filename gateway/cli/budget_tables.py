"""What `gateway budget` prints for people: how limits stand, what was changed, by whom and why. Texts come
from other people and from clients: nothing in them may act on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.markup import escape
from rich.table import Table

from gateway.cli.admin_client import JsonObject
from gateway.cli.printing import console_for, plain

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
    if any(each["rebuilding"] for each in budgets):
        print("The counters of money are being computed anew from the ledgers; ask again in some seconds.")
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
            _cell(each["limit"]),
            _whose(each),
            _words(each["period"].removeprefix("calendar_")) if each["period"] != "open" else "at a time",
            each["amount"]["text"] + changed,
            *(each[name]["text"] for name in ("spent", "set_aside", "left")),
            _instant(each["resets_at"]),
            _instant(each["runs_out_at"]),
            "shadow" if each["mode"] == "shadow" else "",
            style=_style(each),
        )
    console_for(table).print(table)


def print_history(answer: JsonObject) -> None:
    """A row for each entry."""
    table = Table("when", "who", "what", "why", "id", box=SIMPLE_HEAD, padding=(0, 2, 0, 0))
    for each in answer["entries"]:
        acted = each["taken_back"] or each
        what = _what(each)
        table.add_row(
            _instant(acted["at"]),
            _cell(acted["by"]),
            escape(f"took back: {what}" if each["taken_back"] else what),
            _cell(acted["reason"]),
            each["id"],
        )
    if not table.row_count:
        print("Nothing was changed yet.")
        return
    console_for(table).print(table)
    if answer["next_before"] is not None:
        print(f"Older ones: gateway budget history --before {answer['next_before']}")


def sentence(made: JsonObject) -> str:
    """One change, as it stands."""
    said = f"{made['id']}: {_what(made)}, by {plain(made['by'])}: {plain(made['reason']).rstrip('.')}."
    taken = made["taken_back"]
    if taken is not None:
        said += f" Taken back by {plain(taken['by'])}: {plain(taken['reason']).rstrip('.')}."
    return said


def _what(made: JsonObject) -> str:
    subject = plain(made["subject"])
    if made["kind"] == "freeze":
        return f"{made['scope']} {subject} frozen"
    whose = f" of {made['scope']} {subject}" if subject else ""
    amount = made["amount"]["text"]
    what = f"{plain(made['limit'])}{whose} {_VERBS[made['kind']]} {amount}"
    return f"{what} more, until {_instant(made['ends_at'])}" if made["kind"] == "grant" else what


def _whose(budget: JsonObject) -> str:
    subject = _cell(budget["subject"]) or "(shared)"
    return f"{budget['scope']} {subject}"


def _style(budget: JsonObject) -> str:
    left, amount = budget["left"]["value"], budget["amount"]["value"]
    if budget["rebuilding"] or budget["mode"] == "shadow" or left > SCARCE * amount:
        return ""
    return "yellow" if left > 0 else "red"


def _words(name: str) -> str:
    return name.replace("_", " ")


def _instant(at: str | None) -> str:
    return "" if at is None else at.replace("T", " ").replace(":00Z", "Z").replace("Z", " UTC")


def _cell(text: str) -> str:
    return escape(plain(text))
