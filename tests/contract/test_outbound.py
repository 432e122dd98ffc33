"""Requests of the gateway's own: bounded in time and size, and to nowhere but where they were meant to go."""

from __future__ import annotations

import pytest

from gateway.adapters.outbound import Outbound, OutboundError, is_refused
from tests.support.tokens import a_key_server


async def test_what_is_good_is_fetched_whole() -> None:
    async with a_key_server(good=b"x" * 1_000) as server:
        outbound = Outbound(largest_bytes=1_000)
        got = await outbound.fetch(f"{server.url}/good", headers={"x-one": "1"})
        posted = await outbound.fetch(f"{server.url}/good", body=b"{}")

        assert (got.status, got.body, posted.status) == (200, b"x" * 1_000, 200)
        assert [request.method for request in server.asked] == ["GET", "POST"]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ("/good", "redirect, which is not followed"),
        ("slow", "did not answer in"),
        (b"x" * 1_001, "more than"),
    ],
)
async def test_an_answer_that_leads_elsewhere_or_has_no_end_is_none(answer: bytes | str, says: str) -> None:
    async with a_key_server(good=b"good", odd=answer) as server:
        outbound = Outbound(timeout_seconds=2.0 if answer == "slow" else 10.0, largest_bytes=1_000)
        with pytest.raises(OutboundError, match=says):
            await outbound.fetch(f"{server.url}/odd")

        assert [request.path for request in server.asked] == ["/odd"]


@pytest.mark.parametrize("host", ["169.254.169.254", "[fd00:ec2::254]", "[::ffff:a9fe:a9fe]", "0.0.0.0"])
async def test_an_address_of_a_metadata_service_is_refused_before_anything_is_sent(host: str) -> None:
    with pytest.raises(OutboundError, match="does not ask"):
        await Outbound().fetch(f"http://{host}/")


async def test_nobody_there_is_said_without_what_was_sent() -> None:
    async with a_key_server() as server:
        url = server.url
    with pytest.raises(OutboundError, match="cannot be asked") as caught:
        await Outbound().fetch(f"{url}/canary", body=b"canary", headers={"authorization": "canary"})

    assert "canary" not in str(caught.value)


@pytest.mark.parametrize(
    ("address", "refused"),
    [
        ("169.254.169.254", True),
        ("::ffff:169.254.169.254", True),
        ("64:ff9b::a9fe:a9fe", True),
        ("2002:a9fe:a9fe::", True),
        ("::a9fe:a9fe", True),
        ("fe80::1%eth0", True),
        ("fd00:ec2::254", True),
        ("fd20:ce::254", True),
        ("fd00:c1::a9fe:a9fe", True),
        ("168.63.129.16", True),
        ("100.100.100.200", True),
        ("0.0.0.0", True),
        ("::", True),
        ("127.0.0.1", False),
        ("::1", False),
        ("10.0.0.1", False),
        ("fd00::1", False),
        ("160.79.104.10", False),
    ],
)
def test_addresses_of_metadata_services_are_never_asked(address: str, refused: bool) -> None:
    assert is_refused(address) is refused
