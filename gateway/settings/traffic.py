"""How long calls may take, how large they may be and how many there may be: sections of gateway.yaml."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from gateway.core.retry import MAX_ATTEMPTS
from gateway.core.worker import MOST_WORKERS
from gateway.settings.shared import Section
from gateway.settings.units import PositiveBytes, PositiveSeconds, Seconds

MIB = 1 << 20


class Workers(Section):
    """Processes that serve as one gateway, on one machine, with one state directory. Not with the `memory`
    store."""

    count: Annotated[int, Field(ge=0, le=MOST_WORKERS)] = 1
    """How many; 0: one for each core. `gateway run --workers` goes before it."""
    unresponsive: Annotated[Seconds, Field(ge=1)] = 30.0
    """After so long without a sign of life a worker is ended and replaced, with the calls that it has."""


class Timeouts(Section):
    """How long each end may take."""

    client_head: PositiveSeconds = 15.0
    """Until a client has sent the head of its request."""
    client_body: PositiveSeconds = 600.0
    """For all of a request's body. One that comes slower than 1 kB a second is refused earlier."""
    client_write: PositiveSeconds = 60.0
    """For a client to take what it was sent, before it counts as gone."""
    client_keep_alive: PositiveSeconds = 75.0
    """For the next request on an idle connection. Keep it longer than the load balancer's own."""
    upstream_connect: PositiveSeconds = 5.0
    """To connect to upstream, TLS included."""
    upstream_write: PositiveSeconds = 60.0
    """For upstream to take what it was sent."""
    upstream_head: PositiveSeconds = 900.0
    """From the request's last byte to the head of upstream's answer. Calls that do not stream spend all of
    their time here."""
    upstream_idle: PositiveSeconds = 300.0
    """Between two pieces of upstream's answer. Its streams send pings far more often."""
    upstream_keep_alive: PositiveSeconds = 30.0
    """How long an idle connection to upstream is kept for the next call."""


class Sizes(Section):
    """Largest request bodies, by endpoint. The defaults are the API's own."""

    messages: PositiveBytes = 32 * MIB
    """`/v1/messages`, `/v1/messages/count_tokens` and whatever is not named below."""
    batches: PositiveBytes = 256 * MIB
    """`/v1/messages/batches`."""
    files: PositiveBytes = 500 * MIB
    """`/v1/files`; relayed as it comes, never held."""


class Capacity(Section):
    """What one replica takes on before it answers 529 and leaves the call to another."""

    exchanges: Annotated[int, Field(ge=1, le=100_000)] = 2_000
    """Exchanges at the same time, streams included."""
    connections: Annotated[int, Field(ge=1, le=1_000_000)] = 20_000
    """Connections of clients, idle ones included; fewer where the limit of open files has no room."""


class Retries(Section):
    """Second attempts, only where upstream surely has not begun, and on at most a tenth of the traffic."""

    attempts: Annotated[int, Field(ge=1, le=5)] = MAX_ATTEMPTS
    """Attempts per call, the first one included; 1 never tries again."""


class Drain(Section):
    """How a replica goes away."""

    announce: Seconds = 5.0
    """From SIGTERM until new connections are refused; readiness says no from the start."""
    timeout: Seconds = 300.0
    """For open exchanges to end; what is still open then is cut and settled."""
