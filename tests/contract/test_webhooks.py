"""One attempt at a webhook, against a real receiver: what counts as delivered, what is tried again, and where
a request may go at all."""

from __future__ import annotations

import hashlib
import hmac
import socket
import subprocess
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from gateway.adapters.outbound import Outbound, OutboundError, is_private
from gateway.adapters.webhooks import Webhooks, is_allowed, signature
from gateway.core.alerts import Alert, AlertKind, Format, Outcome, Target
from tests.support.webhook_receiver import CLOSE, HANG, HUGE, REDIRECT, SECRET, Receiver, a_receiver

ALERT = Alert(
    id="threshold/demo/1",
    kind=AlertKind.THRESHOLD,
    at=1_800_000_000.0,
    headline="Workspace <!channel> & co `has` spent\n80%",
    facts=(("spent", "$8.00 of $10.00"),),
    command="gateway budget grant `month` '$2.00'",
)


def to(url: str, format_: Format = Format.WEBHOOK, **more: object) -> Target:
    secret = (lambda: SECRET) if format_ is Format.WEBHOOK else None
    target = Target(name="t", format=format_, url=lambda: url, secret=secret)
    return replace(target, **more)  # type: ignore[arg-type]


def webhooks(timeout_seconds: float = 5.0) -> Webhooks:
    return Webhooks(lambda: 1_800_000_123.9, timeout_seconds=timeout_seconds)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with a_receiver() as receiver:
        yield receiver


async def test_a_body_is_signed_with_its_instant(receiver: Receiver) -> None:
    assert await webhooks().send(to(f"{receiver.url}/hook?a=b"), ALERT) == Outcome(True, True, "status 200")

    (got,) = receiver.received
    assert got.path == "/hook?a=b"
    assert got.is_signed()
    assert got.headers["x-gateway-signature"].startswith("t=1800000124,v1=")
    assert got.headers["x-gateway-alert-id"] == "threshold/demo/1"
    assert got.json["headline"] == ALERT.headline


def test_the_signature_is_what_another_program_computes() -> None:
    body = b'{"id":"x"}'
    made = subprocess.run(
        ["openssl", "dgst", "-sha256", "-hmac", "secret"],
        input=b"1790000000." + body,
        capture_output=True,
        check=True,
    ).stdout.decode()

    assert signature("secret", body, 1_790_000_000) == f"t=1790000000,v1={made.split()[-1]}"
    assert hmac.new(b"secret", b"1790000000." + body, hashlib.sha256).hexdigest() in made


async def test_what_slack_would_read_as_a_mention_is_escaped(receiver: Receiver) -> None:
    await webhooks().send(to(receiver.url, Format.SLACK), ALERT)

    (got,) = receiver.received
    assert got.json == {
        "text": "*Workspace &lt;!channel&gt; &amp; co `has` spent 80%*\nspent: $8.00 of $10.00\n"
        "`gateway budget grant ’month’ '$2.00'`"
    }
    assert "x-gateway-signature" not in got.headers


@pytest.mark.parametrize("status", [500, 503, 429, 408])
async def test_what_may_be_better_later_is_tried_again(receiver: Receiver, status: int) -> None:
    receiver.script.append(status)

    assert await webhooks().send(to(receiver.url), ALERT) == Outcome(False, False, f"status {status}")


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
async def test_what_is_refused_is_given_up(receiver: Receiver, status: int) -> None:
    receiver.script.append(status)

    assert await webhooks().send(to(receiver.url), ALERT) == Outcome(False, True, f"status {status}")


@pytest.mark.parametrize("what", [REDIRECT, CLOSE, HUGE])
async def test_redirects_are_not_followed_and_broken_or_endless_answers_do_not_count(
    receiver: Receiver, what: str
) -> None:
    receiver.script.append(what)

    outcome = await webhooks().send(to(f"{receiver.url}/canary"), ALERT)

    assert not outcome.delivered
    assert not outcome.final
    assert "canary" not in outcome.said
    assert len(receiver.received) == 1


async def test_a_receiver_that_hangs_is_left(receiver: Receiver) -> None:
    receiver.script.append(HANG)

    outcome = await webhooks(timeout_seconds=0.2).send(to(receiver.url), ALERT)

    assert outcome == Outcome(False, False, "127.0.0.1 did not answer in 0.2 s")


@pytest.mark.parametrize("name", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
async def test_proxies_of_the_environment_are_not_looked_at(
    receiver: Receiver, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "http://127.0.0.1:1")

    assert (await webhooks().send(to(receiver.url), ALERT)).delivered


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("https://hooks.example.com/x", True),
        ("http://127.0.0.1:8/x", True),
        ("http://[::1]:8/x", True),
        ("http://localhost/x", True),
        ("http://hooks.example.com/x", False),
        ("http://10.0.0.1/x", False),
        ("file:///etc/passwd", False),
        ("https:///x", False),
        ("https://host:99999/x", False),
        ("nonsense", False),
    ],
)
async def test_only_https_leaves_this_machine(url: str, allowed: bool) -> None:
    assert is_allowed(url) == allowed
    if not allowed:
        outcome = await webhooks().send(to(url), ALERT)
        assert (outcome.delivered, outcome.final) == (False, True)
        assert url not in outcome.said


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "10.0.0.1",
        "192.168.1.1",
        "172.16.0.1",
        "100.64.0.1",
        "[fd00::1]",
        "[::ffff:10.0.0.1]",
    ],
)
async def test_private_networks_are_asked_only_where_a_target_says_so(host: str) -> None:
    outcome = await webhooks().send(to(f"https://{host}/canary"), ALERT)

    assert not outcome.delivered
    assert "an address that the gateway does not ask" in outcome.said
    assert "canary" not in outcome.said


async def test_metadata_services_are_not_asked_whatever_a_target_says() -> None:
    outcome = await webhooks().send(to("https://169.254.169.254/x", private=True), ALERT)

    assert "does not ask" in outcome.said


@pytest.mark.parametrize("private", [False, True])
async def test_a_name_is_judged_by_where_it_leads(private: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    def leads_to(address: str) -> None:
        def getaddrinfo(*_: object, **__: object) -> list[object]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))]

        monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)

    for address in ("169.254.169.254", "127.0.0.1"):
        leads_to(address)
        with pytest.raises(OutboundError, match="does not ask"):
            await Outbound(private=private).fetch("https://hooks.example.com/x", body=b"{}")
    leads_to("10.255.255.1")
    outbound = Outbound(timeout_seconds=0.2 if private else 10.0, private=private)
    with pytest.raises(OutboundError) as refused:
        await outbound.fetch("https://hooks.example.com/x", body=b"{}")
    assert ("does not ask" in str(refused.value)) == (not private)


@pytest.mark.parametrize(
    ("address", "private"),
    [
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
        ("10.1.2.3", True),
        ("127.0.0.1", True),
        ("100.64.0.1", True),
        ("198.18.0.1", True),
        ("fc00::1", True),
        ("::ffff:192.168.0.1", True),
        ("64:ff9b::a00:1", True),
        ("2002:a00:1::1", True),
    ],
)
def test_private_is_what_no_public_network_has(address: str, private: bool) -> None:
    assert is_private(address) == private


async def test_a_url_that_cannot_be_read_is_tried_again_without_a_word_of_it() -> None:
    def gone() -> str:
        raise ValueError("the variable SLACK_URL is not set")

    outcome = await webhooks().send(replace(to(""), url=gone), ALERT)

    assert outcome == Outcome(
        False, False, "its URL or secret cannot be read: the variable SLACK_URL is not set"
    )
