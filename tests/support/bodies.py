"""Messages bodies to test with: builders of realistic ones, a corpus of every block type and of the shapes
that clients are known to send, and hypothesis strategies for generated ones. No text of anybody's."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

from hypothesis import strategies as st

Json = Any
MODEL = "claude-sonnet-5-5"
MARK = {"type": "ephemeral"}
HOUR_MARK = {"type": "ephemeral", "ttl": "1h"}

_PROSE = (
    "The quick brown fox jumps over the lazy dog, then reads the next file and says what it found there. "
)


def prose(size: int, seed: int = 0) -> str:
    """About `size` characters of text that differs by seed."""
    lead = f"Section {seed}. "
    return (lead + _PROSE * (size // len(_PROSE) + 1))[:size]


_VOCABULARY = (
    "account answer archive balance before branch careful carry change client close column confirm contract "
    "customer daily deliver detail divide document during employee ending entry every example explain figure "
    "follow formal gather general handle hourly however invoice issue journal keep ledger letter limit list "
    "manage measure message middle monthly never number office often order outside payment people period "
    "please polite prepare price problem product quarter question quickly reason record refuse report "
    "request return review sample search second section send serve short simple single smaller speak "
    "standard state summary supply table teach thank their total transfer under useful value vendor verify "
    "weekly within"
)
_WORDS = _VOCABULARY.split()


def words(size: int, seed: int) -> str:
    """About `size` characters of text that has nothing but words in common with that of another seed."""
    choose = Random(seed)
    return " ".join(choose.choice(_WORDS) for _ in range(size // 6))[:size]


def distinct_tool(index: int, size: int = 900) -> dict[str, Json]:
    """A tool whose text is all its own."""
    return {
        "name": f"tool_{index}",
        "description": words(size // 2, 1_000 + index),
        "input_schema": {
            "type": "object",
            "properties": {
                "path": {"type": "string", "description": words(size // 4, 2_000 + index)},
                "limit": {"type": "integer", "description": words(60, 3_000 + index)},
            },
            "required": ["path"],
        },
    }


def desk_body(
    *, turns: int = 0, app: int = 0, chat: int = 0, slot: str = "", **more: Json
) -> dict[str, Json]:
    """A support desk's request: eight tools, two system blocks, of which the second has `slot` in its middle,
    and a conversation. Different apps have only the tools in common, different chats of one app only what
    stands before the messages."""
    texts = Random(1_000 * app + chat + 7)
    messages: list[dict[str, Json]] = [{"role": "user", "content": words(900, texts.randrange(10**9))}]
    for _ in range(turns):
        for role, least, most in (("assistant", 200, 1_200), ("user", 40, 700)):
            text = words(texts.randint(least, most), texts.randrange(10**9))
            messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    half = (words(3_000, 100 + app), words(3_000, 200 + app))
    system = [
        {"type": "text", "text": words(80, 300 + app)},
        {"type": "text", "text": f"{half[0]} {slot} {half[1]}"},
    ]
    return {
        "model": MODEL,
        "max_tokens": 4_000,
        "system": system,
        "tools": [distinct_tool(index) for index in range(8)],
        "messages": messages,
        **more,
    }


def dump(body: Json) -> bytes:
    """Compact, as most SDKs write it."""
    return json.dumps(body, separators=(",", ":"), ensure_ascii=False).encode()


def tool(index: int, size: int = 1_600, **more: Json) -> dict[str, Json]:
    schema = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": prose(max(size - 420, 10), index)},
            "limit": {"type": "integer", "description": "How many lines to return."},
        },
        "required": ["path"],
        "additionalProperties": False,
    }
    return {"name": f"tool_{index}", "description": prose(200, index), "input_schema": schema, **more}


def agent_body(*, turns: int = 20, tools: int = 20, size: int = 120_000, **more: Json) -> dict[str, Json]:
    """An agent's request in the middle of its work: tools, a system prompt, and `turns` pairs of a tool call
    and its result after the first question. About `size` bytes."""
    fixed = tools * 1_600 + 8_000
    per_turn = max((size - fixed) // max(turns, 1), 300)
    messages: list[dict[str, Json]] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": prose(600)}, {"type": "text", "text": prose(300, 1)}],
        }
    ]
    for turn in range(turns):
        use = f"toolu_{turn:024d}"
        messages.append(
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": prose(160, turn)},
                    {"type": "tool_use", "id": use, "name": "tool_1", "input": {"path": f"/src/{turn}.py"}},
                ],
            }
        )
        result = json.dumps({"line\n": prose(per_turn - 500, turn), "naïve": "caf\u00e9"}, ensure_ascii=False)
        messages.append(
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": use, "content": result}]}
        )
    return {
        "model": MODEL,
        "max_tokens": 32_000,
        "system": [{"type": "text", "text": prose(8_000)}],
        "tools": [tool(index) for index in range(tools)],
        "messages": messages,
        "stream": True,
        **more,
    }


def large_body(size: int = 2_000_000) -> dict[str, Json]:
    """A long conversation with big tool results, about two megabytes."""
    return agent_body(turns=300, tools=40, size=size)


def claude_code_body(*, turns: int = 2, attribution: str = "1a2", mark: bool = True) -> dict[str, Json]:
    """The shape of Claude Code 2.1.330: an attribution block first, marks of its own, a message of role
    `system`, a deferred tool, an output_config on the newest message."""

    def marked(block: dict[str, Json]) -> dict[str, Json]:
        return {**block, "cache_control": MARK} if mark else block

    header = f"x-anthropic-billing-header: cc_version=2.1.330.{attribution}; cc_entrypoint=sdk-cli;"
    messages: list[dict[str, Json]] = [
        {
            "role": "user",
            "content": [{"type": "text", "text": prose(400)}, {"type": "text", "text": prose(90)}],
        },
        {"role": "system", "content": prose(9_200)},
    ]
    for turn in range(turns):
        use = f"toolu_{turn}"
        thought = {"type": "thinking", "thinking": "", "signature": "c2ln" * 40}
        call = {"type": "tool_use", "id": use, "name": "tool_1", "input": {"cache_control": {"type": "x"}}}
        result = {"type": "tool_result", "tool_use_id": use, "content": prose(700, turn)}
        messages += [{"role": "assistant", "content": [thought, call]}, {"role": "user", "content": [result]}]
    last = messages[-1]
    if isinstance(last["content"], str):
        last["content"] = [{"type": "text", "text": last["content"]}]
    last["content"][-1] = marked(last["content"][-1])
    last["output_config"] = {"effort": "high"}
    return {
        "model": "claude-opus-5-5",
        "messages": messages,
        "system": [
            {"type": "text", "text": header},
            marked({"type": "text", "text": prose(62)}),
            marked({"type": "text", "text": prose(7_000, 2)}),
        ],
        "tools": [
            *(tool(index, 2_600) for index in range(11)),
            {**tool(99), "name": "DeferredToolPlaceholder", "defer_loading": True},
        ],
        "metadata": {"user_id": '{"device_id":"d","account_uuid":"","session_id":"s"}'},
        "max_tokens": 128_000,
        "thinking": {"type": "adaptive", "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
        "output_config": {"effort": "high"},
        "stream": True,
    }


def ai_sdk_body() -> dict[str, Json]:
    """The shape of the Vercel AI SDK: arrays everywhere, tool_choice always."""
    return {
        "model": MODEL,
        "max_tokens": 4_096,
        "system": [{"type": "text", "text": prose(6_000)}],
        "messages": [{"role": "user", "content": [{"type": "text", "text": prose(50)}]}],
        "tools": [tool(1, eager_input_streaming=True)],
        "tool_choice": {"type": "auto"},
        "stream": True,
    }


def llama_index_body() -> dict[str, Json]:
    """The shape of LlamaIndex: an empty `system` string, always sent."""
    content = [{"type": "text", "text": prose(40)}]
    return {
        "max_tokens": 512,
        "messages": [{"role": "user", "content": content}],
        "model": MODEL,
        "stream": False,
        "system": "",
    }


def instructor_body() -> dict[str, Json]:
    """The shape of instructor: one forced tool, the answer's schema, and a single message."""
    return {
        "max_tokens": 1_024,
        "messages": [{"role": "user", "content": prose(9_000)}],
        "model": MODEL,
        "tool_choice": {"type": "tool", "name": "tool_1"},
        "tools": [tool(1, 900)],
    }


_HERE = Path(__file__).parent
BLOCKS: dict[str, dict[str, Json]] = json.loads((_HERE / "blocks.json").read_text())
"""One content block of every type that the API takes, and some that it does not, by name."""
TOOLS: dict[str, dict[str, Json]] = json.loads((_HERE / "tools.json").read_text())
"""One entry of `tools` of every kind, by name."""


def single(question: Json, **more: Json) -> dict[str, Json]:
    """A request of one user message."""
    return {"model": MODEL, "max_tokens": 5, "messages": [{"role": "user", "content": question}], **more}


def blocks(count: int, size: int = 400) -> list[Json]:
    """So many different text blocks."""
    return [{"type": "text", "text": prose(size, index)} for index in range(count)]


def conversation(*sizes: int, **more: Json) -> dict[str, Json]:
    """Turns of so many blocks each, the user's first, after a long system prompt."""
    messages = [
        {"role": "assistant" if index % 2 else "user", "content": blocks(size)}
        for index, size in enumerate(sizes)
    ]
    return {"model": MODEL, "max_tokens": 5, "system": prose(9_000), "messages": messages, **more}


def corpus() -> dict[str, dict[str, Json]]:
    """Bodies by name: every block and tool type in its place, and the shapes of known clients."""
    long = prose(9_000)
    continued = {"type": "continue", "previous_message_id": "msg_1"}
    bodies = {
        "agent": agent_body(turns=5, tools=4, size=20_000),
        "claude code": claude_code_body(),
        "claude code without marks": claude_code_body(mark=False),
        "claude code, first turn": claude_code_body(turns=0),
        "ai sdk": ai_sdk_body(),
        "llama index": llama_index_body(),
        "instructor": instructor_body(),
        "count_tokens": {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "system": long},
        "string system": single("hi", system=long),
        "messages first": {**single(long), "tools": [tool(1)], "system": long},
        "thread begun": agent_body(turns=1, size=40_000, thread={"type": "create"}),
        "thread continued": single(long, thread=continued),
        "warm-up": single("warmup", system=long, max_tokens=0),
    }
    for name, block in BLOCKS.items():
        body = single([{"type": "text", "text": long}])
        body["messages"] += [{"role": "assistant", "content": "yes"}, {"role": "user", "content": [block]}]
        bodies[f"block: {name}"] = body
    for name, entry in TOOLS.items():
        bodies[f"tool: {name}"] = single(long, tools=[tool(0, 9_000), entry])
    return bodies


def spaced(body: Json) -> bytes:
    """As `json.dumps` writes by default."""
    return json.dumps(body).encode()


def pretty(body: Json) -> bytes:
    """With every kind of white space wherever it may stand."""
    return b" \n" + json.dumps(body, indent="\t", separators=(" ,", "\r\n : ")).encode() + b"\n\t"


def escaped(body: Json) -> bytes:
    """Compact, with every character of every key spelled as an escape."""

    def key(name: str) -> str:
        units = name.encode("utf-16-be").hex().upper()
        return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))

    def write(value: Json) -> str:
        if isinstance(value, dict):
            return "{" + ",".join(f'"{key(name)}":{write(inner)}' for name, inner in value.items()) + "}"
        if isinstance(value, list):
            return "[" + ",".join(map(write, value)) + "]"
        return json.dumps(value)

    return write(body).encode()


WRITERS: tuple[Callable[[Json], bytes], ...] = (dump, spaced, pretty, escaped)


# Generated bodies.

_texts = st.text(alphabet=st.sampled_from('ab é"\\\n\t\u2028𝄞{}[]:,'), max_size=12) | st.sampled_from(
    ["cache_control", '"cache_control"', "x" * 5_000, "", " ", "type"]
)
_numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.booleans() | st.none()
_data = st.recursive(
    _numbers | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_texts, inner, max_size=3),
    max_leaves=6,
)
_controls = st.sampled_from([None, MARK, HOUR_MARK, {"type": "ephemeral", "ttl": "5m"}])
_text_blocks = st.builds(lambda text: {"type": "text", "text": text}, _texts)
_tool_results = st.builds(
    lambda content: {"type": "tool_result", "tool_use_id": "t", "content": content},
    _texts | st.lists(_text_blocks, max_size=3),
)
_content_blocks = (
    _text_blocks
    | _tool_results
    | st.sampled_from(list(BLOCKS.values()))
    | st.builds(lambda data: {"type": "tool_use", "id": "t", "name": "n", "input": data}, _data)
    | st.builds(lambda data, kind: {"type": kind, "more": data}, _data, _texts)
)


@st.composite
def _marked(draw: st.DrawFn, blocks: st.SearchStrategy[dict[str, Json]], chance: int) -> dict[str, Json]:
    block = draw(blocks)
    if not chance or draw(st.integers(0, chance)) or block.get("type") in (None, "thinking"):
        return block
    items = list(block.items())
    items.insert(draw(st.integers(0, len(items))), ("cache_control", draw(_controls)))
    return dict(items)


@st.composite
def bodies(draw: st.DrawFn, *, marks: bool = True) -> dict[str, Json]:
    """Bodies of the right outer shape with anything inside, fields in any order, here and there a mark."""
    chance = 12 if marks else 0
    content = _texts | st.lists(_marked(_content_blocks, chance), max_size=5)
    message = st.builds(
        lambda role, content, more: {"role": role, "content": content, **more},
        st.sampled_from(["user", "assistant", "user", "assistant", "system"]),
        content,
        st.sampled_from([{}, {}, {}, {"output_config": {"effort": "low"}}, {"id": "m"}]),
    )
    fields: dict[str, Json] = {
        "model": MODEL,
        "max_tokens": draw(st.sampled_from([0, 1, 4096, 1.0])),
        "messages": draw(st.lists(message, max_size=8)),
    }
    if draw(st.booleans()):
        fields["system"] = draw(_texts | st.lists(_marked(_text_blocks, chance), max_size=3))
    if draw(st.booleans()):
        fields["tools"] = draw(st.lists(_marked(st.sampled_from(list(TOOLS.values())), chance), max_size=4))
    if draw(st.integers(0, 4)) == 0:
        fields["tool_choice"] = {"type": draw(st.sampled_from(["auto", "any", "none"]))}
    if marks and draw(st.integers(0, 9)) == 0:
        fields["cache_control"] = draw(_controls)
    if draw(st.integers(0, 3)) == 0:
        fields[draw(_texts)] = draw(_data)
    return {key: fields[key] for key in draw(st.permutations(list(fields)))}
