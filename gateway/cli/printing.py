"""What all commands that print for people share: texts of strangers that are safe for a terminal, and tables
whose figures are never cut."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # it takes a while to load, and not every command draws a table
    from rich.console import Console
    from rich.table import Table

PIPED_WIDTH = 250


def plain(text: str) -> str:
    """`text` as it may be printed. Names of models and keys, values of tags and reasons come from others:
    nothing in them may act on a terminal."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def console_for(table: Table) -> Console:
    """Where to print it. A pipe has no width, and a terminal that is too narrow had better break lines than
    lose figures."""
    from rich.console import Console

    wide = Console(width=PIPED_WIDTH)
    if not sys.stdout.isatty():
        return wide
    return Console(width=max(Console().width, wide.measure(table).minimum))
