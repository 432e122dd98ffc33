"""Properties of warm-ups, with the simulator as the witness: it reads bodies by itself and keeps caches by
the documented rules."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from gateway.core.edit import apply_placement
from gateway.core.ids import WorkspaceId
from gateway.core.placement import Breakpoint, Placement, check_placement
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.prompt import TTL, Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.warm_body import warm_up_body
from gateway.core.warmup import why_not_warmable
from gateway.sim.cache import CacheScope, Outcome, PromptCache
from gateway.sim.marks import set_marks
from gateway.sim.prompt import Rendered, read_blocks, render
from gateway.sim.validate import OLD_VERSION, Caller, check_message_call
from gateway.sim.wire import ApiError
from tests.support.bodies import MARK, WRITERS, bodies, corpus

BETAS = ("context-management-2025-06-27", "mcp-client-2025-11-20", "message-threads-2026-08-12")
CALLER = Caller(workspace="w", version=OLD_VERSION, betas=BETAS)
SCOPE = CacheScope(workspace="w", model="m", speed="standard")
FIELDS = {"model", "max_tokens", "messages", "system", "tools", "tool_choice", "cache_control"}
CORPUS = corpus()
TEXT = {"type": "text", "text": "Read this first."}
writers = st.sampled_from(WRITERS)


def rendered(body: bytes) -> Rendered:
    """As the simulated API sees it. Raises `ApiError` where it refuses the body."""
    parsed = json.loads(body)
    model = check_message_call(parsed, CALLER)
    blocks = read_blocks(parsed, model)
    set_marks(blocks, parsed.get("cache_control"), CALLER.betas)
    return render(blocks, parsed, model, CALLER.betas)


def sent(cache: PromptCache, seen: Rendered) -> Outcome:
    """One request to the simulated cache, which caches prefixes of any length here."""
    outcome = cache.open(SCOPE, seen.positions, total_tokens=seen.total_tokens, minimum_tokens=0, at=0.0)
    cache.publish(outcome)
    return outcome


def key_at(prompt: Prompt, block: int) -> bytes:
    return prefix_keys(prompt, cache_scope(secret=b"s", workspace=WorkspaceId("w"), prompt=prompt))[block]


def check_warms(prompt: Prompt, upto: int, marks: tuple[Breakpoint, ...], real: bytes) -> None:
    """That the warm-up is accepted and that `real`, afterwards, reads all that it wrote and no less."""
    body = warm_up_body(prompt, upto, marks)
    warm = rendered(body)
    cache = PromptCache()
    written = sent(cache, warm)
    read = sent(cache, rendered(real))

    assert json.loads(body)["max_tokens"] == 0
    assert [position.mark is not None for position in warm.positions].count(True) == len(marks)
    assert written.write_5m_tokens + written.write_1h_tokens > 0
    assert read.read_tokens == written.write_5m_tokens + written.write_1h_tokens
    assert sent(cache, rendered(body)).read_tokens == read.read_tokens, "and again, as a keep-alive"
    assert key_at(read_prompt(body), upto) == key_at(prompt, upto)


def usable(drawn: dict[str, Any]) -> dict[str, Any]:
    """A drawn body without what the API refuses for reasons that have nothing to do with warm-ups."""
    body = {name: value for name, value in drawn.items() if name in FIELDS}
    body["max_tokens"] = 5
    if body.get("tool_choice", {}).get("type") == "any":
        del body["tool_choice"]
    for message in body["messages"]:
        message.pop("id", None)
        message["content"] = message["content"] or "empty"
    body["messages"].append({"role": "user", "content": "and now?"})
    return body


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(drawn=bodies(marks=False), write=writers, data=st.data())
def test_what_a_warm_up_writes_is_what_the_real_call_reads(
    drawn: dict[str, Any], write: Any, data: st.DataObject
) -> None:
    prompt = read_prompt(write(usable(drawn)))
    places = [at for at, block in enumerate(prompt.blocks) if block.may_be_marked and block.in_prefix]
    upto = data.draw(st.sampled_from(places))
    assume(why_not_warmable(prompt, upto) is None)
    earlier = data.draw(st.sets(st.sampled_from(places), max_size=3))
    ttl = data.draw(st.sampled_from(TTL))
    marks = tuple(Breakpoint(at, ttl, "") for at in sorted({*(e for e in earlier if e < upto), upto}))
    placement = Placement(breakpoints=marks)
    assume(check_placement(prompt, placement) is None)
    real = b"".join(apply_placement(prompt, placement))
    try:
        rendered(real)
    except ApiError:
        assume(False)

    check_warms(prompt, upto, marks, real)


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much])
@given(drawn=bodies(), write=writers)
def test_the_marks_of_a_client_are_warmed_as_they_are(drawn: dict[str, Any], write: Any) -> None:
    body = usable(drawn)
    body.pop("cache_control", None)
    body["messages"].insert(0, {"role": "user", "content": [{**TEXT, "cache_control": MARK}]})
    real = write(body)
    prompt = read_prompt(real)
    marks = tuple(
        Breakpoint(at, block.ttl, "") for at, block in enumerate(prompt.blocks) if block.marks and block.ttl
    )
    assume(why_not_warmable(prompt, marks[-1].block) is None)
    try:
        rendered(real)
    except ApiError:
        assume(False)

    check_warms(prompt, marks[-1].block, marks, real)


@pytest.mark.parametrize("name", CORPUS)
def test_every_shape_can_be_warmed_up_to_every_block_or_says_why_not(name: str) -> None:
    for write in WRITERS:
        prompt = read_prompt(write({**CORPUS[name], "max_tokens": 5}))
        places = [
            at
            for at, block in enumerate(prompt.blocks)
            if (block.may_be_marked or block.marks) and block.in_prefix
        ]
        for upto in places:
            if why_not_warmable(prompt, upto) is not None:
                continue
            bare = read_prompt(_without_marks(prompt))
            marks = (Breakpoint(upto, TTL.FIVE_MINUTES, ""),)
            real = b"".join(apply_placement(bare, Placement(breakpoints=marks)))
            try:
                rendered(real)
            except ApiError:
                continue  # e.g. an assistant's prefill
            check_warms(prompt, upto, marks, real)


def _without_marks(prompt: Prompt) -> bytes:
    body = prompt.body
    for start, end in sorted((cut for block in prompt.blocks for cut in block.cuts), reverse=True):
        body = body[:start] + body[end:]
    return body
