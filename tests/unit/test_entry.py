"""Entries say what happened, in numbers."""

from __future__ import annotations

import json

from gateway.core.entry import MAX_TAGS, MAX_TEXT, SCHEMA_VERSION, Entry, entry_of
from gateway.core.exchange import Timings
from gateway.core.ledger import billed
from gateway.core.misses import Miss, MissCause
from gateway.core.placement import Breakpoint, Placement
from gateway.core.prompt import TTL
from gateway.core.savings import Cohort, Savings
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
    for source in (record, record.cost, record.timings, record.savings, billed(record.usage or Usage())):
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


def test_an_entry_says_what_caching_did() -> None:
    miss = Miss(3, MissCause.EXPIRED, 700, seconds=12.0)
    savings = Savings(
        cohort=Cohort.SHADOW,
        plain_nanousd=90,
        paid_nanousd=80,
        shadow_nanousd=20,
        expected_read_tokens=5_000,
        miss_cause=MissCause.EXPIRED,
        miss_tokens=650,
        miss_nanousd=33,
        held_tokens=100,
        held_saved_nanousd=44,
    )
    timings = Timings(total_seconds=3.0, held_seconds=0.3506)
    entry = entry_of(a_record(savings=savings, timings=timings, placement=Placement(miss=miss)))

    assert entry.schema_version == SCHEMA_VERSION
    assert (entry.cohort, entry.shadow_nanousd, entry.expected_read_tokens) == ("shadow", 20, 5_000)
    assert (entry.miss_cause, entry.miss_tokens, entry.miss_nanousd) == ("expired", 650, 33)
    assert entry.miss_detail == "700 tokens had expired 12.0 s before"
    assert (entry.held_ms, entry.held_saved_nanousd) == (351, 44)


def test_a_miss_that_did_not_come_true_is_not_booked() -> None:
    miss = Miss(3, MissCause.EXPIRED, 700)
    entry = entry_of(a_record(placement=Placement(miss=miss)))

    assert (entry.miss_cause, entry.miss_detail, entry.miss_tokens) == (None, None, 0)


def test_what_was_not_billed_has_no_cohort_and_may_have_been_held() -> None:
    entry = entry_of(a_refused_record(timings=Timings(total_seconds=3.0, held_seconds=2.0)))

    assert (entry.cohort, entry.shadow_nanousd, entry.miss_cause, entry.held_ms) == (None, None, None, 2_000)


def test_an_entry_of_schema_1_says_nothing_of_caching() -> None:
    entry = entry_of(a_record())
    old = Entry(
        **{name: value for name, value in entry._asdict().items() if name not in Entry._field_defaults}
    )

    assert (old.cohort, old.shadow_nanousd, old.miss_cause, old.miss_nanousd) == (None, None, None, 0)


def test_an_entry_holds_only_what_every_database_gives_back_as_it_was() -> None:
    """Digests are over the values: an integer that comes back as a float would look tampered with."""
    timings = Timings(total_seconds=2, body_read_seconds=0, overhead_seconds=1, first_token_seconds=1)
    entry = entry_of(a_record(timings=timings, model="nul\0in it", upstream_error_type="\0" * 300))

    columns = ("total_seconds", "body_read_seconds", "overhead_seconds", "first_token_seconds")
    assert [type(getattr(entry, name)) for name in columns] == [float] * 4
    assert entry.model == "nul\ufffdin it"
    assert entry.upstream_error_type == "\ufffd" * MAX_TEXT
