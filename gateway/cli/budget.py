"""`gateway budget`: see what may be spent, and change it, through a running gateway: another amount, some
more for a while, a stop. What is printed is in `budget_tables.py`; whether the counters are right, in
`budget_audit.py`.
"""

from __future__ import annotations

import asyncio
import getpass
import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated

import typer

from gateway.adapters.clock import SystemClock
from gateway.cli.admin_client import (
    DEFAULT_URL,
    TOKEN_VARIABLE,
    AdminClient,
    AdminUnusable,
    JsonObject,
    TokenOption,
    UrlOption,
)
from gateway.cli.budget_audit import audit, repair
from gateway.cli.config import JsonOption
from gateway.core.adjustments import FreezeScope
from gateway.settings.units import read_seconds

app = typer.Typer(
    help="See what may be spent, and change it at once: through a running gateway, on all its replicas "
    "within three seconds. What is meant to last belongs into limits.yaml.",
    no_args_is_help=True,
)

app.command()(audit)
app.command()(repair)

PAGE = 200
KINDS = ("overrides", "grants", "freezes")

LimitArgument = Annotated[
    str, typer.Argument(metavar="LIMIT", help="Id of the limit, as in limits.yaml and in refusals.")
]
SubjectOption = Annotated[
    str,
    typer.Option(
        "--subject",
        "-s",
        help="Whose: the organisation, team, workspace, key id or value of the tag. Nothing for a pool.",
    ),
]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why, for the audit trail.")]
ByOption = Annotated[
    str | None,
    typer.Option(
        "--by", help="Who does this, for the audit trail; the name you are logged in by without it."
    ),
]


@app.command()
def show(
    workspace: Annotated[
        str | None, typer.Option("--workspace", "-w", help="Only what binds this workspace, its keys too.")
    ] = None,
    organisation: Annotated[str | None, typer.Option(help="Only what binds this organisation.")] = None,
    team: Annotated[str | None, typer.Option(help="Only what binds this team.")] = None,
    key: Annotated[str | None, typer.Option(help="Only what binds the key with this id.")] = None,
    limit: Annotated[str | None, typer.Option(help="Only the limit of this id.")] = None,
    tag: Annotated[str | None, typer.Option(help="Limits of this tag too, as x-user:alice.")] = None,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Show each limit: its amount, what is spent, set aside and left.

    An amount with * is not that of limits.yaml; below the table stands who
    changed it and why. "runs out" is when a budget of a day, week or month is
    spent, if spending goes on as it has on average since the window began;
    nights and weekends are not known to it. Limits of keys are shown where a
    workspace or a key is named.

    Exit code 0: done. 1: the gateway did not answer, or refused. 2: the command
    is wrong.
    """
    from gateway.cli.budget_tables import print_budgets

    asked = {
        "workspace": workspace,
        "organisation": organisation,
        "team": team,
        "key": key,
        "limit": limit,
        "tag": tag,
    }
    query = {name: value for name, value in asked.items() if value is not None}
    client = AdminClient.from_options(url, token_env)
    answer = page = _ask(client, "GET", "/v1/budgets", {**query, "skip": "0"})
    while page["next_skip"] is not None:
        page = _ask(client, "GET", "/v1/budgets", {**query, "skip": str(page["next_skip"])})
        answer["budgets"] += page["budgets"]
    answer["next_skip"] = None
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        print_budgets(answer)


@app.command("set")
def set_amount(
    limit: LimitArgument,
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="As in limits.yaml: $250.00, 600, 400k.")],
    reason: ReasonOption,
    subject: SubjectOption = "",
    by: ByOption = None,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Give one subject another amount of a limit, until it is taken back.

    What was spent stays spent: an amount below that lets nothing more through.
    It takes the place of what was set before. Write $ amounts in single quotes,
    or the shell reads $2 as a variable of its own:

    gateway budget set workspace-month '$250.00' -s demo -r "Launch week"
    """
    body = {"limit": limit, "subject": subject, "amount": amount}
    _change("overrides", body, reason, by, AdminClient.from_options(url, token_env), as_json)


@app.command()
def grant(
    limit: LimitArgument,
    amount: Annotated[
        str, typer.Argument(metavar="AMOUNT", help="How much more, as in limits.yaml: $50.00, 600, 400k.")
    ],
    reason: ReasonOption,
    subject: SubjectOption = "",
    until: Annotated[
        str | None,
        typer.Option(
            help="4h, 2026-11-30 (its end, in the limit's time zone) or 2026-11-30T18:00:00Z. Without it: "
            "to the end of the limit's day, week or month."
        ),
    ] = None,
    by: ByOption = None,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Give one subject more of a limit for a while.

    It ends by itself, and with the limit's day, week or month at the latest, so
    that it is given once. Grants add up. For more in each window use `set`.

    gateway budget grant workspace-month '$50.00' -s demo --until 4h -r "Demo day"
    """
    body = {"limit": limit, "subject": subject, "amount": amount}
    if until is not None:
        body["until"] = _until(until)
    _change("grants", body, reason, by, AdminClient.from_options(url, token_env), as_json)


@app.command()
def freeze(
    kind: Annotated[
        FreezeScope, typer.Argument(metavar="KIND", help="organisation, team, workspace or key.")
    ],
    name: Annotated[str, typer.Argument(metavar="NAME", help="Its name; of a key, its id.")],
    reason: Annotated[
        str, typer.Option("--reason", "-r", help="Why. Whoever is refused is told, with your name.")
    ],
    by: ByOption = None,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Take no new calls of somebody, until that is taken back.

    Their calls are refused with status 403, the reason and whom to ask. Answers
    that are under way end normally. A key that has leaked is better revoked:
    `gateway keys revoke`.
    """
    body = {"scope": kind.value, "subject": name}
    _change("freezes", body, reason, by, AdminClient.from_options(url, token_env), as_json)


@app.command()
def unfreeze(
    freeze_id: Annotated[str, typer.Argument(metavar="ID", help="Of the freeze, as `history` shows it.")],
    reason: ReasonOption,
    by: ByOption = None,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Take calls again."""
    client = AdminClient.from_options(url, token_env)
    _take_back(client, ("freezes",), freeze_id, reason, by, as_json)


@app.command()
def undo(
    adjustment_id: Annotated[
        str, typer.Argument(metavar="ID", help="Of what was set, granted or frozen, as `history` shows it.")
    ],
    reason: ReasonOption,
    by: ByOption = None,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Take back what was set, granted or frozen. It stays in the history."""
    _take_back(AdminClient.from_options(url, token_env), KINDS, adjustment_id, reason, by, as_json)


@app.command()
def history(
    last: Annotated[int, typer.Option("--last", "-n", min=1, max=PAGE, help="How many entries.")] = 50,
    before: Annotated[int | None, typer.Option(min=1, help="Those before this one, for older pages.")] = None,
    url: UrlOption = DEFAULT_URL,
    token_env: TokenOption = TOKEN_VARIABLE,
    as_json: JsonOption = False,
) -> None:
    """Show who changed what and why, newest first. Nothing is ever deleted."""
    from gateway.cli.budget_tables import print_history

    query = {"limit": str(last)} | ({} if before is None else {"before": str(before)})
    answer = _ask(AdminClient.from_options(url, token_env), "GET", "/v1/adjustments", query)
    if as_json:
        print(json.dumps(answer, indent=2))
    else:
        print_history(answer)


def _change(
    kind: str, body: dict[str, str], reason: str, by: str | None, client: AdminClient, as_json: bool
) -> None:
    made = _ask(client, "POST", f"/v1/{kind}", body={**body, "reason": reason, "by": by or _user()})
    _say(made, as_json)


def _take_back(
    client: AdminClient, kinds: tuple[str, ...], which: str, reason: str, by: str | None, as_json: bool
) -> None:
    """Of the first kind that has this id."""
    if not which.replace("-", "").replace("_", "").isalnum():
        raise typer.BadParameter("an id is letters, digits, - and _", param_hint="ID")
    query = {"reason": reason, "by": by or _user()}
    for kind in kinds:
        try:
            answer = asyncio.run(client.send("DELETE", f"/v1/{kind}/{which}", query))
        except AdminUnusable as error:
            if error.status == 404 and kind != kinds[-1]:
                continue
            hint = " `gateway budget history` shows the ids." if error.status == 404 else ""
            said = f"Nothing that is in force has the id {which!r}." if hint and len(kinds) > 1 else error
            typer.echo(f"{said}{hint}", err=True)
            raise typer.Exit(1) from None
        _say(answer, as_json)
        return


def _say(made: JsonObject, as_json: bool) -> None:
    from gateway.cli.budget_tables import sentence

    print(json.dumps(made, indent=2) if as_json else sentence(made))


def _ask(
    client: AdminClient,
    method: str,
    path: str,
    query: Mapping[str, str] | None = None,
    body: Mapping[str, str] | None = None,
) -> JsonObject:
    try:
        return asyncio.run(client.send(method, path, query, body))
    except AdminUnusable as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(1) from None


def _until(text: str) -> str:
    """An instant or a day as it is; of a duration, the instant after it."""
    if "-" in text:
        return text
    try:
        seconds = read_seconds(text)
    except ValueError as error:
        raise typer.BadParameter(f"{error}; or a day, as 2026-11-30", param_hint="--until") from error
    until = datetime.fromtimestamp(SystemClock().now(), UTC) + timedelta(seconds=seconds)
    return until.strftime("%Y-%m-%dT%H:%M:%SZ")


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        raise typer.BadParameter(
            "this machine does not know your name; say who does this", param_hint="--by"
        ) from None
