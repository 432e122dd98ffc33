"""Tokens of issuers, with real signatures and key sets: what is taken and what is not, and what keys do."""

from __future__ import annotations

import hashlib
import hmac
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from gateway.adapters.issuers import TrustedIssuer
from gateway.adapters.jwks import ASK_AGAIN_SECONDS, KeySource, read_keys
from gateway.core.bearer import Algorithm, BadToken
from gateway.core.errors import Forbidden, StoreUnavailable, Unauthenticated
from tests.support.tokens import TokenIssuer, a_key_server, by_hand, jwk_of, key_set, private_key
from tests.support.trusting import World, put, trusted


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.mark.parametrize("kind", list(Algorithm))
async def test_a_signature_of_each_algorithm_is_taken(world: World, keys: Path, kind: str) -> None:
    signer = TokenIssuer(kind=kind)
    put(keys, signer.keys())
    await world.trust(trusted(KeySource(file=str(keys))))

    assert world.who(signer.token(world.clock.now())) == "token:test:app-1"


def forged(now: float) -> Iterator[tuple[str, bytes]]:
    """What an attacker can make who knows the public keys and has seen a good token."""
    good = TokenIssuer(kind="RS256")
    token = good.token(now).encode()
    head, claims, signature = token.split(b".")
    other = good.token(now, sub="app-2").encode()
    yield "claims of another token", b".".join([head, other.split(b".")[1], signature])
    yield "no signature", b".".join([head, claims, b""])
    yield "another signature", b".".join([head, claims, b"A" * len(signature)])
    yield "alg none", by_hand({"alg": "none", "kid": "key-1"}, good.claims(now), b"")
    public = private_key("RS256").public_key()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    for format_ in (PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1):
        secret = public.public_bytes(Encoding.PEM, format_)
        unsigned = by_hand({"alg": "HS256", "kid": "key-1"}, good.claims(now), b"").rpartition(b".")[0]
        yield (
            "HS256 with the public key",
            unsigned
            + b"."
            + by_hand(b"", b"", hmac.new(secret, unsigned, hashlib.sha256).digest()).rpartition(b".")[2],
        )
    mine = TokenIssuer(kind="RS256", number=1)
    yield "another key under this id", mine.token(now).encode()
    own = jwk_of("RS256", "key-1", 1)
    yield "a key in the header", mine.token(now, header={"jwk": own}).encode()
    yield "a key set in the header", mine.token(now, header={"jku": "https://evil.test/keys"}).encode()
    yield "a certificate in the header", mine.token(now, header={"x5u": "https://evil.test/x"}).encode()
    yield "the key of another algorithm", TokenIssuer(kind="PS256", number=1).token(now).encode()
    yield "critical headers", good.token(now, header={"crit": ["exp"]}).encode()
    yield "another issuer", good.token(now, iss="https://issuer.test/").encode()
    yield "another audience", good.token(now, aud="other").encode()
    yield "no audience", good.token(now, aud=None).encode()
    yield "expired", good.token(now, exp=int(now) - 31).encode()
    yield "no end", good.token(now, exp=None).encode()
    yield "not yet", good.token(now, nbf=int(now) + 31).encode()
    yield "oversized", good.token(now, junk="x" * 9_000).encode()
    yield "garbage", b"\x00.\xff.\n"


FORGED = sorted({name for name, _ in forged(1_800_000_000.0)})


@pytest.mark.parametrize("name", FORGED)
async def test_a_forged_token_is_refused_and_none_of_it_repeated(
    world: World, keys: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    put(keys, TokenIssuer(kind="RS256").keys())
    await world.trust(trusted(KeySource(file=str(keys))))
    for _, token in [each for each in forged(world.clock.now()) if each[0] == name]:
        with pytest.raises(BadToken) as caught:
            world.who(token)

        assert not any(part and part.decode("latin-1") in caught.value.message for part in token.split(b"."))
        assert not any(len(part) > 3 and part.decode("latin-1") in caplog.text for part in token.split(b"."))


async def test_without_issuers_a_token_is_any_unknown_credential(world: World) -> None:
    with pytest.raises(Unauthenticated) as caught:
        world.who(TokenIssuer().token(world.clock.now()))

    assert not isinstance(caught.value, BadToken)


async def test_a_good_token_without_a_rule_is_forbidden(world: World, keys: Path) -> None:
    signer = TokenIssuer()
    put(keys, signer.keys())
    await world.trust(trusted(KeySource(file=str(keys))))

    with pytest.raises(Forbidden, match="no rule of issuer test"):
        world.who(signer.token(world.clock.now(), sub="person-1"))


async def test_a_verified_token_is_remembered_and_refused_once_it_expires(world: World, keys: Path) -> None:
    signer = TokenIssuer()
    put(keys, signer.keys())
    await world.trust(trusted(KeySource(file=str(keys))))
    token = signer.token(world.clock.now(), exp=int(world.clock.now()) + 60)
    first = world.issuers.identify(token.encode(), world.clock.now())

    assert world.issuers.identify(token.encode(), world.clock.now()) is first
    world.clock.advance(89)
    assert world.who(token) == "token:test:app-1"
    world.clock.advance(1)
    with pytest.raises(BadToken, match="expired"):
        world.who(token)


async def test_two_issuers_cannot_sign_for_each_other(world: World, tmp_path: Path) -> None:
    one, two = TokenIssuer(number=0), TokenIssuer(url="https://two.test", number=1)
    put(tmp_path / "one", one.keys())
    put(tmp_path / "two", two.keys())
    await world.trust(
        trusted(KeySource(file=str(tmp_path / "one"))),
        trusted(KeySource(file=str(tmp_path / "two")), "second", "https://two.test"),
    )
    now = world.clock.now()

    assert world.who(one.token(now)) == "token:test:app-1"
    assert world.who(two.token(now)) == "token:second:app-1"
    with pytest.raises(BadToken, match="signature"):
        world.who(two.token(now, iss="https://issuer.test"))


async def test_a_new_key_is_found_by_the_first_token_that_names_it(world: World) -> None:
    old, new = TokenIssuer(), TokenIssuer(key_id="key-2", number=1)
    async with a_key_server(keys=old.keys()) as server:
        await world.trust(trusted(KeySource(url=f"{server.url}/keys")))
        assert world.who(old.token(world.clock.now()))
        server.answers["/keys"] = new.keys()
        woken = world.woken

        with pytest.raises(StoreUnavailable, match="read anew"):
            world.who(new.token(world.clock.now()))
        assert world.woken == woken + 1
        await world.refresh()

        assert world.who(new.token(world.clock.now())) == "token:test:app-1"
        with pytest.raises((BadToken, StoreUnavailable)):
            world.who(old.token(world.clock.now()))  # its key was taken back, remembered or not


async def test_unknown_keys_make_an_issuer_be_asked_once_a_minute(world: World) -> None:
    known = TokenIssuer()
    async with a_key_server(keys=known.keys()) as server:
        await world.trust(trusted(KeySource(url=f"{server.url}/keys")))
        for number in range(20):
            stranger = TokenIssuer(key_id=f"strange-{number}", number=1).token(world.clock.now())
            with pytest.raises((BadToken, StoreUnavailable)):
                world.who(stranger)
            await world.refresh()
        assert len(server.asked) == 2

        world.clock.advance(ASK_AGAIN_SECONDS)
        with pytest.raises(StoreUnavailable):
            world.who(TokenIssuer(key_id="later", number=1).token(world.clock.now()))
        await world.refresh()
        with pytest.raises(BadToken, match="`kid`"):
            world.who(TokenIssuer(key_id="later", number=1).token(world.clock.now()))
        assert len(server.asked) == 3


@pytest.mark.parametrize(
    "answer",
    [
        500,
        204,
        401,
        "slow",
        "http://169.254.169.254/latest/",
        b"<html>",
        b"{}",
        b'{"keys":[]}',
        b"x" * 100_000,
    ],
)
async def test_keys_hold_while_they_cannot_be_read_and_no_longer_than_allowed(
    world: World, answer: bytes | int | str
) -> None:
    signer = TokenIssuer()
    async with a_key_server(keys=signer.keys()) as server:
        await world.trust(trusted(KeySource(url=f"{server.url}/keys", keep_seconds=3_600.0)))
        server.answers["/keys"] = answer
        world.clock.advance(300)
        world.outbound._timeout_seconds = 0.5 if answer == "slow" else 20.0
        await world.refresh()
        world.outbound._timeout_seconds = 20.0
        token = signer.token(world.clock.now(), exp=int(world.clock.now()) + 86_400)

        assert world.who(token) == "token:test:app-1"
        world.clock.advance(3_301)
        for again in (token, signer.token(world.clock.now())):
            with pytest.raises(StoreUnavailable, match="cannot be read"):
                world.who(again)
        server.answers["/keys"] = signer.keys()
        await world.refresh()
        assert world.who(token) == "token:test:app-1"
        status = next(each for each in world.issuers.status() if each.name == "test")
        assert (status.failures, status.keys_age_seconds) == (1, 0.0)


async def test_an_issuer_that_is_down_at_the_start_is_tried_again(world: World) -> None:
    signer = TokenIssuer()
    async with a_key_server(keys=503) as server:
        await world.trust(trusted(KeySource(url=f"{server.url}/keys")))
        with pytest.raises(StoreUnavailable):
            world.who(signer.token(world.clock.now()))
        with pytest.raises(BadToken):
            world.who(b"a.b.c")  # garbage stays garbage
        server.answers["/keys"] = signer.keys()
        world.clock.advance(2.0)
        await world.refresh()

        assert world.who(signer.token(world.clock.now())) == "token:test:app-1"


async def test_a_reload_keeps_keys_and_applies_new_rules(world: World, keys: Path) -> None:
    signer = TokenIssuer()
    put(keys, signer.keys())
    source = KeySource(file=str(keys))
    await world.trust(trusted(source))
    token = signer.token(world.clock.now())
    assert world.who(token) == "token:test:app-1"
    put(keys, b"")
    world.issuers.take_over([trusted(source, "renamed"), trusted(source, "test", "https://other.test")])

    with pytest.raises(StoreUnavailable):
        world.who(token)  # the name is another, and so are its keys
    world.issuers.take_over([])
    with pytest.raises(Unauthenticated):
        world.who(token)


async def test_only_keys_that_verify_are_taken_from_a_set() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0c2VjcmV0c2VjcmV0c2VjcmV0", "kid": "secret", "alg": "HS256"}
    private: dict[str, Any] = json.loads(jwt.algorithms.ECAlgorithm.to_jwk(private_key("ES256")))
    found = read_keys(
        key_set(
            secret,
            {**private, "kid": "private"},
            {**jwk_of("ES256", "encrypts"), "use": "enc"},
            {**jwk_of("ES256", "signs"), "key_ops": ["sign"]},
            jwk_of("RS256", "only-ps", alg="PS256"),
            jwk_of("RS256", "wrong", alg="ES256"),
            {"kty": "EC", "crv": "secp256k1", "x": "AA", "y": "AA", "kid": "coin"},
            {"kty": "RSA", "n": "AQAB", "e": "AQAB", "kid": "short"},
            {"kty": "RSA", "kid": "broken"},
            jwk_of("ES256", "good"),
        )
    )

    assert set(found) == {("only-ps", Algorithm.PS256), ("good", Algorithm.ES256)}


async def test_a_token_without_a_key_id_is_for_an_issuer_with_one_key(world: World, keys: Path) -> None:
    signer = TokenIssuer()
    put(keys, key_set(jwk_of("ES256", None)))
    await world.trust(trusted(KeySource(file=str(keys))))
    nameless = jwt.encode(signer.claims(world.clock.now()), private_key("ES256"), algorithm="ES256")

    assert world.who(nameless) == "token:test:app-1"
    put(keys, key_set(jwk_of("ES256", "a"), jwk_of("ES256", "b", 1)))
    world.clock.advance(5)
    await world.refresh()
    with pytest.raises((BadToken, StoreUnavailable)):
        world.who(nameless)


async def test_a_name_that_leads_to_this_machine_is_not_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DNS is whoever's who owns the name: a key set must not be read from an address that it picks."""
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    resolved: list[str] = []

    async def resolve(_self: object, host: str, port: int = 0, _family: int = 0) -> list[dict[str, Any]]:
        resolved.append(host)
        address = "127.0.0.1" if host == "rebound.test" else "169.254.169.254"
        return [{"hostname": host, "host": address, "port": port, "family": 2, "proto": 0, "flags": 0}]

    monkeypatch.setattr("aiohttp.ThreadedResolver.resolve", resolve)
    for host in ("rebound.test", "metadata.test"):
        source = KeySource(url=f"https://{host}/keys")
        await world.trust(trusted(source))
        with pytest.raises(StoreUnavailable):
            world.who(TokenIssuer().token(world.clock.now()))

    assert resolved == ["rebound.test", "metadata.test"]


async def test_a_new_key_is_not_refused_because_a_stranger_asked_first(world: World) -> None:
    """Junk with an unknown key makes the issuer be asked, and not again for a minute; an issuer that changes
    its keys in that minute signs with one that was not read yet."""
    old, new = TokenIssuer(), TokenIssuer(key_id="key-2", number=1)
    async with a_key_server(keys=old.keys()) as server:
        await world.trust(trusted(KeySource(url=f"{server.url}/keys")))
        junk = TokenIssuer(key_id="junk", number=1)
        with pytest.raises(StoreUnavailable):
            world.who(junk.token(world.clock.now()))
        await world.refresh()
        server.answers["/keys"] = new.keys()

        for _ in range(3):
            world.clock.advance(10.0)
            with pytest.raises(StoreUnavailable, match="read anew") as told:
                world.who(new.token(world.clock.now()))
            assert told.value.retry_after_seconds
            await world.refresh()
        with pytest.raises(BadToken, match="`kid`"):
            world.who(junk.token(world.clock.now()))  # read since it was first named
        assert len(server.asked) == 2

        world.clock.advance(ASK_AGAIN_SECONDS - 30.0)
        await world.refresh()
        assert world.who(new.token(world.clock.now())) == "token:test:app-1"
        with pytest.raises(BadToken):
            world.who(old.token(world.clock.now()))  # withdrawn


async def test_another_credential_for_the_key_set_holds_from_a_reload_on(world: World) -> None:
    async with a_key_server(keys=TokenIssuer().keys()) as server:
        source = KeySource(url=f"{server.url}/keys", refresh_seconds=10.0)
        issuer = trusted(source).issuer
        for secret in ("sk-test-old", "sk-test-new"):
            one = TrustedIssuer(issuer=issuer, source=source, credential=lambda secret=secret: secret)  # type: ignore[misc]
            world.issuers.take_over([one])
            await world.refresh()
            world.clock.advance(10.0)

        sent = [request.headers["authorization"] for request in server.asked]
        assert sent == ["Bearer sk-test-old", "Bearer sk-test-new"]


async def test_what_the_key_set_asks_for_is_sent_to_it_alone(world: World) -> None:
    signer = TokenIssuer()
    async with a_key_server(keys=signer.keys()) as server:
        source = KeySource(url=f"{server.url}/keys")
        one = trusted(source)
        await world.trust(
            TrustedIssuer(issuer=one.issuer, source=source, credential=lambda: "sk-test-cluster")
        )

        assert server.asked[0].headers["authorization"] == "Bearer sk-test-cluster"
        assert world.who(signer.token(world.clock.now())) == "token:test:app-1"
