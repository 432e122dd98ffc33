"""Who asks the policy that learns: alone, and as one of two replicas that tell each other their news."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from msgspec.structs import replace as msgspec_replace

from gateway.core.ids import PrefixKey, WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.news import News, Sent, decode, encode
from gateway.core.plan import Plan, Reading, place_call, read_call
from gateway.core.planner import PlannerOptions
from gateway.core.rules import Rules, Workspace
from gateway.core.typical import block_tokens
from gateway.core.usage import Usage
from tests.support.fakes import make_rules

MODEL = "claude-opus-5-5"
SYSTEM = "word " * 8_000
QUIET = PlannerOptions(capacity=1 << 12, warming=False)


class Caller:
    """Asks a policy about calls, and tells it what each was billed. Policies may share one `upstream`."""

    def __init__(
        self,
        tmp_path: Path,
        *,
        policy: LearnedPolicy | None = None,
        upstream: dict[PrefixKey, float] | None = None,
        name: str = "",
        **changed: Any,
    ) -> None:
        self.rules: Rules = make_rules(tmp_path, {})
        self.workspace: Workspace = replace(self.rules.workspaces[WorkspaceId("demo")], **changed)
        self.policy = policy or LearnedPolicy(QUIET)
        self.at = 1.8e9
        self.calls = 0
        self.name = name
        self.alive = upstream if upstream is not None else {}

    def ask(
        self,
        body: dict[str, Any],
        *,
        seconds: float = 60.0,
        answer: bool = True,
        call_id: str | None = None,
        final: bool = False,
        warm_up: bool = False,
    ) -> Plan:
        self.at += seconds
        self.calls += 1
        call_id = call_id or f"{self.name}{self.calls}"
        data = json.dumps(body).encode()
        reading = read_call(
            data, rules=self.rules, workspace=self.workspace, policy=self.policy, headers=(), wanted=True
        )
        plan = place_call(
            reading,
            rules=self.rules,
            workspace=self.workspace,
            policy=self.policy,
            call_id=call_id,
            at=self.at,
            may_wait=not final,
            may_claim=not final,
            warm_up=warm_up,
        )
        assert plan.failure is None
        if answer:
            self.policy.answered(call_id, self.at + 1)
            self.policy.billed(call_id, self._billed(reading, plan), self.at + 2)
        return plan

    def _billed(self, reading: Reading, plan: Plan) -> Usage:
        """What the API's cache makes of it: reads the deepest live entry, writes at each breakpoint."""
        ends = block_tokens(reading.prompt, reading.facts)
        read = written = 0
        blocks = [point.block for point in plan.placement.breakpoints]
        for mark in blocks:
            for block in range(mark, -1, -1):
                if self.alive.get(reading.keys[block], 0.0) > self.at:
                    read = max(read, ends[block])
                    self.alive[reading.keys[block]] = self.at + 300
                    break
            written = max(written, ends[mark])
        self.alive.update({reading.keys[mark]: self.at + 300 for mark in blocks})
        written = max(written, read)
        return Usage(
            uncached_input_tokens=ends[-1] - written,
            cache_read_tokens=read,
            cache_write_5m_tokens=written - read,
        )


def a_call(text: str, *, system: str = "", **more: Any) -> dict[str, Any]:
    messages = [{"role": "user", "content": text}]
    return {"model": MODEL, "max_tokens": 9, "system": system or "s", "messages": messages, **more}


def a_warm_up(system: str) -> dict[str, Any]:
    marked = [{"type": "text", "text": system, "cache_control": {"type": "ephemeral"}}]
    return a_call("warmup", system=marked, max_tokens=0)  # type: ignore[arg-type]


class Replica(Caller):
    """A caller whose policy tells its news to others, through bytes, with a clock that is wrong by hours."""

    def __init__(self, tmp_path: Path, name: str, upstream: dict[PrefixKey, float]) -> None:
        self.news: list[News] = []
        self.others: list[Replica] = []
        policy = LearnedPolicy(QUIET, tell=self._told, claims=True)
        super().__init__(tmp_path, policy=policy, upstream=upstream, name=name)

    def _told(self, news: News) -> None:
        self.news.append(news)
        for other in self.others:
            heard = decode(encode(news))
            if isinstance(heard, Sent):
                heard = decode(encode(msgspec_replace(heard, at=heard.at - 7_200.0)))
            other.policy.hear(self.name, heard, self.at)


def replicas(tmp_path: Path) -> tuple[Replica, Replica]:
    upstream: dict[PrefixKey, float] = {}
    one, other = Replica(tmp_path, "one-", upstream), Replica(tmp_path, "other-", upstream)
    one.others, other.others = [other], [one]
    return one, other


def by_turns(one: Caller, other: Caller) -> list[Plan]:
    """Conversations whose calls go to both replicas alternately."""
    plans = []
    for number in range(80):
        session, turn = number % 8, number // 8
        body = a_call(f"{session}", system=SYSTEM)
        for at in range(turn):
            body["messages"] += [
                {"role": "assistant", "content": f"answer {at} " * 300},
                {"role": "user", "content": f"question {at}"},
            ]
        caller = (one, other)[number % 3 % 2]
        caller.at = 1.8e9 + 9.0 * number
        plans.append(caller.ask(body, seconds=0.0, final=True))
    return plans
