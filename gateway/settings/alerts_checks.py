"""The targets of alerts as they are sent to, and what no single file can tell of them. `checks.py` asks."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gateway.core.alerts import Target
from gateway.settings.alerts import Alerts
from gateway.settings.secrets import is_available, secret_reader
from gateway.settings.shared import SecretRef
from gateway.settings.source import KeyPath

if TYPE_CHECKING:
    from gateway.settings.load import Settings

Found = tuple[str, KeyPath, str]


def build_targets(alerts: Alerts, environ: Mapping[str, str]) -> tuple[Target, ...]:
    """The targets as they are sent to; URLs and secrets are read when they are needed."""
    return tuple(
        Target(
            name=name,
            format=target.format,
            url=secret_reader(target.url, environ),
            secret=secret_reader(target.secret, environ) if target.secret else None,
            private=target.private,
            kinds=frozenset(kind.value for kind in target.kinds),
            organisations=frozenset(target.organisations),
            teams=frozenset(target.teams),
            workspaces=frozenset(target.workspaces),
            contacts=frozenset(target.contacts),
        )
        for name, target in alerts.targets.items()
    )


def alert_errors(settings: Settings) -> Iterator[Found]:
    """Names that filters use and that are not there."""
    workspaces = settings.workspaces.workspaces
    known = {
        "organisations": {each.organisation for each in workspaces.values()},
        "teams": {each.team for each in workspaces.values() if each.team},
        "workspaces": set(workspaces),
    }
    for name, target in settings.gateway.alerts.targets.items():
        for field, names in known.items():
            for index, wanted in enumerate(getattr(target, field)):
                if wanted not in names:
                    path: KeyPath = ("alerts", "targets", name, field, index)
                    there = ", ".join(sorted(names)) or "none"
                    message = f"workspaces.yaml has no {field.removesuffix('s')} {wanted!r}; it has: {there}"
                    yield "gateway.yaml", path, message


def alert_warnings(settings: Settings) -> Iterator[Found]:
    """What cannot be sent to now. The URL itself is never said."""
    for name, target in settings.gateway.alerts.targets.items():
        for field, ref in (("url", target.url), ("secret", target.secret)):
            path: KeyPath = ("alerts", "targets", name, field)
            if ref is not None and not is_available(ref, settings.environ):
                yield "gateway.yaml", path, f"{ref} cannot be read now; nothing is sent there until it can"
            elif ref is target.url and urlsplit(_read(target.url, settings)).scheme not in ("https", "http"):
                yield "gateway.yaml", path, f"{ref} holds no URL that begins with https://"


def _read(ref: SecretRef, settings: Settings) -> str:
    try:
        return secret_reader(ref, settings.environ)()
    except (OSError, ValueError):
        return ""
