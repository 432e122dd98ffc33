"""From settings to the values that a running gateway works with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from gateway.core.adjustments import Adjustment, apply
from gateway.core.errors import ConfigError
from gateway.core.ids import WorkspaceId
from gateway.core.limits import Limit, Limits, OnStoreFailure, Period, Scope, Unit
from gateway.core.planner import PlannerOptions
from gateway.core.principal import KeyRecord, Keyring, Tokens, warming_principal
from gateway.core.rules import PlacementMode, Route, Rules, Workspace
from gateway.core.schedule import Schedule
from gateway.settings.gateway import GatewayFile
from gateway.settings.limits import LimitUnit, Per, read_amount
from gateway.settings.load import Settings
from gateway.settings.secrets import prefix_secret, upstream_credential
from gateway.settings.workspaces import WorkspaceSettings

_STRICTNESS = (PlacementMode.ON, PlacementMode.SHADOW, PlacementMode.OFF)


def build_rules(settings: Settings, keyring: Keyring, generation: int) -> Rules:
    """One snapshot. Reads the secret of prefixes (and makes it, where it is to be generated and missing);
    credentials of upstreams are read when they are needed. Raises `ConfigError`."""
    gateway = settings.gateway
    return Rules(
        generation=generation,
        workspaces={
            WorkspaceId(name): _workspace(name, workspace, gateway.placement.mode)
            for name, workspace in settings.workspaces.workspaces.items()
        },
        routes={
            name: Route(
                name=name,
                base_url=upstream.base_url,
                credential=upstream_credential(name, upstream, settings.environ),
                proxy=upstream.proxy,
            )
            for name, upstream in gateway.upstreams.items()
        },
        keyring=keyring,
        limits=build_limits(settings),
        prices=settings.prices.price_table(),
        models=settings.prices.model_table(),
        prefix_secret=prefix_secret(gateway, settings.environ),
        tag_headers=gateway.tags.headers,
        placement_header=gateway.placement.header,
        cost_headers=gateway.responses.cost_headers,
        limit_headers=gateway.responses.limit_headers,
        unknown_models=gateway.models.unknown,
        lease_seconds=gateway.store.lease,
        attempts=gateway.retries.attempts,
    )


def build_limits(settings: Settings, adjustments: Sequence[Adjustment] = (), at: float = 0.0) -> Limits:
    """Defaults and overrides in configured order, then what warm-ups may cost; all with what `adjustments`
    make of them at the instant `at`. Raises `ConfigError`."""
    warming = (
        _warming_limit(WorkspaceId(name), workspace)
        for name, workspace in settings.workspaces.workspaces.items()
    )
    try:
        return apply(Limits((*settings.limits.limits(), *warming)), adjustments, at)
    except ValueError as error:
        raise ConfigError(f"limits.yaml: {error}") from None


def read_adjusted(limit: Limit, amount: str | int) -> int:
    """`amount` as people write it in limits.yaml, in the unit of this limit. Raises `ValueError`."""
    if limit.unit is Unit.NANOUSD:
        unit = LimitUnit.USD
    else:
        unit = LimitUnit.INPUT_TOKENS if limit.unit is Unit.PROMPT_TOKENS else LimitUnit(limit.unit.value)
    period = limit.period.value.removeprefix("calendar_")
    return read_amount(unit, None if limit.period is Period.OPEN else Per(period), amount)


def _warming_limit(workspace: WorkspaceId, settings: WorkspaceSettings) -> Limit:
    """Nobody waits for a warm-up: where the budget cannot be asked, it is not sent."""
    return Limit(
        id="warming",
        scope=Scope.KEY,
        unit=Unit.NANOUSD,
        amount=settings.warming_per_day,
        period=Period.CALENDAR_DAY,
        on_store_failure=OnStoreFailure.REFUSE,
        subjects=(warming_principal(workspace, settings.organisation).key_id,),
        comment="what the gateway's own warm-ups may cost",
    )


def planner_options(file: GatewayFile) -> PlannerOptions:
    """What the operator set of the learning policy."""
    placement = file.placement
    return PlannerOptions(
        capacity=placement.known_prefixes,
        regret_share=placement.regret_share,
        layered_trust=placement.layered_trust,
        hold_seconds=placement.hold,
        warming=file.warming.keep_alive,
    )


def build_schedules(settings: Settings) -> tuple[Schedule, ...]:
    """The schedules of warm-ups, by name."""
    return tuple(
        Schedule(
            name=name,
            cron=schedule.cron,
            timezone=schedule.timezone,
            workspace=schedule.workspace,
            prompts=schedule.prompts,
        )
        for name, schedule in sorted(settings.gateway.warming.schedules.items())
    )


def build_keyring(
    settings: Settings,
    stored: Iterable[KeyRecord],
    *,
    complete: bool = True,
    tokens: Tokens | None = None,
) -> Keyring:
    """The keys of the store and those that workspaces.yaml declares. Revoked in one place is revoked: the
    command revokes a declared key by a record of the same id in the store."""
    records = {record.id: record for record in declared_keys(settings)}
    for record in stored:
        declared = records.get(record.id)
        records[record.id] = replace(declared, revoked_at=_first(declared, record)) if declared else record
    workspaces = settings.workspaces.workspaces
    return Keyring(
        records.values(),
        {WorkspaceId(name): workspace.organisation for name, workspace in workspaces.items()},
        complete=complete,
        teams={WorkspaceId(name): workspace.team for name, workspace in workspaces.items() if workspace.team},
        tokens=tokens,
    )


def _first(one: KeyRecord, other: KeyRecord) -> float | None:
    """When either of them was first revoked."""
    return min((each.revoked_at for each in (one, other) if each.revoked_at is not None), default=None)


def declared_keys(settings: Settings) -> tuple[KeyRecord, ...]:
    """The keys that workspaces.yaml declares by digest."""
    return tuple(
        key.record(WorkspaceId(name))
        for name, workspace in settings.workspaces.workspaces.items()
        for key in workspace.keys
    )


def _workspace(name: str, workspace: WorkspaceSettings, mode: PlacementMode) -> Workspace:
    return Workspace(
        id=WorkspaceId(name),
        organisation=workspace.organisation,
        team=workspace.team or "",
        upstream=workspace.upstream,
        models=workspace.models,
        placement=max(mode, workspace.placement, key=_STRICTNESS.index),
        client_marks=workspace.client_marks,
        ttl=workspace.ttl,
        estimate=workspace.estimate,
        unbounded=workspace.unbounded,
        output_cap_tokens=workspace.output_cap_tokens,
        estimate_quantile=workspace.estimate_quantile,
        count_tokens=workspace.count_tokens,
        warming_nanousd_per_day=workspace.warming_per_day,
    )
