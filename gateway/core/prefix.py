"""Cache scopes and prefix keys: which prompts share a cache entry, known by keyed digests only.

Equal keys should mean that the API sees equal prefixes; unequal keys may still share an entry. A default that
is written out (an effort, `tool_choice: auto`) or another spelling of the same JSON costs one missed lesson
and nothing else, so neither is recognised. Left out on purpose: images and citations, which invalidate
*earlier* blocks once they appear (prompt caching docs, 2026-08-21); with them a prompt's extension would
change the keys of its prefixes, and the price of leaving them out is one wrong expectation.

No text leaves this module, and nothing here decides anything.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from gateway.core.headers import Header, betas
from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.prompt import PAUSE_EVERY, Block, Level, Prompt
from gateway.core.spans import OBJECT, OPEN_OBJECT, Members

if TYPE_CHECKING:
    from hashlib import _Hash as _Digest

KEY_BYTES = 16
CONTINUED_MESSAGES = 4
"""How many of the last messages may differ for the keys before them to be of use to the next call; a client
changes the last one or two when it moves its marks."""

# SHA-256 with a secret in front and half of its output: processors have instructions for it, which makes it
# twice as fast as keyed BLAKE2b here. Its known weakness in this use, that who sees a digest can extend it,
# needs the whole output; half of it hides 128 bits of the state.
_digest = hashlib.sha256

_EVERYWHERE = ("speed", "inference_geo", "mcp_servers")
"""Fields that part the caches from the first block on (fast mode docs: no sharing between speeds)."""
_MESSAGES_ONLY = ("tool_choice", "thinking")
"""Fields whose change leaves tools and system cached (prompt caching docs, 2026-08-21)."""
MESSAGES_PARTS = len(_MESSAGES_ONLY) + 1
"""The rest of `output_config` being the last."""
_SIDE_MEMBERS = ("output_config",)
"""Members of a message that the API made for changing course without losing the cache; Claude Code sends
`output_config` on its newest message only."""


def cache_scope(
    *, secret: bytes, workspace: WorkspaceId, prompt: Prompt, headers: Iterable[Header] = ()
) -> bytes:
    """Who may share an entry with this request at any level: 32 bytes, of no use without the secret.

    Workspace, model as the client names it (an alias is a cold prefix), speed, geography, MCP servers, output
    format, and the set of `anthropic-beta` values in any order.
    """
    parts = [secret, workspace.encode(), prompt.model.encode(), _betas(headers)]
    if prompt.fields.keys().isdisjoint(_OF_SCOPE):
        return _digest(b"".join(map(_framed, parts)) + _PLAIN_SCOPE).digest()
    parts += [_field(prompt, name) for name in _EVERYWHERE]
    parts.append(_output_config(prompt, deeper=False))
    thread = _field(prompt, "thread")
    if b"previous_message_id" in thread:  # the prompt begins on the server, with what that message saw
        parts.append(thread)
    return _digest(b"".join(map(_framed, parts))).digest()


def scope_parts(prompt: Prompt, headers: Iterable[Header] = ()) -> dict[str, bytes]:
    """What parts the caches besides the workspace and the content, by the name a person knows it by. The last
    `MESSAGES_PARTS` of them leave tools and system shared. For comparing; `cache_scope` is what decides."""
    parts = {"model": prompt.model.encode(), "anthropic-beta": _betas(headers)}
    parts |= {name: _field(prompt, name) for name in _EVERYWHERE}
    parts["output_config.format"] = _output_config(prompt, deeper=False)
    parts |= {name: _field(prompt, name) for name in _MESSAGES_ONLY}
    parts["output_config"] = _output_config(prompt, deeper=True)
    return parts


class KeyChain(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The keys of a prompt, and from where on those of one that begins alike can be continued."""

    keys: tuple[PrefixKey, ...]
    scope: bytes
    messages_tag: bytes
    states: dict[int, tuple[_Digest, str]]
    """By how many messages have been digested: the state, and the role of the last of them."""


def prefix_keys(prompt: Prompt, scope: bytes) -> tuple[PrefixKey, ...]:
    """One key per block, for everything up to and including it; a block that the API leaves out of the prompt
    has the key of what stands before it.

    Marks do not count, wherever the client put them. A string and its one-block text array count the same. A
    role counts where it changes, since the API merges turns of one role.
    """
    return key_chain(prompt, scope).keys


def key_chain(
    prompt: Prompt,
    scope: bytes,
    like: KeyChain | None = None,
    pause: Callable[[], None] | None = None,
) -> KeyChain:
    """`prefix_keys`, continued from those of the prompt that this one was read like, where both share more
    than their head. The keys are the same without it. `pause` is called again and again meanwhile."""
    messages_tag = _messages_tag(prompt)
    body = memoryview(prompt.body)
    level, message = Level.TOOLS, -1
    keys: list[PrefixKey] = []
    digest, role = _digest(scope), ""
    states = _common_states(prompt, scope, messages_tag, like)
    if states and like is not None:
        count = max(states)
        if count == len(prompt.message_ends) and len(like.keys) == len(prompt.blocks):
            return like
        keys += like.keys[: bisect_left(prompt.blocks, count, key=_message)]
        level, digest, role = Level.MESSAGES, states[count][0].copy(), states[count][1]
    update, copy = digest.update, digest.copy
    blocks = prompt.blocks[len(keys) :]
    last_messages = blocks[-1].message - CONTINUED_MESSAGES if blocks else 0
    for block in blocks:
        if pause is not None and not len(keys) % PAUSE_EVERY:
            pause()
        if block.in_prefix:
            if block.level is not level:
                level = block.level
                update(messages_tag if level is Level.MESSAGES else _level_tag(level))
            if block.message != message:
                message = block.message
                if message > last_messages:
                    states[message] = copy(), role
                update(_turn(prompt, block, role))
                role = block.role
            # No lengths between the parts: strings and objects delimit themselves, and a tag begins with a
            # letter, as neither of them does.
            if not block.cuts or block.text is not None:
                start, end = block.text or (block.start, block.end)
                update(body[start:end])
            else:
                for piece in _without_cuts(body, block):
                    update(piece)
        keys.append(PrefixKey(copy().digest()[:KEY_BYTES]))
    if message >= 0:
        states[message + 1] = digest, role
    latest = dict(sorted(states.items())[-CONTINUED_MESSAGES - 1 :])
    return KeyChain(keys=tuple(keys), scope=scope, messages_tag=messages_tag, states=latest)


def _common_states(
    prompt: Prompt, scope: bytes, messages_tag: bytes, like: KeyChain | None
) -> dict[int, tuple[_Digest, str]]:
    """The states of `like` that are this prompt's too."""
    if like is None or like.scope != scope or like.messages_tag != messages_tag:
        return {}
    return {count: state for count, state in like.states.items() if 0 < count <= prompt.shared_messages}


def _message(block: Block) -> int:
    return block.message


def _without_cuts(body: memoryview, block: Block) -> Iterator[memoryview]:
    at = block.start
    for start, end in sorted(block.cuts):
        yield body[at:start]
        at = end
    yield body[at : block.end]


def _messages_tag(prompt: Prompt) -> bytes:
    if prompt.fields.keys().isdisjoint(_OF_MESSAGES):
        return _PLAIN_MESSAGES_TAG
    parts = [_field(prompt, name) for name in _MESSAGES_ONLY]
    return _level_tag(Level.MESSAGES, *parts, _output_config(prompt, deeper=True))


def _level_tag(level: Level, *parts: bytes) -> bytes:
    return b"L" + (_framed_all([level.encode(), *parts]) if parts else _framed(level.encode()))


def _extras(prompt: Prompt, message: int) -> Sequence[bytes]:
    if message not in prompt.message_extras:
        return ()
    extras = prompt.message_extras[message]
    return [
        part
        for key, (start, end) in extras
        if key not in _SIDE_MEMBERS
        for part in (key.encode(), prompt.body[start:end])
    ]


def _turn(prompt: Prompt, block: Block, role: str) -> bytes:
    """What a message of `block` adds behind one of `role`, before its blocks."""
    extras = _extras(prompt, block.message)
    if extras:
        return _turn_tag(block.role, extras)
    return _PLAIN_TURNS.get(block.role) or _turn_tag(block.role, ()) if block.role != role else b""


def _turn_tag(role: str, extras: Sequence[bytes]) -> bytes:
    return b"R" + _framed_all([role.encode(), *extras])


def _output_config(prompt: Prompt, *, deeper: bool) -> bytes:
    """`format` loses the whole cache, what else `output_config` holds loses the messages (structured outputs
    and prompt caching docs, 2026-10-09)."""
    raw = _field(prompt, "output_config")
    if raw[:1] != bytes([OPEN_OBJECT]):
        return raw if deeper else b""
    try:
        members: Members = OBJECT.decode(raw)
    except msgspec.DecodeError:  # lone surrogates: msgspec refuses what the reader let pass
        return raw
    parts = [
        part
        for key, value in members.items()
        if (key != "format") is deeper
        for part in (key.encode(), bytes(value))
    ]
    return _framed_all(parts) if parts else b""


def _betas(headers: Iterable[Header]) -> bytes:
    return b",".join(sorted(set(betas(headers))))


def _field(prompt: Prompt, name: str) -> bytes:
    start, end = prompt.fields.get(name, (0, 0))
    return prompt.body[start:end]


def _framed(part: bytes) -> bytes:
    return b"%d:%b" % (len(part), part)


def _framed_all(parts: Sequence[bytes]) -> bytes:
    return _framed(b"".join(map(_framed, parts)))


_OF_SCOPE = (*_EVERYWHERE, "output_config", "thread")
_PLAIN_SCOPE = _framed(b"") * (len(_EVERYWHERE) + 1)
_OF_MESSAGES = (*_MESSAGES_ONLY, "output_config")
_PLAIN_MESSAGES_TAG = _level_tag(Level.MESSAGES, *(b"" for _ in _OF_MESSAGES))
_PLAIN_TURNS = {role: _turn_tag(role, ()) for role in ("user", "assistant", "system")}
