"""What a body's blocks say together."""

from __future__ import annotations

import json

from gateway.core.prompt_reader import read_prompt


def test_counts_the_automatic_mark_and_those_inside_blocks() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    inner = {"type": "text", "text": "a", **mark}
    result = {"type": "tool_result", "tool_use_id": "t", "content": [inner]}
    messages = [{"role": "user", "content": [result, {"type": "text", "text": "b", **mark}]}]
    body = {"model": "m", "messages": messages, **mark}

    assert read_prompt(json.dumps(body).encode()).client_marks == 3
