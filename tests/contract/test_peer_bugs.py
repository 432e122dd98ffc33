"""What users of other gateways report of budgets and books, and the tests that say that it does not happen
here. A bug is named by its project and number there; tests by file and name, so that none can be renamed or
removed without this table. What is not about budgets is in `tests/test_traps.py`.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]

BUGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "LiteLLM #27639": (
        "What was reserved by requests that never ended stays reserved: phantom spend",
        (
            "contract/test_budget_races.py::test_a_process_that_dies_leaves_no_phantom_behind",
            "contract/test_budget_stores.py::test_sweep_closes_what_outlived_its_lease_at_what_it_set_aside",
            "pipeline/test_cancellation.py::test_leaves_nothing_open_when_cancelled_at_any_await",
        ),
    ),
    "LiteLLM #28247": (
        "N pods seed a lost counter, and it counts N times",
        (
            "contract/test_budget_races.py::test_closing_again_and_again_from_everywhere_equals_closing_once",
            "contract/test_budget_fence.py::test_two_ledgers_are_added_up_before_the_fence_is_opened",
            "contract/test_budget_fence.py::test_a_ledger_that_was_away_is_added_once_when_its_replica_is_back",
            "contract/test_adjustment_mirror.py::test_replicas_that_write_back_at_once_end_with_one_log",
        ),
    ),
    "LiteLLM #28283, #27735": (
        "Counters drift from the books, and nobody is told or can mend it",
        (
            "contract/test_budget_fence.py"
            "::test_a_corrupted_counter_shows_in_the_audit_and_is_repaired_under_the_fence",
            "e2e/test_budget_audit.py::test_a_counter_that_somebody_changed_is_told_repaired_and_right_again",
            "property/test_budget_rebuild.py::test_every_exchange_counts_once_whatever_is_flushed",
        ),
    ),
    "LiteLLM #30460": (
        "A timeout of Redis, tried again, charges twice",
        (
            "contract/test_redis_faults.py::test_a_lost_reply_charges_nothing_twice",
            "contract/test_redis_faults.py"
            "::test_replies_lost_twice_leave_the_outcome_unknown_and_the_close_mends_it",
            "contract/test_redis_faults.py::test_a_pause_longer_than_one_try_is_bridged_without_charging_twice",
        ),
    ),
    "LiteLLM #36926": (
        "429 although the budget has room",
        (
            "contract/test_budget_races.py::test_after_everything_is_settled_nobody_is_refused_wrongly",
            "e2e/test_back_to_back.py::test_calls_one_after_the_other_are_never_refused_at_one_at_a_time",
            "e2e/test_back_to_back.py::test_what_calls_that_are_over_had_set_aside_refuses_no_next_one",
            "e2e/whole/test_counting.py::test_a_call_that_fits_by_upstreams_count_is_not_refused",
        ),
    ),
    "LiteLLM #34732, #26672; Bifrost #5770": (
        "Requests at the same time each see the budget before the others' charge, and pass it together",
        (
            "contract/test_budget_races.py::test_check_and_charge_are_one_step",
            "contract/test_budget_races.py"
            "::test_many_at_once_through_two_objects_are_admitted_up_to_the_limit_exactly",
        ),
    ),
    "LiteLLM #34733": (
        "The reset of a window and a charge overwrite each other",
        (
            "contract/test_budget_races.py"
            "::test_a_settlement_during_the_rollover_does_not_overwrite_the_new_window",
            "contract/test_budget_stores.py::test_a_late_settlement_books_into_the_window_of_its_reservation",
        ),
    ),
    "Bifrost #3547, LiteLLM #35533": (
        "Several replicas are several budgets",
        (
            "e2e/whole/test_redis.py::test_two_replicas_hold_one_budget",
            "contract/test_budget_races.py::test_any_replica_can_close_what_another_opened",
        ),
    ),
    "LangWatch tasks #421": (
        "Budgets never accrue, and it shows months later",
        (
            "e2e/whole/test_sdk.py::test_the_books_equal_the_simulators_bill",
            "e2e/test_budget_audit.py"
            "::test_one_replica_alone_says_that_others_spent_more_and_never_that_something_is_missing",
        ),
    ),
    "LiteLLM #35528, #32232, #35273, #40482": (
        "Redis is down: everything passes, or hangs, or the process grows until it dies",
        (
            "e2e/whole/test_redis.py::test_a_dead_redis_is_decided_by_policy_at_once_and_comes_back",
            "contract/test_guarded_budgets.py"
            "::test_every_fault_is_decided_in_half_a_second_and_over_when_it_is_over",
            "contract/test_guarded_budgets.py"
            "::test_an_allowance_bounds_what_replicas_admit_alone_to_so_much_each",
            "e2e/test_frozen_replicas.py"
            "::test_an_emptied_redis_lifts_no_freeze_and_takes_nothing_from_the_audit_trail",
        ),
    ),
    "LiteLLM #14457, #13245, #17364, #35958": (
        "The client hangs up, and what was spent vanishes",
        (
            "pipeline/test_cancellation.py"
            "::test_trap_41_settles_on_partial_usage_when_client_leaves_a_stream",
            "e2e/whole/test_cuts.py::test_trap_41_a_client_that_leaves_cancels_upstream_at_once",
        ),
    ),
    "LiteLLM #32307, #38341": (
        "Batches cost nothing, or the wrong amount",
        (
            "e2e/whole/test_batches.py::test_trap_62_a_batch_is_set_aside_and_settled_to_the_bill",
            "e2e/whole/test_batches.py::test_two_replicas_settle_a_batch_once",
        ),
    ),
    "LiteLLM #11789": (
        "A stream's cached tokens, told in its last events only, are not booked",
        ("e2e/whole/test_traps_wire.py::test_trap_38_of_several_cumulative_counts_the_last_is_booked",),
    ),
    "LiteLLM #5443, #18988": (
        "Tokens of the cache are priced twice, or writes of an hour as those of five minutes",
        (
            "unit/test_pricing.py::test_writes_cost_five_quarters_and_double_for_every_model",
            "unit/test_pricing.py::test_trap_57_prices_writes_without_a_split_as_five_minutes",
            "e2e/whole/test_traps_money.py"
            "::test_trap_56_thinking_and_the_split_of_writes_are_within_the_totals",
        ),
    ),
    "LiteLLM #12159": (
        "Names from clients become labels of metrics without end",
        (
            "contract/test_observers.py::test_models_of_clients_never_become_labels",
            "contract/test_observers.py::test_more_label_sets_than_allowed_are_counted_as_other",
        ),
    ),
}


@pytest.mark.parametrize("bug", BUGS)
def test_every_bug_of_a_peer_has_the_tests_that_guard_against_it(bug: str) -> None:
    _, guards = BUGS[bug]

    missing = [
        guard for guard in guards if guard.partition("::")[2] not in names_in(guard.partition("::")[0])
    ]

    assert guards
    assert missing == []


@cache
def names_in(path: str) -> frozenset[str]:
    parsed = ast.parse((TESTS / path).read_text(encoding="utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    return frozenset(node.name for node in ast.walk(parsed) if isinstance(node, functions))
