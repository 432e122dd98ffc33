"""Who is calling: virtual keys by digest, and the principal that a credential stands for.

A key reads `cgw_<id>_<secret><check>`: 8 base62 characters of public id, 32 of secret (190 bits), 6 of
CRC-32 over all before it, so that scanners and people notice a typo without asking anybody. The secret is
shown once and stored nowhere: records hold the SHA-256 of the whole text, which is enough for 190 random
bits (slow hashes are for passwords). Where records are kept is the business of the key stores.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import msgspec

from gateway.core.bearer import looks_like_token
from gateway.core.claims import Bearer
from gateway.core.errors import StoreUnavailable, Unauthenticated
from gateway.core.ids import KeyId, WorkspaceId

RANDOM_BYTES = 40
"""How much randomness one key takes."""
CREDENTIAL_HEADERS = frozenset({b"authorization", b"x-api-key"})
"""Where a client's key comes in; neither header may ever go upstream as it came."""

DEFAULT_ORGANISATION = "default"

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# Published in config/README.md, for secret scanners; the last six characters are the check.
_KEY = re.compile(rb"cgw_([0-9A-Za-z]{8})_([0-9A-Za-z]{38})")
_WARMING = "warming:"
_ID_LENGTH, _SECRET_LENGTH, _CHECK_LENGTH = 8, 32, 6


class Principal(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The caller as the gateway knows it. Never carries the secret."""

    workspace: WorkspaceId
    key_id: KeyId
    key_name: str
    organisation: str = DEFAULT_ORGANISATION
    team: str = ""
    """The team of the workspace; empty for none."""
    tags: tuple[tuple[str, str], ...] = ()
    """Tags that its token brought along; they go before those of headers."""


def warming_principal(workspace: WorkspaceId, organisation: str, team: str = "") -> Principal:
    """The gateway itself, on behalf of a workspace: it has a key's id for its budget, but no key."""
    return Principal(
        workspace=workspace,
        key_id=KeyId(_WARMING + workspace),
        key_name="warming",
        organisation=organisation,
        team=team,
    )


def is_warming(principal: Principal) -> bool:
    """Whether it is the gateway itself; by the id, which no key can have. A key's name may be any."""
    return principal.key_id.startswith(_WARMING)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyRecord:
    """What is kept of a virtual key. Instants are epoch seconds. Nothing in it opens anything."""

    id: KeyId
    name: str
    workspace: WorkspaceId
    digest: bytes = field(repr=False)
    """SHA-256 of the key's whole text."""
    created_at: float
    expires_at: float | None = None
    revoked_at: float | None = None
    created_by: str = ""
    revoked_by: str = ""
    """Who did that; empty where nobody did, or it is not known."""
    last4: str = ""
    """The last four characters, by which people tell their keys apart."""

    def is_active(self, now: float) -> bool:
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def mint_key(
    *,
    random_bytes: bytes,
    name: str,
    workspace: WorkspaceId,
    created_at: float,
    created_by: str = "",
    expires_at: float | None = None,
) -> tuple[str, KeyRecord]:
    """A new key's text, to be shown once, and the record to keep. `random_bytes`: `RANDOM_BYTES` of them,
    from the system's source of secrets; the same bytes make the same key."""
    if len(random_bytes) != RANDOM_BYTES:
        raise ValueError(f"a key takes exactly {RANDOM_BYTES} random bytes")
    # 320 random bits for 238 bits of text: what the remainder prefers is below one in 2^80.
    body = _base62(int.from_bytes(random_bytes), _ID_LENGTH + _SECRET_LENGTH)
    key_id, secret = body[:_ID_LENGTH], body[_ID_LENGTH:]
    text = f"cgw_{key_id}_{secret}"
    text += _check(text.encode())
    record = KeyRecord(
        id=KeyId(key_id),
        name=name,
        workspace=workspace,
        digest=key_digest(text),
        created_at=created_at,
        expires_at=expires_at,
        created_by=created_by,
        last4=text[-4:],
    )
    return text, record


def key_digest(text: str) -> bytes:
    """The digest that a record holds for a key's text."""
    return hashlib.sha256(text.encode()).digest()


class Tokens(Protocol):
    """Whoever verifies tokens that others issued (JWTs)."""

    def identify(self, token: bytes, now: float) -> Bearer:
        """Whom a token stands for. Raises `Unauthenticated`, `Forbidden` or `StoreUnavailable`."""
        ...


class Keyring:
    """All keys that may call, at one moment; immutable. `tokens` knows callers without a key.

    `organisations` names the organisation of each configured workspace, `teams` the team of those that have
    one. A key of a workspace that is not configured does not open anything.
    """

    __slots__ = ("_complete", "_organisations", "_records", "_teams", "_tokens")

    def __init__(
        self,
        records: Iterable[KeyRecord],
        organisations: Mapping[WorkspaceId, str],
        *,
        complete: bool = True,
        teams: Mapping[WorkspaceId, str] | None = None,
        tokens: Tokens | None = None,
    ) -> None:
        """Without `complete` the store could not be read yet: a key that is not here may still be good."""
        self._complete = complete
        self._organisations = dict(organisations)
        self._teams = dict(teams or {})
        self._tokens = tokens
        self._records = {
            record.id.encode(): record for record in records if record.workspace in self._organisations
        }

    def __len__(self) -> int:
        return len(self._records)

    def identify(self, credential: str | bytes, now: float) -> Principal:
        """Whose credential this is. Raises `Unauthenticated`, the same for unknown, malformed, expired and
        revoked keys, and after the same work: one digest and one comparison in constant time. Raises
        `StoreUnavailable` for keys that are not here while the ring is not complete. A token is judged by
        whoever knows tokens, and raises what that raises."""
        raw = credential if isinstance(credential, bytes) else credential.encode("utf-8", "surrogateescape")
        shape = _KEY.fullmatch(raw)
        if shape is None and self._tokens is not None and looks_like_token(raw):
            return self._bearer(self._tokens.identify(raw, now))
        record = self._records.get(shape[1], _NOBODY) if shape else _NOBODY
        same = hmac.compare_digest(hashlib.sha256(raw).digest(), record.digest)
        if not self._complete and record is _NOBODY:
            raise StoreUnavailable("The gateway's keys cannot be read at the moment; try again soon.")
        if not (same and record.is_active(now)):
            raise Unauthenticated
        return self._principal(record)

    def records(self) -> Collection[KeyRecord]:
        """Of all keys, good or not."""
        return self._records.values()

    def record(self, key_id: str) -> KeyRecord | None:
        """What is kept of the key with this id, whether it is good or not; None where there is none."""
        return self._records.get(key_id.encode())

    def principals(self, now: float) -> Iterator[Principal]:
        """Whom the keys stand for that may call at this instant."""
        return (self._principal(record) for record in self._records.values() if record.is_active(now))

    def _bearer(self, bearer: Bearer) -> Principal:
        if bearer.workspace not in self._organisations:
            raise Unauthenticated
        return Principal(
            workspace=bearer.workspace,
            key_id=bearer.subject,
            key_name=bearer.name,
            organisation=self._organisations[bearer.workspace],
            team=self._teams.get(bearer.workspace, ""),
            tags=bearer.tags,
        )

    def _principal(self, record: KeyRecord) -> Principal:
        return Principal(
            workspace=record.workspace,
            key_id=record.id,
            key_name=record.name,
            organisation=self._organisations[record.workspace],
            team=self._teams.get(record.workspace, ""),
        )


def find_credential(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """The key that a request carries: `Authorization: Bearer` or `x-api-key`.

    Both may be there if they agree (Claude Code's key helper sends both). Raises `Unauthenticated` for none,
    for either one twice, for two that differ, and for another scheme than Bearer.
    """
    found: dict[bytes, bytes] = {}
    for name, value in headers:
        lowered = name.lower()
        if lowered not in CREDENTIAL_HEADERS:
            continue
        if lowered in found:
            raise Unauthenticated
        found[lowered] = _bearer(value) if lowered == b"authorization" else value.strip(b" \t")
    if len(set(found.values())) != 1:
        raise Unauthenticated
    return next(iter(found.values()))


def _bearer(value: bytes) -> bytes:
    scheme, _, token = value.strip(b" \t").partition(b" ")
    if scheme.lower() != b"bearer":
        raise Unauthenticated
    return token.lstrip(b" ")


def _check(raw: bytes) -> str:
    return _base62(zlib.crc32(raw), _CHECK_LENGTH)


def _base62(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))


_NOBODY = KeyRecord(
    id=KeyId(""), name="", workspace=WorkspaceId(""), digest=bytes(32), created_at=0.0, revoked_at=0.0
)
"""Compared with where no record has the id; no text is known to have this digest, and it is revoked."""
