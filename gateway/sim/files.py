"""The Files API: upload, look at, list, download, delete. Files belong to a workspace.

Source: files page (2026-08-21), SDK 2.12 types. Only files that a tool made can be downloaded; tests add
such with `Simulator.add_file`.
"""

from __future__ import annotations

import mimetypes
import re
from dataclasses import dataclass
from typing import Final

from aiohttp import web

from gateway.sim.control import Endpoint
from gateway.sim.models import page, read_limit
from gateway.sim.records import Received
from gateway.sim.wire import JsonObject, dump, invalid, not_found, rfc3339
from gateway.sim.world import World

_OLD_SHAPES: Final = "files-api-2025-04-14"
_BOUNDARY: Final = re.compile(r'boundary="?([^";]+)"?')
_NAME: Final = re.compile(r'\bname="([^"]*)"')
_FILENAME: Final = re.compile(r'filename="([^"]*)"')


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredFile:
    id: str
    workspace: str
    filename: str
    mime_type: str
    content: bytes
    created_at: float
    expires_at: float | None
    downloadable: bool

    def as_json(self) -> JsonObject:
        return {
            "id": self.id,
            "type": "file",
            "filename": self.filename,
            "mime_type": self.mime_type,
            "size_bytes": len(self.content),
            "created_at": rfc3339(self.created_at),
            "expires_at": None if self.expires_at is None else rfc3339(self.expires_at),
            "downloadable": self.downloadable,
        }


def add_made_file(world: World, workspace: str, filename: str, content: bytes) -> str:
    """Store a downloadable file and return its id."""
    file = StoredFile(
        id=world.next_id("file_"),
        workspace=workspace,
        filename=filename,
        mime_type=mimetypes.guess_type(filename)[0] or "application/octet-stream",
        content=content,
        created_at=world.clock.now(),
        expires_at=None,
        downloadable=True,
    )
    world.files[file.id] = file
    return file.id


async def _upload(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    """One multipart part `file`, and `expires_in_seconds` if wanted."""
    caller = world.caller(received)
    parts = _read_parts(request.headers.get("content-type", ""), received.body)
    if "file" not in parts:
        raise invalid("file: Field required")
    filename, mime_type, content = parts["file"]
    lifetime = _read_lifetime(parts)
    at = world.clock.now()
    stored = StoredFile(
        id=world.next_id("file_"),
        workspace=caller.workspace,
        filename=filename.replace("\\", "/").rpartition("/")[2] or _unnamed(mime_type),
        mime_type=mime_type,
        content=content,
        created_at=at,
        expires_at=None if lifetime is None else at + lifetime,
        downloadable=False,
    )
    world.files[stored.id] = stored
    return _json(stored.as_json())


async def _list(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    """Newest first, by cursor; the old beta header selects the old shape with ids for cursors."""
    caller = world.caller(received)
    own = [file.as_json() for file in world.files.values() if file.workspace == caller.workspace]
    own.reverse()
    query = request.query
    if _OLD_SHAPES in caller.betas:
        return _json(page(own, query.get("limit"), query.get("after_id"), query.get("before_id")))
    ids = [*query.getall("ids", []), *query.getall("ids[]", [])]
    if ids:
        return _json({"data": [file for file in own if file["id"] in ids], "next_page": None})
    size = read_limit(query.get("limit"))
    cursor = query.get("page", "page_0").removeprefix("page_")
    if not cursor.isdigit():
        raise invalid("page: not a page cursor")
    end = int(cursor) + size
    following = f"page_{end}" if end < len(own) else None
    return _json({"data": own[int(cursor) : end], "next_page": following})


async def _get(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    return _json(_find(world, request, received).as_json())


async def _content(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    file = _find(world, request, received)
    if not file.downloadable:
        raise invalid(f"File {file.id} is not downloadable.", error_code="file_not_downloadable")
    if file.expires_at is not None and world.clock.now() >= file.expires_at:
        raise not_found(f"File {file.id} has expired.", error_code="file_expired")
    return web.Response(body=file.content, content_type=file.mime_type)


async def _delete(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    file = _find(world, request, received)
    del world.files[file.id]
    return _json({"id": file.id, "type": "file_deleted"})


def _find(world: World, request: web.Request, received: Received) -> StoredFile:
    caller = world.caller(received)
    file = world.files.get(request.match_info["id"])
    if file is None or file.workspace != caller.workspace:
        raise not_found(f"File not found: {request.match_info['id']}")
    return file


def _read_parts(content_type: str, body: bytes) -> dict[str, tuple[str, str, bytes]]:
    """Multipart form fields by name: file name, media type, bytes."""
    boundary = _BOUNDARY.search(content_type)
    if not content_type.startswith("multipart/form-data") or boundary is None:
        raise invalid("content-type: multipart/form-data is required")
    parts: dict[str, tuple[str, str, bytes]] = {}
    for part in (b"\r\n" + body).split(b"\r\n--" + boundary.group(1).encode())[1:-1]:
        head, _, content = part.partition(b"\r\n\r\n")
        lines = head.decode("utf-8", "replace")
        name = _NAME.search(lines)
        filename = _FILENAME.search(lines)
        kind = re.search(r"content-type:\s*([^\r\n]+)", lines, re.IGNORECASE)
        if name is not None:
            mime_type = kind.group(1).strip() if kind else "application/octet-stream"
            parts[name.group(1)] = (filename.group(1) if filename else "", mime_type, content)
    return parts


def _read_lifetime(parts: dict[str, tuple[str, str, bytes]]) -> int | None:
    if "expires_in_seconds" not in parts:
        return None
    text = parts["expires_in_seconds"][2].decode("latin-1")
    if not text.isdigit() or not 3600 <= int(text) <= 7_776_000:
        raise invalid("expires_in_seconds: Input should be between 3600 and 7776000")
    return int(text)


def _unnamed(mime_type: str) -> str:
    return f"unnamed{mimetypes.guess_extension(mime_type) or ''}"


def _json(value: JsonObject) -> web.Response:
    return web.Response(body=dump(value), content_type="application/json")


_PATH: Final = "/v1/files"
ROUTES: Final[list[tuple[str, str, Endpoint]]] = [
    ("POST", _PATH, _upload),
    ("GET", _PATH, _list),
    ("GET", _PATH + "/{id}", _get),
    ("GET", _PATH + "/{id}/content", _content),
    ("DELETE", _PATH + "/{id}", _delete),
]
