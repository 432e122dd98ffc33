"""What is asked of all blocks of a prompt is the same, whether it was taken over or looked at."""

from __future__ import annotations

from gateway.core.models import ModelFacts
from gateway.core.outline import Outline, Shown, outline_of
from gateway.core.planner import Kind
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.typical import block_tokens
from gateway.core.warmup import why_not_warmable
from tests.support.bodies import agent_body, dump

FACTS = ModelFacts(id="m", minimum_cacheable_tokens=1, bytes_per_token=3.7)
MARK = {"type": "ephemeral"}
IMAGE = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}


def a_prompt(*more: object, like: Prompt | None = None) -> Prompt:
    said = [{"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": ""}]}]
    said += [{"role": "user", "content": [part]} for part in more]  # type: ignore[list-item]
    body = {
        "model": "m",
        "max_tokens": 9,
        "tools": [{"name": "a", "input_schema": {}}, {"type": "bash_20250124", "name": "bash"}],
        "system": [{"type": "text", "text": "be brief", "cache_control": MARK}],
        "messages": said,
    }
    return read_prompt(dump(body), like)


def test_says_what_each_block_is() -> None:
    outline = a_prompt().outline

    assert bytes((Kind.TOOLS, Kind.TOOLS, Kind.SYSTEM, Kind.USER, Kind.USER)) == outline.kinds
    assert (outline.tools_end, outline.head_end) == (2, 3)
    assert {"custom", "bash_20250124"} == outline.tool_types
    assert outline.typed_tools == 1
    assert outline.marked == (2,)
    assert {2, 4} == outline.unmarkable  # marked already, and empty


def test_goes_on_from_the_prompt_that_it_was_read_like() -> None:
    """Also where that one had more messages, or others behind."""
    text, marked = {"type": "text", "text": "two"}, {"type": "text", "text": "three", "cache_control": MARK}
    longer = a_prompt(text, marked, {"type": "text", "text": ""})
    for more in ((text,), (text, text), (text, marked, text), ()):
        plain, shared = a_prompt(*more), a_prompt(*more, like=longer)
        assert shared.shared_messages > 0
        assert shared.outline == plain.outline
        assert shared.client_marks == plain.client_marks


def test_counts_tokens_on_from_where_the_other_one_ended() -> None:
    body = agent_body(turns=6)
    first = read_prompt(dump(body))
    block_tokens(first, FACTS)
    body["messages"] = [*body["messages"][:9], {"role": "user", "content": "and now?"}]
    plain, shared = read_prompt(dump(body)), read_prompt(dump(body), first)

    assert shared.outline.measured is not None
    assert 0 < len(shared.outline.measured.ends) < len(shared.blocks)
    assert block_tokens(shared, FACTS) == block_tokens(plain, FACTS)


def test_another_rate_is_counted_anew() -> None:
    prompt = a_prompt()
    other = ModelFacts(id="n", minimum_cacheable_tokens=1, bytes_per_token=1.0)

    assert block_tokens(prompt, FACTS) != block_tokens(prompt, other)
    assert block_tokens(prompt, FACTS) == block_tokens(a_prompt(), FACTS)


def test_images_that_are_gone_are_not_seen_any_more() -> None:
    """What `like` showed counts as far as it is shared."""
    text = {"type": "text", "text": "two"}
    shown = a_prompt(text, IMAGE)
    assert why_not_warmable(shown, 3) is not None
    for more in ((text,), (text, text), (text, IMAGE)):
        plain, shared = a_prompt(*more), a_prompt(*more, like=shown)
        assert why_not_warmable(shared, 3) == why_not_warmable(plain, 3)


def test_only_what_is_below_is_kept() -> None:
    shown = Shown(9, images=(1, 5, 7), citations=(8,))

    assert shown.first(6) == Shown(6, images=(1, 5), citations=())
    assert shown.first(12) is shown


def test_no_blocks_have_an_empty_outline() -> None:
    assert outline_of(()) == Outline(b"", 0, 0, frozenset(), 0, (), frozenset())
