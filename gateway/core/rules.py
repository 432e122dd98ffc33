"""One immutable snapshot of every policy. A request takes it once and uses it to its end, so that a
reload can never be seen halfway. Built by `settings/build.py`; nothing here reads files or environments."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from gateway.core.adjustments import NOTHING_FROZEN, Freezes
from gateway.core.ids import WorkspaceId

if TYPE_CHECKING:
    from gateway.core.headers import Headers
    from gateway.core.limits import Limits
    from gateway.core.models import ModelTable
    from gateway.core.pricing import PriceTable
    from gateway.core.principal import Keyring


class PlacementMode(StrEnum):
    ON = "on"
    SHADOW = "shadow"
    """Decide and count; send the client's own bytes."""
    OFF = "off"


class ClientMarks(StrEnum):
    """What to do where the client sets breakpoints itself."""

    HANDS_OFF = "hands_off"
    COMPLETE = "complete"


class EstimateMode(StrEnum):
    """How a reservation bounds a request before it is sent."""

    STRICT = "strict"
    """Every byte could be a token, output up to `max_tokens`: never too little."""
    ESTIMATE = "estimate"
    """Typical tokens for the bytes, output capped by a setting: may be overrun, and says so."""


class Unbounded(StrEnum):
    """What becomes of a call whose cost nothing bounds, where strict estimates are promised."""

    REFUSE = "refuse"
    ALLOW = "allow"


class CountTokens(StrEnum):
    """When upstream is asked to count a prompt before it is sent."""

    NEVER = "never"
    NEAR_LIMIT = "near_limit"
    """Where the estimate does not fit into a limit, and half of it would. In estimate mode only."""


class LimitHeaders(StrEnum):
    """Whose rate limits the `anthropic-ratelimit-*` headers of answers describe."""

    OWN = "own"
    """The caller's own limits here; upstream's where there are none."""
    UPSTREAM = "upstream"
    OFF = "off"


class UnknownModels(StrEnum):
    """What becomes of a call for a model that the price table does not name."""

    FALLBACK = "fallback"
    """Relay it, priced as the table's stated fallback, and count it."""
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workspace:
    """A workspace's policy."""

    id: WorkspaceId
    organisation: str
    upstream: str
    """Name of its `Route`."""
    team: str = ""
    """Empty for none."""
    models: tuple[str, ...] = ()
    """Globs of models it may use; empty: all."""
    placement: PlacementMode = PlacementMode.ON
    """The stricter of the workspace's own mode and the gateway's."""
    client_marks: ClientMarks = ClientMarks.HANDS_OFF
    ttl: str = "5m"
    """TTL that the rule-based policy writes with."""
    estimate: EstimateMode = EstimateMode.ESTIMATE
    unbounded: Unbounded = Unbounded.REFUSE
    output_cap_tokens: int = 8_192
    """In estimate mode, the most output that is set aside for one request, until bills have taught better."""
    estimate_quantile: float = 0.9
    """In estimate mode, the share of calls that are to cost no more than was set aside."""
    count_tokens: CountTokens = CountTokens.NEVER
    warming_nanousd_per_day: int = 0
    """What the gateway's own warm-ups may cost it in a day."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Where a workspace's calls go. `credential` puts header lines on every request; what it returns is shown
    by no `repr`, log, metric or error. It may read a file, and raises `CredentialUnavailable`."""

    name: str
    base_url: str
    """Scheme, host, port and an optional path prefix, without a slash at the end."""
    credential: Callable[[], Sequence[tuple[bytes, bytes]]] = field(repr=False)
    proxy: str | None = None
    """HTTP proxy to go through, without a credential."""
    renew: Callable[[Headers], Awaitable[bool]] | None = field(default=None, repr=False)
    """For credentials that are got for a time: asked with the header lines that upstream refused, or with
    none where `credential` raised, it says whether `credential` gives others now. Bounded in time; raises
    nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    generation: int
    workspaces: Mapping[WorkspaceId, Workspace]
    routes: Mapping[str, Route]
    keyring: Keyring
    limits: Limits
    prices: PriceTable
    models: ModelTable
    prefix_secret: bytes = field(repr=False)
    """Keys the digests of prefixes, so that they say nothing to who does not hold it."""
    tag_headers: tuple[str, ...] = ()
    """Request headers (lower case) whose values are kept with the ledger entry; never forwarded."""
    placement_header: str = "x-gateway-placement"
    """Request header (lower case) that turns placement off for one call by the value `off`; not forwarded."""
    cost_headers: bool = True
    """Whether answers say what was placed and set aside."""
    limit_headers: LimitHeaders = LimitHeaders.OWN
    unknown_models: UnknownModels = UnknownModels.FALLBACK
    lease_seconds: float = 900.0
    """How long a reservation holds unless renewed; what a dead replica had set aside is closed then."""
    attempts: int = 3
    """Attempts per call, the first one included."""
    freezes: Freezes = NOTHING_FROZEN
    """Whose calls are not taken at the moment."""
