"""`gateway top`: what a running gateway does now, in a terminal. Numbers and names, never content."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from typing import Annotated, Any

import typer

from gateway.cli.admin_client import (
    DEFAULT_URL,
    TOKEN_VARIABLE,
    AdminClient,
    AdminUnusable,
    TokenOption,
    UrlOption,
)
from gateway.cli.config import JsonOption
from gateway.cli.top_figures import Figures, figures

ANSWER_SECONDS = 3.0
"""For one look; nobody waits longer for `q` to be heard."""
PIPED_WIDTH = 160
"""A pipe has none of its own, and should cut nothing off."""
LIMITS_EVERY = 5
"""Turns: limits change slowly, and asking for them asks the store."""


def top(
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    every: Annotated[
        float, typer.Option("--every", min=0.2, max=60, help="Seconds between two looks.")
    ] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look once, and print it as plain lines.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Watch a running gateway: open calls, rates, cache, the tightest limits.

    Press q to leave. Where the output is no terminal it looks once; with --json
    it does, too. Of several replicas on one Redis it shows all. Rates are of the
    last minute, or of less where more calls ended in it than a replica tells: 500
    of its own, 200 to another one.

    Exit code 0: done. 1: the gateway did not answer, or refused. 2: the command
    is wrong.
    """
    client = AdminClient.from_options(url, token_env)
    if as_json or once or not sys.stdout.isatty():
        found = _look_once(client)
        print(json.dumps(_as_json(found), indent=2)) if as_json else _print(found, url)
    else:
        asyncio.run(_watch(client, url, every))


def _look_once(client: AdminClient) -> Figures:
    try:
        return asyncio.run(_look(client))
    except AdminUnusable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


async def _look(client: AdminClient) -> Figures:
    """Raises `AdminUnusable`."""
    return _told(await client.get("/v1/live"), await client.get("/v1/budgets"))


def _told(live: dict[str, Any], budgets: dict[str, Any] | None) -> Figures:
    try:
        return figures(live, budgets)
    except (KeyError, TypeError, ValueError):
        raise AdminUnusable("The answer is not one of this version's gateway.") from None


def _as_json(found: Figures) -> dict[str, Any]:
    told = dataclasses.asdict(found)
    told["last_minute"]["read_share"] = found.last_minute.read_share
    return told


def _print(found: Figures, url: str) -> None:
    from rich.console import Console

    from gateway.cli.top_view import drawn, height_of

    console = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH)
    console.print(drawn(found, url=url, trouble="", rows=height_of(console)))


class _Watched:
    """What was seen last, and what stands in the way of seeing more."""

    def __init__(self, client: AdminClient) -> None:
        self._client = client
        self._turn = 0
        self._budgets: dict[str, Any] | None = None
        self.figures: Figures | None = None
        self.trouble = ""

    async def look(self) -> None:
        """Raises nothing: a gateway that is away comes back."""
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                live = await self._client.get("/v1/live")
                if self._turn % LIMITS_EVERY == 0 or self.trouble:
                    self._budgets = await self._client.get("/v1/budgets")
            self._turn += 1
            self.figures, self.trouble = _told(live, self._budgets), ""
        except AdminUnusable as error:
            self.trouble = f"{error} Trying again."
        except TimeoutError:
            self.trouble = "The gateway does not answer. Trying again."


async def _watch(client: AdminClient, url: str, every: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from gateway.cli.top_view import drawn, height_of

    console, watched, leave = Console(), _Watched(client), asyncio.Event()
    with (
        _keys(leave),
        Live(console=console, screen=True, auto_refresh=False, vertical_overflow="crop") as screen,
    ):
        while not leave.is_set():
            await watched.look()
            shown = drawn(watched.figures, url=url, trouble=watched.trouble, rows=height_of(console))
            screen.update(shown, refresh=True)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every):
                    await leave.wait()


@contextlib.contextmanager
def _keys(leave: asyncio.Event) -> Iterator[None]:
    """Single keys, without echo, as long as this lasts: q, Escape or the end of the input leave. Ctrl-C does
    what it always does."""
    import termios
    import tty

    descriptor = sys.stdin.fileno()
    if not os.isatty(descriptor):
        yield
        return
    loop, before = asyncio.get_running_loop(), termios.tcgetattr(descriptor)

    def pressed() -> None:
        keys = os.read(descriptor, 64)
        if not keys or keys in (b"q", b"Q", b"\x1b", b"\x04"):
            loop.remove_reader(descriptor)
            leave.set()

    tty.setcbreak(descriptor)
    loop.add_reader(descriptor, pressed)
    try:
        yield
    finally:
        loop.remove_reader(descriptor)
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)
