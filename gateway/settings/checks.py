"""What no single file can tell: whether names that files use of each other exist, and what is doubtful."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TYPE_CHECKING, get_args
from urllib.parse import urlsplit

from pydantic import BaseModel

from gateway.core.errors import ConfigError, ConfigProblem
from gateway.core.limits import Scope, kind_of
from gateway.core.prompt_lines import MAX_PROMPTS_BYTES, LineProblem, find_unwarmable, read_prompt_lines
from gateway.settings.alerts_checks import alert_errors, alert_warnings
from gateway.settings.gateway import GatewayFile, StoreKind
from gateway.settings.identity import is_loopback
from gateway.settings.identity_checks import identity_errors, identity_warnings
from gateway.settings.ledger import LedgerKind
from gateway.settings.limits import DefaultLimit, OverrideLimit
from gateway.settings.secrets import (
    admin_token,
    is_available,
    ledger_key,
    ledger_url,
    metrics_token,
    prefix_secret,
    store_url,
)
from gateway.settings.shared import SecretRef
from gateway.settings.source import ENVIRONMENT, FILE_NAMES, VARIABLE_PREFIX, Document, KeyPath
from gateway.settings.tracing_checks import tracing_errors, tracing_warnings

if TYPE_CHECKING:
    from gateway.settings.load import Settings

GATEWAY = "gateway.yaml"
Found = tuple[str, KeyPath, str]
"""File, place in it, message."""


def check_across(
    settings: Settings, documents: Mapping[str, Document], variables: Document
) -> tuple[list[ConfigProblem], list[ConfigProblem]]:
    """Errors and warnings of settings that are valid file by file. What a variable says is blamed on it."""
    errors = [
        *_workspace_errors(settings),
        *_limit_errors(settings),
        *_schedule_errors(settings),
        *_listen_errors(settings),
        *identity_errors(settings),
        *alert_errors(settings),
        *tracing_errors(settings),
    ]
    warnings = [
        *_upstream_warnings(settings),
        *_secret_warnings(settings),
        *_store_warnings(settings),
        *_ledger_warnings(settings),
        *_glob_warnings(settings),
        *_subject_warnings(settings),
        *_schedule_warnings(settings),
        *identity_warnings(settings),
        *alert_warnings(settings),
        *tracing_warnings(settings),
    ]

    def located(found: list[Found]) -> list[ConfigProblem]:
        problems = []
        for file, path, message in found:
            from_variable = file == GATEWAY and variables.holds(path)
            problems.append((variables if from_variable else documents[file]).problem(path, message))
        return problems

    return located(errors), [
        *located(warnings),
        *_strangers(settings.directory),
        *_unread_variables(settings.environ),
    ]


def check_prompts(settings: Settings) -> list[ConfigProblem]:
    """What is wrong with the prompts of schedules, line by line. Reads the files, so it is for who asks:
    `gateway config check`, and each schedule when it starts and when it fires."""
    return [
        ConfigProblem(
            file=schedule.prompts,
            line=problem.number,
            column=1 if problem.number else 0,
            message=f"schedule {name} cannot warm it: {problem.message}",
        )
        for name, schedule in settings.gateway.warming.schedules.items()
        for problem in _prompt_problems(schedule.prompts)
    ]


def _prompt_problems(path: str) -> tuple[LineProblem, ...]:
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_PROMPTS_BYTES + 1)
    except OSError:
        return ()  # a warning of the settings already
    prompts, problems = read_prompt_lines(data)
    return problems or find_unwarmable(prompts)


def _workspace_errors(settings: Settings) -> Iterator[Found]:
    upstreams = settings.gateway.upstreams
    for name, workspace in settings.workspaces.workspaces.items():
        if workspace.upstream not in upstreams:
            path: KeyPath = ("workspaces", name, "upstream")
            known = ", ".join(sorted(upstreams))
            message = f"gateway.yaml has no upstream {workspace.upstream!r}; it has: {known}"
            yield "workspaces.yaml", path, message


def _schedule_errors(settings: Settings) -> Iterator[Found]:
    known = settings.workspaces.workspaces
    for name, schedule in settings.gateway.warming.schedules.items():
        if schedule.workspace not in known:
            path: KeyPath = ("warming", "schedules", name, "workspace")
            message = (
                f"workspaces.yaml has no workspace {schedule.workspace!r}; it has: {', '.join(sorted(known))}"
            )
            yield "gateway.yaml", path, message


def _schedule_warnings(settings: Settings) -> Iterator[Found]:
    for name, schedule in settings.gateway.warming.schedules.items():
        path: KeyPath = ("warming", "schedules", name, "prompts")
        if not os.access(schedule.prompts, os.R_OK):
            message = f"{schedule.prompts} cannot be read now; nothing is warmed until it can"
            yield "gateway.yaml", path, message
        workspace = settings.workspaces.workspaces.get(schedule.workspace)
        if workspace is not None and workspace.warming_per_day == 0:
            message = f"workspace {schedule.workspace} has a warming_per_day of $0.00: nothing is warmed"
            yield "gateway.yaml", ("warming", "schedules", name, "workspace"), message


def _limit_errors(settings: Settings) -> Iterator[Found]:
    defaults: dict[str, DefaultLimit] = {}
    tags = settings.gateway.tags.headers
    for index, default in enumerate(settings.limits.defaults):
        path: KeyPath = ("defaults", index)
        named = "subject" if default.subject is not None else "subjects"
        if default.id in defaults:
            yield "limits.yaml", (*path, "id"), f"the id {default.id} is used twice"
        for other in defaults.values():
            if default.members and not other.members and _same_kind(settings, default, other):
                message = f"write it as an override of {other.id}: the two count the same for this subject"
                yield "limits.yaml", (*path, named), message
        if default.tag is not None and default.tag not in tags:
            message = f"gateway.yaml does not have {default.tag} in tags.headers, so nobody reads it"
            yield "limits.yaml", (*path, "tag"), message
        defaults.setdefault(default.id, default)
        for subject in default.members:
            yield from _subject_errors(settings, default.scope, subject, (*path, named))
    seen: set[tuple[str, str]] = set()
    for index, override in enumerate(settings.limits.overrides):
        path = ("overrides", index)
        yield from _override_errors(settings, defaults, override, path)
        if (override.limit, override.subject) in seen:
            yield "limits.yaml", path, f"{override.limit} is overridden for {override.subject} already"
        seen.add((override.limit, override.subject))


def _override_errors(
    settings: Settings, defaults: Mapping[str, DefaultLimit], override: OverrideLimit, path: KeyPath
) -> Iterator[Found]:
    default = defaults.get(override.limit)
    if default is None:
        known = ", ".join(defaults) or "none"
        yield "limits.yaml", (*path, "limit"), f"there is no default {override.limit!r}; there are: {known}"
        return
    if default.members:
        yield "limits.yaml", (*path, "limit"), f"{default.id} is for some subjects only; change it there"
    twins = [
        other.id for other in defaults.values() if not other.members and _same_kind(settings, other, default)
    ]
    if len(twins) > 1:
        message = f"an override would replace all of {', '.join(twins)}: they count the same"
        yield "limits.yaml", (*path, "limit"), message
    try:
        override.limit_over(default, settings.limits.limit(default))
    except ValueError as error:
        yield "limits.yaml", (*path, "amount"), str(error)
    yield from _subject_errors(settings, default.scope, override.subject, (*path, "subject"))


def _subject_errors(settings: Settings, scope: Scope, subject: str, path: KeyPath) -> Iterator[Found]:
    workspaces = settings.workspaces.workspaces
    if scope is Scope.WORKSPACE:
        known = set(workspaces)
    elif scope is Scope.ORGANISATION:
        known = {workspace.organisation for workspace in workspaces.values()}
    elif scope is Scope.TEAM:
        known = {workspace.team for workspace in workspaces.values() if workspace.team}
    else:
        return  # keys come and go in the store, values of tags with every call
    if subject not in known:
        names = ", ".join(sorted(known))
        yield "limits.yaml", path, f"workspaces.yaml has no {scope} {subject!r}; it has: {names}"


def _same_kind(settings: Settings, one: DefaultLimit, other: DefaultLimit) -> bool:
    return kind_of(settings.limits.limit(one)) == kind_of(settings.limits.limit(other))


def _upstream_warnings(settings: Settings) -> Iterator[Found]:
    for name, upstream in settings.gateway.upstreams.items():
        path: KeyPath = ("upstreams", name)
        if upstream.federation is None and not is_available(upstream.credential, settings.environ):
            message = f"{upstream.credential} cannot be read now; calls will fail until it can"
            yield "gateway.yaml", (*path, "credential"), message
        url = urlsplit(upstream.base_url)
        if url.scheme == "http" and not is_loopback(url.hostname or ""):
            message = "the credential and all prompts go over this line unencrypted"
            yield "gateway.yaml", (*path, "base_url"), message


def _secret_warnings(settings: Settings) -> Iterator[Found]:
    """Of all that the gateway reads before it serves; what it makes by itself is not among it."""
    gateway, environ = settings.gateway, settings.environ
    listen, store, ledger = gateway.listen, gateway.store, gateway.ledger
    needed: tuple[
        tuple[KeyPath, SecretRef | None, Callable[[GatewayFile, Mapping[str, str]], object]], ...
    ] = (
        (("listen", "admin_token"), listen.admin_token, admin_token),
        (("listen", "metrics_token"), listen.metrics_token, metrics_token),
        (("store", "url"), store.url if store.kind is StoreKind.REDIS else None, store_url),
        (("ledger", "url"), ledger.url if ledger.kind is LedgerKind.POSTGRES else None, ledger_url),
        (("ledger", "key"), ledger.key, ledger_key),
        (("prefixes", "secret"), gateway.prefixes.secret, prefix_secret),
    )
    for path, ref, read in needed:
        if ref is None:
            continue
        if not is_available(ref, environ):
            yield GATEWAY, path, f"{ref} cannot be read now; the gateway will not start without it"
            continue
        try:
            read(gateway, environ)
        except ConfigError as error:
            yield GATEWAY, path, f"{error}; the gateway will not start with it"


def _listen_errors(settings: Settings) -> Iterator[Found]:
    data, admin = settings.gateway.listen.data, settings.gateway.listen.admin
    (host, _, port), (other, _, other_port) = data.rpartition(":"), admin.rpartition(":")
    covered = (":" in host) == (":" in other) and {"0.0.0.0", "[::]", "::"} & {host, other}  # noqa: S104 - read
    if int(port) and int(port) == int(other_port) and (host == other or covered):
        message = f"the data plane listens on {data} already; the two need addresses of their own"
        yield GATEWAY, ("listen", "admin"), message


def _store_warnings(settings: Settings) -> Iterator[Found]:
    gateway = settings.gateway
    if gateway.store.kind is StoreKind.MEMORY:
        yield "gateway.yaml", ("store", "kind"), "budgets and keys are forgotten when the gateway stops"
    if gateway.store.kind is not StoreKind.REDIS:
        return
    if gateway.prefixes.secret is None:
        message = (
            "each replica generates a secret of its own, so they cannot share what they learn of prefixes; "
            "give all of them the same one by `env` or `file`"
        )
        yield "gateway.yaml", ("prefixes", "secret"), message


def _ledger_warnings(settings: Settings) -> Iterator[Found]:
    ledger = settings.gateway.ledger
    if ledger.kind is not LedgerKind.POSTGRES:
        return
    if ledger.key is None:
        message = (
            "each replica generates a key of its own, so that no place can verify all chains of the shared "
            "ledger; give all of them the same one by `env` or `file`"
        )
        yield "gateway.yaml", ("ledger", "key"), message


def _glob_warnings(settings: Settings) -> Iterator[Found]:
    known = [facts.id for facts in settings.prices.model_table().known()]
    for name, workspace in settings.workspaces.workspaces.items():
        for index, glob in enumerate(workspace.models):
            if not any(fnmatchcase(model, glob) for model in known):
                path: KeyPath = ("workspaces", name, "models", index)
                yield "workspaces.yaml", path, f"{glob} matches no model of prices.yaml"
    globs: list[tuple[KeyPath, str]] = [
        (("classes", name, index), glob)
        for name, class_ in settings.limits.classes.items()
        for index, glob in enumerate(class_)
    ]
    for number, limit in enumerate(settings.limits.defaults):
        for index, name in enumerate(limit.models):
            if name not in settings.limits.classes:
                globs.append((("defaults", number, "models", index), name))
    for path, glob in globs:
        if not any(fnmatchcase(model, glob) for model in known):
            yield "limits.yaml", path, f"{glob} matches no model of prices.yaml, and is no class"


def _subject_warnings(settings: Settings) -> Iterator[Found]:
    if not any(limit.unit == "usd" for limit in settings.limits.defaults):
        yield "limits.yaml", (), "no limit counts money: nothing bounds what may be spent"


def _strangers(directory: Path) -> list[ConfigProblem]:
    return [
        ConfigProblem(file=str(path), message=f"is not read; the files are {', '.join(FILE_NAMES)}")
        for path in sorted(directory.glob("*.y*ml"))
        if path.name not in FILE_NAMES
    ]


def _unread_variables(environ: Mapping[str, str]) -> list[ConfigProblem]:
    """Variables that would be settings if they were spelt like ones. Others of that prefix are not ours:
    Kubernetes sets some where a service is called `gateway`, and a secret is where a reference says."""
    meant = {
        f"{VARIABLE_PREFIX}{section}_{setting}".upper(): f"{VARIABLE_PREFIX}{section}__{setting}".upper()
        for section, part in GatewayFile.model_fields.items()
        if isinstance(part.annotation, type) and issubclass(part.annotation, BaseModel)
        for setting, field in part.annotation.model_fields.items()
        if SecretRef not in (field.annotation, *get_args(field.annotation))
    }
    return [
        ConfigProblem(file=ENVIRONMENT, key=name, message=f"is not read; did you mean {meant[name]}?")
        for name in sorted(environ.keys() & meant.keys())
    ]
