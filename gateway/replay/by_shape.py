"""What the gateway's `rules` policy makes of a recorded request: the policy that serves, asked about a prompt
of the same shape. What a recording does not hold it cannot see: a forced tool choice, tools of the API's own.
"""

from __future__ import annotations

from gateway.core.ids import WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.outline import outline_of
from gateway.core.placement import MINIMUM_MARGIN
from gateway.core.planner import Kind
from gateway.core.prompt import TTL, Block, Level, Prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import Workspace
from gateway.replay.request import Marks, Request

_SHAPES = {
    int(Kind.TOOLS): (Level.TOOLS, "", "custom"),
    int(Kind.SYSTEM): (Level.SYSTEM, "", "text"),
    int(Kind.USER): (Level.MESSAGES, "user", "text"),
    int(Kind.ASSISTANT): (Level.MESSAGES, "assistant", "text"),
}
_WORKSPACE = Workspace(id=WorkspaceId("replay"), organisation="", upstream="")
_POLICY = RulePolicy()


def marks_by_rule(request: Request) -> Marks:
    """As it would be sent with `placement.policy: rules`."""
    if request.given is not None:
        return request.given
    facts = ModelFacts(
        id=request.model,
        minimum_cacheable_tokens=round(request.prices.minimum_tokens / MINIMUM_MARGIN),
        bytes_per_token=1.0,
    )
    placement = _POLICY.plan(_prompt(request), (), facts, _WORKSPACE)
    return tuple((point.block, point.ttl is TTL.ONE_HOUR) for point in placement.breakpoints)


def _prompt(request: Request) -> Prompt:
    start, blocks = 0, []
    for index, (kind, end) in enumerate(zip(request.kinds, request.ends, strict=True)):
        level, role, type_ = _SHAPES[kind]
        free = index not in request.unmarkable
        blocks.append(Block(level, role, -1, type_, start, end, False, free))
        start = end
    found = tuple(blocks)
    return Prompt(
        body=b"",
        model=request.model,
        max_tokens=max(1, request.output_tokens),
        stream=False,
        blocks=found,
        outline=outline_of(found),
        fields={"max_tokens": (0, 0)},
        automatic_ttl=None,
    )
