"""The `tracing` section of gateway.yaml: whether calls leave spans, and where these go."""

from __future__ import annotations

from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, StringConstraints

from gateway.settings.shared import SecretRef, Section


def _endpoint(text: str) -> str:
    url = urlsplit(text)
    if url.scheme not in ("http", "https") or not url.hostname or url.fragment:
        raise ValueError("not a URL that can be called; write for example http://collector:4318/v1/traces")
    if url.username is not None or url.password is not None:
        raise ValueError("a URL must not hold a credential; name where it is found, under `headers`")
    _ = url.port
    return text


HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,64}$", to_lower=True)]


class Tracing(Section):
    """Spans of calls, for OpenTelemetry: names, numbers and times, never content."""

    endpoint: Annotated[str, AfterValidator(_endpoint)] | None = None
    """Where they are sent as OTLP over HTTP, as http://collector:4318/v1/traces. None are made where it is
    not said. Needs the package's extra `otel`."""
    headers: Annotated[dict[HeaderName, SecretRef], Field(max_length=10)] = Field(default_factory=dict)
    """Headers that it asks for, by name; where their values are found."""
    service_name: Annotated[str, Field(pattern=r"^[!-~]{1,100}$")] = "claude-cache-gateway"
    """As what the gateway shows up."""
    ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Share of calls that are traced, of those whose caller has not decided; a caller's decision is
    followed."""
    propagate: bool = False
    """Whether upstream is told the ids of a call's trace, in `traceparent` and `tracestate`."""
    old_names: bool = False
    """Whether tokens written to the cache are also told as `gen_ai.usage.cache_creation.input_tokens`, as the
    conventions called them before."""
    queue: Annotated[int, Field(ge=1, le=100_000)] = 2_048
    """Calls whose spans wait to be sent; beyond it the newest are dropped and counted."""
