"""Targets that name the server, as clients with a proxy set send them (RFC 9112, 3.2.2)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.e2e.whole.calls import ASK, in_front_of
from tests.support.mock_upstream import forever
from tests.support.raw_client import RawClient

ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}"


@pytest.mark.parametrize(
    ("target", "status", "sent"),
    [
        ("http://gateway.test/v1/messages?beta=true", 200, [b"POST /v1/messages?beta=true HTTP/1.1"]),
        ("http://gateway.test/v1//messages", 404, []),
        ("http://gateway.test/v1/organizations/users", 403, []),
        ("http://gateway.test@b/v1/messages", 404, []),
    ],
)
async def test_a_target_that_names_the_server_is_judged_and_sent_by_its_path(
    target: str, status: int, sent: list[bytes], tmp_path: Path
) -> None:
    async with in_front_of(forever(ANSWER), tmp_path) as (stack, upstream):
        port = int(stack.url.rpartition(":")[2])
        async with await RawClient.connect(port) as client:
            key = b"x-api-key: " + stack.keys["demo"].encode()
            await client.post(target, json.dumps(ASK).encode(), key)
            got = await client.response()

    assert got.status == status
    assert [asked.line for asked in upstream.requests] == sent
