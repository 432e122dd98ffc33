"""The two planes as they listen: the data plane, which apps call, and the admin plane. What each of them
serves is in `web/`."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

from aiohttp import web

import gateway
from gateway.core.endpoints import Endpoint
from gateway.core.worker import Worker
from gateway.ports import Clock
from gateway.settings.gateway import GatewayFile
from gateway.web.admin import Render, admin_app
from gateway.web.admin_api import Operation, is_loopback
from gateway.web.admin_server import AdminServer
from gateway.web.admission import Admission
from gateway.web.dataplane import BodyLimits, Calls, DataPlane
from gateway.web.health import Conditions
from gateway.web.listener import Listener, ListenerLimits


async def listen_data(
    file: GatewayFile,
    pipeline: Calls,
    clock: Clock,
    new_id: Callable[[], str],
    worker: Worker | None = None,
) -> tuple[Listener, str]:
    """The data plane, and its URL. A `worker` shares it with others. Raises OSError where the address is
    taken."""
    plane = DataPlane(
        pipeline=pipeline,
        limits=BodyLimits(
            by_endpoint={Endpoint.BATCHES: file.sizes.batches, Endpoint.FILES: file.sizes.files},
            otherwise=file.sizes.messages,
            timeout_seconds=file.timeouts.client_body,
        ),
        clock=clock,
        new_id=new_id,
        public_url=file.listen.public_url,
    )
    listener = Listener(
        plane.handle,
        new_id=new_id,
        limits=ListenerLimits(
            connections=file.capacity.connections,
            head_seconds=file.timeouts.client_head,
            idle_seconds=file.timeouts.client_keep_alive,
            slow_client_seconds=file.timeouts.client_write,
        ),
    )
    host, port = split_address(file.listen.data)
    if worker is None:
        bound = await listener.start(host, port)
    else:
        bound = await listener.start_shared(socket.socket(fileno=worker.listening))
    return listener, f"http://{in_url(host)}:{bound}"


async def listen_admin(
    file: GatewayFile,
    *,
    conditions: Conditions,
    render: Render,
    admission: Admission,
    operations: Sequence[Operation],
    page: web.Application | None = None,
    worker: Worker | None = None,
) -> tuple[AdminServer, str]:
    """The admin plane, and its URL. A `worker` has its own, which `web/front.py` stands in front of. Raises
    OSError where the address is taken."""
    host, port = split_address(file.listen.admin)
    app = admin_app(
        conditions=conditions,
        render=render,
        admission=admission,
        operations=operations,
        loopback=is_loopback(host),
        version=gateway.__version__,
        page=page,
    )
    if worker is not None:
        server = AdminServer(app, most_connections=None)
        await server.start_unix(worker.admin_socket)
        return server, f"unix:{worker.admin_socket}"
    server = AdminServer(app)
    bound = await server.start(host, port)
    return server, f"http://{in_url(host)}:{bound}"


def split_address(address: str) -> tuple[str, int]:
    """Host and port of `127.0.0.1:8080` or `[::1]:8080`."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def in_url(host: str) -> str:
    """As it is written in a URL."""
    return f"[{host}]" if ":" in host else host
