from __future__ import annotations

import hmac
import re
import string
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.errors import Unauthenticated
from gateway.core.ids import WorkspaceId
from gateway.core.principal import (
    RANDOM_BYTES,
    KeyRecord,
    Keyring,
    find_credential,
    mint_key,
)

DEMO = WorkspaceId("demo")
NOW = 1_000.0
README = Path(__file__).parents[2] / "config" / "README.md"


def minted(seed: int = 1, expires_at: float | None = None) -> tuple[str, KeyRecord]:
    return mint_key(
        random_bytes=seed.to_bytes(RANDOM_BYTES),
        name="app",
        workspace=DEMO,
        created_at=0.0,
        expires_at=expires_at,
    )


def published() -> re.Pattern[str]:
    """What people are told to give to their secret scanner."""
    (line,) = [line for line in README.read_text().splitlines() if line.startswith(r"\bcgw_")]
    return re.compile(line)


def has_right_check(text: str) -> bool:
    """The last six characters are the CRC-32 of what is before them, in base 62."""
    check = 0
    for character in text[-6:]:
        check = check * 62 + (string.digits + string.ascii_uppercase + string.ascii_lowercase).index(
            character
        )
    return check == zlib.crc32(text[:-6].encode())


def ring(*records: KeyRecord) -> Keyring:
    return Keyring(records, {DEMO: "acme"})


@given(st.binary(min_size=RANDOM_BYTES, max_size=RANDOM_BYTES))
def test_every_key_has_the_published_shape_and_a_right_check(random_bytes: bytes) -> None:
    text, record = mint_key(random_bytes=random_bytes, name="app", workspace=DEMO, created_at=0.0)

    assert published().fullmatch(text)
    assert has_right_check(text)
    assert text.startswith(f"cgw_{record.id}_")
    assert text.endswith(record.last4)


def test_minting_takes_all_of_its_randomness() -> None:
    with pytest.raises(ValueError, match="40 random bytes"):
        mint_key(random_bytes=b"short", name="app", workspace=DEMO, created_at=0.0)


def test_records_do_not_show_what_would_open_something() -> None:
    text, record = minted()

    assert text not in repr(record)
    assert record.digest.hex() not in repr(record)


@pytest.mark.parametrize("position", range(50))
def test_one_wrong_character_is_noticed_by_the_published_check(position: int) -> None:
    text, _ = minted(seed=7**100)
    wrong = "A" if text[position] != "A" else "B"

    changed = text[:position] + wrong + text[position + 1 :]
    assert not (published().fullmatch(changed) and has_right_check(changed))


def test_identifies_the_caller_by_text_or_bytes() -> None:
    text, record = minted()

    caller = ring(record).identify(text, NOW)

    assert (caller.workspace, caller.key_id, caller.key_name, caller.organisation) == (
        DEMO,
        record.id,
        "app",
        "acme",
    )
    assert ring(record).identify(text.encode(), NOW) == caller


def test_nothing_tells_why_a_credential_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Same text and same work for all: exactly one comparison in constant time, whatever is wrong."""
    text, record = minted()
    other, _ = minted(seed=2)
    _, expiring = minted(expires_at=NOW)
    compared: list[int] = []
    compare = hmac.compare_digest

    def counting(a: bytes, b: bytes) -> bool:
        compared.append(len(a))
        return compare(a, b)

    monkeypatch.setattr(hmac, "compare_digest", counting)
    texts = set()
    for keyring, credential in [
        (ring(record), other),
        (ring(record), ""),
        (ring(record), "sk-test-not-ours"),
        (ring(record), text[:-1]),
        (ring(record), text + "\n"),
        (ring(record), "cgw_" + record.id + "_" + "0" * 38),
        (ring(record), "\udcff" * 3),
        (ring(expiring), text),
        (ring(replace(record, revoked_at=5.0)), text),
        (Keyring([record], {}), text),
        (ring(), text),
    ]:
        with pytest.raises(Unauthenticated) as error:
            keyring.identify(credential, NOW)
        texts.add(str(error.value))

    assert len(texts) == 1
    assert compared == [32] * 11


def test_a_key_works_until_the_instant_of_its_expiry() -> None:
    text, record = minted(expires_at=NOW)

    assert ring(record).identify(text, NOW - 0.001)


def test_an_all_zero_digest_opens_nothing() -> None:
    """The record that unknown ids are compared with must never match, not even for one who knows it."""
    with pytest.raises(Unauthenticated):
        Keyring([], {WorkspaceId(""): "x"}).identify("cgw__", NOW)


@pytest.mark.parametrize(
    "headers",
    [
        [(b"authorization", b"Bearer abc")],
        [(b"Authorization", b"bearer  abc ")],
        [(b"x-api-key", b"abc")],
        [(b"X-Api-Key", b" abc\t"), (b"authorization", b"Bearer abc")],
        [(b"accept", b"*/*"), (b"x-api-key", b"abc"), (b"accept", b"*/*")],
    ],
)
def test_finds_the_credential_in_either_header(headers: list[tuple[bytes, bytes]]) -> None:
    assert find_credential(headers) == b"abc"


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [(b"authorization", b"Basic abc")],
        [(b"authorization", b"abc")],
        [(b"authorization", b"")],
        [(b"authorization", b"Bearer abc"), (b"x-api-key", b"def")],
        [(b"authorization", b"Bearer abc"), (b"x-api-key", b"")],
        [(b"authorization", b"Bearer abc"), (b"authorization", b"Bearer abc")],
        [(b"x-api-key", b"abc"), (b"X-API-KEY", b"abc")],
        [(b"authorization", b"Basic abc"), (b"x-api-key", b"abc")],
    ],
)
def test_refuses_credentials_that_two_readers_could_read_differently(
    headers: list[tuple[bytes, bytes]],
) -> None:
    with pytest.raises(Unauthenticated):
        find_credential(headers)
