"""Where the items of a batch stand."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.batch_items import batch_items, item_members
from gateway.core.errors import BadRequest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def found(body: bytes) -> list[bytes]:
    return [body[start:end] for start, end in batch_items(body)]


@given(
    items=st.lists(st.dictionaries(st.text(), JSON)),
    before=JSON,
    after=JSON,
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 1]),
)
def test_finds_the_items_of_any_body_however_it_is_written(
    items: list[object], before: object, after: object, ascii_only: bool, indent: int | None
) -> None:
    body = json.dumps(
        {"before": before, "requests": items, "after": after}, ensure_ascii=ascii_only, indent=indent
    )
    assert [json.loads(item) for item in found(body.encode())] == items


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"{",
        b'{"requests"',
        b'{"requests":',
        b'{"requests":{}}',
        b'{"requests":null}',
        b'{"requests":[}',
        b'{"requests":[{}',
        b'{"requests":[{} {}]}',
        b'{"requests":[{},]',
        b'{"requests":[{}]',
        b'{"requests":[{}]} {}',
        b'{"requests":[{}],}',
        b'{"requests":[],"requests":[{}]}',
        b'{"requests":[],"\\u0072equests":[{}]}',
        b'{"other":nonsense,"requests":[]}',
        b'{"other":[1 2],"requests":[]}',
        b'{"requests":[{"a":"b]}',
    ],
)
def test_refuses_what_is_no_list_of_requests(body: bytes) -> None:
    with pytest.raises(BadRequest):
        found(body)


@pytest.mark.parametrize(
    "item", [b"1", b"[]", b'{"a":1', b'{"a":1}}', b'{"a":1,"a":2}', b'{"a":1, "\\u0061":2}', b"\xff", b"{a}"]
)
def test_refuses_an_item_that_readers_could_disagree_about(item: bytes) -> None:
    with pytest.raises(BadRequest):
        item_members(item, "an item")


def test_takes_half_of_a_pair_as_upstream_may() -> None:
    members, spans = item_members(b'{"a":"\\ud800"}', "an item")
    assert (list(members), spans["a"]) == (["a"], (5, 13))
