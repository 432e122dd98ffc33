"""Which calls' breakpoints the policy that learns does not decide by what it has learned, and what they get.

Those that bring breakpoints of their own, those for which the API runs tools, and warm-ups go by rule; and
some conversations are left alone, to measure what placing saves. Nothing is learned here.
"""

from __future__ import annotations

from collections.abc import Sequence

from gateway.core.ids import PrefixKey
from gateway.core.models import ModelFacts
from gateway.core.placement import Occasion, Placement, has_server_tools
from gateway.core.prompt import Level, Prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import PlacementMode, Workspace

_BY_RULE = RulePolicy()


def given_placement(
    prompt: Prompt,
    keys: Sequence[PrefixKey],
    facts: ModelFacts,
    workspace: Workspace,
    occasion: Occasion,
    *,
    holdout_share: float,
) -> Placement | None:
    """The placement where it is not to be decided; None where it is."""
    if occasion.warm_up and prompt.client_marks:
        return Placement(reason="a warm-up brings its own breakpoints")
    if is_warm_up(prompt, occasion) or prompt.client_marks or has_server_tools(prompt):
        return _BY_RULE.plan(prompt, keys, facts, workspace, occasion)
    if workspace.placement is not PlacementMode.SHADOW and _holds_out(prompt, keys, holdout_share):
        return Placement(reason="left alone on purpose, to measure what placing saves", holdout=True)
    return None


def is_warm_up(prompt: Prompt, occasion: Occasion) -> bool:
    """Whether nothing will be generated: it is sent for what it writes."""
    return occasion.warm_up or prompt.max_tokens == 0


def _holds_out(prompt: Prompt, keys: Sequence[PrefixKey], share: float) -> bool:
    """By the conversation's first message, so that it stays in or out for as long as it lasts."""
    if not share:
        return False
    first = next((at for at, block in enumerate(prompt.blocks) if block.level is Level.MESSAGES), None)
    if first is None:
        return False
    return int.from_bytes(keys[first][8:16], "little") < share * 2**64
