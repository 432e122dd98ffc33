"""What a retry that redeems a fallback credit has to repeat: the breakpoints of the call that was refused.

Where a model declines a request, the API may hand out a token with which the same request, on another model,
is billed as though it had been there all along. `cache_control` counts as a part of that request, and a
mismatch is a 400, or at best the credit is lost (fallback credit docs and SDK types, 2026-11-21). So what the
gateway added to the first call is added to the second one, whatever the policy would say by then.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gateway.core.headers import betas
from gateway.core.placement import Breakpoint, Occasion, Placement, PlacementPolicy
from gateway.core.prompt import Prompt
from gateway.core.rules import PlacementMode, Workspace

if TYPE_CHECKING:
    from gateway.core.headers import Headers
    from gateway.core.ids import PrefixKey, WorkspaceId
    from gateway.core.models import ModelFacts
    from gateway.core.usage import Usage

LIFETIME_SECONDS = 1_800.0
"""A token holds for five minutes from the refusal, which may come at the end of a long answer."""
MAX_KEPT = 4_096
_GRANTING = (b"fallback-credit-", b"server-side-fallback-")
"""Betas under which a refusal brings a token."""
_TOKEN = "fallback_credit_token"  # noqa: S105 - a field's name

_Marks = tuple[Breakpoint, ...]
_Key = tuple["WorkspaceId", bytes]


class RedeemingPolicy:
    """`PlacementPolicy` that asks another, but for retries that redeem a credit. Of calls that may be refused
    with one it keeps where their breakpoints went, in this process, and no content. A retry of a call that
    is not known here goes as the client sent it."""

    def __init__(self, policy: PlacementPolicy) -> None:
        self._policy = policy
        self._kept: OrderedDict[_Key, tuple[float, _Marks]] = OrderedDict()

    @property
    def needs_keys(self) -> bool:
        """As the other policy."""
        return self._policy.needs_keys

    def plan(
        self,
        prompt: Prompt,
        keys: Sequence[PrefixKey],
        facts: ModelFacts,
        workspace: Workspace,
        occasion: Occasion,
    ) -> Placement:
        """See `PlacementPolicy.plan`."""
        if _redeems(prompt):
            marks = self._of_refused(workspace.id, prompt, occasion.at)
            return Placement(
                breakpoints=marks,
                reason="It redeems a fallback credit, so its breakpoints are those of the refused call.",
            )
        placement = self._policy.plan(prompt, keys, facts, workspace, occasion)
        if _may_be_credited(occasion.headers):
            sent = placement.breakpoints if workspace.placement is PlacementMode.ON else ()
            self._keep((workspace.id, _digests(prompt)[-1]), sent, occasion.at)
        return placement

    def answered(self, call_id: str, at: float) -> None:
        """As the other policy; it does not know calls that redeem a credit."""
        self._policy.answered(call_id, at)

    def billed(self, call_id: str, usage: Usage, at: float) -> None:
        """As `answered`."""
        self._policy.billed(call_id, usage, at)

    def failed(self, call_id: str, at: float, *, billed: bool = False) -> None:
        """As `answered`."""
        self._policy.failed(call_id, at, billed=billed)

    def _keep(self, key: _Key, marks: _Marks, at: float) -> None:
        # Of two equal calls the last one counts: mostly the first was not answered.
        self._kept.pop(key, None)
        if marks:
            self._kept[key] = at, marks
        while self._kept:
            oldest, (kept_at, _) = next(iter(self._kept.items()))
            if at - kept_at < LIFETIME_SECONDS and len(self._kept) <= MAX_KEPT:
                return
            del self._kept[oldest]

    def _of_refused(self, workspace: WorkspaceId, prompt: Prompt, at: float) -> _Marks:
        """Where the retry has one message more, that is the partial answer, and follows all breakpoints."""
        for digest in reversed(_digests(prompt)):
            kept_at, marks = self._kept.get((workspace, digest), (0.0, ()))
            if marks and at - kept_at < LIFETIME_SECONDS:
                return marks
        return ()


def _redeems(prompt: Prompt) -> bool:
    start, end = prompt.fields.get(_TOKEN, (0, 0))
    return prompt.body[start:end] not in (b"", b"null")


def _may_be_credited(headers: Headers) -> bool:
    return any(beta.startswith(_GRANTING) for beta in betas(headers))


def _digests(prompt: Prompt) -> tuple[bytes, ...]:
    """Of tools, system and messages: without the last message, and with it."""
    view = memoryview(prompt.body)
    digest = hashlib.sha256()
    for name in ("tools", "system"):
        start, end = prompt.fields.get(name, (0, 0))
        digest.update(b"%d:" % (end - start))
        digest.update(view[start:end])
    at = prompt.fields.get("messages", (0, 0))[0]
    found = []
    for end in prompt.message_ends[-2:]:
        digest.update(view[at:end])
        found.append(digest.digest()[:16])
        at = end
    return tuple(found) or (digest.digest()[:16],)
