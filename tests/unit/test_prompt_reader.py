"""Reading a body: what is found, what is refused, and what passes although it is strange."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from gateway.core.errors import BadRequest
from gateway.core.prompt import TTL, Block, Level, Prompt
from gateway.core.prompt_reader import read_prompt
from tests.support.bodies import BLOCKS, MARK, MODEL, TOOLS, claude_code_body, dump, single

SURROGATE = rb"\ud800"


def body(**more: Any) -> bytes:
    return dump({"model": MODEL, "max_tokens": 5, "messages": [], **more})


def content(raw: bytes) -> bytes:
    """A body of one user message with this content, as it stands."""
    return b'{"model":"m","max_tokens":5,"messages":[{"role":"user","content":%b}]}' % raw


def only(raw: bytes) -> Block:
    (block,) = read_prompt(content(raw)).blocks
    return block


@pytest.mark.parametrize(
    "raw",
    [
        b"", b" ", b"[]", b'"x"', b"null", b"5", b"{", b"{}x", b'{"model":"m"', b'{"model":"m",}',
        b"{'model':1}",
        b'{"model":"m","temperature":NaN}', b'{"model":"m","temperature":-Infinity}', b'{"model":"m","n":01}',
        b'{"model":"m","text":"\x01"}', b'{"model":"m","text":"\\x41"}', b'{"model":"m","text":"\xff"}',
        b'{"model":"m","text":{"\xc0\xaf":1}}', b'{"model":"m","text":"\xed\xa0\x80"}', b'{"model":"m"}\x00',
        b'\xef\xbb\xbf{"model":"m"}', '{"model":"m"}'.encode("utf-16"),
    ],
)  # fmt: skip
def test_refuses_what_is_not_a_json_object_in_utf8(raw: bytes) -> None:
    with pytest.raises(BadRequest, match=r"JSON|UTF-8"):
        read_prompt(raw)


@pytest.mark.parametrize(
    "raw", [b"{}", b'{"model":null}', b'{"model":5}', b'{"model":["m"]}', b'{"model":""}']
)
def test_refuses_a_body_that_names_no_model(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="no model"):
        read_prompt(raw)


@pytest.mark.parametrize(
    ("raw", "where"),
    [
        (b'{"model":"m","model":"n"}', "the body"),
        (b'{"model":"m","model":"m"}', "the body"),
        (b'{"model":"m","mod\\u0065l":"n"}', "the body"),
        (b'{"model":"m","max_tokens":12,"max_tokens":1}', "the body"),
        (b'{ "model": "m", "a": [1], "model": "m" }', "the body"),
        (b'{"model":"m","messages":[{"role":"user","role":"user","content":"x"}]}', "a message"),
        (b'{"model":"m","messages":[{"role":"user","content":"x","content":[]}]}', "a message"),
        (b'{"model":"m","tools":[{"name":"a","name":"b"}]}', "a tool"),
        (b'{"model":"m","system":[{"type":"text","text":"a","text":"b"}]}', "a block"),
        (content(b'[{"type":"text","text":"a","type":"text"}]'), "a block"),
        (content(b'[{"type":"text","text":"a","cache_control":null,"cache_control":null}]'), "a block"),
        (
            content(b'[{"type":"text","text":"a","cache_control":{"type":"ephemeral","type":"ephemeral"}}]'),
            "a cache_control",
        ),
        (b'{"model":"m","cache_control":{"type":"ephemeral","ttl":"1h","ttl":"5m"}}', "a cache_control"),
    ],
)
def test_refuses_a_member_twice_at_every_level_it_reads(raw: bytes, where: str) -> None:
    with pytest.raises(BadRequest, match=re.escape(f"twice in {where}.")):
        read_prompt(raw)


def test_lets_members_repeat_inside_a_tools_input_and_schema() -> None:
    use = b'[{"type":"tool_use","id":"t","name":"n","input":{"a":1,"a":2}}]'
    schema = b'{"model":"m","tools":[{"name":"n","input_schema":{"a":{},"a":{}}}],"messages":[]}'

    assert only(use).may_be_marked
    assert read_prompt(schema).blocks[0].may_be_marked


@pytest.mark.parametrize("unit", [b"[", b'{"a":'])
def test_refuses_endless_nesting_without_a_recursion_error(unit: bytes) -> None:
    for depth in (2_000, 100_000):  # newer interpreters read on to where the data ends
        with pytest.raises(BadRequest, match=r"nested too deeply|truncated"):
            read_prompt(b'{"model":"m","x":' + unit * depth)
    with pytest.raises(BadRequest, match="nested too deeply"):
        read_prompt(b'{"model":"m","x":' + unit * 1_000_000)


def test_takes_nesting_of_some_hundred_levels() -> None:
    deep = b"[" * 300 + b"]" * 300

    assert only(b'[{"type":"tool_use","id":"t","name":"n","input":%b}]' % deep).type == "tool_use"
    assert only(b'[{"type":"tool_result","tool_use_id":"t","content":%b}]' % deep).marks == 0


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (b"5", 5), (b"5.0", 5), (b"5e2", 500), (b"0", 0), (b"-0", 0), (b"0.5", None), (b"-3", None),
        (b"null", None),
        (b'"5"', None), (b"true", None), (b"9" * 5_000, None), (b"1e400", None), (b"1" + b"0" * 18, None),
    ],
)  # fmt: skip
def test_reads_max_tokens_however_it_is_spelled(number: bytes, expected: int | None) -> None:
    assert read_prompt(b'{"model":"m","max_tokens":%b}' % number).max_tokens == expected


def test_reads_escaped_keys_as_what_they_mean() -> None:
    raw = rb'{"\u006dodel":"m","m\u0061x_tokens":7,"messages":[{"r\u006fle":"user","content":"x"}]}'
    prompt = read_prompt(raw)

    assert (prompt.model, prompt.max_tokens) == ("m", 7)
    assert [(block.role, block.type) for block in prompt.blocks] == [("user", "text")]


def test_finds_a_mark_under_an_escaped_key() -> None:
    direct = rb'[{"type":"text","text":"x","\u0063ache_control":{"type":"ephemeral"}}]'
    nested = (
        rb'[{"type":"tool_result","tool_use_id":"t","content":'
        rb'[{"type":"text","text":"x","cache\u005Fcontrol":{"type":"ephemeral"}}]}]'
    )

    assert only(direct).marks == 1
    assert only(nested).marks == 1


def test_trap_17_lone_surrogates_pass_and_offsets_hold() -> None:
    for text in (
        SURROGATE,
        SURROGATE + b"x",
        rb"\udc00\ud800",
        rb"\ud83d\ude00" + SURROGATE,
        rb"\\ud800" + SURROGATE,
    ):
        literal = b'"' + text + b'"'
        raw = content(
            b'[{"type":"text","text":%b,"citations":null},{"type":"text","text":"after"}]' % literal
        )
        first, second = read_prompt(raw).blocks

        assert json.loads(raw[first.start : first.end])["text"] == json.loads(literal)
        assert json.loads(raw[second.start : second.end])["text"] == "after"
        assert first.may_be_marked


def test_paired_surrogates_and_escaped_backslashes_need_no_second_reading() -> None:
    block = only(rb'"\ud83d\ude00 \\ud800 \u00e9"')

    assert block.is_string
    assert block.may_be_marked


def test_strings_are_blocks_and_an_empty_system_is_one_that_takes_no_mark() -> None:
    prompt = read_prompt(body(system="", messages=[{"role": "user", "content": "hello"}]))
    system, message = prompt.blocks

    assert (system.level, system.is_string, system.may_be_marked) == (Level.SYSTEM, True, False)
    assert (message.level, message.is_string, message.may_be_marked) == (Level.MESSAGES, True, True)
    assert prompt.body[message.start : message.end] == b'"hello"'


@pytest.mark.parametrize(
    "part",
    [
        {"messages": 5}, {"messages": None}, {"messages": {}}, {"messages": ["x"]}, {"messages": [[]]},
        {"tools": {}}, {"tools": ["x"]}, {"tools": None}, {"system": None},
    ],
)  # fmt: skip
def test_a_part_of_the_wrong_shape_has_no_blocks(part: dict[str, Any]) -> None:
    assert read_prompt(body(**part)).blocks == ()


@pytest.mark.parametrize("value", [5, {"a": 1}, ["x"], [["x"]], True])
def test_content_of_the_wrong_shape_is_one_block_that_takes_no_mark(value: Any) -> None:
    for prompt in (
        read_prompt(body(messages=[{"role": "user", "content": value}])),
        read_prompt(body(system=value)),
    ):
        (block,) = prompt.blocks

        assert not block.may_be_marked
        assert json.loads(prompt.body[block.start : block.end]) == value


UNMARKABLE = {
    "thinking",
    "redacted_thinking",
    "a type of next year",
    "no type",
    "empty text",
    "blank text",
    "empty object",
}


@pytest.mark.parametrize("name", BLOCKS)
def test_trap_04_only_blocks_that_take_a_mark_may_be_marked(name: str) -> None:
    (block,) = read_prompt(dump(single([BLOCKS[name]]))).blocks

    assert (name not in UNMARKABLE) is block.may_be_marked
    assert block.type == BLOCKS[name].get("type", "")


@pytest.mark.parametrize("name", TOOLS)
def test_trap_04_deferred_and_unknown_tools_take_no_mark(name: str) -> None:
    (block,) = read_prompt(body(tools=[TOOLS[name]])).blocks

    assert (name not in ("deferred", "a type of next year")) is block.may_be_marked
    assert (name != "deferred") is block.in_prefix


@pytest.mark.parametrize("said", ["default_config", "configs"])
@pytest.mark.parametrize("name", [r"defer_loading", r"defer_l\u006fading"])
def test_trap_04_a_toolset_that_may_defer_its_tools_takes_no_mark(said: str, name: str) -> None:
    deferring = b'{"%b":true}' % name.encode()
    config = b'{"a":%b}' % deferring if said == "configs" else deferring
    toolset = b'{"type":"mcp_toolset","mcp_server_name":"s","%b":%b}' % (said.encode(), config)
    (block,) = read_prompt(b'{"model":"m","tools":[%b],"messages":[]}' % toolset).blocks

    assert not block.may_be_marked
    assert block.in_prefix


@pytest.mark.parametrize("text", ['" "', r'"\n\t"', r'"\u0020\u00a0"', '"\u2003"', '""'])
def test_trap_04_blank_text_takes_no_mark_however_it_is_spelled(text: str) -> None:
    assert not only(text.encode()).may_be_marked
    assert not only(b'[{"type":"text","text":%b}]' % text.encode()).may_be_marked


@pytest.mark.parametrize("text", [r'"\u0041"', '"é"', '" x"', r'"\"', '"0"'])
def test_text_that_begins_oddly_may_be_marked(text: str) -> None:
    literal = text.encode() if text != r'"\"' else rb'"\""'

    assert only(literal).may_be_marked


def test_trap_01_every_mark_counts_nested_and_automatic_ones_too() -> None:
    result = {
        "type": "tool_result",
        "tool_use_id": "t",
        "content": [{"type": "text", "text": "x", "cache_control": {**MARK, "ttl": "1h"}}],
    }
    prompt = read_prompt(
        body(
            tools=[{**TOOLS["client"], "cache_control": MARK}],
            system=[{"type": "text", "text": "s", "cache_control": MARK}],
            messages=[{"role": "user", "content": [result]}],
            cache_control=MARK,
        )
    )

    assert prompt.client_marks == 4
    assert [block.marks for block in prompt.blocks] == [1, 1, 1]
    assert [block.ttl for block in prompt.blocks] == [TTL.FIVE_MINUTES, TTL.FIVE_MINUTES, TTL.ONE_HOUR]
    assert prompt.automatic_ttl is TTL.FIVE_MINUTES
    assert not any(block.may_be_marked for block in prompt.blocks)


def test_a_cache_control_in_a_tools_data_is_no_mark() -> None:
    use = {"type": "tool_use", "id": "t", "name": "n", "input": {"cache_control": MARK}}
    schema = {"name": "n", "input_schema": {"properties": {"cache_control": {"type": "object"}}}}
    text = {"type": "text", "text": '{"cache_control": {"type": "ephemeral"}}'}
    result = {"type": "tool_result", "tool_use_id": "t", "content": '"cache_control"'}
    prompt = read_prompt(body(tools=[schema], messages=[{"role": "user", "content": [use, text, result]}]))

    assert prompt.client_marks == 0
    assert all(block.may_be_marked for block in prompt.blocks)


def test_a_null_cache_control_is_no_mark_but_leaves_no_room_for_one() -> None:
    block = only(b'[{"type":"text","text":"x","cache_control":null}]')

    assert (block.marks, block.may_be_marked) == (0, False)


@pytest.mark.parametrize("control", [5, "ephemeral", [], {}, {"type": "eternal"}, {**MARK, "ttl": "24h"}])
def test_marks_of_an_unknown_kind_are_counted_and_noted(control: Any) -> None:
    prompt = read_prompt(body(system=[{"type": "text", "text": "s", "cache_control": control}]))
    automatic = read_prompt(body(cache_control=control))

    assert prompt.unread_marks
    assert prompt.client_marks == 1
    assert automatic.unread_marks
    assert automatic.client_marks == 1


def test_a_mark_with_members_that_we_do_not_know_is_a_mark() -> None:
    prompt = read_prompt(
        body(system=[{"type": "text", "text": "s", "cache_control": {**MARK, "scope": "global"}}])
    )

    assert not prompt.unread_marks
    assert prompt.blocks[0].ttl is TTL.FIVE_MINUTES


def test_reads_claude_code_as_it_sends() -> None:
    prompt = read_prompt(dump(claude_code_body()))
    system = [block for block in prompt.blocks if block.level is Level.SYSTEM]
    deferred = [block for block in prompt.blocks if not block.in_prefix and block.level is Level.TOOLS]

    assert [block.in_prefix for block in system] == [False, True, True]
    assert prompt.client_marks == 3
    assert len(deferred) == 1
    assert "system" in {block.role for block in prompt.blocks}
    assert [tuple(key for key, _ in extras) for extras in prompt.message_extras.values()] == [
        ("output_config",)
    ]


@pytest.mark.parametrize("index", [0, 1])
def test_an_attribution_line_counts_as_one_only_first_and_alone(index: int) -> None:
    line = {"type": "text", "text": "x-anthropic-billing-header: cc_version=2.1;"}
    blocks = [{"type": "text", "text": "You are helpful."}]
    blocks.insert(index, line)
    first = read_prompt(body(system=blocks)).blocks[index]
    joined = read_prompt(body(system=[{"type": "text", "text": line["text"] + "\nYou are helpful."}])).blocks[
        0
    ]

    assert (index == 0, index != 0) == (not first.in_prefix, first.may_be_marked)
    assert joined.in_prefix


def test_an_attribution_line_is_known_however_it_is_spelled() -> None:
    line = rb'{"type":"text","text":"\u0078-anthropic-billing-header: cc_version=2.1\\n;"}'
    (block,) = read_prompt(b'{"model":"m","system":[%b],"messages":[]}' % line).blocks

    assert not block.in_prefix
    assert not block.may_be_marked


def test_keeps_no_copy_of_the_body() -> None:
    raw = dump(single([{"type": "text", "text": "x" * 100_000}]))
    prompt = read_prompt(raw)

    assert prompt.body is raw
    for field in Prompt.__struct_fields__:
        value = getattr(prompt, field)
        assert value is raw or len(repr(value)) < 5_000


@pytest.mark.parametrize("space", [b"", b" ", b"\n\t "])
def test_an_empty_list_is_no_block_however_it_is_spaced(space: bytes) -> None:
    empty = b"[" + space + b"]"

    assert read_prompt(content(empty)).blocks == ()
    assert read_prompt(b'{"model":"m","system":%b,"messages":[]}' % empty).blocks == ()


def test_refuses_more_messages_than_the_api_takes() -> None:
    def messages(count: int) -> bytes:
        return b'{"model":"m","messages":[%b]}' % b",".join([b"{}"] * count)

    assert read_prompt(messages(100_000)).blocks == ()
    with pytest.raises(BadRequest, match="100001 messages"):
        read_prompt(messages(100_001))
