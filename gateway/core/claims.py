"""From the claims of a verified token to whom it stands for: a workspace, and a subject that limits, ledger
and freezes treat like a key. Pure, and by explicit rules only: the first that matches decides, and none is a
refusal.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from gateway.core.bearer import BadToken, Claims, Issuer
from gateway.core.errors import Forbidden
from gateway.core.ids import KeyId, WorkspaceId

SUBJECT_PREFIX: Final = "token:"
"""Ids of subjects begin with it; no virtual key's can."""
MAX_SUBJECT_LENGTH: Final = 100
"""Of the part of an id that is the token's own."""
MAX_VALUE_LENGTH: Final = 200
"""Of names and tags."""
MAX_VALUES: Final = 1_000
"""How many elements of a claim that is a list are looked at."""

_STRANGE = re.compile(r"[^A-Za-z0-9._:@/+=|-]")
_UNPRINTABLE = re.compile(r"[^ -~]")


Conditions = tuple[tuple[str, tuple[str, ...]], ...]
"""Claims, and the globs of which one must match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimRule:
    """All conditions must hold. A condition is a claim and globs, of which one must match its value, or one
    of its values where it is a list."""

    conditions: Conditions
    workspace: WorkspaceId
    name: str = ""
    """Claim that people know the subject by; empty: the subject itself."""
    tags: tuple[tuple[str, str], ...] = ()
    """Tag header (lower case) and the claim that gives its value, empty where there is none: the rule says
    who sets the tag, so that a caller whose token says nothing cannot say it by the header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bearer:
    """Whom a token stands for."""

    workspace: WorkspaceId
    subject: KeyId
    name: str
    tags: tuple[tuple[str, str], ...] = ()


def bearer_of(claims: Claims, issuer: Issuer) -> Bearer:
    """Raises `BadToken` for a token that names no subject, `Forbidden` where no rule matches."""
    own = find_claim(claims, issuer.subject)
    if not isinstance(own, str) or not own:
        raise BadToken(f"it does not say whom it stands for (`{issuer.subject}`).")
    for rule in issuer.rules:
        if hold(claims, rule.conditions):
            return Bearer(
                workspace=rule.workspace,
                subject=subject_id(issuer.name, own),
                name=(_text(claims, rule.name) if rule.name else "") or _printable(own),
                tags=tuple((tag, _text(claims, path)) for tag, path in rule.tags),
            )
    raise Forbidden(
        f"The token is good, but no rule of issuer {issuer.name} gives its subject a workspace of this "
        "gateway. Ask whoever runs the gateway to add one."
    )


def subject_id(issuer: str, subject: str) -> KeyId:
    """The id of a subject: readable, bounded, safe in logs and keys, and another one for each subject. What
    was cut or replaced is made up for by digits of a digest."""
    plain = _STRANGE.sub("_", subject)
    if plain != subject or len(plain) > MAX_SUBJECT_LENGTH:
        digest = hashlib.sha256(subject.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        plain = f"{plain[: MAX_SUBJECT_LENGTH - 17]}~{digest}"
    return KeyId(f"{SUBJECT_PREFIX}{issuer}:{plain}")


def is_subject(key_id: str) -> bool:
    """Whether an id is that of a token's subject, and not of a key."""
    return key_id.startswith(SUBJECT_PREFIX)


def hold(claims: Claims, conditions: Conditions) -> bool:
    """Whether all of them do."""
    return all(_holds(claims, path, globs) for path, globs in conditions)


def find_claim(claims: Claims, path: str) -> object:
    """The claim of this name; or, for a path that begins with a slash, what a JSON Pointer (RFC 6901) finds
    within objects: `/kubernetes.io/namespace`. None where there is none."""
    if not path.startswith("/"):
        return claims.get(path)
    found: object = claims
    for part in path[1:].split("/"):
        if not isinstance(found, dict):
            return None
        found = found.get(part.replace("~1", "/").replace("~0", "~"))
    return found


def _holds(claims: Claims, path: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(value, glob) for value in _values(find_claim(claims, path)) for glob in globs)


def _values(found: object) -> Iterator[str]:
    """Text as it is, true and false and whole numbers as JSON writes them; nothing else can be matched."""
    for value in found[:MAX_VALUES] if isinstance(found, list) else [found]:
        if isinstance(value, str):
            yield value
        elif isinstance(value, bool):
            yield "true" if value else "false"
        elif isinstance(value, int):
            yield str(value)


def _text(claims: Claims, path: str) -> str:
    return _printable(next(_values(find_claim(claims, path)), ""))


def _printable(text: str) -> str:
    return _UNPRINTABLE.sub("_", text)[:MAX_VALUE_LENGTH].strip()
