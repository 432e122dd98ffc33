"""Totals and losses add up exactly, and sentences say what figures mean."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.ledger import (
    FEW_CALLS,
    SUMMED,
    Dimension,
    Loss,
    Tag,
    Total,
    add_up,
    add_up_losses,
    day_bounds,
    dollars,
    holdout_sentence,
    into_teams,
    iso_instant,
    loss_sentence,
    month_bounds,
    read_by,
    usd,
)
from gateway.core.misses import MissCause

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
    with pytest.raises(ValueError, match="'9999-12' is no month"):
        month_bounds("9999-12")


@given(st.integers(-(2**70), 2**70))
def test_dollars_are_exact(nanousd: int) -> None:
    whole, _, fraction = usd(nanousd).lstrip("-").partition(".")
    assert int(whole) * 10**9 + int(fraction) == abs(nanousd)
    assert usd(nanousd).startswith("-") == (nanousd < 0)


@pytest.mark.parametrize(
    ("nanousd", "places", "text"),
    [
        (0, 4, "0.0000"),
        (49_999, 4, "0.0000"),
        (50_000, 4, "0.0001"),
        (-50_000, 4, "-0.0001"),
        (-1, 4, "0.0000"),
        (4_115_000_000, 2, "4.12"),
        (1_234_567_890_123, 2, "1,234.57"),
    ],
)
def test_dollars_for_people_are_rounded_by_half_a_unit(nanousd: int, places: int, text: str) -> None:
    assert dollars(nanousd, places) == text


def test_savings_of_a_total_are_those_of_its_input() -> None:
    total = Total(
        uncached_input_nanousd=1,
        cache_read_nanousd=20,
        cache_write_5m_nanousd=300,
        cache_write_1h_nanousd=4_000,
        output_nanousd=50_000,
        server_tools_nanousd=600_000,
        counterfactual_nanousd=658_642,
    )

    assert (total.plain_nanousd, total.paid_nanousd, total.saved_nanousd) == (8_642, 4_321, 4_321)
    assert total.saved_nanousd == total.counterfactual_nanousd - total.cost_nanousd
    assert total.saved_ratio == 0.5
    assert Total(output_nanousd=5, counterfactual_nanousd=5).saved_ratio is None


def a_loss(**changes: object) -> Loss:
    values: dict[str, object] = {
        "group": ("search",),
        "cause": MissCause.CHANGED.value,
        "calls": 31,
        "tokens": 9_000,
        "nanousd": 4_120_000_000,
        "first_ms": 1_795_010_700_000,  # 2026-11-18T14:05:00Z
        "last_ms": 1_795_018_000_000,
        "detail": "system[2] changed at byte 812",
        "detail_nanousd": 200,
    }
    return Loss(**(values | changes))  # type: ignore[arg-type]


def test_losses_of_replicas_are_added_up_with_the_dearest_call_of_all() -> None:
    other = a_loss(calls=1, tokens=5, nanousd=7, first_ms=5, last_ms=6, detail="dearer", detail_nanousd=300)
    apart = a_loss(cause="expired", nanousd=10**12)

    first, second = add_up_losses([a_loss(), other, apart])
    assert first == apart
    assert second == a_loss(
        calls=32,
        tokens=9_005,
        nanousd=4_120_000_007,
        first_ms=5,
        detail="dearer",
        detail_nanousd=300,
    )


def test_a_loss_is_said_in_a_sentence() -> None:
    assert loss_sentence(a_loss()) == (
        "search: prompts changed: $4.12 since 14:05, 31 calls. Dearest: system[2] changed at byte 812."
    )
    long_ago = a_loss(first_ms=1_794_838_200_000, group=(), calls=1, detail="", cause="of_a_later_version")
    assert loss_sentence(long_ago) == "of_a_later_version: $4.12 since 2026-11-16 14:10, 1 call."


def test_every_cause_has_words() -> None:
    said = {cause: loss_sentence(a_loss(cause=cause.value)) for cause in MissCause}

    assert not [cause for cause, sentence in said.items() if sentence.startswith(f"search: {cause.value}:")]
    assert len(set(said.values())) == len(MissCause)


def test_a_comparison_with_what_was_held_out_says_so_where_it_can_say_nothing() -> None:
    decided = Total(requests=5_000, uncached_input_nanousd=30 * 10**9, counterfactual_nanousd=100 * 10**9)
    held_out = Total(requests=FEW_CALLS, uncached_input_nanousd=2 * 10**9, counterfactual_nanousd=2 * 10**9)

    assert holdout_sentence(decided, Total()) is None
    assert holdout_sentence(decided, held_out) == (
        "70.0% of the input's cost saved, $0.006000 of input a call, over 5,000 calls decided on; "
        "0.0% of the input's cost saved, $0.020000 of input a call, over 100 calls held out."
    )
    few = holdout_sentence(decided, Total(requests=FEW_CALLS - 1))
    assert few is not None
    assert "99 calls held out against 5,000 decided on: too few" in few


def test_instants_for_machines_are_in_utc() -> None:
    assert iso_instant(1_795_010_700_999) == "2026-11-18T14:05:00Z"


def test_what_is_asked_for_is_a_dimension_or_a_tag() -> None:
    assert read_by("month") is Dimension.MONTH
    assert read_by("tag:X-Cost-Centre") == Tag("x-cost-centre")
    assert Tag("x-cost-centre").value == "tag:x-cost-centre"
    for wrong in ("colour", "tag:", "tag:x'y", 'tag:x"y', "tag:x y"):
        with pytest.raises(ValueError, match=r"colour|no name"):
            read_by(wrong)


def test_days_are_whole_in_utc_and_open_where_nothing_is_said() -> None:
    first, last = date(2026, 11, 1), date(2026, 11, 30)
    assert day_bounds(first, last) == month_bounds("2026-11")
    assert day_bounds(None, last)[0] == 0
    assert day_bounds(first, None)[1] == 2**62
    with pytest.raises(ValueError, match="no span"):
        day_bounds(last, first)
    with pytest.raises(ValueError, match="the beginning to 9999-12-31 is no span of days"):
        day_bounds(None, date.max)
    with pytest.raises(ValueError, match="0001-01-01 to now is no span of days"):
        day_bounds(date.min, None)
    assert day_bounds(None, date(9998, 12, 31))[1] == month_bounds("9998-12")[1]


def test_workspaces_become_teams_and_what_has_none_is_kept() -> None:
    by = (Dimension.MONTH, Dimension.TEAM)
    totals = [Total(group=("2026-11", name), requests=1) for name in ("search", "browse", "-")]
    team_of = {"search": "web", "browse": "web"}

    teams = add_up(into_teams(totals, by, team_of))
    assert {total.group: total.requests for total in teams} == {("2026-11", "web"): 2, ("2026-11", "-"): 1}
    assert into_teams(totals, (Dimension.MONTH, Dimension.WORKSPACE), team_of) == totals
