"""Files of prompts: bytes survive, problems have line numbers, nothing can be smuggled along."""

from __future__ import annotations

import json

import pytest

from gateway.core.prompt_lines import (
    MAX_PROMPTS,
    PromptLine,
    as_line,
    find_unwarmable,
    read_prompt_lines,
)

BODY = (
    b'{"model": "claude-opus-5-5",  "max_tokens":1.0, "messages":[{"role":"user","content":"caf\\u00e9 "}]}'
)


def read(data: bytes) -> tuple[PromptLine, ...]:
    prompts, problems = read_prompt_lines(data)
    assert problems == ()
    return prompts


def problems_of(data: bytes) -> list[str]:
    return [str(problem) for problem in read_prompt_lines(data)[1]]


def test_a_bodys_bytes_are_kept_with_and_without_a_wrapper() -> None:
    wrapped = b'{"headers": {"Anthropic-Beta": "b-1"}, "body": ' + BODY + b"}"
    plain, other = read(BODY + b"\n\n  " + wrapped + b"\r\n")

    assert (plain.number, plain.body, plain.headers) == (1, BODY, ())
    assert (other.number, other.body) == (3, BODY)
    assert other.headers == ((b"anthropic-beta", b"b-1"),)
    assert plain.model == "claude-opus-5-5"


def test_what_is_written_as_a_line_is_read_as_the_same_prompt() -> None:
    prompts = read(BODY + b'\n{"body":' + BODY + b',"headers":{"anthropic-version":"2026-10-21"}}')
    again = read(b"\n".join(as_line(prompt) for prompt in prompts))

    assert again == prompts


def test_one_body_may_go_over_several_lines() -> None:
    pretty = b"\n" + json.dumps(json.loads(BODY), indent=2).encode()
    (prompt,) = read(pretty)

    assert prompt.body == pretty.strip()
    assert read(as_line(prompt)) == read(b" " + as_line(prompt))


def test_a_byte_order_mark_is_not_part_of_a_prompt() -> None:
    assert read(b"\xef\xbb\xbf" + BODY)[0].body == BODY


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b"{", "not valid JSON"),
        (b"[1]", "must be a JSON object"),
        (b'{"messages": []}', "names no model"),
        (b'{"model": "m", "model": "n"}', "twice"),
        (b'{"body": 1}', "must be a JSON object"),
        (b'{"body": {"model": "m"}, "name": "x"}', "not 'name'"),
        (b'{"body": {"model": "m"}, "headers": []}', "object of strings"),
        (b'{"body": {"model": "m"}, "headers": {"x-api-key": "sk-test-1"}}', "header 'x-api-key'"),
        (b'{"body": {"model": "m"}, "headers": {"anthropic-beta": "a\\nb"}}', "must not"),
        (b'{"body": {"model": "\xff"}}', "UTF-8"),
    ],
)
def test_each_problem_names_its_line_and_no_content(line: bytes, message: str) -> None:
    problems = problems_of(BODY + b"\n" + line + b"\n" + BODY)

    assert len(problems) == 1
    assert problems[0].startswith("line 2: ")
    assert message in problems[0]
    assert "sk-test" not in problems[0]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b" \n\n", "holds no prompts"),
        (b"{}\n" * (MAX_PROMPTS + 1), "1,001 prompts, 1,000 are the most"),
        (b" " * ((64 << 20) + 1), "more than 64 MiB"),
    ],
)
def test_what_is_wrong_with_the_whole_has_no_line(data: bytes, message: str) -> None:
    (problem,) = problems_of(data)

    assert problem.startswith(message)


def test_prompts_that_the_api_would_not_warm_are_found_by_line() -> None:
    forced = b'{"model":"m","tool_choice":{"type":"any"},"messages":[{"role":"user","content":"x"}]}'
    prompts = read(BODY + b"\n" + forced)

    assert [str(problem) for problem in find_unwarmable(prompts)] == [
        "line 2: The API refuses a warm-up that forces a tool."
    ]
