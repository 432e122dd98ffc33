from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gateway.core.ids import WorkspaceId
from gateway.core.learned import LearnedPolicy
from gateway.core.news import Sent, decode, encode
from gateway.core.placement import Breakpoint, Occasion
from gateway.core.plan import read_call
from gateway.core.planner import Kind, Question
from gateway.core.prompt import TTL
from gateway.core.questions import account_of, on_the_wire, question_heard, question_of, sent_of
from gateway.core.rule_policy import RulePolicy
from tests.support.fakes import make_rules
from tests.unit.planner.callers import MODEL, QUIET

EPHEMERAL = {"type": "ephemeral"}


def asked(tmp_path: Path, body: dict[str, Any]) -> tuple[Question, Sent]:
    rules = make_rules(tmp_path, {})
    workspace = rules.workspaces[WorkspaceId("demo")]
    reading = read_call(
        json.dumps({"model": MODEL, "max_tokens": 9, **body}).encode(),
        rules=rules,
        workspace=workspace,
        policy=LearnedPolicy(QUIET),
        headers=(),
        wanted=True,
    )
    prices = rules.prices.factors(MODEL, at=0.0)
    price = rules.prices.input_nanousd(MODEL, at=0.0)
    occasion = Occasion(call_id="c", at=5.0, scope=reading.scope, prices=prices, price=price)
    marks = on_the_wire(reading.prompt, ())
    question = question_of(
        7,
        reading.prompt,
        reading.keys,
        reading.facts,
        workspace.id,
        occasion,
        fixed=marks,
        decided=False,
        warmable=False,
        warm_up=False,
    )
    return question, sent_of(question, marks, MODEL, workspace.id, occasion)


BODY: dict[str, Any] = {
    "tools": [{"name": "t", "input_schema": {}}],
    "system": [{"type": "text", "text": "s" * 900, "cache_control": EPHEMERAL}],
    "messages": [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "x", "signature": "y"}]},
        {"role": "user", "content": "r"},
    ],
}


def test_question_has_the_kinds_and_lengths_of_the_blocks(tmp_path: Path) -> None:
    question, _ = asked(tmp_path, BODY)

    assert list(question.kinds) == [Kind.TOOLS, Kind.SYSTEM, Kind.USER, Kind.ASSISTANT, Kind.USER]
    assert list(question.ends) == sorted(question.ends)
    assert question.unmarkable == {1, 3}, "the one that is marked and the one that cannot be"
    assert question.account == account_of(WorkspaceId("demo"))


def test_what_is_heard_is_what_was_asked(tmp_path: Path) -> None:
    question, sent = asked(tmp_path, BODY)
    told = decode(encode(sent))
    assert isinstance(told, Sent)
    heard = question_heard(7, told)

    assert heard is not None
    for field in (
        "scope",
        "account",
        "keys",
        "ends",
        "kinds",
        "prices",
        "fixed",
        "decided",
        "warm_up",
        "price",
    ):
        assert getattr(heard, field) == getattr(question, field), field


def test_accounts_of_workspaces_differ() -> None:
    assert account_of(WorkspaceId("a")) != account_of(WorkspaceId("b"))


def test_breakpoints_on_the_wire_are_the_clients_and_those_added(tmp_path: Path) -> None:
    body = json.dumps({"model": MODEL, "max_tokens": 9, "cache_control": {**EPHEMERAL, "ttl": "1h"}, **BODY})
    rules = make_rules(tmp_path, {})
    prompt = read_call(
        body.encode(),
        rules=rules,
        workspace=rules.workspaces[WorkspaceId("demo")],
        policy=RulePolicy(),
        headers=(),
        wanted=True,
    ).prompt

    assert on_the_wire(prompt, [Breakpoint(0, TTL.ONE_HOUR, "")]) == ((0, True), (1, False), (4, True))


def test_a_question_is_at_the_price_of_its_model(tmp_path: Path) -> None:
    question, _ = asked(tmp_path, BODY)

    assert question.price == 4_000.0
