"""The protocol's numbers, each with its source."""

from __future__ import annotations

from datetime import date

import pytest

from gateway.core.api_facts import (
    CLIENT_TOOLS,
    MARKABLE_BLOCKS,
    MAX_BREAKPOINTS,
    SERVER_TOOLS,
    TTL_SECONDS,
    Fact,
    facts,
)
from gateway.core.prompt import TTL


@pytest.mark.parametrize("name", facts())
def test_every_fact_has_a_sentence_a_source_and_a_date(name: str) -> None:
    fact: Fact[object] = facts()[name]

    assert fact.says.endswith(".")
    assert fact.source
    assert date(2026, 1, 1) < fact.seen


def test_the_facts_are_found() -> None:
    assert len(facts()) >= 10
    assert facts()["MAX_BREAKPOINTS"] is MAX_BREAKPOINTS


def test_ttls_are_the_two_that_the_reader_knows() -> None:
    assert list(TTL_SECONDS.value) == [ttl.value for ttl in TTL]


def test_thinking_takes_no_mark() -> None:
    assert not {"thinking", "redacted_thinking", "fallback"} & MARKABLE_BLOCKS.value


@pytest.mark.parametrize(
    "kind", ["web_search_20250305", "code_execution_20260521", "mcp_toolset", "tool_search_tool_bm25"]
)
def test_server_tools_are_told_from_client_tools(kind: str) -> None:
    assert SERVER_TOOLS.value.fullmatch(kind)
    assert not CLIENT_TOOLS.value.fullmatch(kind)


@pytest.mark.parametrize(
    "kind", ["custom", "bash_20250124", "computer_20251124", "computer_toolset_20260801"]
)
def test_client_tools_are_told_from_server_tools(kind: str) -> None:
    assert CLIENT_TOOLS.value.fullmatch(kind)
    assert not SERVER_TOOLS.value.fullmatch(kind)
