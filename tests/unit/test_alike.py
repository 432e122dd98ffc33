"""What is taken over from a body that was read before. That it is right: tests/property/test_recent.py."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from gateway.core.errors import BadRequest
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from tests.support.bodies import dump

SYSTEM, TOOLS = "You are brief. " * 20, [{"name": "look", "input_schema": {"type": "object"}}]


def a_body(*said: Any, **changed: Any) -> bytes:
    messages = [{"role": ("user", "assistant")[at % 2], "content": text} for at, text in enumerate(said)]
    return dump({"messages": messages, "model": "m", "system": SYSTEM, "tools": TOOLS, **changed})


@pytest.mark.parametrize(
    ("before", "after", "shared"),
    [
        (("a",), ("a", "b", "c"), 1),
        (("a", "b", "c"), ("a", "b", "c"), 3),
        (("a", "b", "c"), ("a", "b"), 2),
        (("a", "b", "c"), ("a", "b", "other", "d"), 2),
        (("a", "b", "c"), ("other", "b", "c"), 0),
        (tuple("abcdefghijklmnop"), tuple("abcdefghij0"), 10),
        (tuple("abcdefghijklmnop"), tuple("a0"), 1),
        ((), ("a",), 0),
    ],
)
def test_takes_the_longest_common_run_of_messages(
    before: tuple[str, ...], after: tuple[str, ...], shared: int
) -> None:
    assert read_prompt(a_body(*after), read_prompt(a_body(*before))).shared_messages == shared


@pytest.mark.parametrize("changed", [{"system": "other"}, {"tools": []}, {"tools": None}])
def test_shares_no_message_behind_another_head(changed: dict[str, Any]) -> None:
    like = read_prompt(a_body("a", "b"))

    assert read_prompt(a_body("a", "b", **changed), like).shared_messages == 0


def test_takes_nothing_from_a_body_with_marks_that_it_does_not_know() -> None:
    odd = [{"type": "text", "text": "a", "cache_control": {"type": "odd"}}]
    like = read_prompt(a_body(odd, "b"))
    again = read_prompt(a_body(odd, "b"), like)

    assert again.unread_marks
    assert again.shared_messages == 0


@pytest.mark.parametrize("said", ["c", "é" * 3])
@pytest.mark.parametrize("where", [b'"model"', b"@@"])
def test_finds_what_is_no_utf8_behind_what_is_shared(said: str, where: bytes) -> None:
    like = read_prompt(a_body("é", "b"))
    body = a_body("é", "b", said + "@@").replace(where, b'"mod\xc3el"' if where != b"@@" else b"@\xe9@")

    with pytest.raises(BadRequest) as alone:
        read_prompt(body)
    with pytest.raises(BadRequest) as beside:
        read_prompt(body, like)

    assert "is not valid UTF-8 (byte " in alone.value.message
    assert beside.value.message == alone.value.message


@pytest.mark.parametrize(
    "before", [b"", b"]", b"}", b",", b'"x"', b",]", b",5,", b'{"role":"user","content":"x"}']
)
@pytest.mark.parametrize("kept", [1, 2])
def test_what_follows_a_shared_beginning_is_refused_as_it_would_be_without(before: bytes, kept: int) -> None:
    text = a_body("a", "b")
    like = read_prompt(text)
    end = like.message_ends[kept - 1]
    for after in (b"", b"]", b"}", b"]}", text[end:], b"] , " + text[end + 2 :], text[end + 1 :]):
        body = text[:end] + before + after
        assert _found(body, like) == _found(body, None)


@pytest.mark.parametrize(
    "tail", [b',"model":"n"', b',"messages":[]', b',"tools":[]', b',"max_tokens":1,"max_tokens":2', b',"x":1']
)
def test_a_member_behind_the_messages_may_not_repeat_one_before_them(tail: bytes) -> None:
    text = dump({"model": "m", "system": SYSTEM, "messages": [{"role": "user", "content": "a"}]})
    body = text[:-1] + tail + b"}"

    assert _found(body, read_prompt(text)) == _found(body, None)


def _found(body: bytes, like: Prompt | None) -> Prompt | str:
    try:
        return replace(read_prompt(body, like), shared_messages=0)
    except BadRequest as error:
        return error.message
