"""The gateway of a soak run: the service as `gateway run` starts it, with a key for each workspace that is
named, which says what it holds when it is asked.

Started as `python -m tests.soak.gateway CONFIG WORKSPACES`; says where it listens on a line of its standard
output, and for each line of its standard input what it holds, as JSON. SIGTERM drains it. The gateway knows
nothing of it; but the bounds of some of its tables are smaller here (`SMALL_TABLES`).
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from gateway.adapters.garbage import spare_what_stays
from gateway.cli.run import configure_logging
from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, KeyRecord, mint_key
from gateway.service import Service
from gateway.settings import load_settings
from gateway.web.malloc import keep_freed_memory

PAGE = os.sysconf("SC_PAGE_SIZE")
SMALL_TABLES = (
    ("gateway.core.planner.reuse", "MAX_OPEN", 2_048),
    ("gateway.core.planner.warming", "MAX_KEPT", 128),
    ("gateway.core.planner.calls", "MAX_REMEMBERED", 384),
)
"""Tables that hours of this traffic do not fill, and what they are bounded by here: ten thousand calls fill
them, and what grows after that has no bound."""


def keys_of(workspaces: list[str]) -> dict[str, str]:
    """The same texts in this process and in the one that calls it."""
    return {name: mint(name)[0] for name in workspaces}


def mint(workspace: str) -> tuple[str, KeyRecord]:
    digits = workspace.encode().ljust(RANDOM_BYTES, b".")[:RANDOM_BYTES]
    return mint_key(random_bytes=digits, name=workspace, workspace=WorkspaceId(workspace), created_at=0.0)


def stand(service: Service) -> dict[str, float]:
    """What this process holds at this moment."""
    resident = int(Path("/proc/self/statm").read_text().split()[1])
    return {
        "resident_bytes": resident * PAGE,
        "descriptors": len(os.listdir("/proc/self/fd")) - 1,  # its own is open while it counts
        "threads": threading.active_count(),
        "tasks": len(asyncio.all_tasks()),
        "exchanges": len(service.pipeline.open),
        "reservations": len(service.pipeline.open_reservations()),
        "cpu_seconds": time.process_time(),
    }


def make_tables_small() -> None:
    """Before there are any."""
    for module, bound, entries in SMALL_TABLES:
        assert getattr(importlib.import_module(module), bound) > entries, (module, bound)
        setattr(sys.modules[module], bound, entries)


async def _run(config: Path, workspaces: list[str]) -> None:
    settings = load_settings(config, os.environ)
    configure_logging(settings)
    service = Service(settings, more_keys=[mint(name)[1] for name in workspaces], quiet=True)
    await service.start()
    spare_what_stays()
    print(f"listens {service.data_url} {service.admin_url}", flush=True)

    ending = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, ending.set)

    def read() -> None:
        for _ in os.read(0, 4096).splitlines():
            print(json.dumps(stand(service)), flush=True)

    os.set_blocking(0, False)
    loop.add_reader(0, read)
    await ending.wait()
    loop.remove_reader(0)
    await service.drain(announce=False)
    await service.stop()


def _loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    make_tables_small()
    keep_freed_memory()
    with suppress(KeyboardInterrupt), asyncio.Runner(loop_factory=_loop) as runner:
        runner.run(_run(Path(sys.argv[1]), sys.argv[2].split(",")))
