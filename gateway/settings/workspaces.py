"""`workspaces.yaml`: who may use what, decided by whoever answers for security."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Self

from pydantic import AwareDatetime, Field, model_validator

from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import KeyRecord
from gateway.core.prompt import TTL
from gateway.core.rules import ClientMarks, CountTokens, EstimateMode, PlacementMode, Unbounded
from gateway.settings.identity import IssuerSettings
from gateway.settings.limits import ModelGlob
from gateway.settings.shared import Name, Section
from gateway.settings.units import Usd


class DeclaredKey(Section):
    """A key that is kept here, by its digest, instead of in the store. `gateway keys create --declare`
    prints one; nothing in it opens anything."""

    id: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{8}$")]
    """The public part, between the two underscores of the key."""
    name: Annotated[str, Field(min_length=1, max_length=100)]
    """For whom or what it is."""
    digest: Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$")]
    """SHA-256 of the whole key."""
    created: AwareDatetime = datetime(1970, 1, 1, tzinfo=UTC)
    """When it was made, as 2026-11-22T12:00:00Z."""
    expires: AwareDatetime | None = None
    """From when on it opens nothing; never where it is not said."""
    last4: Annotated[str, Field(pattern=r"^[0-9A-Za-z]{4}$")] | None = None
    """The last four characters, to tell keys apart."""

    def record(self, workspace: WorkspaceId) -> KeyRecord:
        """The value that the core works with."""
        return KeyRecord(
            id=KeyId(self.id),
            name=self.name,
            workspace=workspace,
            digest=bytes.fromhex(self.digest.removeprefix("sha256:")),
            created_at=self.created.timestamp(),
            expires_at=self.expires.timestamp() if self.expires else None,
            created_by="workspaces.yaml",
            last4=self.last4 or "",
        )


class WorkspaceSettings(Section):
    """One workspace: keys, budgets and caches of different workspaces never mix."""

    upstream: Name = "default"
    """Name of an upstream in gateway.yaml. Workspaces whose prompts must not share a cache need upstreams
    with credentials of different workspaces of the provider."""
    organisation: Name = "default"
    """Which organisation's limits count it as well."""
    team: Name | None = None
    """Which team's limits count it as well; none where it is not said."""
    models: tuple[ModelGlob, ...] = ()
    """Globs of the models it may use, as claude-haiku-*; all where empty. Fallbacks and advisors that a call
    names have to be among them."""
    placement: PlacementMode = PlacementMode.ON
    """`on`, `shadow` or `off`; the gateway's own mode can only lower it."""
    client_marks: ClientMarks = ClientMarks.HANDS_OFF
    """Where a client sets breakpoints itself: `hands_off` adds none; `complete` adds to them."""
    ttl: TTL = TTL.FIVE_MINUTES
    """`5m` or `1h`: TTL of the breakpoints that the gateway adds. An hour costs more to write."""
    estimate: EstimateMode = EstimateMode.ESTIMATE
    """`estimate` sets aside what is likely, and may be overrun; `strict` sets aside the most that a call can
    cost, so that a budget is never exceeded."""
    unbounded: Unbounded = Unbounded.REFUSE
    """Where a limit of dollars is enforced, what becomes of a call whose cost the gateway is never told (text
    completions, sessions of managed agents) and, under `strict`, of one that nothing in it bounds (server
    tools, fallbacks, threads): `refuse`, saying why, or `allow`, and perhaps overrun."""
    output_cap_tokens: Annotated[int, Field(ge=1, le=1_000_000)] = 8_192
    """Output that `estimate` sets aside at most, whatever `max_tokens` says, until enough calls like it have
    been billed to know what they write."""
    estimate_quantile: Annotated[float, Field(ge=0.5, le=0.99)] = 0.9
    """Share of the calls that `estimate` lets cost no more than it sets aside for them, as learned from their
    bills. More of it keeps limits from being overrun, less lets more calls run at a time."""
    count_tokens: CountTokens = CountTokens.NEVER
    """`near_limit`: before a call is refused by a limit that half of its estimate would fit into, the API is
    asked to count its prompt, which is free and takes a second at most. Under `estimate` only."""
    warming_per_day: Usd = 5_000_000_000
    """What the gateway's own warm-ups may cost this workspace in a day (UTC), as $5.00; they count against
    its other limits as well. `$0.00`: none are sent."""
    keys: tuple[DeclaredKey, ...] = ()
    """Keys by digest, next to those in the store."""


class WorkspacesFile(Section):
    """The whole of workspaces.yaml."""

    workspaces: Annotated[dict[Name, WorkspaceSettings], Field(min_length=1)]
    """By name."""
    issuers: Annotated[dict[Name, IssuerSettings], Field(max_length=32)] = Field(default_factory=dict)
    """By a name of your own: those whose tokens are taken in place of keys."""

    @model_validator(mode="after")
    def _key_ids_are_unique(self) -> Self:
        seen: set[str] = set()
        for settings in self.workspaces.values():
            for key in settings.keys:
                if key.id in seen:
                    raise ValueError(f"two keys have the id {key.id}")
                seen.add(key.id)
        return self
