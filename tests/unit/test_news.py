from __future__ import annotations

import msgspec
import pytest

from gateway.core.news import (
    Answered,
    Billed,
    Failed,
    News,
    Sent,
    Warmed,
    decode,
    encode,
    pack_keys,
    unpack_keys,
)

SENT = Sent(
    call="gw_1",
    at=1.5,
    workspace="demo",
    model="claude-test-1",
    scope=7,
    keys=pack_keys([1, 2**64 - 1]),
    ends=(10, 20),
    kinds=bytes([1, 2]),
    marks=((1, True),),
    prices=(0.1, 1.25, 2.0, 1024),
)


@pytest.mark.parametrize(
    "news",
    [
        SENT,
        Answered("gw_1", 2.0),
        Billed("gw_1", 3.0, 1, 2, 3, 4, 5),
        Failed("gw_1", 2.0),
        Warmed(9, True, 3.0),
    ],
)
def test_news_arrive_as_they_were_told(news: News) -> None:
    assert decode(encode(news)) == news


def test_keys_keep_all_their_bits() -> None:
    assert list(unpack_keys(SENT.keys)) == [1, 2**64 - 1]


def test_news_of_a_later_version_with_more_fields_are_understood() -> None:
    later = msgspec.msgpack.encode(["answered", "gw_1", 2.0, "something new"])

    assert decode(later) == Answered("gw_1", 2.0)


def test_what_is_no_news_is_refused() -> None:
    with pytest.raises(msgspec.DecodeError):
        decode(b"\x93\xa3odd\x01\x02")
