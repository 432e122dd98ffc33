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


def a_principal(
    workspace: str = "w1", key: str = "k1", organisation: str = "org", team: str = ""
) -> Principal:
    return Principal(
        workspace=WorkspaceId(workspace),
        key_id=KeyId(key),
        key_name="name",
        organisation=organisation,
        team=team,
    )


def names(limits: Limits, model: str = "claude-a-1", **who: str) -> list[str]:
    return [bound.limit.id for bound in limits.binding(a_principal(**who), model)]


def of_scope(scope: Scope, **changes: Any) -> Limit:
    return a_limit(scope.value, scope=scope, tag="x-user" if scope is Scope.TAG else "", **changes)


def test_every_scope_binds_with_a_bucket_for_its_own_subject() -> None:
    limits = Limits(tuple(map(of_scope, Scope)))
    bound = limits.binding(a_principal(team="t1"), "m", [("x-user", "ann")])

    assert [b.bucket_id for b in bound] == [
        "org/organisation/nanousd/calendar_day/org",
        "org/team/nanousd/calendar_day/t1",
        "org/workspace/nanousd/calendar_day/w1",
        "org/key/nanousd/calendar_day/k1",
        "org/tag/nanousd/calendar_day/ann",
    ]
    assert [b.subject for b in bound] == ["org", "t1", "w1", "k1", "ann"]


def test_who_is_in_no_team_is_not_bound_by_limits_of_teams() -> None:
    limits = Limits((of_scope(Scope.TEAM), a_limit("workspace")))

    assert names(limits) == ["workspace"]
    assert names(limits, team="t1") == ["team", "workspace"]


@pytest.mark.parametrize(
    ("tags", "require", "subjects"),
    [
        ([("x-user", "ann")], False, ["ann"]),
        ([("x-user", "ann"), ("x-user", "ben")], False, ["ann"]),
        ([("x-team", "ann")], False, []),
        ([], False, []),
        ([("x-user", "")], False, []),
        ([], True, [""]),
        ([("x-user", "")], True, [""]),
    ],
)
def test_a_tag_binds_by_its_first_value_and_without_one_only_where_it_is_required(
    tags: list[tuple[str, str]], require: bool, subjects: list[str]
) -> None:
    limits = Limits((of_scope(Scope.TAG, require=require),))

    assert [bound.subject for bound in limits.binding(a_principal(), "m", tags)] == subjects


def test_a_pool_is_one_bucket_for_all_that_it_names_and_leaves_their_own_limits_standing() -> None:
    limits = Limits(
        (a_limit("own"), a_limit("pool", subjects=("w1", "w2"), shared=True), a_limit("all", shared=True))
    )
    buckets = {
        workspace: [b.bucket_id for b in limits.binding(a_principal(workspace), "m")]
        for workspace in ("w1", "w2", "w3")
    }

    assert names(limits, workspace="w1") == ["own", "pool"], "a named pool takes the place of the pool of all"
    assert names(limits, workspace="w3") == ["own", "all"]
    assert buckets["w1"][1] == buckets["w2"][1]
    assert buckets["w1"][0] != buckets["w2"][0]


def test_a_pool_is_one_bucket_over_organisations_too() -> None:
    limits = Limits((a_limit("pool", subjects=("w1", "w2"), shared=True),))
    (one,) = limits.binding(a_principal("w1", organisation="a"), "m")
    (other,) = limits.binding(a_principal("w2", organisation="b"), "m")

    assert one.bucket_id == other.bucket_id
    assert (one.subject, other.subject) == ("", "")


def test_subjects_that_are_named_together_have_buckets_of_their_own() -> None:
    limits = Limits((a_limit("both", subjects=("w1", "w2")),))

    assert [names(limits, workspace=w) for w in ("w1", "w2", "w3")] == [["both"], ["both"], []]
    one, other = (limits.binding(a_principal(w), "m")[0].bucket_id for w in ("w1", "w2"))
    assert one != other


def test_a_subjects_own_limit_replaces_the_default_of_its_kind_for_it_alone() -> None:
    limits = Limits((a_limit("default"), a_limit("own", subjects=("w2",), amount=500)))

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
    limits = Limits((a_limit("default", **other), a_limit("own", subjects=("w1",))))

    assert names(limits) == ["default", "own"]


def test_an_override_of_one_model_does_not_lift_the_limit_on_all() -> None:
    limits = Limits((a_limit("all"), a_limit("own", subjects=("w1",), models=("claude-b-*",))))

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
    seen += [bound.bucket_id for bound in Limits((a_limit("x", shared=True),)).binding(a_principal(), "m")]

    assert len(set(seen)) == len(seen)
    assert not any("{" in id for id in seen)


def test_names_of_models_that_clients_make_up_do_not_pile_up() -> None:
    limits = Limits((a_limit("x"),))
    for i in range(10_000):
        limits.binding(a_principal(), f"made-up-{i}")

    assert len(limits._bound) <= 4096


def test_values_of_tags_are_not_remembered() -> None:
    limits = Limits((of_scope(Scope.TAG), a_limit("other")))
    seen = [limits.binding(a_principal(), "m", [("x-user", str(i))])[1].subject for i in range(100)]

    assert seen == [str(i) for i in range(100)]
    assert len(limits._bound) == 1


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"amount": -1}, "amount"),
        ({"amount": MAX_AMOUNT + 1}, "amount"),
        ({"amount": 0, "period": Period.MINUTE}, "amount"),
        ({"burst": 0, "period": Period.MINUTE}, "burst"),
        ({"period": Period.OPEN}, "no period"),
        ({"unit": Unit.CONCURRENT}, "no period"),
        ({"scope": Scope.TAG}, "names a tag"),
        ({"tag": "x-user"}, "names a tag"),
        ({"warn_at": (0.5,), "period": Period.MINUTE}, "can warn"),
        ({"warn_at": (0.0,)}, "share"),
        ({"warn_at": (1.1,)}, "share"),
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
    with pytest.raises(ValueError, match=r"'a' is there twice"):
        Limits((a_limit("a", subjects=("w1", "w2")), a_limit("a", subjects=("w2",))))


def test_burst_is_the_capacity_of_a_rate_and_nothing_to_a_window() -> None:
    assert a_limit("x", period=Period.MINUTE, burst=7).capacity == 7
    assert a_limit("x", period=Period.MINUTE).capacity == 100
    assert a_limit("x", burst=7).capacity == 100
    assert a_limit("x", unit=Unit.CONCURRENT, period=Period.OPEN, burst=7).capacity == 100
