"""Where in Redis our keys are served: one server, the master of a Sentinel group, or a node of a Cluster.

Everything that speaks to Redis takes its connections from here. A connection finds its server whenever it
connects; what shows that it leads to the wrong one (read-only, moved) breaks it off, and the next one asks
again. All keys bear one hash tag, so that in a Cluster one node serves them all.

Not followed: `ASK`. While the slot of our keys is migrating, Redis cannot run scripts over several of them;
that counts as being away, for as long as it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final, Protocol
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit

from redis.asyncio import Redis
from redis.asyncio.connection import Connection, ConnectionPool, SSLConnection
from redis.asyncio.retry import Retry
from redis.crc import key_slot
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import MovedError, ReadOnlyError, RedisError
from redis.maint_notifications import MaintNotificationsConfig

SENTINEL_PORT: Final = 26379
REDIS_PORT: Final = 6379

RESOLVE_SECONDS: Final = 0.2
"""For asking all that could know at once; the first good answer counts."""

Address = tuple[str, int]

_PROTOCOL: Final[dict[str, Any]] = {
    "protocol": 2,
    "driver_info": None,
    "maint_notifications_config": MaintNotificationsConfig(enabled=False),
}


def connection_pool(url: str, prefix: str, **options: Any) -> ConnectionPool:
    """A pool of connections to whoever serves the keys tagged `{prefix}`. `options` are those of redis-py.
    Raises ValueError for a URL that cannot be read; the message holds nothing of it but its form."""
    options = {**_PROTOCOL, **options}
    scheme = urlsplit(url).scheme
    if "+" not in scheme:
        return ConnectionPool.from_url(url, **options)
    read = _read_url(url)
    kind = _FindsTls if scheme.startswith("rediss") else _Finds
    own = {name: value for name, value in read.options.items() if name not in options}
    login = (
        ("username", "password") if scheme.endswith("+cluster") else ()
    )  # Sentinels have logins of their own
    asking = {name: value for name, value in own.items() if name in login or name.startswith("ssl_")}
    if scheme.endswith("+sentinel"):
        if not read.service:
            raise ValueError("a URL of Sentinels names a master, as in redis+sentinel://h1,h2,h3/mymaster/0")
        seeds = tuple((host, port or SENTINEL_PORT) for host, port in read.seeds)
        ask = _sentinel_question(read.service, read.sentinel_options)
    else:
        if read.db:
            raise ValueError("a Cluster has the database 0 only")
        seeds = tuple((host, port or REDIS_PORT) for host, port in read.seeds)
        ask = _cluster_question(prefix)

    def plain(address: Address) -> Connection:
        return kind(host=address[0], port=address[1], finder=None, **_PROTOCOL, **asking)

    finder = Finder(seeds, ask, plain)
    return ConnectionPool(connection_class=kind, finder=finder, db=read.db, **own, **options)


def client(url: str, prefix: str, *, retry: Retry, **options: Any) -> Redis:
    """The library's client over such a pool, which is closed with it."""
    redis: Redis = Redis.from_pool(connection_pool(url, prefix, retry=retry, **options))
    redis.set_retry(retry)
    return redis


class Finder:
    """Asks every seed at once where the master is, and believes the first that knows: a seed that does not
    answer costs nothing. Of a Cluster, nodes that were heard of are seeds too."""

    def __init__(
        self, seeds: tuple[Address, ...], ask: Question, plain: Callable[[Address], Connection]
    ) -> None:
        self._seeds = seeds
        self._ask = ask
        self._plain = plain
        self._heard: tuple[Address, ...] = ()

    async def find(self) -> Address:
        """Raises `RedisConnectionError` where nobody knows, within `RESOLVE_SECONDS`."""
        found: _Answer | None = None
        first: asyncio.Future[_Answer | None] = asyncio.get_running_loop().create_future()
        asked = dict.fromkeys((*self._seeds, *self._heard))
        said: list[str] = []

        async def ask(address: Address) -> None:
            try:
                answer = await self._asked(address)
            except (RedisError, OSError, ValueError) as error:
                said.append(str(error))
                if len(said) == len(asked) and not first.done():
                    first.set_result(None)
            else:
                if not first.done():
                    first.set_result(answer)

        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(ask(address)) for address in asked]
            try:
                async with asyncio.timeout(RESOLVE_SECONDS):
                    found = await first
            except TimeoutError:
                pass
            finally:
                for task in tasks:
                    task.cancel()
        if found is None:
            raise RedisConnectionError(
                f"nobody says where the master is: {said[-1] if said else 'no answer'}"
            )
        self._heard = found.others or self._heard
        return found.master

    async def _asked(self, address: Address) -> _Answer:
        connection = self._plain(address)
        try:
            await connection.connect()  # type: ignore[no-untyped-call]
            return await self._ask(connection, address)
        finally:
            await connection.disconnect(nowait=True)


@dataclass(frozen=True, slots=True)
class _Answer:
    master: Address
    others: tuple[Address, ...] = ()


Question = Callable[[Connection, Address], Coroutine[Any, Any, _Answer]]


class Finding(Protocol):
    """What a connection needs of a `Finder`."""

    def find(self) -> Awaitable[Address]: ...


class _Finds(Connection):
    """Looks for its server when it connects, and leaves it as soon as it proves to be the wrong one."""

    def __init__(self, *, finder: Finding | None, **rest: Any) -> None:
        self._finder = finder
        super().__init__(**rest)

    async def _connect(self) -> None:
        if self._finder is not None:
            self.host, self.port = await self._finder.find()
        await super()._connect()  # type: ignore[no-untyped-call]

    async def read_response(self, *args: Any, **rest: Any) -> Any:
        try:
            return await super().read_response(*args, **rest)
        except (MovedError, ReadOnlyError) as error:
            if self._finder is None:
                raise
            await self.disconnect(nowait=True)
            # For whoever reads this it is as if the connection had broken: nothing has run.
            raise RedisConnectionError(f"the keys are served elsewhere by now ({error})") from error


class _FindsTls(_Finds, SSLConnection):
    pass


def _sentinel_question(service: str, login: dict[str, Any]) -> Question:
    async def ask(connection: Connection, address: Address) -> _Answer:
        if login:
            words = [login[name] for name in ("username", "password") if name in login]
            await connection.send_command("AUTH", *words)
            await connection.read_response()
        await connection.send_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", service)
        reply = await connection.read_response(disable_decoding=True)
        if not reply:
            raise ValueError(f"the Sentinels know no master {service!r}")
        return _Answer((reply[0].decode(), int(reply[1])))

    return ask


def _cluster_question(prefix: str) -> Question:
    slot = key_slot(b"{%s}" % prefix.encode())

    async def ask(connection: Connection, address: Address) -> _Answer:
        await connection.send_command("CLUSTER", "SLOTS")
        reply = await connection.read_response(disable_decoding=True)
        nodes = [
            (first, last, node[0].decode() or address[0], int(node[1])) for first, last, node, *_ in reply
        ]
        others = tuple(dict.fromkeys((host, port) for _, _, host, port in nodes))
        for first, last, host, port in nodes:
            if first <= slot <= last:
                return _Answer((host, port), others)
        raise ValueError(f"no node of the Cluster serves the slot {slot}")

    return ask


@dataclass(frozen=True, slots=True, kw_only=True)
class _Url:
    seeds: tuple[tuple[str, int | None], ...]
    service: str
    db: int
    options: dict[str, Any]
    sentinel_options: dict[str, Any]


def _read_url(url: str) -> _Url:
    parts = urlsplit(url)
    login, _, hosts = parts.netloc.rpartition("@")
    seeds = tuple(_read_host(host) for host in hosts.split(",") if host)
    if not seeds:
        raise ValueError("the URL names no host")
    service, db = "", 0
    for step in filter(None, parts.path.split("/")):
        if step.isdigit():
            db = int(step)
        else:
            service = unquote(step)
    query = dict(parse_qsl(parts.query))
    sentinel = {
        name: query.pop(f"sentinel_{name}")
        for name in ("username", "password")
        if f"sentinel_{name}" in query
    }
    # The library reads what else is in the query, and knows the type of each option.
    one = f"{'rediss' if parts.scheme.startswith('rediss') else 'redis'}://{login + '@' if login else ''}h?"
    options = dict(ConnectionPool.from_url(one + urlencode(query)).connection_kwargs)
    for name in ("host", "port", "db"):
        options.pop(name, None)
    return _Url(seeds=seeds, service=service, db=db, options=options, sentinel_options=sentinel)


def _read_host(text: str) -> tuple[str, int | None]:
    host, colon, port = text.rpartition(":")
    if not colon or text.endswith("]"):
        return text.strip("[]"), None
    if not port.isdigit():
        raise ValueError("a port is a number")
    return host.strip("[]"), int(port)
