"""What an organisation can say in limits.yaml, and what is refused because it would mean nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.core.ids import KeyId, WorkspaceId
from gateway.core.limits import Limit, Period, Scope, Unit
from gateway.core.principal import RANDOM_BYTES, Principal, mint_key
from gateway.core.rules import LimitHeaders, Unbounded
from gateway.settings import build_keyring, build_limits, build_rules, packaged_directory
from tests.unit.settings.conftest import GATEWAY, LIMITS, Directory

TAGGED = GATEWAY + "tags: {headers: [x-user]}\n"
MORE = "  - {id: more, scope: workspace, unit: requests, amount: 9, per: minute, comment: test}\n"
TEAMS = "workspaces: {demo: {team: search}, other: {}}\n"


@pytest.fixture(autouse=True)
def _in_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def more(directory: Directory, *changes: tuple[str, str]) -> Limit:
    """The limit that `MORE` with these changes means."""
    text = MORE
    for change in changes:
        assert change[0] in text
        text = text.replace(*change)
    directory.write("limits.yaml", LIMITS + text)
    (limit,) = (limit for limit in build_limits(directory.load()).all if limit.id == "more")
    return limit


def test_a_tag_counts_each_value_of_a_header(directory: Directory) -> None:
    directory.write("gateway.yaml", TAGGED)
    limit = more(directory, ("scope: workspace", "scope: tag, tag: X-User, require: true"))

    assert (limit.scope, limit.tag, limit.require) == (Scope.TAG, "x-user", True)


def test_a_team_is_what_workspaces_say(directory: Directory) -> None:
    directory.write("workspaces.yaml", TEAMS)
    limit = more(directory, ("scope: workspace", "scope: team, subject: search"))
    settings = directory.load()
    text, key = mint_key(
        random_bytes=bytes(RANDOM_BYTES), name="n", workspace=WorkspaceId("demo"), created_at=0.0
    )
    keyring = build_keyring(settings, [key])

    assert (limit.scope, limit.subjects) == (Scope.TEAM, ("search",))
    assert keyring.identify(text, 1.0).team == "search"
    assert build_rules(settings, keyring, 1).workspaces[WorkspaceId("demo")].team == "search"


def test_concurrent_requests_have_no_period(directory: Directory) -> None:
    limit = more(directory, ("unit: requests, amount: 9, per: minute", "unit: concurrent, amount: 0"))

    assert (limit.unit, limit.period, limit.amount) == (Unit.CONCURRENT, Period.OPEN, 0)


def test_cache_reads_are_free_unless_they_are_counted(directory: Directory) -> None:
    free = more(directory, ("unit: requests", "unit: input_tokens"))
    counted = more(directory, ("unit: requests", "unit: input_tokens, cache_reads: counted"))

    assert (free.unit, counted.unit) == (Unit.INPUT_TOKENS, Unit.PROMPT_TOKENS)


def test_a_pool_names_several(directory: Directory) -> None:
    directory.write("workspaces.yaml", TEAMS)
    limit = more(directory, ("comment", "subjects: [demo, other], shared: true, comment"))

    assert (limit.subjects, limit.shared) == (("demo", "other"), True)


def test_a_class_stands_for_its_models_next_to_others(directory: Directory) -> None:
    directory.write("limits.yaml", "")
    classes = "classes: {frontier: [claude-opus-*, claude-fable-*]}\n"
    text = MORE.replace("comment", "models: [frontier, claude-haiku-*], comment")
    directory.write("limits.yaml", classes + LIMITS + text)
    settings = directory.load()
    limits = build_limits(settings)

    assert limits.all[1].models == ("claude-opus-*", "claude-fable-*", "claude-haiku-*")
    caller = Principal(workspace=WorkspaceId("demo"), key_id=KeyId("k"), key_name="app")
    assert [len(limits.binding(caller, f"claude-{m}-5")) for m in ("opus", "haiku", "sonnet")] == [2, 2, 1]
    assert not settings.warnings


def test_a_name_that_is_neither_class_nor_model_is_doubtful(directory: Directory) -> None:
    directory.write("limits.yaml", LIMITS + MORE.replace("comment", "models: [frontier], comment"))
    (warning,) = directory.load().warnings

    assert "frontier matches no model of prices.yaml, and is no class" in str(warning)


def test_an_own_contact_goes_before_the_contact_of_all(directory: Directory) -> None:
    directory.write(
        "limits.yaml", "contact: ann\n" + LIMITS + MORE.replace("comment", "contact: ben, comment")
    )

    assert [limit.contact for limit in build_limits(directory.load()).all[:2]] == ["ann", "ben"]


def test_an_override_keeps_what_its_default_says_of_itself(directory: Directory) -> None:
    default = LIMITS.replace("per: month", "per: month\n    warn_at: [0.5, 0.8]\n    contact: ann")
    directory.write(
        "limits.yaml", default + "overrides:\n  - {limit: month, subject: demo, amount: $1, comment: less}\n"
    )
    limits = build_limits(directory.load()).all

    assert [(limit.warn_at, limit.contact) for limit in limits[:2]] == [((0.5, 0.8), "ann")] * 2


def test_the_switches_of_answers_and_estimates_reach_the_rules(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "responses: {limit_headers: off}\n")
    directory.write("workspaces.yaml", "workspaces: {demo: {unbounded: allow}}\n")
    settings = directory.load()
    rules = build_rules(settings, build_keyring(settings, []), 1)

    assert rules.limit_headers is LimitHeaders.OFF
    assert rules.workspaces[WorkspaceId("demo")].unbounded is Unbounded.ALLOW


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("per: minute, ", ""), "say how often requests are given anew"),
        (("unit: requests", "unit: concurrent"), "`per` means nothing"),
        (
            ("unit: requests, amount: 9, per: minute", "unit: concurrent, amount: 9, burst: 9"),
            "`burst` means",
        ),
        (("scope: workspace", "scope: tag"), "needs a `tag`"),
        (("scope: workspace", "scope: workspace, tag: x-user"), "no other scope"),
        (("scope: workspace", "scope: tag, tag: x-other"), "does not have x-other in tags.headers"),
        (("scope: workspace", "scope: tag, tag: authorization"), "beginning with x-"),
        (("scope: workspace", "scope: workspace, require: true"), "`require` means"),
        (("scope: workspace", "scope: team, subject: nobody"), "no team 'nobody'"),
        (("comment", "subject: demo, subjects: [demo], comment"), "`subject` or `subjects`"),
        (("comment", "subjects: [demo, nobody], comment"), "no workspace 'nobody'"),
        (("unit: requests", "unit: output_tokens, cache_reads: counted"), "`cache_reads` means"),
        (("comment", "warn_at: [0.5], comment"), "a rate passes its half all the time"),
        (("per: minute", "per: day, warn_at: [1.5]"), "less than or equal to 1"),
    ],
)
def test_what_means_nothing_is_refused(directory: Directory, change: tuple[str, str], message: str) -> None:
    assert change[0] in MORE
    directory.write("gateway.yaml", TAGGED)
    directory.write("limits.yaml", LIMITS + MORE.replace(*change))

    assert message in str(directory.lines())


def test_the_samples_in_the_shipped_file_work(directory: Directory) -> None:
    """Whoever takes the comment signs away gets what the comment says."""
    shipped = (packaged_directory() / "limits.yaml").read_text(encoding="utf-8")
    text = re.sub(r"^  # (?=- |  )", "  ", shipped, flags=re.MULTILINE)
    directory.write("limits.yaml", text.replace("classes: {}", "classes: {frontier: [claude-opus-*]}"))
    directory.write("gateway.yaml", TAGGED)
    directory.write("workspaces.yaml", "workspaces: {demo: {team: search}, lab-a: {}, lab-b: {}}\n")
    settings = directory.load()
    limits = {limit.id: limit for limit in build_limits(settings).all}

    assert limits.keys() >= {"research-pool", "research-member", "team-month", "user-day", "frontier-input"}
    assert not settings.warnings
    assert limits["research-pool"].shared and not limits["research-member"].shared
    caller = Principal(workspace=WorkspaceId("lab-a"), key_id=KeyId("k"), key_name="app")
    bound = {bound.limit.id for bound in build_limits(settings).binding(caller, "claude-opus-5")}
    assert bound >= {"research-pool", "research-member", "workspace-month", "key-concurrent"}


def test_nobody_has_an_amount_of_a_pool(directory: Directory) -> None:
    pool = MORE.replace("comment", "shared: true, comment")
    override = "overrides:\n  - {limit: more, subject: demo, amount: 5, comment: test}\n"
    directory.write("limits.yaml", LIMITS + pool + override)

    assert "more is shared, so nobody has an amount of it" in str(directory.lines())
