"""What people change while the gateway runs: which amount is in force, whose calls are stopped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.adjustments import (
    Adjustment,
    Author,
    Freeze,
    Freezes,
    FreezeScope,
    Grant,
    Override,
    Target,
    apply,
    in_force,
    limit_of,
)
from gateway.core.errors import Frozen
from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import MAX_AMOUNT, Limit, Limits, Period, Scope, Unit
from gateway.core.principal import Principal

LENA = Author(name="lena", via="by the admin token")
NOW = 1_000.0


def a_limit(id: str = "day", **changes: Any) -> Limit:
    values: dict[str, Any] = {
        "scope": Scope.WORKSPACE,
        "unit": Unit.NANOUSD,
        "amount": 100,
        "period": Period.CALENDAR_DAY,
        **changes,
    }
    return Limit(id=id, **values)


def a_target(limit: Limit, subject: str = "w1") -> Target:
    return Target(limit=limit.id, subject=subject, scope=limit.scope, unit=limit.unit, period=limit.period)


def an_override(limit: Limit, amount: int, subject: str = "w1", at: float = 1.0) -> Override:
    target = a_target(limit, subject)
    return Override(id=f"o{at}{amount}", target=target, amount=amount, reason="test", by=LENA, at=at)


def a_grant(limit: Limit, extra: int, subject: str = "w1", *, until: float = 2_000.0) -> Grant:
    return Grant(
        id=f"g{extra}",
        target=a_target(limit, subject),
        extra=extra,
        from_at=500.0,
        until_at=until,
        reason="test",
        by=LENA,
        at=500.0,
    )


def a_principal(workspace: str = "w1", key: str = "k1") -> Principal:
    return Principal(
        workspace=WorkspaceId(workspace), key_id=KeyId(key), key_name="n", organisation="org", team="team"
    )


def bound(limits: Limits, workspace: str = "w1", model: str = "m") -> dict[str, int]:
    """Amounts of the limits that bind a workspace, by bucket."""
    return {b.bucket_id: b.limit.amount for b in limits.binding(a_principal(workspace), model)}


def amounts(limits: Limits, workspace: str = "w1", model: str = "m") -> list[int]:
    return list(bound(limits, workspace, model).values())


def test_an_override_changes_the_amount_of_its_subject_alone_and_keeps_the_bucket() -> None:
    limits = Limits((a_limit(),))

    changed = apply(limits, [an_override(limits.all[0], 7)], NOW)

    assert bound(changed) == dict.fromkeys(bound(limits), 7)
    assert amounts(changed, "w2") == [100]


def test_the_last_override_counts_and_of_two_at_once_the_smaller() -> None:
    limit = a_limit()
    limits = Limits((limit,))

    def of(*made: Adjustment) -> list[int]:
        return amounts(apply(limits, made, NOW))

    assert of(an_override(limit, 9, at=2.0), an_override(limit, 5, at=1.0)) == [9]
    assert of(an_override(limit, 9, at=2.0), an_override(limit, 5, at=2.0)) == [5]
    assert of(an_override(limit, 5, at=2.0), an_override(limit, 9, at=2.0)) == [5]


def test_grants_add_up_and_add_to_an_override() -> None:
    limit = a_limit()

    changed = apply(Limits((limit,)), [a_grant(limit, 3), an_override(limit, 50), a_grant(limit, 4)], NOW)

    assert amounts(changed) == [57]


@pytest.mark.parametrize(("at", "amount"), [(499.9, 100), (500.0, 103), (1_999.9, 103), (2_000.0, 100)])
def test_a_grant_holds_from_its_beginning_up_to_its_end(at: float, amount: int) -> None:
    limit = a_limit()

    assert amounts(apply(Limits((limit,)), [a_grant(limit, 3)], at)) == [amount]


def test_what_is_over_leaves_the_limits_as_they_are() -> None:
    limits = Limits((a_limit(),))

    assert apply(limits, [a_grant(limits.all[0], 3, until=600.0)], NOW) is limits


def test_an_amount_stays_countable() -> None:
    limit = a_limit(amount=MAX_AMOUNT - 1)

    assert amounts(apply(Limits((limit,)), [a_grant(limit, MAX_AMOUNT)], NOW)) == [MAX_AMOUNT]


def test_other_limits_of_the_same_kind_go_on_binding_the_subject() -> None:
    """A limit with subjects replaces all defaults of its kind: those that nobody adjusted must survive
    that."""
    soft, hard = a_limit("soft", amount=50), a_limit("hard", amount=100)

    changed = apply(Limits((soft, hard)), [an_override(soft, 70)], NOW)

    assert amounts(changed) == [70, 100]
    assert amounts(changed, "w2") == [50, 100]
    both = apply(Limits((soft, hard)), [an_override(soft, 70), a_grant(hard, 11)], NOW)
    assert amounts(both) == [70, 111]


def test_limits_of_other_models_are_left_alone() -> None:
    all_models, some = a_limit("all"), a_limit("some", models=("opus-*",), amount=40)

    changed = apply(Limits((all_models, some)), [an_override(some, 60)], NOW)

    assert amounts(changed, model="opus-5") == [100, 60]
    assert amounts(changed, model="haiku") == [100]


def test_an_override_of_the_file_is_what_is_adjusted() -> None:
    default, own = a_limit(), a_limit(subjects=("w1", "w3"), amount=500)

    changed = apply(Limits((default, own)), [a_grant(own, 5)], NOW)

    assert [amounts(changed, name) for name in ("w1", "w2", "w3")] == [[505], [100], [500]]


def test_a_pool_is_adjusted_as_a_whole() -> None:
    pool = a_limit(shared=True, subjects=("w1", "w2"))
    limits = Limits((pool,))

    changed = apply(limits, [a_grant(pool, 5, subject="")], NOW)

    assert bound(changed) == bound(changed, "w2") == dict.fromkeys(bound(limits), 105)
    assert apply(limits, [a_grant(pool, 5, subject="w1")], NOW) is limits


@pytest.mark.parametrize(
    "change", [{"unit": Unit.REQUESTS}, {"period": Period.CALENDAR_MONTH}, {"id": "other"}]
)
def test_what_is_for_a_limit_that_is_there_no_longer_does_nothing(change: dict[str, Any]) -> None:
    limits = Limits((replace(a_limit(), **change),))

    assert apply(limits, [an_override(a_limit(), 7)], NOW) is limits


def test_what_is_for_a_default_that_another_limit_replaces_does_nothing() -> None:
    default, own = a_limit("default"), a_limit("own", subjects=("w1",), amount=500)
    limits = Limits((default, own))

    assert limit_of(limits, "default", "w1") is None
    assert apply(limits, [an_override(default, 7)], NOW) is limits


def test_a_rate_never_falls_to_nothing() -> None:
    """Nothing would ever come back, and arithmetic divides by what comes back."""
    rate = a_limit(unit=Unit.REQUESTS, period=Period.MINUTE)

    assert amounts(apply(Limits((rate,)), [an_override(rate, 0)], NOW)) == [1]


def test_as_many_as_there_may_be_are_applied_at_once() -> None:
    limits = Limits(tuple(a_limit(f"l{n}") for n in range(5)))
    made = [a_grant(limits.all[n % 5], 1, subject=f"w{n}") for n in range(500)]

    changed = apply(limits, made, NOW)

    assert amounts(changed, "w7") == [100, 100, 101, 100, 100]


def a_freeze(scope: FreezeScope, subject: str, at: float = 0.0, name: str = "lena") -> Freeze:
    by = Author(name=name, via="")
    return Freeze(id=f"f{subject}", scope=scope, subject=subject, reason="Too dear.", by=by, at=at)


@pytest.mark.parametrize(
    ("scope", "subject", "stops"),
    [
        (FreezeScope.ORGANISATION, "org", True),
        (FreezeScope.TEAM, "team", True),
        (FreezeScope.WORKSPACE, "w1", True),
        (FreezeScope.KEY, "k1", True),
        (FreezeScope.WORKSPACE, "w2", False),
        (FreezeScope.KEY, "w1", False),
        (FreezeScope.TEAM, "", False),
    ],
)
def test_a_freeze_stops_its_members_and_nobody_else(scope: FreezeScope, subject: str, stops: bool) -> None:
    freezes = Freezes([a_freeze(scope, subject)])

    if not stops:
        freezes.permit(a_principal())
        return
    with pytest.raises(Frozen, match=r"frozen since 1970-01-01 00:00 UTC.*: Too dear\. Ask lena"):
        freezes.permit(a_principal())


def test_the_widest_and_then_the_first_freeze_is_the_one_that_is_told() -> None:
    narrow = a_freeze(FreezeScope.KEY, "k1")
    first, second = (a_freeze(FreezeScope.TEAM, "team", name=name) for name in ("ann", "bob"))

    assert Freezes([narrow, first, second]).of(a_principal()) == first


def test_freezes_and_overrides_hold_until_they_are_taken_back() -> None:
    standing: list[Adjustment] = [a_freeze(FreezeScope.KEY, "k1"), an_override(a_limit(), 3)]

    assert in_force(standing, 1e12) == tuple(standing)
