"""Who is calling: virtual keys by digest, and the principal that a credential stands for."""

from __future__ import annotations

from dataclasses import dataclass

from gateway.core.ids import KeyId, WorkspaceId


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """The caller as the gateway knows it. Never carries the secret."""

    workspace: WorkspaceId
    key_id: KeyId
    key_name: str
    organisation: str = "default"
