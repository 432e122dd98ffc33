"""The pipeline at its edges: other endpoints, unknown prices, a store that is away."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gateway.core.errors import BadRequest, StoreUnavailable
from gateway.core.headers import value_of
from gateway.core.ids import ReservationId
from gateway.ports import UpstreamRequest
from gateway.settings import packaged_directory
from tests.support.fakes import KEY, MODEL, Played, World, a_body, a_message


def sent(request: UpstreamRequest) -> bytes:
    return b"".join(request.body)


async def test_trap_66_count_tokens_and_models_pass_a_spent_budget(tmp_path: Path) -> None:
    world = World(
        tmp_path,
        Played(pieces=[b'{"input_tokens": 7}']),
        Played(pieces=[b'{"data": []}']),
        store_failure=StoreUnavailable("down"),
    )
    body = a_body()
    del body["max_tokens"]
    counted = await world.call(target="/v1/messages/count_tokens?beta=true", body=body)
    listed = await world.call(method="GET", target="/v1/models?limit=1000")

    assert (counted.body, listed.status) == (b'{"input_tokens": 7}', 200)
    assert world.upstream.requests[0].target == "/v1/messages/count_tokens?beta=true"
    assert json.loads(sent(world.upstream.requests[0])) == body


async def test_refuses_hard_limits_when_the_store_is_down(tmp_path: Path) -> None:
    world = World(tmp_path, store_failure=StoreUnavailable("down"))
    with pytest.raises(StoreUnavailable):
        await world.call()

    assert world.upstream.opened == 0
    assert world.seen.records[0].store_degraded


async def test_a_call_that_the_store_had_closed_before_it_came_is_refused_as_unavailable(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.memory.release(ReservationId("gw_1"))
    with pytest.raises(StoreUnavailable, match="closed"):
        await world.call()

    assert world.upstream.opened == 0


async def test_lets_soft_limits_go_on_when_the_store_is_down(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    for file in packaged_directory().glob("*.yaml"):
        (config / file.name).write_bytes(file.read_bytes())
    (config / "limits.yaml").write_text(
        "defaults:\n  - {id: rate, scope: key, unit: requests, amount: 5, per: minute, comment: soft}\n"
    )
    world = World(
        tmp_path, Played(pieces=[a_message()]), store_failure=StoreUnavailable("down"), config=config
    )
    reply = await world.call()

    assert reply.status == 200
    assert world.seen.records[0].store_degraded


async def test_points_results_of_batches_back_at_the_gateway(tmp_path: Path) -> None:
    upstream = "https://api.anthropic.com"
    answer = json.dumps({"id": "b", "results_url": f"{upstream}/v1/messages/batches/b/results"}).encode()
    world = World(tmp_path, Played(pieces=[answer[:30], answer[30:]]))
    reply = await world.call(method="GET", target="/v1/messages/batches/b")

    assert json.loads(reply.body)["results_url"] == "http://gateway.test/v1/messages/batches/b/results"
    assert value_of(reply.headers, b"content-length") == str(len(reply.body)).encode()


@pytest.mark.parametrize("charset", ["ISO-8859-1", '"latin1"', "utf-8"])
async def test_a_body_in_latin_1_is_read_and_crosses_as_it_is(tmp_path: Path, charset: str) -> None:
    world = World(tmp_path, Played(pieces=[a_message()]))
    headers = [
        (b"x-api-key", KEY.encode()),
        (b"content-type", f"application/json; charset={charset}".encode()),
    ]
    body = json.dumps(a_body(system="Grüße " * 3_000), ensure_ascii=False).encode("latin-1")
    if charset == "utf-8":
        with pytest.raises(BadRequest, match="UTF-8"):
            await world.call(headers=headers, body=body)
        return
    await world.call(headers=headers, body=body)

    assert sent(world.upstream.requests[0]) == body
    assert world.seen.records[0].model == MODEL


async def test_an_answer_without_a_body_crosses_as_it_is(tmp_path: Path) -> None:
    length = (b"content-length", b"59")
    world = World(tmp_path, Played(headers=(length,), pieces=[]), Played(status=204, headers=(), pieces=[]))
    head = await world.call(method="HEAD", target="/v1/messages/batches")
    gone = await world.call(method="DELETE", target="/v1/messages/batches/b")

    assert value_of(head.headers, b"content-length") == b"59"
    assert value_of(gone.headers, b"content-length") is None


async def test_counts_other_endpoints_by_request_only(tmp_path: Path) -> None:
    world = World(tmp_path, Played(status=200, pieces=[b"{}"]))
    await world.call(method="GET", target="/v1/skills?limit=3")

    record = world.seen.records[0]
    assert (record.endpoint, record.cost, record.usage) == ("other", None, None)
    assert record.model is None
    assert world.upstream.requests[0].target == "/v1/skills?limit=3"


async def test_a_price_nobody_knows_is_counted(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[a_message().replace(MODEL.encode(), b"claude-next-9")]))
    await world.call(body=a_body(model="claude-next-9"))

    cost = world.seen.records[0].cost
    assert cost is not None
    assert cost.fallback
    assert cost.total_nanousd > 0
