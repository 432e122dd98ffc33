"""The resolved configuration as plain values, fit to be shown: secrets are references, money is dollars."""

from __future__ import annotations

from pydantic import JsonValue

from gateway.core.limits import Limit, Unit
from gateway.settings.build import build_limits
from gateway.settings.load import Settings
from gateway.settings.units import show_nanousd


def explain_settings(settings: Settings) -> dict[str, JsonValue]:
    """Everything that is in force, defaults included. Raises `ConfigError`."""
    return {
        "directory": str(settings.directory),
        "version": settings.digest,
        "gateway": settings.gateway.model_dump(mode="json"),
        "workspaces": settings.workspaces.model_dump(mode="json")["workspaces"],
        "limits": [_limit(limit) for limit in build_limits(settings).all],
        "prices": {"models": [facts.id for facts in settings.prices.model_table().known()]},
        "warnings": [str(problem) for problem in settings.warnings],
    }


def _limit(limit: Limit) -> JsonValue:
    return {
        "id": limit.id,
        "scope": limit.scope.value,
        "subject": " ".join(limit.subjects) or f"each {limit.tag or limit.scope}",
        "shared": limit.shared,
        "amount": _amount(limit.unit, limit.amount),
        "unit": "usd" if limit.unit is Unit.NANOUSD else limit.unit.value,
        "per": limit.period.value,
        "burst": None if limit.burst is None else _amount(limit.unit, limit.burst),
        "timezone": limit.timezone,
        "mode": limit.mode.value,
        "on_store_failure": limit.on_store_failure.value,
        "models": list(limit.models) or "all",
        "warn_at": list(limit.warn_at),
        "comment": limit.comment,
    }


def _amount(unit: Unit, amount: int) -> JsonValue:
    return show_nanousd(amount) if unit is Unit.NANOUSD else amount
