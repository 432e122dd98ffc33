"""Credentials that are got for a time, through the real pipeline: when a call waits for one, and when it is
sent again with another. And callers by token."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.claims import Bearer
from gateway.core.errors import CredentialUnavailable
from gateway.core.exchange import Basis, State
from gateway.core.headers import Header, Headers, value_of
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.principal import Keyring
from tests.support.fakes import FakeReply, Played, World, a_body, a_message

REFUSED = Played(status=401, pieces=[b'{"type":"error"}'])
TOKEN = b"a.b.c"


class Renewed:
    """A route's credential that is another one each time it is renewed; none at all before the first."""

    def __init__(self, *, number: int = 1, gives: bool = True) -> None:
        self.number = number
        self.gives = gives
        self.asked: list[bytes | None] = []

    def credential(self) -> Sequence[Header]:
        if not self.number:
            raise CredentialUnavailable("none yet")
        return [(b"authorization", b"Bearer %d" % self.number)]

    async def renew(self, refused: Headers) -> bool:
        self.asked.append(value_of(refused, b"authorization"))
        self.number += self.gives
        return self.gives


def a_world(tmp_path: Path, renewed: Renewed, *script: Played) -> World:
    world = World(tmp_path, *script)
    routes = {
        name: replace(route, credential=renewed.credential, renew=renewed.renew)
        for name, route in world.rules.routes.items()
    }
    world.rules = replace(world.rules, routes=routes)
    return world


def shown(world: World) -> list[bytes | None]:
    return [value_of(request.headers, b"authorization") for request in world.upstream.requests]


async def test_a_refused_credential_is_replaced_and_the_call_sent_again(tmp_path: Path) -> None:
    renewed = Renewed()
    world = a_world(tmp_path, renewed, REFUSED, Played(pieces=[a_message()]))
    reply = await world.call()

    assert (reply.status, shown(world)) == (200, [b"Bearer 1", b"Bearer 2"])
    assert renewed.asked == [b"Bearer 1"]
    one, two = world.upstream.requests
    assert one.body == two.body
    assert (world.seen.records[0].attempts, world.seen.records[0].basis) == (2, Basis.REPORTED)
    assert world.upstream.opened == world.upstream.closed == 2


async def test_it_is_sent_again_once_and_then_the_refusal_is_an_answer(tmp_path: Path) -> None:
    world = a_world(tmp_path, Renewed(), REFUSED, REFUSED, Played(pieces=[a_message()]))
    reply = await world.call()

    assert (reply.status, len(world.upstream.requests)) == (401, 2)
    assert world.seen.records[0].state is State.ANSWERED
    assert await world.open_reservations() == 0
    assert await world.spent_nanousd() == 0


async def test_where_there_is_no_other_the_refusal_is_an_answer(tmp_path: Path) -> None:
    world = a_world(tmp_path, Renewed(gives=False), REFUSED)

    assert ((await world.call()).status, len(world.upstream.requests)) == (401, 1)


@pytest.mark.parametrize("status", [400, 403, 429, 500, 529])
async def test_no_other_answer_makes_it_ask_for_a_credential(tmp_path: Path, status: int) -> None:
    renewed = Renewed()
    world = a_world(tmp_path, renewed, Played(status=status, pieces=[b"{}"]))

    assert ((await world.call()).status, renewed.asked) == (status, [])


async def test_what_may_not_be_repeated_is_not_but_the_next_call_has_another(tmp_path: Path) -> None:
    renewed = Renewed()
    world = a_world(tmp_path, renewed, *[REFUSED] * 2, Played(pieces=[a_message()]))
    thread = a_body(thread={"type": "continue", "previous_message_id": "msg_1"})
    assert (await world.call(body=thread)).status == 401
    headers = [*world.make_call().headers, (b"x-stainless-retry-count", b"1")]
    assert (await world.call(headers=headers)).status == 401

    assert (await world.call()).status == 200
    assert shown(world) == [b"Bearer 1", b"Bearer 2", b"Bearer 3"]


async def test_a_call_waits_for_the_first_credential_and_fails_where_there_is_none(tmp_path: Path) -> None:
    world = a_world(tmp_path, Renewed(number=0), Played(pieces=[a_message()]))
    assert (await world.call()).status == 200

    world = a_world(tmp_path, Renewed(number=0, gives=False))
    with pytest.raises(CredentialUnavailable):
        await world.call(FakeReply(world.stage))
    assert (world.seen.records[0].state, await world.open_reservations()) == (State.FAILED, 0)


class OneToken:
    def identify(self, token: bytes, now: float) -> Bearer:
        assert token == TOKEN
        tags = (("x-team", "payments"),)
        return Bearer(workspace=WorkspaceId("demo"), subject=KeyId("token:test:a"), name="a", tags=tags)


async def test_tags_of_a_token_go_before_what_its_caller_says(tmp_path: Path) -> None:
    world = World(tmp_path, Played(pieces=[a_message()]))
    keyring = Keyring([], {WorkspaceId("demo"): "default"}, tokens=OneToken())
    world.rules = replace(world.rules, keyring=keyring, tag_headers=("x-team", "x-feature"))
    await world.call(
        headers=[
            (b"authorization", b"Bearer " + TOKEN),
            (b"x-team", b"spoofed"),
            (b"x-feature", b"search"),
        ]
    )

    assert world.seen.records[0].tags == (("x-team", "payments"), ("x-feature", "search"))
    assert world.seen.records[0].principal is not None
    assert world.seen.records[0].principal.key_id == "token:test:a"
    assert not any(b"team" in name for name, _ in world.upstream.requests[0].headers)
