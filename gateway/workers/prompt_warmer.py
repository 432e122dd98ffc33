"""Warms lists of prompts, one after another and not too fast: for schedules and for who asks.

What a warm-up is and who pays for it is `workers/prewarmer.py`'s; here is only the order and the pace.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

from gateway.core.ids import WorkspaceId
from gateway.core.prompt_lines import PromptLine, WarmedPrompt
from gateway.core.warmup import WarmCause, WarmOutcome, WarmRequest, WarmState
from gateway.ports import Clock

log = logging.getLogger(__name__)

Warm = Callable[[WarmRequest], Awaitable[WarmOutcome]]
PATIENCE_SECONDS = 300.0
"""How long one list waits in all where upstream asks to be left alone; a prompt is tried once more then."""

_UNSENT = frozenset({WarmState.NOT_WARMABLE, WarmState.OVER_BUDGET, WarmState.SKIPPED})


class PromptWarmer:
    """Warms prompts at one pace for all who ask at the same time."""

    def __init__(self, warm: Warm, clock: Clock, *, per_minute: int) -> None:
        self._warm = warm
        self._clock = clock
        self._seconds = 60.0 / per_minute
        self._free_at = 0.0

    async def warm(
        self, workspace: str, name: str, prompts: Sequence[PromptLine], *, cause: WarmCause
    ) -> AsyncGenerator[WarmedPrompt, None]:
        """What becomes of each prompt, in their order. Close it early and the rest is left alone. Raises
        nothing."""
        patience = PATIENCE_SECONDS
        for prompt in prompts:
            request = WarmRequest(
                workspace=WorkspaceId(workspace),
                body=prompt.body,
                headers=prompt.headers,
                cause=cause,
                name=name,
            )
            outcome = await self._warmed(request)
            if (pause := outcome.retry_after_seconds) is not None and pause <= patience:
                patience -= pause
                await self._clock.sleep(pause)
                outcome = await self._warmed(request)
            yield WarmedPrompt(prompt, outcome)

    async def _warmed(self, request: WarmRequest) -> WarmOutcome:
        await self._turn()
        try:
            outcome = await self._warm(request)
        except Exception:
            log.exception("a warm-up failed")
            return WarmOutcome(state=WarmState.FAILED, reason="The gateway failed; its log says why.")
        if outcome.state in _UNSENT:
            self._free_at -= self._seconds  # the next one need not wait for it
        return outcome

    async def _turn(self) -> None:
        now = self._clock.monotonic()
        at = max(self._free_at, now)
        self._free_at = at + self._seconds
        if at > now:
            await self._clock.sleep(at - now)
