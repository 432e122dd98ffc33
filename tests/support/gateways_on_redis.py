"""Gateway processes on one Redis and one simulator: their configuration, the calls that they get, and what
was billed, booked and counted of them. A call is known by its name, which the body and a tag carry."""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from contextlib import AsyncExitStack, closing
from pathlib import Path
from typing import Any

import redis as sync_redis

from gateway.adapters.key_store_redis import RedisKeyStore
from gateway.core.ids import WorkspaceId
from gateway.core.principal import RANDOM_BYTES, mint_key
from gateway.settings import packaged_directory
from gateway.settings.gateway import LEDGER_FILE
from gateway.sim.pacing import Pacing
from gateway.sim.server import Simulator
from tests.support.process import Running, a_gateway_process
from tests.support.redis_server import RedisServer
from tests.support.stack import UPSTREAM_CREDENTIAL, a_simulator

TAG = "{cgw}"
_KEY, _RECORD = mint_key(
    random_bytes=bytes(RANDOM_BYTES), name="app", workspace=WorkspaceId("demo"), created_at=0.0
)
_GATEWAY = """\
listen: {{data: "127.0.0.1:0", admin: "127.0.0.1:0"}}
store: {{kind: redis}}
prefixes: {{secret: {{env: PREFIX_SECRET}}}}
upstreams: {{default: {{base_url: "{url}", credential: {{env: UPSTREAM_KEY}}}}}}
placement: {{policy: rules}}
tags: {{headers: [x-call]}}
drain: {drain}
"""
_LIMITS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, comment: test}
"""
_ENTRIES = """
SELECT tags, basis, state, uncached_input_nanousd + cache_read_nanousd + cache_write_5m_nanousd
    + cache_write_1h_nanousd + output_nanousd + server_tools_nanousd
FROM entries
"""


async def a_ground(
    folder: Path,
    running: AsyncExitStack,
    redis: RedisServer,
    pacing: Pacing,
    *,
    drain: str,
    workspace: str = "{upstream: default}",
) -> Simulator:
    """A simulator that is started, a key in Redis, and the configuration in `folder`."""
    keys = RedisKeyStore(redis.url)
    await keys.put(_RECORD)
    await keys.close()
    simulator = a_simulator(pacing)
    await simulator.start()
    running.push_async_callback(simulator.stop)
    config = folder / "config"
    config.mkdir()
    (config / "gateway.yaml").write_text(_GATEWAY.format(url=simulator.url, drain=drain))
    (config / "workspaces.yaml").write_text(f"workspaces: {{demo: {workspace}}}\n")
    (config / "limits.yaml").write_text(_LIMITS)
    (config / "prices.yaml").write_bytes((packaged_directory() / "prices.yaml").read_bytes())
    return simulator


async def a_replica(
    folder: Path, state: str, running: AsyncExitStack, redis: RedisServer, *arguments: str
) -> Running:
    """A gateway on that configuration, with a state directory of this name."""
    environ = {
        "REDIS_URL": redis.url,
        "PREFIX_SECRET": "sk-test-prefix-secret-of-32-bytes-or-more",
        "UPSTREAM_KEY": UPSTREAM_CREDENTIAL,
    }
    given = ("--config", str(folder / "config"), *arguments)
    return await running.enter_async_context(a_gateway_process(folder / state, *given, environ=environ))


def a_call(name: str, *, stream: bool, words: int) -> Any:
    """What aiohttp posts."""
    body = {
        "model": "claude-haiku-4-5",
        "max_tokens": 1_000,
        "stream": stream,
        "metadata": {"user_id": name},
        "messages": [{"role": "user", "content": f"Write {words} words about {name}."}],
    }
    return {"json": body, "headers": {"x-api-key": _KEY, "anthropic-version": "2023-06-01", "x-call": name}}


def billed(simulator: Simulator) -> dict[str, list[int]]:
    """Nano-dollars of each line of the bill, by call."""
    calls = {
        received.request_id: json.loads(received.body)["metadata"]["user_id"]
        for received in simulator.requests
    }
    found: dict[str, list[int]] = defaultdict(list)
    for line in simulator.bill.lines:
        found[calls[line.request_id]].append(line.cost_nanousd)
    return found


def entries(state: Path) -> Iterator[tuple[str, str, str, int]]:
    """Of the ledger in a state directory: the call, basis, state and nano-dollars of each."""
    with closing(sqlite3.connect(state / LEDGER_FILE)) as ledger:
        for tags, basis, how, nanousd in ledger.execute(_ENTRIES):
            yield json.loads(tags)["x-call"], basis, how, nanousd


def counted(redis: RedisServer) -> tuple[int, int, int]:
    """Nano-dollars spent by the counters, and set aside by them; how many leases there are."""
    store: Any = sync_redis.Redis(port=redis.port, decode_responses=True)
    with closing(store):
        buckets = [store.hgetall(key) for key in store.scan_iter(f"{TAG}:b:*")]
        leases = store.zcard(f"{TAG}:leases")
    return (
        sum(int(bucket["spent"]) for bucket in buckets),
        sum(int(bucket.get("set_aside", 0)) for bucket in buckets),
        leases,
    )
