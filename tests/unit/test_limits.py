"""Which limits bind a call, and in which bucket they count it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import MAX_AMOUNT, Limit, Limits, Period, Scope, Unit
from gateway.core.principal import Principal


def a_limit(id: str, **changes: Any) -> Limit:
    values: dict[str, Any] = {
        "scope": Scope.WORKSPACE,
        "unit": Unit.NANOUSD,
        "amount": 100,
        "period": Period.CALENDAR_DAY,
        **changes,
    }
    return Limit(id=id, **values)


def a_principal(workspace: str = "w1", key: str = "k1", organisation: str = "org") -> Principal:
    return Principal(
        workspace=WorkspaceId(workspace), key_id=KeyId(key), key_name="name", organisation=organisation
    )


def names(limits: Limits, model: str = "claude-a-1", **who: str) -> list[str]:
    return [bound.limit.id for bound in limits.binding(a_principal(**who), model)]


def test_every_scope_binds_with_a_bucket_for_its_own_subject() -> None:
    limits = Limits(tuple(a_limit(scope.value, scope=scope) for scope in Scope))

    assert [b.bucket_id for b in limits.binding(a_principal(), "m")] == [
        "org/organisation/nanousd/calendar_day/org",
        "org/workspace/nanousd/calendar_day/w1",
        "org/key/nanousd/calendar_day/k1",
    ]


def test_a_subjects_own_limit_replaces_the_default_of_its_kind_for_it_alone() -> None:
    limits = Limits((a_limit("default"), a_limit("own", subject="w2", amount=500)))

    assert names(limits, workspace="w1") == ["default"]
    assert names(limits, workspace="w2") == ["own"]


@pytest.mark.parametrize(
    "other",
    [
        {"unit": Unit.REQUESTS},
        {"period": Period.CALENDAR_MONTH},
        {"scope": Scope.ORGANISATION},
        {"models": ("claude-a-*",)},
    ],
)
def test_a_subjects_own_limit_leaves_defaults_of_other_kinds_standing(other: dict[str, Any]) -> None:
    limits = Limits((a_limit("default", **other), a_limit("own", subject="w1")))

    assert names(limits) == ["default", "own"]


def test_an_override_of_one_model_does_not_lift_the_limit_on_all() -> None:
    limits = Limits((a_limit("all"), a_limit("own", subject="w1", models=("claude-b-*",))))

    assert names(limits, model="claude-a-1") == ["all"]
    assert names(limits, model="claude-b-1") == ["all", "own"]


def test_models_are_ids_or_globs_and_share_one_bucket() -> None:
    limits = Limits((a_limit("some", models=("claude-a-*", "claude-b-1")),))

    assert names(limits, model="claude-a-9") == names(limits, model="claude-b-1") == ["some"]
    assert names(limits, model="claude-b-2") == names(limits, model="CLAUDE-A-9") == []
    first, second = (limits.binding(a_principal(), m)[0].bucket_id for m in ("claude-a-9", "claude-b-1"))
    assert first == second


def test_no_name_can_be_written_to_collide_with_anothers_bucket() -> None:
    limits = Limits((a_limit("x"), a_limit("x/nanousd")))
    seen = [
        bound.bucket_id
        for workspace in ("a", "a/b", "a%2Fb", "{a}", "calendar_day/a")
        for bound in limits.binding(a_principal(workspace), "m")
    ]

    assert len(set(seen)) == len(seen)
    assert not any("{" in id for id in seen)


def test_names_of_models_that_clients_make_up_do_not_pile_up() -> None:
    limits = Limits((a_limit("x"),))
    for i in range(10_000):
        limits.binding(a_principal(), f"made-up-{i}")

    assert len(limits._bound) <= 4096


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"amount": -1}, "amount"),
        ({"amount": MAX_AMOUNT + 1}, "amount"),
        ({"amount": 0, "period": Period.MINUTE}, "amount"),
        ({"burst": 0, "period": Period.MINUTE}, "burst"),
        ({"timezone": "Mars/Olympus"}, "Mars"),
        ({"timezone": "../etc/passwd"}, "passwd"),
    ],
)
def test_a_limit_that_cannot_work_is_refused(changes: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        Limits((a_limit("x", **changes),))


def test_every_fault_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"'a' is there twice.*'b'.*'c'"):
        Limits((a_limit("a"), a_limit("a"), a_limit("b", amount=-1), a_limit("c", timezone="No/Where")))


def test_burst_is_the_capacity_of_a_rate_and_nothing_to_a_window() -> None:
    assert a_limit("x", period=Period.MINUTE, burst=7).capacity == 7
    assert a_limit("x", period=Period.MINUTE).capacity == 100
    assert a_limit("x", burst=7).capacity == 100
