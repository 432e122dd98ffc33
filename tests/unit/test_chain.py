"""Chains: digests are plain HMAC-SHA-256 over stated bytes, anchors are sealed, heads are read as printed."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import msgspec
import pytest

from gateway.core import chain as module
from gateway.core.chain import ChainKey, Head, link_all, read_head
from gateway.core.entry import Entry, entry_of
from tests.support.records import a_record

ENTRY = entry_of(a_record())


@pytest.mark.parametrize("secret", [b"", b"k" * 32, b"k" * 64, b"k" * 200])
def test_a_digest_is_what_any_hmac_gives(secret: bytes) -> None:
    before = b"b" * 32
    message = msgspec.json.encode(["c1", 7, list(ENTRY)])

    assert ChainKey(secret).link(before, "c1", 7, ENTRY) == hmac.digest(secret, before + message, "sha256")


def test_every_field_the_place_and_what_came_before_are_in_the_digest() -> None:
    key = ChainKey(b"k" * 32)
    digest = key.link(b"b" * 32, "c1", 7, ENTRY)
    others = {
        key.link(b"b" * 32, "c1", 7, (*ENTRY[:n], "another", *ENTRY[n + 1 :])) for n in range(len(ENTRY))
    }
    others |= {
        key.link(b"b" * 32, "c1", 8, ENTRY),
        key.link(b"b" * 32, "c2", 7, ENTRY),
        key.link(b"a" * 32, "c1", 7, ENTRY),
        ChainKey(b"j" * 32).link(b"b" * 32, "c1", 7, ENTRY),
    }

    assert len(others) == len(ENTRY) + 4
    assert digest not in others


def test_a_column_that_is_added_later_leaves_digests_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    key = ChainKey(b"k" * 32)
    digest = key.link(b"", "c1", 1, ENTRY)
    last = len(Entry._fields) - 1  # as if there had been one less when chains began
    assert Entry._field_defaults[Entry._fields[last]] == 0
    before = key.link(b"", "c1", 1, ENTRY[:last])
    monkeypatch.setattr(module, "FIRST_FIELDS", last)

    assert key.link(b"", "c1", 1, (*ENTRY[:last], 0)) == before
    assert key.link(b"", "c1", 1, (*ENTRY[:last], 5)) not in (before, digest)


def test_entries_are_linked_one_to_the_other() -> None:
    key = ChainKey(b"k" * 32)
    anchor = key.begin("c1", 0)
    rows, head = link_all(key, Head("c1", 0, anchor.digest), [ENTRY, ENTRY])

    first = key.link(anchor.digest, "c1", 1, ENTRY)
    second = key.link(first, "c1", 2, ENTRY)
    assert rows == [(*ENTRY, "c1", 1, first), (*ENTRY, "c1", 2, second)]
    assert head == Head("c1", 2, second)


def test_an_anchor_is_good_as_it_was_sealed_and_with_its_key_only() -> None:
    key = ChainKey(b"k" * 32)
    anchor = key.begin("c1", 3)

    assert key.made(anchor)
    assert not ChainKey(b"j" * 32).made(anchor)
    changes: list[dict[str, object]] = [
        {"chain": "c2"},
        {"first": 1},
        {"last": 1},
        {"digest": b""},
        {"uncovered": 4},
        {"why": "pruned"},
        {"seal": b""},
    ]
    for change in changes:
        assert not key.made(replace(anchor, **change)), change  # type: ignore[arg-type]


def test_a_head_is_read_as_it_is_printed() -> None:
    head = Head("c1", 12, hashlib.sha256(b"").digest())

    assert read_head(f"  {head}\n") == head
    assert read_head("12 entries in 1 chain: all as they were written.") is None
    assert read_head("") is None
    for cut in (f"{head}"[:-1], f"{head}"[:-2], "head c1 12", "head c1 x 00"):
        with pytest.raises(ValueError, match=r"head|digest"):
            read_head(cut)
