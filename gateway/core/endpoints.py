"""Which endpoint a request is for, decided by method and path alone; the query never matters.

Endpoints form a closed set, so that they can be metric labels. Nothing here rewrites a path: what is
forwarded is path and query exactly as the client sent them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
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


_BATCHES = "/v1/messages/batches"
_CANCELLATION = re.compile(_BATCHES + r"/[A-Za-z0-9_-]+/cancel")
_CLOSED = ("/v1/organizations", "/v1/oauth")
"""A multi-workspace key of the provider is accepted by its Admin API (authentication page, 2026-10-03), so
relaying these with the gateway's own credential would make every app an administrator."""


_RUNNING = ("/v1/complete", "/v1/sessions", "/v1/deployments", "/v1/deployment_runs", "/v1/dreams")
"""Text completions, and what managed agents do their work by (types of the Python package, 2.12.0)."""


def route(method: str, target: str) -> Endpoint:
    """The endpoint that `target` (path and query as sent) names. Never raises.

    A path that an upstream might read as another one (encoded characters, a fragment, empty or dot segments,
    other case) is unknown where it would then be something that is planned, rewritten or closed: a spelling
    must not get past a limit.
    """
    path = target.partition("?")[0]
    plain = _plain(path)
    if _is_closed(plain):
        return Endpoint.CLOSED
    named = _named(method, path)
    if path != plain and _named(method, plain) is not named:
        return Endpoint.UNKNOWN
    return named


def runs_models(method: str, target: str) -> bool:
    """Whether a call of `Endpoint.OTHER` has upstream run models, which its answer says nothing priced of."""
    return method == "POST" and _under(_RUNNING, _plain(target.partition("?")[0]))


def creates_batch(endpoint: str, method: str, target: str) -> bool:
    """Whether a call creates a batch. Every POST about batches may, but for what surely cancels one: no
    spelling must get past being read."""
    posts = endpoint == Endpoint.BATCHES and method == "POST"
    return posts and _CANCELLATION.fullmatch(target.partition("?")[0]) is None


def deleted_batch(endpoint: str, method: str, target: str) -> str | None:
    """The id of the batch that a call deletes; None for any other call."""
    if endpoint != Endpoint.BATCHES or method != "DELETE":
        return None
    return target.partition("?")[0].removeprefix(_BATCHES).strip("/") or None


def _named(method: str, path: str) -> Endpoint:
    if path in ("/", "/api/hello") and method in ("HEAD", "OPTIONS", "GET"):
        return Endpoint.PROBE
    if method == "OPTIONS":
        return Endpoint.PROBE
    if method == "POST" and path == "/v1/messages":
        return Endpoint.MESSAGES
    if method == "POST" and path == "/v1/messages/count_tokens":
        return Endpoint.COUNT_TOKENS
    if path == _BATCHES or path.startswith(_BATCHES + "/"):
        return Endpoint.BATCH_RESULTS if path.endswith("/results") else Endpoint.BATCHES
    if method == "GET" and (path == "/v1/models" or path.startswith("/v1/models/")):
        return Endpoint.MODELS
    if path == "/v1/files" or path.startswith("/v1/files/"):
        return Endpoint.FILES
    return Endpoint.OTHER if path.startswith("/v1/") else Endpoint.UNKNOWN


def _is_closed(plain: str) -> bool:
    return _under(_CLOSED, plain)


def _under(prefixes: Iterable[str], plain: str) -> bool:
    return any(plain == prefix or plain.startswith(prefix + "/") for prefix in prefixes)


def _plain(path: str) -> str:
    """The path as an upstream might normalise it: decoded twice over, lower case, without fragment,
    parameters, empty and dot segments."""
    if _PLAIN.fullmatch(path):
        return path
    segments: list[str] = []
    decoded = _QUERY.split(unquote(unquote(path)), maxsplit=1)[0]
    for segment in decoded.replace("\\", "/").lower().split("/"):
        name = segment.partition(";")[0]
        if name == "..":
            del segments[-1:]
        elif name not in ("", "."):
            segments.append(name)
    return "/" + "/".join(segments)


_QUERY = re.compile(r"[?#]")
"""No request should name a fragment, and servers part over what to do with one: many cut it off."""
_PLAIN = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[a-z0-9_.-]+)+")
