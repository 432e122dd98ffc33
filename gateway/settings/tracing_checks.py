"""What no single file can tell of tracing: whether what it needs is installed and can be read. `checks.py`
asks."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gateway.settings.secrets import is_available
from gateway.settings.source import KeyPath

if TYPE_CHECKING:
    from gateway.settings.load import Settings

Found = tuple[str, KeyPath, str]

MISSING = (
    "needs OpenTelemetry, which is not installed; install the package with its extra: "
    "pip install 'claude-cache-gateway[otel]'"
)


def tracing_errors(settings: Settings) -> Iterator[Found]:
    """What cannot work."""
    if settings.gateway.tracing.endpoint is not None and not has_opentelemetry():
        yield "gateway.yaml", ("tracing", "endpoint"), MISSING


def tracing_warnings(settings: Settings) -> Iterator[Found]:
    """What is not there yet."""
    for name, ref in settings.gateway.tracing.headers.items():
        if not is_available(ref, settings.environ):
            path: KeyPath = ("tracing", "headers", name)
            yield "gateway.yaml", path, f"{ref} cannot be read now; the gateway will not start without it"


def has_opentelemetry() -> bool:
    """Whether the extra `otel` is installed."""
    try:
        return all(find_spec(name) is not None for name in ("opentelemetry.proto", "urllib3"))
    except ModuleNotFoundError:
        return False
