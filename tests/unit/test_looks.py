"""What stands at a place, judged from the text around it."""

from __future__ import annotations

import pytest

from gateway.core.looks import looks_at
from gateway.core.misses import Looks


def judge(text: str, marked: str, *, grew: int = 0, wide: int = 0) -> tuple[Looks, str]:
    """What stands at `marked`, if it is known to within `wide` bytes to either side; and from where on."""
    data, start = text.encode(), text.index(marked)
    end = start + len(marked) + wide
    looks, at = looks_at(data, max(0, start - wide), end, within=(0, len(data)), grew=grew)
    return looks, "" if at is None else text[at : at + 8]


@pytest.mark.parametrize(
    ("text", "marked", "looks"),
    [
        ("Today is 2026-11-22T10:04:31Z.", "31", Looks.TIMESTAMP),
        ("Now: 2026-11-22 10:04:31.123456+01:00 ok", "123", Looks.TIMESTAMP),
        ("Now: Nov 22, 2026 10:04 AM ok", "04", Looks.TIMESTAMP),
        ("The time is 9:41 pm here", "41", Looks.TIMESTAMP),
        ("at 1763806031 seconds", "6031", Looks.TIMESTAMP),
        ("at 1763806031123 ms", "1123", Looks.TIMESTAMP),
        ("Today's date: 2026-11-22", "22", Looks.DATE),
        ("Today is November 22nd, 2026.", "22", Looks.DATE),
        ("Heute ist der 22.11.2026.", "22", Looks.DATE),
        ("session 3f2b8c1e-0d4a-4c55-9f1e-2b7c8d9e0f1a", "8d9", Looks.UUID),
        ("request req_01HZX4kQ9v7aB2c3 of", "kQ9", Looks.RANDOM_ID),
        ("commit 9f8e7d6c5b4a39281706 on", "c5b", Looks.RANDOM_ID),
        ("cwd: /home/ada/work/gateway now", "work", Looks.PATH),
        (r"cwd: C:\\Users\\ada\\work now", "ada", Looks.PATH),
        ("You have 1,234 credits left, 17 turns", "17", Looks.COUNTER),
        ("You are a careful assistant.", "careful", Looks.EDITED),
        ("The internationalisation department", "department", Looks.EDITED),
        ("Use claude-sonnet models.", "sonnet", Looks.EDITED),
    ],
)
def test_recognises_what_differs_from_request_to_request(text: str, marked: str, looks: Looks) -> None:
    assert judge(text, marked)[0] is looks


def test_says_where_it_begins_when_the_place_is_known_only_about() -> None:
    text = "words " * 10 + "at 2026-11-22T10:04:31Z " + "words " * 10

    assert judge(text, "10:04", wide=40) == (Looks.TIMESTAMP, "2026-11-")


def test_a_text_that_grew_by_a_sentence_is_no_counter() -> None:
    assert judge("You have 17 turns", "17", grew=40)[0] is Looks.EDITED


def test_a_place_that_is_hardly_known_tells_nothing() -> None:
    text = "x" * 2_000 + " 2026-11-22T10:04:31Z " + "x" * 2_000

    assert judge(text, "10:04", wide=1_000)[0] is Looks.EDITED


def test_does_not_look_beyond_the_block() -> None:
    data = b'"text" 2026-11-22T10:04:31Z'

    assert looks_at(data, 2, 5, within=(1, 5), grew=0)[0] is Looks.EDITED
