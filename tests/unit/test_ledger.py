"""Entries say what happened, in numbers; totals add up exactly."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ledger import (
    MAX_TAGS,
    MAX_TEXT,
    SUMMED,
    Entry,
    Total,
    add_up,
    billed,
    entry_of,
    month_bounds,
    usd,
)
from gateway.core.placement import Breakpoint, Placement
from gateway.core.prompt import TTL
from gateway.core.usage import Usage
from tests.support.records import a_record, a_refused_record


def test_an_entry_keeps_what_the_record_says() -> None:
    record = a_record()
    entry = entry_of(record)

    assert entry.id == "exchange-1"
    assert entry.received_at_ms == 1_795_000_000_250
    assert (entry.workspace, entry.key_id, entry.organisation) == ("search", "k1", "default")
    assert (entry.state, entry.basis, entry.status) == ("answered", "reported", 200)
    assert (entry.cache_read_tokens, entry.output_tokens) == (9_000, 300)
    assert entry.output_nanousd == 4_500_000
    assert entry.reservation_id == "exchange-1"
    assert (entry.breakpoints, entry.placement_reason) == (1, "the last stable block")
    assert (entry.message_id, entry.stop_reason) == ("msg_test_1", "end_turn")
    assert (entry.total_seconds, entry.first_token_seconds) == (2.5, 0.8)


def test_every_field_is_in_its_own_column() -> None:
    """Entries are built by position, so a field that slips would be another one's value."""
    record = a_record()
    values = entry_of(record)._asdict()
    for source in (record, record.cost, record.timings, billed(record.usage or Usage())):
        for name in Entry._fields:
            if isinstance(value := getattr(source, name, None), int | float):
                assert values[name] == value, name


def test_a_refusal_has_an_entry_without_tokens_or_principal() -> None:
    entry = entry_of(a_refused_record())

    assert entry.workspace is None
    assert (entry.state, entry.error_code, entry.attempts) == ("refused", "unauthenticated", 0)
    assert (entry.uncached_input_tokens, entry.output_nanousd, entry.price_id) == (0, 0, "")


def test_tokens_are_those_of_all_iterations() -> None:
    """Compaction and advisor iterations are billed but not in upstream's totals."""
    usage = Usage(
        uncached_input_tokens=5,
        output_tokens=7,
        web_search_requests=2,
        iterations=(
            Usage(uncached_input_tokens=5, output_tokens=7),
            Usage(uncached_input_tokens=100, cache_write_1h_tokens=30, output_tokens=50, model="other"),
        ),
    )
    entry = entry_of(a_record(usage=usage))

    assert (entry.uncached_input_tokens, entry.cache_write_1h_tokens, entry.output_tokens) == (105, 30, 57)
    assert (entry.iterations, entry.web_search_requests) == (2, 2)


def test_what_comes_from_outside_is_cut() -> None:
    entry = entry_of(
        a_record(
            model="m" * 5000,
            upstream_request_id="r" * 5000,
            method="P" * 5000,
            tags=tuple((f"t{n}", "v" * 5000) for n in range(100)),
        )
    )
    tags = json.loads(entry.tags)

    assert len(entry.model or "") == len(entry.upstream_request_id or "") == len(entry.method) == MAX_TEXT
    assert len(tags) == MAX_TAGS
    assert {len(value) for value in tags.values()} == {MAX_TEXT}


def test_an_empty_placement_gives_its_own_reason() -> None:
    entry = entry_of(a_record(placement=Placement(reason="shorter than the model can cache")))

    assert (entry.breakpoints, entry.placement_reason) == (0, "shorter than the model can cache")


def test_reasons_of_several_breakpoints_are_joined_and_cut() -> None:
    mark = Breakpoint(block=1, ttl=TTL.ONE_HOUR, reason="x" * 150)
    entry = entry_of(a_record(placement=Placement(breakpoints=(mark, mark))))

    assert entry.breakpoints == 2
    assert len(entry.placement_reason) == MAX_TEXT


_counts = st.integers(0, 2**60)
_totals = st.builds(
    lambda group, values: Total(group=(group,), **dict(zip(SUMMED, values, strict=True))),
    st.sampled_from(["search", "chat", "-"]),
    st.lists(_counts, min_size=len(SUMMED), max_size=len(SUMMED)),
)


@given(st.lists(_totals, max_size=20))
def test_adding_up_loses_nothing_and_keeps_groups_apart(totals: list[Total]) -> None:
    added = add_up(totals)

    assert len({total.group for total in added}) == len(added)
    assert {total.group for total in added} == {total.group for total in totals}
    for name in SUMMED:
        assert sum(getattr(total, name) for total in added) == sum(getattr(total, name) for total in totals)
    assert [total.cost_nanousd for total in added] == sorted(
        (total.cost_nanousd for total in added), reverse=True
    )


def test_the_read_ratio_counts_all_prompt_tokens_and_no_output() -> None:
    total = Total(
        uncached_input_tokens=100, cache_read_tokens=600, cache_write_5m_tokens=300, output_tokens=9
    )

    assert total.cache_read_ratio == 0.6
    assert Total(output_tokens=9).cache_read_ratio is None


def test_months_meet_without_gap_or_overlap() -> None:
    assert month_bounds("2026-11") == (1_793_491_200_000, 1_796_083_200_000)
    assert month_bounds("2026-11")[1] == month_bounds("2026-12")[0]
    assert month_bounds("2026-12")[1] == month_bounds("2027-01")[0]
    with pytest.raises(ValueError, match="13"):
        month_bounds("2026-13")


@given(st.integers(-(2**70), 2**70))
def test_dollars_are_exact(nanousd: int) -> None:
    whole, _, fraction = usd(nanousd).lstrip("-").partition(".")
    assert int(whole) * 10**9 + int(fraction) == abs(nanousd)
    assert usd(nanousd).startswith("-") == (nanousd < 0)
