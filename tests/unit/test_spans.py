"""Places follow from lengths: the shortcut and the walk agree, and a repeated member is always noticed."""

from __future__ import annotations

import json
from time import process_time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.core.errors import BadRequest
from gateway.core.spans import (
    ARRAY,
    OBJECT,
    cut_span,
    element_spans,
    member_spans,
    outer_span,
    without_lone_surrogates,
)

_space = st.sampled_from([b"", b"", b"", b" ", b"\n\t", b"\r "])
_values = st.sampled_from(
    [b"1", b"12", b"1.5", b"[1]", b"[1 , 2]", b'{"a":1}', b'"a"', b'",\\"a\\":1"', b"null"]
)
_keys = st.sampled_from(["a", "b", "ab", "é", "𝄞", '"', "\\", ",", "a:1"])


@st.composite
def objects(draw: st.DrawFn) -> bytes:
    """An object with keys that may repeat, in any spelling, with white space anywhere."""
    text = b"{" + draw(_space)
    for index in range(draw(st.integers(0, 4))):
        key = json.dumps(draw(_keys), ensure_ascii=draw(st.booleans())).encode()
        if draw(st.booleans()):
            key = key.replace(b"a", b"\\u0061")
        comma = b"," + draw(_space) if index else b""
        text += comma + key + draw(_space) + b":" + draw(_space) + draw(_values) + draw(_space)
    return text + b"}"


@settings(max_examples=600, deadline=None)
@given(objects(), st.binary(max_size=3))
def test_members_are_found_or_refused_as_the_standard_library_sees_them(text: bytes, before: bytes) -> None:
    pairs: list[tuple[str, Any]] = []
    json.loads(text, object_pairs_hook=lambda found: pairs.clear() or pairs.extend(found))  # type: ignore[func-returns-value]
    repeated = len(dict(pairs)) < len(pairs)
    whole = before + text
    try:
        spans = member_spans(whole, len(before), len(whole), OBJECT.decode(text), "a test")
    except BadRequest:
        assert repeated
        return

    assert not repeated
    assert [key for key, _ in pairs] == list(spans)
    plain = json.loads(text)
    assert plain == {key: json.loads(whole[start:end]) for key, (start, end) in spans.items()}


@settings(max_examples=200, deadline=None)
@given(objects(), st.data())
def test_an_object_without_a_cut_member_reads_as_if_it_had_none(text: bytes, data: st.DataObject) -> None:
    try:
        spans = member_spans(text, 0, len(text), OBJECT.decode(text), "a test")
    except BadRequest:
        return
    if not spans:
        return
    key = data.draw(st.sampled_from(list(spans)))
    start, end = cut_span(text, 0, spans, key)
    expected = json.loads(text)
    del expected[key]

    assert expected == json.loads(text[:start] + text[end:])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(_space, _values, _space), max_size=5))
def test_elements_are_found_whatever_white_space_parts_them(parts: list[tuple[bytes, bytes, bytes]]) -> None:
    text = b"[" + b",".join(left + value + right for left, value, right in parts) + b"]"
    spans = element_spans(text, 0, len(text), list(map(len, ARRAY.decode(text))))

    assert [value for _, value, _ in parts] == [text[start:end] for start, end in spans]


def test_the_outer_span_leaves_white_space_out() -> None:
    assert outer_span(b" \n{} \t") == (2, 4)


def test_much_white_space_costs_little() -> None:
    """A body of 30 MiB of it is read in the server's one thread."""
    space = b" \t\r\n" * (2 << 20)
    began = process_time()

    assert outer_span(space + b"{}" + space) == (len(space), len(space) + 2)
    assert process_time() - began < 0.3


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (rb'"\ud800"', rb'"\ufffd"'),
        (rb'"\udc00"', rb'"\ufffd"'),
        (rb'"\ud83d\ude00"', None),
        (rb'"\ud83d \ude00"', rb'"\ufffd \ufffd"'),
        (rb'"\ud83d\ud83d\ude00"', rb'"\ufffd\ud83d\ude00"'),
        (rb'"\ud83d\ude00\ude00"', rb'"\ud83d\ude00\ufffd"'),
        (rb'"\ud83d\n\ude00"', rb'"\ufffd\n\ufffd"'),
        (rb'"\\ud800"', None),
        (rb'"\\\ud800"', rb'"\\\ufffd"'),
        (b'"plain"', None),
    ],
)
def test_only_lone_surrogates_are_replaced_at_equal_length(text: bytes, expected: bytes | None) -> None:
    found = without_lone_surrogates(text)

    assert found == expected
    assert found is None or len(found) == len(text)
