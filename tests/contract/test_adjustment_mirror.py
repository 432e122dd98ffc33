"""What Redis forgets of the adjustments, replicas write back from their mirrors: no freeze ends by it, and
the audit trail stays one."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from gateway.adapters import adjustment_store_mirrored
from gateway.adapters.adjustment_store import SqliteAdjustmentStore
from gateway.adapters.adjustment_store_mirrored import MirroredAdjustmentStore
from gateway.adapters.adjustment_store_redis import RedisAdjustmentStore
from gateway.core.adjustments import Adjustment, LogEntry, TakenBack
from gateway.core.errors import StoreUnavailable
from tests.contract.test_adjustment_stores import BACK, NOW, a_freeze, a_grant, an_override
from tests.support.redis_server import RedisServer


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One that may be emptied."""
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


class Replicas:
    """Each has a mirror on a disk of its own."""

    def __init__(self, redis: RedisServer, folder: Path) -> None:
        self.redis, self._folder = redis, folder
        self._opened: list[MirroredAdjustmentStore] = []
        self.shared = RedisAdjustmentStore(redis.url)
        """Without a mirror."""

    def open(self, name: str) -> MirroredAdjustmentStore:
        """As that replica, started anew."""
        opened = MirroredAdjustmentStore(
            RedisAdjustmentStore(self.redis.url), SqliteAdjustmentStore(self.mirror(name))
        )
        self._opened.append(opened)
        return opened

    def mirror(self, name: str) -> Path:
        return self._folder / name / "mirror.sqlite3"

    def flush(self) -> None:
        assert self.redis.command("FLUSHALL") == b"+OK\r\n"

    async def close(self) -> None:
        for store in self._opened:
            await store.close()
        await self.shared.close()


@pytest.fixture
async def replicas(own_redis: RedisServer, tmp_path: Path) -> AsyncIterator[Replicas]:
    replicas = Replicas(own_redis, tmp_path)
    replicas.flush()
    yield replicas
    await replicas.close()


async def log_of(store: MirroredAdjustmentStore | RedisAdjustmentStore) -> tuple[LogEntry, ...]:
    return tuple(reversed(await store.history(before=None, at_most=1000)))


async def test_an_emptied_redis_ends_no_freeze_and_loses_no_line_of_the_audit_trail(
    replicas: Replicas,
) -> None:
    store = replicas.open("one")
    for made in (a_freeze(), an_override(), a_grant()):
        await store.add(made)
    await store.take_back("override1", BACK)
    before, standing = await log_of(store), await store.load(NOW)
    assert standing == (a_freeze(), a_grant())

    replicas.flush()

    assert await store.load(NOW) == standing
    assert await log_of(replicas.shared) == before
    assert await replicas.shared.load(NOW) == standing, "what was taken back stays so"


@pytest.mark.parametrize("read", ["find", "history", "take_back", "add"])
async def test_whatever_is_asked_first_finds_the_log_as_it_was(replicas: Replicas, read: str) -> None:
    store = replicas.open("one")
    entry = await store.add(a_freeze())
    replicas.flush()

    match read:
        case "find":
            assert await store.find("freeze01") == entry
        case "history":
            assert await log_of(store) == (entry,)
        case "take_back":
            assert await store.take_back("freeze01", BACK) == LogEntry(
                number=2, adjustment=a_freeze(), taken_back=BACK
            )
        case _:
            assert (await store.add(a_grant())).number == 2


async def test_replicas_that_write_back_at_once_end_with_one_log(replicas: Replicas) -> None:
    """Peers' counters are seeded anew by each of N pods, and count N times."""
    stores = [replicas.open(f"r{n}") for n in range(4)]
    for n, store in enumerate(stores):
        await store.add(a_freeze(f"freeze{n:02}"))
    for store in stores:
        await store.load(NOW)
    before = await log_of(stores[0])

    replicas.flush()
    standing = await asyncio.gather(*(store.load(NOW) for store in stores))

    assert {frozenset(made.id for made in each) for each in standing} == {
        frozenset(f"freeze{n:02}" for n in range(4))
    }
    assert [await log_of(store) for store in stores] == [before] * 4
    assert await log_of(replicas.shared) == before


async def test_a_replica_that_starts_at_an_empty_redis_brings_its_mirror(replicas: Replicas) -> None:
    await replicas.open("one").add(a_freeze())
    replicas.flush()

    again, new = replicas.open("one"), replicas.open("two")

    assert await again.load(NOW) == (a_freeze(),)
    assert await new.load(NOW) == (a_freeze(),)
    replicas.flush()
    assert await new.load(NOW) == (a_freeze(),), "it has a mirror by now"


@pytest.mark.parametrize("others", [0, 1, 2, 5])
async def test_a_log_that_went_back_in_time_is_noticed_even_where_others_wrote_on(
    replicas: Replicas, others: int
) -> None:
    store = replicas.open("one")
    entries = [await store.add(made) for made in (an_override(), a_freeze(), a_grant())]
    replicas.flush()
    await replicas.shared.keep(entries[:1])  # an old snapshot
    for n in range(others):
        await replicas.shared.add(an_override(f"other{n:03}", at=NOW + n))

    standing = await store.load(NOW)

    assert {made.id for made in standing} == {
        "override1",
        "freeze01",
        "grant001",
        *(f"other{n:03}" for n in range(others)),
    }
    numbers = [entry.number for entry in await log_of(store)]
    assert numbers == list(range(1, 4 + others))


async def test_what_was_taken_back_elsewhere_is_not_brought_back_by_an_older_mirror(
    replicas: Replicas,
) -> None:
    one, two = replicas.open("one"), replicas.open("two")
    await one.add(a_freeze())
    await two.load(NOW)
    await one.take_back("freeze01", BACK)  # two has not seen that
    replicas.flush()

    assert await two.load(NOW) == (a_freeze(),), "as far as it knows"
    assert await one.load(NOW) == ()
    assert await two.load(NOW) == ()


async def test_a_long_log_comes_back_in_its_order(
    replicas: Replicas, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adjustment_store_mirrored, "PAGE", 7)
    store = replicas.open("one")
    for n in range(30):
        await replicas.shared.add(an_override(f"long{n:04}"))
    await store.load(NOW)
    before = await log_of(store)
    replicas.flush()

    await store.load(NOW)

    assert await log_of(replicas.shared) == before
    assert len(before) == 30


async def test_a_mirror_that_cannot_be_written_hinders_nothing_and_is_made_up_for(replicas: Replicas) -> None:
    replicas.mirror("one").parent.write_text("no folder")
    store = replicas.open("one")
    await store.add(a_freeze())
    assert await store.load(NOW) == (a_freeze(),)

    replicas.mirror("one").parent.unlink()
    assert await store.load(NOW) == (a_freeze(),)
    replicas.flush()

    assert await store.load(NOW) == (a_freeze(),)


async def test_where_both_lost_it_nothing_is_said_to_be_in_force(replicas: Replicas) -> None:
    """`RulesInForce` keeps what it knew when a store says that it cannot say."""
    store = replicas.open("one")
    await store.add(a_freeze())
    await store.load(NOW)
    replicas.flush()
    shutil.rmtree(replicas.mirror("one").parent)
    replicas.mirror("one").parent.write_text("no folder")

    with pytest.raises(StoreUnavailable):
        await store.load(NOW)


async def test_lines_are_kept_once_whichever_of_the_two_comes_first(replicas: Replicas) -> None:
    made: Adjustment = a_freeze()
    taken = LogEntry(number=9, adjustment=made, taken_back=TakenBack(reason="r", by=made.by, at=NOW))
    first = LogEntry(number=3, adjustment=made)

    for lines in ([taken], [first, taken], [taken, first]):
        await replicas.shared.keep(lines)

    assert [entry.taken_back is None for entry in await log_of(replicas.shared)] == [False, True]
    assert await replicas.shared.load(NOW) == ()


async def test_a_line_that_another_history_passed_over_is_written_back(replicas: Replicas) -> None:
    """A replica writes while the log is emptied, and another restores it to the same length without that."""
    one, two = replicas.open("one"), replicas.open("two")
    await one.add(an_override())
    await two.load(NOW)

    added = one._shared.add

    async def add_and_lose(made: Adjustment) -> LogEntry:
        entry = await added(made)
        replicas.flush()
        await two.load(NOW)
        await two.add(a_grant())
        return entry

    one._shared.add = add_and_lose  # type: ignore[method-assign, assignment]
    await one.add(a_freeze())

    for store in (one, two):
        assert {made.id for made in await store.load(NOW)} == {"override1", "freeze01", "grant001"}
    assert await log_of(one) == await log_of(two)


@pytest.mark.parametrize("key", ["made", "taken-back", "standing", "chain"])
async def test_a_key_that_was_lost_is_made_anew_from_the_lines(replicas: Replicas, key: str) -> None:
    store = replicas.open("one")
    for made in (a_freeze(), an_override(), a_grant()):
        await store.add(made)
    await store.take_back("override1", BACK)
    standing, before = await store.load(NOW), await log_of(store)

    assert replicas.redis.command("DEL", f"{{cgw}}:adjustments:{key}") == b":1\r\n"

    assert await store.load(NOW) == standing
    assert await log_of(store) == before
    assert await store.take_back("freeze01", BACK) is not None
    assert await store.load(NOW) == (a_grant(),)


async def test_taking_back_right_after_a_flush_finds_what_was_made(replicas: Replicas) -> None:
    store = replicas.open("one")
    await store.add(a_freeze())
    taking = store._shared.take_back

    async def lose_and_take(adjustment_id: str, taken: TakenBack) -> LogEntry | None:
        store._shared.take_back = taking  # type: ignore[method-assign]
        replicas.flush()
        return await taking(adjustment_id, taken)

    store._shared.take_back = lose_and_take  # type: ignore[method-assign, assignment]

    assert await store.take_back("freeze01", BACK) is not None
    assert await store.load(NOW) == ()


async def test_nothing_acknowledged_is_lost_whatever_is_flushed_between(replicas: Replicas) -> None:
    """Replicas add and take back at once, while the log is emptied and old snapshots of it are restored."""
    dice = random.Random(7)
    stores = [replicas.open(f"r{n}") for n in range(3)]
    acknowledged: set[str] = set()
    taken: set[str] = set()

    async def write(name: int, store: MirroredAdjustmentStore) -> None:
        for n in range(12):
            made = an_override(f"by{name}n{n:03}")
            with contextlib.suppress(StoreUnavailable):
                await store.add(made)
                acknowledged.add(made.id)
                if n % 3 == 0 and await store.take_back(made.id, BACK) is not None:
                    taken.add(made.id)

    async def spoil() -> None:
        for _ in range(12):
            await asyncio.sleep(dice.random() / 100)
            snapshot = await log_of(replicas.shared)
            replicas.flush()
            if dice.random() < 0.5:
                await replicas.shared.keep(snapshot[: len(snapshot) // 2])

    await asyncio.gather(spoil(), *(write(n, store) for n, store in enumerate(stores)))
    for store in (*stores, *stores):
        standing = {made.id for made in await store.load(NOW)}

    assert standing == acknowledged - taken
    lines = [(line.adjustment.id, line.taken_back is None) for line in await log_of(replicas.shared)]
    assert len(lines) == len(set(lines))
    assert {made for made, first in lines if first} == acknowledged
    assert await log_of(stores[0]) == await log_of(stores[1]) == await log_of(stores[2])
