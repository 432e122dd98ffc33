"""`gateway.yaml`: what operators decide about a replica and its upstreams.

Only shapes and checks live here. Every field has a working default, and `config/gateway.yaml` shows each of
them; a test keeps the two equal. The docstring of a field is its text in the schema and in config/README.md.
"""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import SplitResult, urlsplit

from cronsim import CronSim, CronSimError
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from gateway.core.rules import LimitHeaders, PlacementMode, UnknownModels
from gateway.settings.alerts import Alerts
from gateway.settings.identity import FederationSettings, SignInSettings
from gateway.settings.ledger import Ledger
from gateway.settings.shared import Name, OwnHeader, SecretRef, Section
from gateway.settings.tracing import Tracing
from gateway.settings.traffic import Capacity, Drain, Retries, Sizes, Timeouts, Workers
from gateway.settings.units import Bytes, PositiveBytes, Seconds, time_zone

MIB = 1 << 20


def _address(value: object) -> str:
    text = value if isinstance(value, str) else ""  # a bare port is a number
    host, _, port = text.rpartition(":")
    if not host or not port.isascii() or not port.isdecimal() or int(port) > 65_535:
        raise ValueError("not an address; write for example 127.0.0.1:8080, [::1]:8080 or 0.0.0.0:8080")
    return text


def _split_url(text: str) -> SplitResult:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.query or url.fragment:
        raise ValueError("not a URL that can be called; write for example https://api.anthropic.com")
    if url.username is not None or url.password is not None:
        raise ValueError("a URL must not hold a credential")
    _ = url.port
    return url


def _base_url(text: str) -> str:
    url = _split_url(text)
    if url.path.rstrip("/").endswith("/v1"):
        raise ValueError("must not end in /v1: the client's path brings it")
    return text.rstrip("/")


def _cron(text: str) -> str:
    if len(text.split()) != 5:
        raise ValueError("a cron expression has five fields here; write for example 45 8 * * mon-fri")
    try:
        CronSim(text, datetime(2026, 1, 1, tzinfo=UTC))
    except CronSimError as error:
        raise ValueError(f"not a cron expression ({error}); write for example 45 8 * * mon-fri") from None
    return text


def _proxy_url(text: str) -> str:
    if _split_url(text).path not in ("", "/"):
        raise ValueError("a proxy is a host and a port, without a path")
    return text.rstrip("/")


Address = Annotated[str, BeforeValidator(_address)]
BaseUrl = Annotated[str, AfterValidator(_base_url)]
ProxyUrl = Annotated[str, AfterValidator(_proxy_url)]
Share = Annotated[float, Field(ge=0, le=1)]


class Listen(Section):
    """Where the gateway listens. Keep the admin plane off public networks."""

    data: Address = "127.0.0.1:8080"
    """Data plane: what apps call."""
    admin: Address = "127.0.0.1:9090"
    """Admin plane: metrics and health. Shows spend by workspace, never content."""
    admin_token: SecretRef | None = None
    """Where a token is found that all of the admin plane but its probes then asks for, as `Authorization:
    Bearer`. Without one, all but probes and metrics is for callers on the same machine."""
    metrics_token: SecretRef | None = None
    """Where a token is found that opens /metrics and nothing else, for whoever scrapes it. The admin token
    opens it too."""
    public_url: BaseUrl | None = None
    """How apps reach the data plane, where links in answers must say so; their own Host header where it is
    not said."""


class State(Section):
    """What a replica keeps: ledger, its sums and id, budgets, keys, adjustments, batches, alerts, sign-outs,
    learned.bin, open-calls.txt, two secrets. deploy/RUNBOOK.md says how to back it up."""

    directory: Annotated[str, Field(min_length=1)] = "var"
    """From the working directory; made where it is missing. It must outlive restarts, on a local disk."""


class Synchronous(StrEnum):
    NORMAL = "normal"
    FULL = "full"


class StoreKind(StrEnum):
    SQLITE = "sqlite"
    REDIS = "redis"
    MEMORY = "memory"


class Store(Section):
    """Where buckets, open reservations and keys live."""

    kind: StoreKind = StoreKind.SQLITE
    """`sqlite` for one replica, `redis` for several, `memory` for trials: forgotten at exit."""
    url: SecretRef = SecretRef(env="REDIS_URL")
    """Where the URL of the `redis` store is found, as redis://host:6379/0 or rediss://... with TLS; or
    redis+sentinel://h1,h2,h3/mymaster/0 and redis+cluster://h1,h2, likewise with rediss+."""
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,32}$")] = "cgw"
    """All Redis keys begin with it, in braces; two gateways that share a server need two of them."""
    synchronous: Synchronous = Synchronous.NORMAL
    """Of the `sqlite` store. `full`: not even a power failure forgets anything; slower."""
    lease: Annotated[Seconds, Field(ge=60, le=86_400)] = 900.0
    """How long a reservation holds unless it is renewed; what a dead replica had set aside is closed then."""


class Policy(StrEnum):
    RULES = "rules"
    LEARNED = "learned"


class PlacementSettings(Section):
    """Whether the gateway adds breakpoints, for all workspaces; each one may ask for less."""

    policy: Policy = Policy.LEARNED
    """`rules`: by the shape of each request. `learned`: by what each prefix's kind has been seen to be read
    again, with a bound on what trying may lose."""
    mode: PlacementMode = PlacementMode.ON
    """`on`; `shadow`: decide and count, send the client's own bytes; `off`."""
    header: OwnHeader = "x-gateway-placement"
    """A request that carries this header with the value `off` gets no breakpoints."""
    regret_share: Share = 0.005
    """What `learned` may lose at most against no caching while it tries things out, as a share of a
    workspace's input cost."""
    hold: Annotated[Seconds, Field(ge=0, le=10)] = 8.0
    """The longest that `learned` holds a request for another that is writing the same prefix; `0s` never."""
    holdout_share: Annotated[float, Field(ge=0, le=0.5)] = 0.0
    """Share of conversations that `learned` leaves alone, to measure what it saves with the others."""
    layered_trust: Share = 0.9
    """Belief, before anything was measured, that a 1h entry written behind a 5m one is readable for an hour;
    reported usage corrects it."""
    known_prefixes: Annotated[int, Field(ge=1_024, le=1 << 24)] = 1 << 18
    """Prefixes that `learned` remembers; 26 to 52 bytes each, taken at the start."""
    recent_bodies: Bytes = 64 * MIB
    """Memory for bodies of the last ten minutes: what a conversation repeats need not be read and digested
    again. `0B` keeps none."""
    share: bool = True
    """With the `redis` store: replicas tell each other what they saw, so that they learn as one and a prefix
    is written once."""
    recording: Annotated[str, Field(min_length=1)] | None = None
    """A file to which `learned` adds what `gateway replay` needs of each request: digests, lengths and token
    counts, no text. Nothing is recorded where it is not said."""


class Schedule(Section):
    """Prompts to be warm at a certain time, as before office hours."""

    cron: Annotated[str, AfterValidator(_cron)]
    """Minute, hour, day of month, month, day of week, as `45 8 * * mon-fri`."""
    timezone: Annotated[str, AfterValidator(time_zone)] = "UTC"
    """IANA name, as Europe/Berlin."""
    workspace: Name
    """Whose prompts they are, and whose warming budget pays."""
    prompts: Annotated[str, Field(min_length=1)]
    """A file with a request body on each line, as for `gateway prewarm`."""


class Warming(Section):
    """Warm-ups: requests of the gateway's own that write or prolong cache entries and generate nothing. Paid
    from each workspace's `warming_per_day`."""

    keep_alive: bool = True
    """With the `learned` policy: prolong entries that are likely to be read after their end, where that pays.
    The prompts concerned are kept in memory meanwhile, never on disk."""
    memory: PositiveBytes = 64 * MIB
    """For those prompts; beyond it the oldest are forgotten."""
    per_minute: Annotated[int, Field(ge=1, le=10_000)] = 60
    """Warm-ups of one replica in a minute, at most."""
    schedules: dict[Name, Schedule] = Field(default_factory=dict)
    """By name."""


class CredentialHeader(StrEnum):
    BEARER = "bearer"
    X_API_KEY = "x-api-key"


class Upstream(Section):
    """A place that serves the Messages API, and the credential for it."""

    base_url: BaseUrl = "https://api.anthropic.com"
    """Scheme, host, port and an optional path, without `/v1`."""
    credential: SecretRef = SecretRef(env="ANTHROPIC_API_KEY")
    """Where the credential for it is found."""
    header: CredentialHeader = CredentialHeader.BEARER
    """`bearer` sends `Authorization: Bearer`, `x-api-key` the older header."""
    workspace_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,128}$")] | None = None
    """Sent as `anthropic-workspace-id`: needed with keys that serve several workspaces."""
    betas: tuple[Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")], ...] = ()
    """Added to the client's `anthropic-beta` list: what the credential itself needs, as oauth-2025-04-20."""
    proxy: ProxyUrl | None = None
    """HTTP proxy to go through, as http://proxy.internal:3128. The environment's own is not looked at."""
    federation: FederationSettings | None = None
    """In place of `credential`: a token that is got for an identity of the gateway's own, and renewed."""

    @model_validator(mode="after")
    def _federation_brings_its_own(self) -> Self:
        if self.federation is None:
            return self
        if self.header is not CredentialHeader.BEARER:
            raise ValueError("tokens of federation are sent as bearer; leave `header` out")
        if self.workspace_id is not None:
            raise ValueError("a token of federation has its workspace; name it in federation.workspace")
        return self


class LogLevel(StrEnum):
    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    JSON = "json"
    TEXT = "text"


class Logging(Section):
    """One line for each exchange on standard output, the process's own log on standard error. Neither holds
    content or credentials."""

    level: LogLevel = LogLevel.INFO
    """`debug`, `info`, `warning` or `error`."""
    format: LogFormat = LogFormat.JSON
    """`json` for machines, `text` for people."""


class Metrics(Section):
    """How much the metrics tell apart."""

    workspace_label: bool = True
    """Off: all workspaces are counted as one."""
    model_label: bool = True
    """Off: all models are counted as one."""
    max_label_sets: Annotated[int, Field(ge=10, le=100_000)] = 2_000
    """Label sets per metric; what comes later is counted as `other`."""


class Tags(Section):
    """Headers by which apps say what a call was for; they go into the ledger, never upstream."""

    headers: Annotated[tuple[OwnHeader, ...], Field(max_length=8)] = ()
    """Names that are kept, as x-team; all others are ignored."""


class Prefixes(Section):
    """How prefixes are known. No prompt text is kept: a prefix is a keyed digest."""

    secret: SecretRef | None = None
    """Where the key of the digests is found: 32 bytes or more that nobody can guess. Where it is not said, it
    is made once, in the state directory; replicas that share a store must share it, and so must name one."""


class Responses(Section):
    """What the gateway adds to answers."""

    cost_headers: bool = True
    """`x-gateway-breakpoints`, `x-gateway-cache` and `x-gateway-reserved-usd`: what was placed, what that is
    expected to do, and what was set aside."""
    limit_headers: LimitHeaders = LimitHeaders.OWN
    """What `anthropic-ratelimit-*` describe. `own`: the caller's tightest limits of requests and tokens here,
    or upstream's for callers without any. `upstream`: upstream's. `off`: neither crosses."""


class Models(Section):
    """Models that prices.yaml does not know."""

    unknown: UnknownModels = UnknownModels.FALLBACK
    """`fallback`: relay, priced as the stated fallback and counted; `refuse`: 403."""


class Page(Section):
    """The page of the admin plane, for browsers: budgets, keys, spend. Behind `listen.admin_token`, if there
    is one; without any way to sign in it answers browsers on the gateway's own machine only."""

    enabled: bool = True
    """Off: the admin plane is for machines only."""
    public_url: BaseUrl | None = None
    """How browsers reach the admin plane, as https://gateway.example.com, where a proxy stands in between:
    cookies are then for https only. Needs `listen.admin_token`."""
    timezone: Annotated[str, AfterValidator(time_zone)] = "UTC"
    """IANA name, as Europe/Berlin, of all times on the page."""
    idle: Annotated[Seconds, Field(ge=60, le=604_800)] = 3_600.0
    """How long after it was last used a session ends."""
    longest: Annotated[Seconds, Field(ge=60, le=604_800)] = 43_200.0
    """How long after its sign-in a session ends at the latest."""
    sign_in: SignInSettings | None = None
    """An identity provider that people sign in at, next to the admin token. Needs `public_url`,
    `listen.admin_token` and the package's extra `oidc`."""


class GatewayFile(Section):
    """The whole of gateway.yaml."""

    listen: Listen = Listen()
    workers: Workers = Workers()
    state: State = State()
    store: Store = Store()
    ledger: Ledger = Ledger()
    upstreams: Annotated[dict[Name, Upstream], Field(min_length=1)] = Field(
        default_factory=lambda: {"default": Upstream()}
    )
    """By the names that workspaces.yaml uses."""
    placement: PlacementSettings = PlacementSettings()
    warming: Warming = Warming()
    models: Models = Models()
    responses: Responses = Responses()
    tags: Tags = Tags()
    prefixes: Prefixes = Prefixes()
    timeouts: Timeouts = Timeouts()
    sizes: Sizes = Sizes()
    capacity: Capacity = Capacity()
    retries: Retries = Retries()
    drain: Drain = Drain()
    logging: Logging = Logging()
    metrics: Metrics = Metrics()
    page: Page = Page()
    alerts: Alerts = Alerts()
    tracing: Tracing = Tracing()

    def state_path(self, name: str) -> Path:
        """A file of the state directory."""
        return Path(self.state.directory) / name


BUDGETS_FILE, KEYS_FILE, LEDGER_FILE = "budgets.sqlite3", "keys.sqlite3", "ledger.sqlite3"
LEARNED_FILE = "learned.bin"
ADJUSTMENTS_FILE = "adjustments.sqlite3"
BATCHES_FILE = "batches.sqlite3"
PREFIX_SECRET_FILE = "prefix.secret"  # noqa: S105 - a name
LEDGER_KEY_FILE = "ledger.key"
ALERTS_FILE = "alerts.sqlite3"
SIGNED_OUT_FILE = "signed-out.sqlite3"
OPEN_CALLS_FILE = "open-calls.txt"
"""Names in the state directory."""

RESTART_SECTIONS = (
    "listen",
    "workers",
    "state",
    "store",
    "ledger",
    "prefixes",
    "warming",
    "timeouts",
    "sizes",
    "capacity",
    "drain",
    "logging",
    "metrics",
    "page",
    "tracing",
)
"""Sections that a running gateway does not take over; a reload reports which of them changed."""
