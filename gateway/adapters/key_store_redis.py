"""Key records in Redis, for several replicas: one hash of records, one of revocations, one of who did those.

A revocation is a field of its own, so that revoking never has to read and write back a record, and no
`put` can undo it. Nothing here is executed twice to another effect: every command may be retried.
"""

from __future__ import annotations

import json
import logging
from typing import cast

from gateway.adapters.redis_records import reached, records_client
from gateway.core.errors import StoreUnavailable
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import KeyRecord

log = logging.getLogger(__name__)

_WHAT = "the keys"


class RedisKeyStore:
    """Records in the hashes `{<prefix>}:keys`, `{<prefix>}:keys:revoked` and `{<prefix>}:keys:revoked:by`.
    Owns its connections."""

    def __init__(self, url: str, *, prefix: str = "cgw", timeout_seconds: float = 0.5) -> None:
        self._redis = records_client(url, prefix, timeout_seconds)
        # The braces put all keys into one slot of a cluster: a record and its revocation are read together.
        self._records = f"{{{prefix}}}:keys"
        self._revoked = f"{{{prefix}}}:keys:revoked"
        self._revoked_by = f"{{{prefix}}}:keys:revoked:by"

    async def load(self) -> tuple[KeyRecord, ...]:
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(self._records)
            pipeline.hgetall(self._revoked)
            pipeline.hgetall(self._revoked_by)
            texts, revoked, by = cast("list[dict[bytes, bytes]]", await reached(_WHAT, pipeline.execute()))
        records = []
        for key_id, text in texts.items():
            record = _record(text, revoked.get(key_id), by.get(key_id, b""))
            if record is None:  # one that cannot be read must not hide that others were revoked
                log.error("the record of key %r in Redis cannot be read; it opens nothing", key_id[:8])
            else:
                records.append(record)
        if texts and not records:
            raise StoreUnavailable("no key record in Redis can be read; is the prefix shared?")
        return tuple(sorted(records, key=lambda record: (record.created_at, record.id)))

    async def put(self, record: KeyRecord) -> None:
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hset(self._records, record.id, _text(record))
            if record.revoked_at is not None:
                pipeline.hsetnx(self._revoked, record.id, repr(record.revoked_at))
                pipeline.hsetnx(self._revoked_by, record.id, record.revoked_by)
            await reached(_WHAT, pipeline.execute())

    async def revoke(self, key_id: KeyId, at: float, by: str = "") -> bool:
        # Records are never removed, so what exists now exists a moment later.
        if not await reached(_WHAT, self._redis.hexists(self._records, key_id)):
            return False
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hsetnx(self._revoked, key_id, repr(at))
            pipeline.hsetnx(self._revoked_by, key_id, by)
            await reached(_WHAT, pipeline.execute())
        return True

    async def close(self) -> None:
        await self._redis.aclose()


def _text(record: KeyRecord) -> str:
    return json.dumps(
        {
            "name": record.name,
            "workspace": record.workspace,
            "digest": record.digest.hex(),
            "created_at": record.created_at,
            "expires_at": record.expires_at,
            "created_by": record.created_by,
            "last4": record.last4,
            "id": record.id,
        }
    )


def _record(text: bytes, revoked_at: bytes | None, revoked_by: bytes) -> KeyRecord | None:
    try:
        fields = json.loads(text)
        return KeyRecord(
            id=KeyId(fields["id"]),
            name=fields["name"],
            workspace=WorkspaceId(fields["workspace"]),
            digest=bytes.fromhex(fields["digest"]),
            created_at=fields["created_at"],
            expires_at=fields["expires_at"],
            revoked_at=None if revoked_at is None else float(revoked_at),
            created_by=fields["created_by"],
            revoked_by=revoked_by.decode("utf-8", "replace"),
            last4=fields["last4"],
        )
    except (ValueError, TypeError, KeyError):
        return None
