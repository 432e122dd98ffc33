"""Asks upstream how many tokens a prompt has, where a guess would refuse a call that may fit.

By the free count_tokens endpoint, with the credential of the workspace's route; never on the way of a call
that fits. Whether that is wanted is the workspace's setting, what is made of the count the estimate's.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from gateway.core.endpoints import Endpoint
from gateway.core.errors import GatewayError
from gateway.core.estimate import Estimate
from gateway.core.headers import Headers, request_headers, with_credential
from gateway.core.learned_estimates import LearnedEstimates
from gateway.core.plan import Plan, estimate_plan
from gateway.core.prompt import Prompt
from gateway.core.rules import CountTokens, EstimateMode, Route, Rules, Workspace
from gateway.core.spans import OBJECT
from gateway.core.usage import is_count
from gateway.ports import Call, Upstream, UpstreamRequest

COUNT_SECONDS = 1.0
"""For so long a call waits for its count at most."""
MAX_REMEMBERED = 1_024
MAX_ANSWER_BYTES = 4_096
_TARGET = "/v1/messages/count_tokens"
_COUNTED = (
    "model", "system", "messages", "tools", "tool_choice", "thinking", "output_config", "cache_control",
    "speed", "context_management", "mcp_servers",
)  # fmt: skip
"""Fields that the endpoint takes; it refuses any other (token counting page, 2026-08-21)."""


class Counting:
    """Remembers the last `MAX_REMEMBERED` counts, by digest of the prompt."""

    def __init__(self, upstream: Upstream, learned: LearnedEstimates) -> None:
        self._upstream = upstream
        self._learned = learned
        self._known: OrderedDict[bytes, int] = OrderedDict()

    def closer(
        self, call: Call, plan: Plan, rules: Rules, workspace: Workspace, route: Route
    ) -> Callable[[], Awaitable[Estimate | None]] | None:
        """How to come to a closer estimate of the call; None where the workspace does not want upstream to be
        asked, or is strict: its estimates would not go by the answer."""
        wanted = workspace.count_tokens is CountTokens.NEAR_LIMIT
        if not wanted or workspace.estimate is EstimateMode.STRICT or call.endpoint is not Endpoint.MESSAGES:
            return None

        async def estimate() -> Estimate | None:
            counted = await self.count(plan.prompt, call.headers, route, drop=rules.tag_headers)
            if counted is None:
                return None
            at, learned = call.received_at, self._learned
            return estimate_plan(
                plan, rules=rules, workspace=workspace, at=at, learned=learned, counted=counted
            )

        return estimate

    async def count(
        self, prompt: Prompt, headers: Headers, route: Route, *, drop: Sequence[str] = ()
    ) -> int | None:
        """Tokens of the prompt as upstream counts them; None where it did not say within `COUNT_SECONDS`.
        `headers` are the call's own, of which those named by `drop` are not sent on. Raises a cancellation
        only."""
        body = _body(prompt)
        key = hashlib.blake2b(body, digest_size=16).digest()
        if (known := self._known.get(key)) is not None:
            return known
        try:
            # Its body was read, and is sent without an encoding.
            sent = request_headers(headers, decoded=True, identity=True, drop=drop)
            request = UpstreamRequest(
                method="POST",
                target=_TARGET,
                headers=with_credential(sent, route.credential()),
                route=route,
                body=(body,),
            )
            async with asyncio.timeout(COUNT_SECONDS):
                counted = await self._ask(request)
        except (GatewayError, TimeoutError):
            return None
        if counted is not None:
            self._known[key] = counted
            if len(self._known) > MAX_REMEMBERED:
                self._known.popitem(last=False)
        return counted

    async def _ask(self, request: UpstreamRequest) -> int | None:
        kept = bytearray()

        def feed(data: bytes) -> bool:
            kept.extend(data[: MAX_ANSWER_BYTES - len(kept)])
            return False

        async with self._upstream.open(request) as answer:
            if answer.status != 200:
                return None
            await answer.pump(feed)
        try:
            counted = msgspec.json.decode(
                OBJECT.decode(bytes(kept)).get("input_tokens", msgspec.Raw(b"null"))
            )
        except msgspec.DecodeError:
            return None
        return counted if is_count(counted) else None


def _body(prompt: Prompt) -> bytes:
    members = (
        b'"%s":%b' % (name.encode(), prompt.body[slice(*prompt.fields[name])])
        for name in _COUNTED
        if name in prompt.fields
    )
    return b"{%b}" % b",".join(members)
