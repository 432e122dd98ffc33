"""Several worker processes as one gateway: starts them, replaces those that die or hang, stands in front of
their admin planes. It serves no call itself.

The data plane's socket is opened here and shared by all workers. A worker that dies loses the calls that it
has, and no connection that it had not accepted yet; the others close what it had set aside, when leases end.
One that cannot start at all ends the gateway: at its first start at once, later after some attempts.
Workers end by themselves when the supervisor is gone, however that came about.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import signal
import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from gateway.adapters.worker_process import WorkerProcess, WorkerSpec
from gateway.adapters.workers_hub import WorkersHub
from gateway.core.errors import ConfigError
from gateway.core.principal import KeyRecord
from gateway.core.worker import Worker, admin_socket, hub_socket
from gateway.planes import in_url, split_address
from gateway.ports import Clock
from gateway.settings.gateway import GatewayFile, StoreKind
from gateway.settings.load import Settings
from gateway.tasks import TaskSet
from gateway.web.admin_server import AdminServer
from gateway.web.front import Behind, Count, Front, open_session
from gateway.web.merged_metrics import WorkersMetrics

log = logging.getLogger(__name__)

BACKLOG: Final = 2_048
LOOK_SECONDS: Final = 1.0
"""Between two looks at a worker."""
START_SECONDS: Final = 60.0
"""By then a worker has started, or counts as hanging."""
STEADY_SECONDS: Final = 30.0
"""A worker that lived for so long is replaced at once; one that did not, after a pause that grows."""
FIRST_PAUSE_SECONDS: Final = 0.5
LONGEST_PAUSE_SECONDS: Final = 10.0
ATTEMPTS: Final = 5
"""To start a worker, one after the other in vain; then the gateway ends."""
STOPPING_SECONDS: Final = 30.0
"""What a worker may take to stop, above what its drain may take."""


@dataclass(slots=True)
class _Place:
    """What is known of one worker's number."""

    process: WorkerProcess | None = None
    ready: bool = False
    starts: int = 0
    failed_starts: int = 0
    short_lives: int = 0


class Supervisor:
    """`start` returns once all workers serve; then `ended` waits for the end, which `drain` brings about."""

    def __init__(
        self,
        settings: Settings,
        *,
        count: int,
        config: Path | None,
        environ: Mapping[str, str],
        more_keys: Sequence[KeyRecord] = (),
        clock: Clock,
    ) -> None:
        """`config` and `environ` are what the workers start with."""
        self._file: GatewayFile = settings.gateway
        self._count = count
        self._config = config
        self._environ = environ
        self._more_keys = tuple(more_keys)
        self._clock = clock
        self._tasks = TaskSet()
        self._places = [_Place() for _ in range(count)]
        self._metrics = WorkersMetrics()
        self._admin: AdminServer | None = None
        self._stopping = asyncio.Event()
        self._failed = asyncio.Event()
        self._over = asyncio.Event()
        self._all_ready = asyncio.Event()
        self._trouble = ""
        self._ended_well = True
        self.data_url = self.admin_url = ""

    async def start(self) -> None:
        """Raises `ConfigError`, or OSError where an address is taken."""
        if self._file.store.kind is StoreKind.MEMORY:
            raise ConfigError(
                "Several workers cannot share the `memory` store: each would have budgets of its own. Use "
                "`store.kind: sqlite`, or one worker."
            )
        self._listening = self._listen()
        self._folder = tempfile.mkdtemp(prefix="gateway-")
        self._hub = WorkersHub(hub_socket(self._folder), self._clock)
        try:
            await self._hub.start()
            await self._listen_admin()
        except OSError:
            await self._put_away()
            raise
        for number in range(self._count):
            self._tasks.spawn(self._keep(number), f"worker {number}")
        await self._first_of(self._all_ready, self._failed)
        if self._failed.is_set():
            await self._stop()
            raise ConfigError(self._trouble)

    def reload_soon(self) -> None:
        """Every worker reads the configuration anew; one that is just starting does so anyhow."""
        for place in self._places:
            if place.process is not None and place.ready:
                place.process.signal(signal.SIGHUP)

    def drain(self, *, announce: bool = True) -> None:
        """Every worker goes away without losing a call. A second time: at once."""
        self._stopping.set()
        self._listening.close()  # theirs stay open until they close them
        for place in self._places:
            if place.process is not None:
                place.process.signal(signal.SIGTERM if announce else signal.SIGINT)

    async def ended(self) -> int:
        """Until all workers have ended, and everything is put away; the exit code."""
        await self._first_of(self._over, self._failed)
        await self._stop()
        return 1 if self._failed.is_set() or not self._ended_well else 0

    # Workers

    async def _keep(self, number: int) -> None:
        """One worker after the other, until the gateway ends."""
        place = self._places[number]
        while not self._stopping.is_set():
            try:
                process = await self._launch(number)
            except Exception as error:
                log.exception("a worker cannot be started")
                self._give_up(f"A worker cannot be started: {error}.")
                break
            if self._stopping.is_set():
                process.kill()
            began = self._clock.monotonic()
            place.process, place.ready = process, False
            place.starts += 1
            log.info("worker %d is process %d", number, process.pid)
            self._metrics.began(number, process.pid)
            code = await self._watched(number, process)
            was_ready, place.process, place.ready = place.ready, None, False
            await process.close()
            if self._stopping.is_set():
                if code > 0:  # by itself, and not because somebody ended it
                    log.error("worker %d (process %d) ended with %s", number, process.pid, _told(code))
                    self._ended_well = False
                break
            pause = self._pause(place, was_ready=was_ready, lived=self._clock.monotonic() - began)
            if pause is None:
                self._give_up(
                    f"Worker {number} ended with {_told(code)} before it served, "
                    f"{'at its first start' if place.starts == 1 else f'{ATTEMPTS} times'}; its log says why."
                )
                break
            log.error("worker %d (process %d) ended with %s: replaced", number, process.pid, _told(code))
            await self._clock.sleep(pause)
        if all(each.process is None for each in self._places) and self._stopping.is_set():
            self._over.set()

    async def _launch(self, number: int) -> WorkerProcess:
        worker = Worker(
            number=number, count=self._count, folder=self._folder, listening=self._listening.fileno()
        )
        spec = WorkerSpec(worker=worker, config=self._config, more_keys=self._more_keys)
        session = open_session(admin_socket(self._folder, number))
        return await WorkerProcess.start(spec, self._environ, session)

    async def _watched(self, number: int, process: WorkerProcess) -> int:
        """Its exit code. One that gives no sign of life is ended."""
        place, alive_at, said = self._places[number], self._clock.monotonic(), False
        while True:
            code = await process.ended(LOOK_SECONDS if place.ready else 0.1)
            if code is not None:
                return code
            answers = await process.answers("/livez" if place.ready else "/startupz")
            now = self._clock.monotonic()
            if answers:
                alive_at, said = now, False
                place.ready = True
                if all(each.ready for each in self._places):
                    self._all_ready.set()
                continue
            patience = self._file.workers.unresponsive if place.ready else START_SECONDS
            if self._stopping.is_set():
                continue
            if now - alive_at > patience:
                log.error("worker %d gave no sign of life for %g s, and is ended", number, now - alive_at)
                process.kill()
            elif place.ready and now - alive_at > patience / 3 and not said:
                log.warning("worker %d gives no sign of life since %g s", number, now - alive_at)
                said = True

    def _pause(self, place: _Place, *, was_ready: bool, lived: float) -> float | None:
        """Before the next start; None where there is none."""
        place.failed_starts = 0 if was_ready else place.failed_starts + 1
        place.short_lives = 0 if was_ready and lived >= STEADY_SECONDS else place.short_lives + 1
        if place.failed_starts >= ATTEMPTS or (place.failed_starts and place.starts == 1):
            return None
        if place.short_lives <= 1:
            return 0.0
        return min(FIRST_PAUSE_SECONDS * 2.0 ** (place.short_lives - 2), LONGEST_PAUSE_SECONDS)

    def _give_up(self, trouble: str) -> None:
        log.error("%s The gateway ends.", trouble)
        self._trouble = trouble
        self._stopping.set()
        self._failed.set()

    # Listening, and the end

    def _listen(self) -> socket.socket:
        host, port = split_address(self._file.listen.data)
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self.data_url = f"http://{in_url(host)}:{listening.getsockname()[1]}"
        return listening

    async def _listen_admin(self) -> None:
        host, port = split_address(self._file.listen.admin)
        places = self._places
        front = Front(
            self._behind,
            self._metrics,
            counts=[
                Count(
                    name="gateway_worker_up",
                    kind="gauge",
                    help="1 for a worker that serves, 0 for one that is being replaced.",
                    values=lambda: {number: int(place.ready) for number, place in enumerate(places)},
                ),
                Count(
                    name="gateway_worker_starts_total",
                    kind="counter",
                    help="Times that a worker was started.",
                    values=lambda: {number: place.starts for number, place in enumerate(places)},
                ),
            ],
            draining=self._stopping.is_set,
        )
        self._admin = AdminServer(front.app, unpacks=False)
        bound = await self._admin.start(host, port)
        self.admin_url = f"http://{in_url(host)}:{bound}"

    def _behind(self) -> list[Behind]:
        return [
            Behind(number=number, process=place.process.pid, session=place.process.session)
            for number, place in enumerate(self._places)
            if place.process is not None and place.ready
        ]

    async def _stop(self) -> None:
        """Also after giving up: those that serve are drained."""
        if not self._over.is_set():
            self.drain()
            longest = self._file.drain.announce + self._file.drain.timeout + STOPPING_SECONDS
            if any(place.process is not None for place in self._places):
                await self._within(self._over, longest)
        for place in self._places:
            if place.process is not None:
                place.process.kill()
        await self._tasks.drain(1.0)
        await self._put_away()

    async def _put_away(self) -> None:
        self._listening.close()
        if self._admin is not None:  # what comes before it may have failed
            await self._admin.close()
        await self._hub.close()
        await asyncio.to_thread(shutil.rmtree, self._folder, True)

    async def _first_of(self, *events: asyncio.Event) -> None:
        waits = [self._tasks.spawn(_until(event), "waiting") for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()

    async def _within(self, event: asyncio.Event, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            log.error("workers did not end in time, and are ended")


async def _until(event: asyncio.Event) -> None:
    await event.wait()


def _told(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"
