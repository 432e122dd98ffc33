"""What an alert says, whom it is for, and what becomes of its deliveries."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from gateway.core.alerts import (
    MOST_ATTEMPTS,
    RETRY_SECONDS,
    Alert,
    AlertEntry,
    AlertKind,
    Delivery,
    DeliveryState,
    Format,
    Outcome,
    Target,
    addressed,
    alert_json,
    attempted,
    entry_text,
    read_entry,
    slack_text,
)

ALERT = Alert(
    id="threshold/x",
    kind=AlertKind.THRESHOLD,
    at=1_800_000_000.0,
    headline="Workspace demo has spent 80%",
    facts=(("spent", "$8.00"), ("rate", "$1.00 a day")),
    amounts=(("spent_nanousd", 8_000_000_000),),
    command="gateway budget grant month '$2.00' -s demo -r 'why'",
    organisation="default",
    team="red",
    workspace="demo",
    contact="lena",
)
GOOD = Outcome(delivered=True, final=True, said="status 200")
BAD = Outcome(delivered=False, final=False, said="status 500")
REFUSED = Outcome(delivered=False, final=True, said="status 404")


def a_target(name: str = "people", **filters: object) -> Target:
    target = Target(name=name, format=Format.SLACK, url=lambda: "https://sk-test-canary")
    return replace(target, **filters)  # type: ignore[arg-type]


def an_entry(*targets: str) -> AlertEntry:
    return AlertEntry(alert=ALERT, deliveries=tuple(Delivery(target=t) for t in targets), due_at=ALERT.at)


@pytest.mark.parametrize(
    ("filters", "wants"),
    [
        ({}, True),
        ({"kinds": {"threshold", "freeze"}}, True),
        ({"kinds": {"freeze"}}, False),
        ({"workspaces": {"demo"}, "teams": {"red"}}, True),
        ({"workspaces": {"demo"}, "teams": {"blue"}}, False),
        ({"organisations": {"default"}, "contacts": {"lena"}}, True),
        ({"contacts": {"max"}}, False),
    ],
)
def test_a_target_gets_what_passes_all_of_its_filters(filters: dict[str, set[str]], wants: bool) -> None:
    frozen: dict[str, Any] = {name: frozenset(values) for name, values in filters.items()}
    target = a_target(**frozen)

    assert target.wants(ALERT) == wants
    entry = addressed(ALERT, [target])
    assert (entry is not None) == wants


def test_it_is_due_at_once_for_all_who_want_it() -> None:
    entry = addressed(ALERT, [a_target("a"), a_target("b", kinds=frozenset({"test"})), a_target("c")])

    assert entry is not None
    assert (entry.waiting, entry.due_at) == (("a", "c"), ALERT.at)


def test_only_those_that_failed_are_tried_again_after_longer_and_longer() -> None:
    entry = attempted(an_entry("a", "b", "c"), {"a": GOOD, "b": BAD, "c": REFUSED}, 100.0, 0.5)

    assert entry.waiting == ("b",)
    assert entry.due_at == 100.0 + RETRY_SECONDS[0]
    delays = []
    while entry.due_at is not None:
        entry = attempted(entry, {"b": BAD}, 0.0, 0.5)
        delays.append(entry.due_at)
    assert delays == [*RETRY_SECONDS[1:], None]
    states = [(each.state, each.attempts) for each in entry.deliveries]
    assert states == [
        (DeliveryState.DELIVERED, 1),
        (DeliveryState.FAILED, MOST_ATTEMPTS),
        (DeliveryState.FAILED, 1),
    ]


@pytest.mark.parametrize("randomness", [0.0, 0.25, 0.999])
def test_attempts_are_spread_by_a_half_to_either_side(randomness: float) -> None:
    entry = attempted(an_entry("a"), {"a": BAD}, 0.0, randomness)

    assert entry.due_at == RETRY_SECONDS[0] * (0.5 + randomness)


def test_what_is_written_down_is_what_is_read() -> None:
    entry = attempted(an_entry("a", "b"), {"a": BAD}, 100.0, 0.5)
    entry = replace(entry, revision=7)

    assert read_entry(entry_text(entry), revision=7, due_at=entry.due_at) == entry


def test_machines_get_the_exact_amounts_beside_the_words() -> None:
    told = alert_json(ALERT)

    assert told["amounts"] == {"spent_nanousd": 8_000_000_000}
    assert list(told["facts"]) == ["spent", "rate"]
    assert told["at"] == "2027-01-15T08:00:00Z"


def test_no_character_of_a_name_does_anything_in_slack() -> None:
    text = slack_text(replace(ALERT, headline="<!here> <http://x|y> & \x1b[0m\nnext", facts=(), command=""))

    assert text == "*&lt;!here&gt; &lt;http://x|y&gt; &amp;  [0m next*"


def test_a_target_shows_neither_its_url_nor_its_secret() -> None:
    assert "canary" not in repr(a_target(secret=lambda: "sk-test-canary"))
