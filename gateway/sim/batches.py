"""Message batches: created, worked through after a short while, read back as JSON lines.

Source: batch processing page (2026-08-21), SDK 2.12. A batch is worked through the first time anybody
looks at it after its time has come, as of that time: no background work.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from gateway.sim.control import Endpoint
from gateway.sim.engine import Run
from gateway.sim.models import page
from gateway.sim.records import Received
from gateway.sim.validate import Caller
from gateway.sim.wire import ApiError, JsonObject, dump, invalid, not_found, read_object, rfc3339
from gateway.sim.world import World

MAXIMUM_REQUESTS: Final = 100_000
EXPIRES_SECONDS: Final = 24 * 3600.0
RESULTS_KEPT_SECONDS: Final = 29 * 24 * 3600.0
AT_ONCE: Final = 8
"""Items that run side by side: such do not read what the others write, so hits are best effort."""
_CUSTOM_ID: Final = re.compile(r"[a-zA-Z0-9_-]{1,64}")
_WRITE_BYTES: Final = 64 * 1024


@dataclass(slots=True, kw_only=True)
class Batch:
    """One batch and, once it has ended, a result line for each of its requests."""

    id: str
    caller: Caller
    created_at: float
    requests: list[JsonObject]
    cancelled_at: float | None = None
    ended_at: float | None = None
    results: list[JsonObject] = field(default_factory=list)

    def as_json(self, base_url: str, at: float) -> JsonObject:
        ended = self.ended_at is not None
        counts = dict.fromkeys(("succeeded", "errored", "canceled", "expired"), 0)
        for line in self.results:
            counts[line["result"]["type"]] += 1
        archived_at = self.created_at + RESULTS_KEPT_SECONDS
        working = "in_progress" if self.cancelled_at is None else "canceling"
        return {
            "id": self.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else working,
            "request_counts": {"processing": 0 if ended else len(self.requests), **counts},
            "created_at": rfc3339(self.created_at),
            "expires_at": rfc3339(self.created_at + EXPIRES_SECONDS),
            "ended_at": None if self.ended_at is None else rfc3339(self.ended_at),
            "cancel_initiated_at": None if self.cancelled_at is None else rfc3339(self.cancelled_at),
            "archived_at": rfc3339(archived_at) if at > archived_at else None,
            "results_url": f"{base_url}/v1/messages/batches/{self.id}/results" if ended else None,
        }


async def _create(world: World, _request: web.Request, received: Received) -> web.StreamResponse:
    """Only the list is checked here; each item's params are when it runs, and fail alone."""
    caller = world.caller(received)
    body = read_object(world.plain_body(received))
    requests = _read_requests(body)
    batch = Batch(
        id=world.next_id("msgbatch_"), caller=caller, created_at=world.clock.now(), requests=requests
    )
    world.batches[batch.id] = batch
    return _json(batch.as_json(world.base_url, batch.created_at))


async def _list(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    caller = world.caller(received)
    at = world.clock.now()
    own = [batch for batch in world.batches.values() if batch.caller.workspace == caller.workspace]
    for batch in own:
        _work(world, batch)
    shown = [batch.as_json(world.base_url, at) for batch in reversed(own)]
    query = request.query
    return _json(page(shown, query.get("limit"), query.get("after_id"), query.get("before_id")))


async def _get(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    batch = _find(world, request, received)
    return _json(batch.as_json(world.base_url, world.clock.now()))


async def _cancel(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    """What has not run is cancelled, at the next look."""
    batch = _find(world, request, received)
    if batch.ended_at is not None:
        raise invalid(f"Batch {batch.id} has already ended and cannot be canceled.")
    batch.cancelled_at = batch.cancelled_at or world.clock.now()
    return _json(batch.as_json(world.base_url, world.clock.now()))


async def _delete(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    batch = _find(world, request, received)
    if batch.ended_at is None:
        raise invalid(f"Batch {batch.id} cannot be deleted before it has ended.")
    del world.batches[batch.id]
    return _json({"id": batch.id, "type": "message_batch_deleted"})


async def _results(world: World, request: web.Request, received: Received) -> web.StreamResponse:
    """JSON lines, not in the order of the requests, 29 days long."""
    batch = _find(world, request, received)
    if batch.ended_at is None or world.clock.now() > batch.created_at + RESULTS_KEPT_SECONDS:
        raise not_found(f"Results of batch {batch.id} are not available.")
    response = web.StreamResponse(headers={"content-type": "application/x-jsonl"})
    await response.prepare(request)
    lines = bytearray()
    for line in batch.results:
        lines += dump(line) + b"\n"
        if len(lines) >= _WRITE_BYTES:
            await response.write(bytes(lines))
            lines.clear()
    await response.write(bytes(lines))
    await response.write_eof()
    return response


def _read_requests(body: JsonObject) -> list[JsonObject]:
    requests = body.get("requests")
    if not isinstance(requests, list) or not requests:
        raise invalid("requests: List should have at least 1 item")
    if len(requests) > MAXIMUM_REQUESTS:
        raise invalid(f"requests: List should have at most {MAXIMUM_REQUESTS} items")
    seen: set[str] = set()
    for index, item in enumerate(requests):
        if not isinstance(item, dict) or not isinstance(item.get("params"), dict):
            raise invalid(f"requests.{index}.params: Field required")
        custom_id = item.get("custom_id")
        if not isinstance(custom_id, str) or not _CUSTOM_ID.fullmatch(custom_id):
            raise invalid(
                f"requests.{index}.custom_id: String should match pattern '^[a-zA-Z0-9_-]{{1,64}}$'"
            )
        if custom_id in seen:
            raise invalid(f"requests.{index}.custom_id: `{custom_id}` is not unique in this batch")
        seen.add(custom_id)
    return requests


def _find(world: World, request: web.Request, received: Received) -> Batch:
    """The batch of the path, worked through if its time has come; another workspace's is not found."""
    caller = world.caller(received)
    batch = world.batches.get(request.match_info["id"])
    if batch is None or batch.caller.workspace != caller.workspace:
        raise not_found(f"Message batch {request.match_info['id']} not found.")
    _work(world, batch)
    return batch


def _work(world: World, batch: Batch) -> None:
    if batch.ended_at is not None:
        return
    due_at = batch.created_at + world.options.batch_seconds
    if batch.cancelled_at is not None and batch.cancelled_at < due_at:
        batch.results = [_line(item, {"type": "canceled"}) for item in batch.requests]
        batch.ended_at = world.clock.now()
    elif world.clock.now() >= due_at:
        for first in range(0, len(batch.requests), AT_ONCE):
            _run_side_by_side(world, batch, batch.requests[first : first + AT_ONCE], due_at)
        batch.results.reverse()
        batch.ended_at = due_at


def _run_side_by_side(world: World, batch: Batch, items: list[JsonObject], at: float) -> None:
    running: list[tuple[JsonObject, Run]] = []
    for item in items:
        request_id = world.next_id("req_")
        try:
            run = world.engine.accept(
                item["params"], batch.caller, request_id=request_id, at=at, in_batch=True
            )
        except ApiError as error:
            # The whole envelope, one level deeper than elsewhere.
            batch.results.append(_line(item, {"type": "errored", "error": error.envelope(request_id)}))
            continue
        running.append((item, run))
    for item, run in running:
        world.engine.begin(run)
        world.engine.finish(run, at=at)
        batch.results.append(_line(item, {"type": "succeeded", "message": run.message()}))


def _line(item: JsonObject, result: JsonObject) -> JsonObject:
    return {"custom_id": item["custom_id"], "result": result}


def _json(value: JsonObject) -> web.Response:
    return web.Response(body=dump(value), content_type="application/json")


_PATH: Final = "/v1/messages/batches"
ROUTES: Final[list[tuple[str, str, Endpoint]]] = [
    ("POST", _PATH, _create),
    ("GET", _PATH, _list),
    ("GET", _PATH + "/{id}", _get),
    ("DELETE", _PATH + "/{id}", _delete),
    ("POST", _PATH + "/{id}/cancel", _cancel),
    ("GET", _PATH + "/{id}/results", _results),
]
