"""Shapes on the wire that every endpoint shares: JSON bodies, the error envelope, instants.

No endpoint lives here. The JSON edge of the simulator is this package: bodies are read with the standard
library's parser, deliberately another one than the gateway's.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

JsonObject: TypeAlias = dict[str, Any]

MAX_DECODED_BYTES: Final = 64 * 1024 * 1024


class ApiError(Exception):
    """An error that the API answers with. `html` replaces the envelope, as the API's edge does at times."""

    def __init__(
        self,
        status: int,
        kind: str,
        message: str,
        *,
        details: JsonObject | None = None,
        headers: Mapping[str, str] | None = None,
        html: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.message = message
        self.details = details
        self.headers = dict(headers or {})
        self.html = html

    def envelope(self, request_id: str | None) -> JsonObject:
        """The documented error body (errors page, 2026-08-21)."""
        error: JsonObject = {"type": self.kind, "message": self.message}
        if self.details is not None:
            error["details"] = self.details
        body: JsonObject = {"type": "error", "error": error}
        if request_id is not None:
            body["request_id"] = request_id
        return body


def invalid(message: str, **details: Any) -> ApiError:
    """400 `invalid_request_error`, with `details` when any are given."""
    return ApiError(400, "invalid_request_error", message, details=details or None)


def not_found(message: str, **details: Any) -> ApiError:
    return ApiError(404, "not_found_error", message, details=details or None)


def decoded_body(body: bytes, content_encoding: str) -> bytes:
    """Undo gzip, the one request encoding that the API takes; refuse others as the API does."""
    encoding = content_encoding.strip().lower()
    if encoding in ("", "identity"):
        return body
    if encoding != "gzip":
        raise invalid(
            f"Unsupported content-encoding: {encoding}", error_code="request_body_encoding_unsupported"
        )
    unpack = zlib.decompressobj(wbits=31)
    try:
        plain = unpack.decompress(body, MAX_DECODED_BYTES)
    except zlib.error as error:
        raise invalid("Could not decode gzip body", error_code="request_body_encoding_invalid") from error
    if unpack.unconsumed_tail:
        raise ApiError(
            413,
            "request_too_large",
            "Request body is too large after decoding",
            details={"error_code": "request_body_too_large_after_decoding"},
        )
    if not unpack.eof:
        raise invalid("Could not decode gzip body", error_code="request_body_encoding_invalid")
    return plain


def read_object(body: bytes) -> JsonObject:
    """The body as one JSON object, or the API's 400."""
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise invalid(f"The request body is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise invalid("Input should be a valid dictionary")
    return value


def dump(value: object) -> bytes:
    """Compact UTF-8 JSON, keys in insertion order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def rfc3339(at: float) -> str:
    """An instant as the API writes it."""
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
