"""`/_sim/...`: how tests and people steer a running simulator. Not part of the API it stands in for."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from gateway.sim.answers import Scripted
from gateway.sim.faults import Fault, Match, read_fault
from gateway.sim.records import Received
from gateway.sim.wire import JsonObject, dump, invalid, read_object
from gateway.sim.world import World

Endpoint: TypeAlias = Callable[[World, web.Request, Received], Awaitable[web.StreamResponse]]


def struck(world: World, request: web.Request, received: Received) -> Fault | None:
    """The armed fault that this request runs into, if any."""
    if not len(world.faults) or request.path.startswith("/_sim/"):
        return None
    model, stream = _peek(received.body)
    return world.faults.strike(method=request.method, path=request.path, model=model, stream=stream)


def _peek(body: bytes) -> tuple[str | None, bool]:
    try:
        value = json.loads(body)
    except ValueError:
        return None, False
    if not isinstance(value, dict):
        return None, False
    model = value.get("model")
    return model if isinstance(model, str) else None, value.get("stream") is True


async def _add_faults(world: World, _request: web.Request, received: Received) -> web.StreamResponse:
    """One fault, or a list of them under `faults`."""
    value = read_object(received.body)
    listed = value.get("faults", [value])
    if not isinstance(listed, list):
        raise invalid("faults: Input should be a valid list")
    for fault in [read_fault(item) for item in listed]:
        world.faults.add(fault)
    return _json({"faults": world.faults.waiting()})


async def _list_faults(world: World, _request: web.Request, _received: Received) -> web.StreamResponse:
    return _json({"faults": world.faults.waiting()})


async def _clear_faults(world: World, _request: web.Request, _received: Received) -> web.StreamResponse:
    world.faults.clear()
    return _json({"faults": []})


async def _add_script(world: World, _request: web.Request, received: Received) -> web.StreamResponse:
    """A scripted answer: the fields of `Scripted`, `match` as an object."""
    value = read_object(received.body)
    try:
        match = Match(**value.pop("match", {}))
        world.script.add(Scripted(match=match, **value))
    except TypeError as error:
        raise invalid(f"not a scripted answer: {error}") from error
    return _json({})


async def _list_requests(world: World, request: web.Request, _received: Received) -> web.StreamResponse:
    """What was received; `?bodies=0` leaves the bodies out, `?last=N` gives the newest ones."""
    items = list(world.records.items)
    last = request.query.get("last", "")
    if last.isdigit():
        items = items[-int(last) :] if int(last) else []
    with_body = request.query.get("bodies") != "0"
    return _json({"requests": [item.as_json(with_body=with_body) for item in items]})


async def _forget_requests(world: World, _request: web.Request, _received: Received) -> web.StreamResponse:
    world.records.items.clear()
    return _json({"requests": []})


async def _show_bill(world: World, _request: web.Request, _received: Received) -> web.StreamResponse:
    return _json(world.engine.bill.summary())


async def _show_cache(world: World, _request: web.Request, _received: Received) -> web.StreamResponse:
    at = world.clock.now()
    entries = [
        {
            "workspace": scope.workspace,
            "model": scope.model,
            "speed": scope.speed,
            "ttl": ttl.value,
            "expires_in_seconds": round(expires_at - at, 3),
            "prefix_tokens": tokens,
        }
        for scope, ttl, expires_at, tokens in world.engine.cache.live(at)
    ]
    return _json({"entries": entries})


async def _clear_cache(world: World, _request: web.Request, _received: Received) -> web.StreamResponse:
    world.engine.cache.clear()
    return _json({"entries": []})


def _json(value: JsonObject) -> web.Response:
    return web.Response(body=dump(value), content_type="application/json")


ROUTES: list[tuple[str, str, Endpoint]] = [
    ("POST", "/_sim/faults", _add_faults),
    ("GET", "/_sim/faults", _list_faults),
    ("DELETE", "/_sim/faults", _clear_faults),
    ("POST", "/_sim/script", _add_script),
    ("GET", "/_sim/requests", _list_requests),
    ("DELETE", "/_sim/requests", _forget_requests),
    ("GET", "/_sim/bill", _show_bill),
    ("GET", "/_sim/cache", _show_cache),
    ("DELETE", "/_sim/cache", _clear_cache),
]
