"""Which endpoint a request is for, decided by method and path alone; the query never matters.

Endpoints form a closed set, so that they can be metric labels. Nothing here rewrites a path: what is
forwarded is the target exactly as the client sent it.
"""

from __future__ import annotations

from enum import StrEnum
from urllib.parse import unquote


class Endpoint(StrEnum):
    MESSAGES = "messages"
    COUNT_TOKENS = "count_tokens"
    MODELS = "models"
    BATCHES = "batches"
    BATCH_RESULTS = "batch_results"
    FILES = "files"
    OTHER = "other"
    """Any other `/v1/` path: relayed as it is, counted by request."""
    PROBE = "probe"
    """Answered here, without a key: is somebody there?"""
    CLOSED = "closed"
    """Administration of the provider's organisation: the gateway's credential must not serve it."""
    UNKNOWN = "unknown"


_CLOSED = ("/v1/organizations", "/v1/oauth")
"""A multi-workspace key of the provider is accepted by its Admin API (authentication page, 2026-10-03), so
relaying these with the gateway's own credential would make every app an administrator."""


def route(method: str, target: str) -> Endpoint:
    """The endpoint that `target` (path and query as sent) names. Never raises."""
    path = target.partition("?")[0]
    if path in ("/", "/api/hello") and method in ("HEAD", "OPTIONS", "GET"):
        return Endpoint.PROBE
    if method == "OPTIONS":
        return Endpoint.PROBE
    if _is_closed(path):
        return Endpoint.CLOSED
    if method == "POST" and path == "/v1/messages":
        return Endpoint.MESSAGES
    if method == "POST" and path == "/v1/messages/count_tokens":
        return Endpoint.COUNT_TOKENS
    if path == "/v1/messages/batches" or path.startswith("/v1/messages/batches/"):
        return Endpoint.BATCH_RESULTS if path.endswith("/results") else Endpoint.BATCHES
    if method == "GET" and (path == "/v1/models" or path.startswith("/v1/models/")):
        return Endpoint.MODELS
    if path == "/v1/files" or path.startswith("/v1/files/"):
        return Endpoint.FILES
    return Endpoint.OTHER if path.startswith("/v1/") else Endpoint.UNKNOWN


def _is_closed(path: str) -> bool:
    """True also for spellings that an upstream might normalise to a closed path: encoded characters (twice
    over), empty segments, dot segments, other case."""
    segments: list[str] = []
    for segment in unquote(unquote(path)).replace("\\", "/").lower().split("/"):
        name = segment.partition(";")[0]
        if name == "..":
            del segments[-1:]
        elif name not in ("", "."):
            segments.append(name)
    plain = "/" + "/".join(segments)
    return any(plain == closed or plain.startswith(closed + "/") for closed in _CLOSED)
