"""The models that a call names as fallbacks and as advisors'."""

from __future__ import annotations

import pytest

from gateway.core.errors import BadRequest
from gateway.core.other_models import MOST_NAMED, falls_back_by_default, other_models
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt

FABLE = "claude-fable-5-2"
ADVISOR = b'{"type":"advisor_20260301","name":"advisor","model":"claude-fable-5-2"}'
DEFINED = b'{"type":"tool_addition","tool":{"type":"tool_definition","definition":%s}}' % ADVISOR
REFERENCED = b'{"type":"tool_addition","tool":{"type":"tool_reference","name":"x"}}'


def a_prompt(more: bytes) -> Prompt:
    return read_prompt(b'{"model":"claude-haiku-5-5","max_tokens":9,%s}' % more)


def said(block: bytes) -> bytes:
    return b'"messages":[{"role":"system","content":[{"type":"text","text":"Hi"},%s]}]' % block


@pytest.mark.parametrize(
    "more",
    [
        b'"fallbacks":[{"model":"claude-fable-5-2"},{"model":"claude-fable-5-2"}]',
        rb'"f\u0061llbacks": [ { "max_tokens": 9, "m\u006fdel" : "claude-f\u0061ble-5-2" } ]',
        rb'"fallbacks":[{"model":"claude-fable-5-2","output_config":{"x":"\ud800"}}]',
        b'"fallbacks":["odd",{"model":"claude-fable-5-2"}]',
        b'"tools":[{"name":"mine","input_schema":{}},%s]' % ADVISOR,
        rb'"tools":[{"type":"\u0061dvisor_20270101","name":"advisor","model":"claude-fable-5-2"}]',
        said(DEFINED),
        said(DEFINED.replace(b"tool_addition", rb"tool\u005faddition")),
    ],
)
def test_finds_them_however_they_are_spelled(more: bytes) -> None:
    assert other_models(a_prompt(more)) == (FABLE,)


@pytest.mark.parametrize(
    "more",
    [
        b'"fallbacks":null',
        b'"fallbacks":"default"',
        b'"fallbacks":[]',
        b'"fallbacks":[{"model":7},{}]',
        b'"fallbacks":{"a":1}',
        b'"tools":[{"name":"mine","model":"claude-fable-5-2","input_schema":{}}]',
        b'"tools":[{"type":"bash_20250124","name":"bash"},{"type":"web_search_20260209","name":"web_search"}]',
        said(REFERENCED),
        said(b'{"type":"tool_addition"}'),
    ],
)
def test_finds_none_where_there_are_none(more: bytes) -> None:
    """What is malformed is upstream's to refuse."""
    assert other_models(a_prompt(more)) == ()


@pytest.mark.parametrize(
    ("value", "chosen"),
    [(b'"default"', True), (rb'"d\u0065fault"', True), (b'"none"', False), (b"[]", False)],
)
def test_upstream_may_be_asked_to_choose(value: bytes, chosen: bool) -> None:
    assert falls_back_by_default(a_prompt(b'"fallbacks":' + value)) is chosen
    assert not falls_back_by_default(a_prompt(b'"stream":true'))


@pytest.mark.parametrize("where", [b'"fallbacks":[%s]', said(DEFINED.replace(ADVISOR, b"%s"))])
def test_a_model_that_is_named_twice_is_refused_as_readers_disagree(where: bytes) -> None:
    twice = b'{"type":"advisor_20260301","model":"claude-fable-5-2","model":"claude-haiku-5-5"}'
    with pytest.raises(BadRequest, match="twice"):
        other_models(a_prompt(where % twice))


def test_more_models_than_anybody_needs_are_refused() -> None:
    many = b",".join(b'{"model":"m%d"}' % number for number in range(MOST_NAMED + 1))
    with pytest.raises(BadRequest, match=f"more than {MOST_NAMED}"):
        other_models(a_prompt(b'"fallbacks":[%s]' % many))
