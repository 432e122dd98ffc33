"""Prompts of recent calls that may have to be sent again as warm-ups: in memory, never on disk, in no log.

Bounded by their bytes and by time. Which calls are kept, and when one is asked for, is the policy's to say.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec

from gateway.core.headers import Headers
from gateway.core.ids import WorkspaceId
from gateway.core.placement import Breakpoint
from gateway.core.principal import Principal
from gateway.core.prompt import Prompt
from gateway.core.warm_body import shaped_body
from gateway.core.warmup import kept_end, why_not_warmable

IDLE_SECONDS = 4_500.0
"""What was not asked for during an hour's TTL and a quarter more is not asked for any longer."""
OVERHEAD_BYTES = 1_000
"""What an entry takes beside its body."""
WORTH_CUTTING = 0.25
"""Share of a body behind what is needed from which on it is cut; a body that is kept whole is not copied."""
MOST_CUT_BYTES = 1 << 18
"""Larger bodies are kept whole and looked at more closely once they are asked for, since a call waits."""
NEEDED_HEADERS = (b"anthropic-version", b"anthropic-beta")
"""Headers that alter the prompt or its cache. Nothing else of the caller's is kept."""


class KeptPrompt(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What it takes to send a call's prompt again, up to block `upto` at least."""

    caller: Principal
    """Whose call it was: nothing is sent for who may not call any more."""
    target: str
    """Path and query as the client sent them."""
    upto: int
    body: bytes
    headers: Headers

    @property
    def workspace(self) -> WorkspaceId:
        return self.caller.workspace

    def __repr__(self) -> str:
        """Without the prompt: what is shown of an object ends in logs."""
        return f"KeptPrompt({self.workspace!r}, {self.target!r}, upto={self.upto})"


class KeptPrompts:
    """By call id. The one that was kept or asked for longest ago is forgotten first."""

    def __init__(self, memory_bytes: int) -> None:
        self._most_bytes = memory_bytes
        self._kept: OrderedDict[str, tuple[float, KeptPrompt]] = OrderedDict()
        self.bytes = 0
        """Held now."""

    def __len__(self) -> int:
        return len(self._kept)

    def keep(
        self,
        call_id: str,
        prompt: Prompt,
        *,
        upto: int,
        caller: Principal,
        target: str,
        headers: Headers,
        now: float,
    ) -> bool:
        """False where it is not kept: it cannot be warmed, or is larger than all there is room for."""
        self.expire(now)
        small = len(prompt.body) <= MOST_CUT_BYTES
        if why_not_warmable(prompt, upto if small else None) is not None:
            return False
        kept = KeptPrompt(
            caller=caller,
            target=target,
            upto=upto,
            body=_needed_body(prompt, upto) if small else prompt.body,
            headers=tuple(line for line in headers if line[0] in NEEDED_HEADERS),
        )
        size = _size(kept)
        if size > self._most_bytes:
            return False
        self.forget(call_id)
        self._kept[call_id] = (now, kept)
        self.bytes += size
        while self.bytes > self._most_bytes:
            self._drop_oldest()
        return True

    def take(self, call_id: str, now: float) -> KeptPrompt | None:
        """Asked for, and kept on for another lifetime; None where it was forgotten."""
        self.expire(now)
        found = self._kept.get(call_id)
        if found is None:
            return None
        self._kept[call_id] = (now, found[1])
        self._kept.move_to_end(call_id)
        return found[1]

    def forget(self, call_id: str) -> None:
        """Unknown ids: nothing happens."""
        found = self._kept.pop(call_id, None)
        if found is not None:
            self.bytes -= _size(found[1])

    def clear(self) -> None:
        """Forget all."""
        self._kept.clear()
        self.bytes = 0

    def expire(self, now: float) -> None:
        """Forget what nobody asked for in time."""
        while self._kept and next(iter(self._kept.values()))[0] < now - IDLE_SECONDS:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, (_, kept) = self._kept.popitem(last=False)
        self.bytes -= _size(kept)


def _needed_body(prompt: Prompt, upto: int) -> bytes:
    """The body as it is, or cut where much of it is not needed. The client's own marks stay."""
    end = kept_end(prompt, upto)
    behind = prompt.blocks[-1].end - prompt.blocks[end].start if end < len(prompt.blocks) else 0
    if behind < WORTH_CUTTING * len(prompt.body):
        return prompt.body
    marks = [
        Breakpoint(at, ttl, "the client's own")
        for at in prompt.outline.marked
        if at <= upto and (ttl := prompt.blocks[at].ttl) is not None
    ]
    return shaped_body(prompt, upto, marks)


def _size(kept: KeptPrompt) -> int:
    return len(kept.body) + OVERHEAD_BYTES
