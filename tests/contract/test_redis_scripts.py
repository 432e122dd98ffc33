"""Scripts that are asked for together: one connection, one way there and back, and each its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from gateway.adapters.clock import SystemClock
from gateway.adapters.redis_scripts import AT_ONCE, RedisScripts, Script
from gateway.core.errors import StoreUnavailable
from tests.support.lossy_proxy import LossyProxy
from tests.support.redis_server import RedisServer

ECHO = Script("return ARGV[1]")
COUNT = Script("return redis.call('INCR', KEYS[1])")
REFUSE = Script("return redis.error_reply('NOT today')")


@pytest.fixture
async def scripts(own_redis: RedisServer) -> AsyncIterator[RedisScripts]:
    made = RedisScripts(own_redis.url, SystemClock(), "t")
    yield made
    await made.close()


async def echoes(scripts: RedisScripts, count: int) -> list[bytes]:
    answers: list[bytes] = await asyncio.gather(*(scripts.run(ECHO, [], [str(i)]) for i in range(count)))
    return answers


async def test_a_crowd_needs_one_connection_and_each_gets_its_own_answer(scripts: RedisScripts) -> None:
    assert await echoes(scripts, 40) == [b"%d" % i for i in range(40)]
    assert scripts.connects == 1


async def test_a_crowd_is_asked_in_the_order_of_its_asking(scripts: RedisScripts) -> None:
    assert await asyncio.gather(*(scripts.run(COUNT, ["{t}:n"], []) for _ in range(20))) == [*range(1, 21)]


async def test_more_than_may_be_under_way_are_all_answered(scripts: RedisScripts) -> None:
    assert len(set(await echoes(scripts, 3 * AT_ONCE))) == 3 * AT_ONCE


@pytest.mark.parametrize("is_known", [False, True])
async def test_a_script_that_is_refused_fails_alone(scripts: RedisScripts, is_known: bool) -> None:
    if is_known:
        await echoes(scripts, 1)
        with pytest.raises(StoreUnavailable):
            await scripts.run(REFUSE, [], [])
    asked = (scripts.run(script, [], ["here"]) for script in (ECHO, REFUSE, ECHO))
    first, refused, last = await asyncio.gather(*asked, return_exceptions=True)

    assert (first, last) == (b"here", b"here")
    assert isinstance(refused, StoreUnavailable) and refused.outcome_known
    assert "NOT today" in refused.message
    assert await echoes(scripts, 1) == [b"0"]  # the connection is in step
    assert scripts.connects == 1


async def test_a_crowd_is_answered_by_a_server_that_forgot_its_scripts(
    scripts: RedisScripts, own_redis: RedisServer
) -> None:
    await echoes(scripts, 1)
    own_redis.command("SCRIPT", "FLUSH")

    counted = [scripts.run(COUNT, ["{t}:n"], []) for _ in range(5)]
    answers = await asyncio.gather(*counted, scripts.run(ECHO, [], ["here"]))

    assert (sorted(answers[:5]), answers[5]) == ([1, 2, 3, 4, 5], b"here")
    assert scripts.connects == 1


async def test_who_leaves_costs_the_others_neither_their_answers_nor_the_connection(
    scripts: RedisScripts,
) -> None:
    await echoes(scripts, 1)
    loop = asyncio.get_running_loop()
    crowd = [loop.create_task(scripts.run(ECHO, [], [str(i)])) for i in range(5)]
    await asyncio.sleep(0)  # they have asked, and nothing is sent
    crowd[1].cancel()
    await asyncio.sleep(0)  # sent, and not answered
    crowd[3].cancel()
    answers = await asyncio.gather(*crowd, return_exceptions=True)

    assert [answers[i] for i in (0, 2, 4)] == [b"0", b"2", b"4"]
    assert all(isinstance(answers[i], asyncio.CancelledError) for i in (1, 3))
    assert await echoes(scripts, 2) == [b"0", b"1"]
    assert scripts.connects == 1


async def test_a_crowd_whose_idle_connection_is_dead_is_answered_over_another(
    scripts: RedisScripts, own_redis: RedisServer
) -> None:
    await echoes(scripts, 1)
    own_redis.command("CLIENT", "KILL", "TYPE", "normal")

    assert await echoes(scripts, 10) == [b"%d" % i for i in range(10)]
    assert scripts.connects == 2


async def test_a_crowd_without_an_answer_does_not_know_its_outcome(own_redis: RedisServer) -> None:
    async with LossyProxy(own_redis.port) as proxy:
        scripts = RedisScripts(f"redis://127.0.0.1:{proxy.port}", SystemClock(), "t")
        await echoes(scripts, 1)
        proxy.lose_replies = 100
        failures = await asyncio.gather(
            *(scripts.run(COUNT, ["{t}:n"], []) for _ in range(3)), return_exceptions=True
        )
        await scripts.close()

    assert [type(failure) for failure in failures] == [StoreUnavailable] * 3
    assert not any(failure.outcome_known for failure in failures if isinstance(failure, StoreUnavailable))


async def test_what_is_under_way_at_the_close_is_told_so(own_redis: RedisServer) -> None:
    scripts = RedisScripts(own_redis.url, SystemClock(), "t")
    await echoes(scripts, 1)
    own_redis.command("CLIENT", "PAUSE", "60000")
    asked = asyncio.get_running_loop().create_task(scripts.run(ECHO, [], ["late"]))
    await asyncio.sleep(0)
    await scripts.close()

    with pytest.raises(StoreUnavailable):
        await asked
