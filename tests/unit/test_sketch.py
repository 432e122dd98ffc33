"""Sketches of blocks: what is equal, what is nearly, and where a change stands."""

from __future__ import annotations

import json
from typing import Any

import pytest

from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.sketch import MAX_BYTES, MAX_CHUNKS, Keyed, Sketch, content_of, size_of
from tests.support.bodies import MARK, WRITERS, corpus, distinct_tool, dump, single, words

DIGEST = Keyed(b"secret")


def read(body: Any) -> tuple[Prompt, Sketch]:
    prompt = read_prompt(body if isinstance(body, bytes) else dump(body))
    return prompt, Sketch(prompt, prompt.blocks, DIGEST)


def system(text: str) -> tuple[Prompt, Sketch]:
    return read({"model": "m", "system": text})


@pytest.mark.parametrize("name", corpus())
def test_the_length_of_a_content_is_known_without_making_it(name: str) -> None:
    for write in WRITERS:
        prompt = read_prompt(write(corpus()[name]))

        assert [size_of(block) for block in prompt.blocks] == [
            len(content_of(prompt, block)) for block in prompt.blocks
        ]


def test_marks_and_form_do_not_count() -> None:
    plain = read(single([{"type": "text", "text": "hello"}]))[1]
    marked = read(single([{"type": "text", "text": "hello", "cache_control": MARK}]))[1]
    string = read(single("hello"))[1]

    assert plain.content == marked.content == string.content


def test_another_secret_makes_other_digests() -> None:
    prompt, sketch = system("hello")

    assert Sketch(prompt, prompt.blocks, Keyed(b"other")).contents != sketch.contents


def test_order_of_members_and_white_space_leave_the_loose_digest_as_it_is() -> None:
    tool = distinct_tool(1)
    schema = dict(reversed(tool["input_schema"].items()))
    turned = {"input_schema": schema, "description": tool["description"], "name": tool["name"]}
    one, other = read(single("hi", tools=[tool]))[1], read(single("hi", tools=[turned]))[1]
    pretty = read(json.dumps(single("hi", tools=[tool]), indent=1).encode())[1]

    assert one.contents[0] != other.contents[0]
    assert one.looses[0] == other.looses[0] == pretty.looses[0]


@pytest.mark.parametrize("size", [200, 3_000, 60_000, 150_000])
@pytest.mark.parametrize(("old", "new"), [("aaaa", "bbbb"), ("aaaa", "bb"), ("aa", "bbbbbbb"), ("", "bbb")])
def test_a_change_is_found_to_within_two_pieces(size: int, old: str, new: str) -> None:
    before, after = words(size, 1), words(size // 2, 2)
    _, sketch = system(f"{before}{old}{after}")
    prompt, now = system(f"{before}{new}{after}")
    for of in (None, now):
        spread = sketch.spread(0, content_of(prompt, prompt.blocks[0]), of)

        assert spread.start <= len(before) < spread.start + sketch.chunk
        assert len(before) + len(new) <= spread.end <= spread.start + 2 * sketch.chunk + len(new)
        assert spread.equal >= len(before) + len(after) - 3 * sketch.chunk


def test_what_was_added_at_the_end_begins_there() -> None:
    _, sketch = system(words(1_000, 1))
    prompt, _ = system(words(1_000, 1) + " and more")
    spread = sketch.spread(0, content_of(prompt, prompt.blocks[0]))

    assert (spread.start, spread.end) == (sketch.sizes[0], sketch.sizes[0] + 9)


def test_a_text_with_nothing_in_common_has_no_end_of_the_difference() -> None:
    _, sketch = system(words(2_000, 1))
    prompt, _ = system(words(2_000, 2))
    spread = sketch.spread(0, content_of(prompt, prompt.blocks[0]))

    assert (spread.start, spread.end, spread.equal) == (0, size_of(prompt.blocks[0]), 0)


def test_a_very_large_run_is_looked_at_up_to_a_bound() -> None:
    _, sketch = system(words(3 * MAX_BYTES, 1))
    _, many = read(single("hi", tools=[distinct_tool(index, 3_000) for index in range(300)]))

    assert sketch.size_bytes < many.size_bytes < 16_000
    assert len(sketch.chunks) <= 4 * MAX_CHUNKS
    assert len(many.sizes) < 300
