"""Whom verified claims stand for."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from gateway.core.bearer import Algorithm, BadToken, Issuer
from gateway.core.claims import Bearer, ClaimRule, bearer_of, find_claim, is_subject, subject_id
from gateway.core.errors import Forbidden
from gateway.core.headers import tags_of
from gateway.core.ids import KeyId, WorkspaceId

POD: dict[str, Any] = {
    "aud": ["claude-gateway"],
    "iss": "https://kubernetes.default.svc.cluster.local",
    "sub": "system:serviceaccount:payments:worker",
    "kubernetes.io": {
        "namespace": "payments",
        "pod": {"name": "worker-5c9", "uid": "b1"},
        "serviceaccount": {"name": "worker", "uid": "a1"},
    },
}
PERSON: dict[str, Any] = {
    "sub": "00u1",
    "email": "ada@example.com",
    "email_verified": True,
    "groups": ["staff", "search-team"],
    "level": 3,
}


def issuer(*rules: ClaimRule, subject: str = "sub") -> Issuer:
    return Issuer(
        name="test",
        issuer="https://issuer.test",
        audiences=("a",),
        algorithms=frozenset(Algorithm),
        leeway_seconds=0.0,
        subject=subject,
        rules=rules,
    )


def rule(workspace: str, /, **conditions: str) -> ClaimRule:
    return ClaimRule(
        conditions=tuple((path, (glob,)) for path, glob in conditions.items()),
        workspace=WorkspaceId(workspace),
    )


def test_the_first_rule_that_matches_decides() -> None:
    trusted = issuer(
        rule("other", sub="system:serviceaccount:other:*"),
        rule("first", sub="system:serviceaccount:payments:*"),
        rule("second", sub="*"),
    )

    assert WorkspaceId("first") == bearer_of(POD, trusted).workspace


def test_where_no_rule_matches_the_caller_is_refused_by_name_of_the_issuer() -> None:
    with pytest.raises(Forbidden, match="issuer test"):
        bearer_of(POD, issuer(rule("a", sub="system:serviceaccount:Payments:*")))


def test_all_conditions_must_hold_and_one_of_several_globs_or_values() -> None:
    conditions = (("groups", ("search-*", "sales-*")), ("email_verified", ("true",)), ("level", ("3",)))
    trusted = issuer(ClaimRule(conditions=conditions, workspace=WorkspaceId("search")))

    assert WorkspaceId("search") == bearer_of(PERSON, trusted).workspace
    for changed in ({"groups": ["staff"]}, {"email_verified": False}, {"level": 3.5}, {"groups": None}):
        with pytest.raises(Forbidden):
            bearer_of(PERSON | changed, trusted)


def test_a_condition_on_a_claim_that_is_not_there_never_holds() -> None:
    with pytest.raises(Forbidden):
        bearer_of(PERSON, issuer(rule("a", department="*")))


def test_claims_become_tags_and_a_name() -> None:
    named = replace(
        rule("pods", sub="*"),
        name="/kubernetes.io/serviceaccount/name",
        tags=(("x-team", "/kubernetes.io/namespace"), ("x-none", "/kubernetes.io/none")),
    )

    assert Bearer(
        workspace=WorkspaceId("pods"),
        subject=KeyId("token:test:system:serviceaccount:payments:worker"),
        name="worker",
        tags=(("x-team", "payments"), ("x-none", "")),
    ) == bearer_of(POD, issuer(named))


def test_a_tag_that_a_rule_names_is_never_the_header_s() -> None:
    """Where the token lacks the claim, its bearer would otherwise choose whose budget pays."""
    bearer = bearer_of(POD, issuer(replace(rule("pods", sub="*"), tags=(("x-team", "/kubernetes.io/none"),))))
    headers = [(b"x-team", b"blue"), (b"x-user", b"ada")]

    assert tags_of(headers, ["x-team", "x-user"], bearer.tags) == (("x-team", ""), ("x-user", "ada"))


@pytest.mark.parametrize("changed", [{"sub": None}, {"sub": ""}, {"sub": 5}, {"sub": ["a"]}])
def test_a_token_that_stands_for_nobody_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(BadToken, match="whom it stands for"):
        bearer_of(PERSON | changed, issuer(rule("a", level="3")))


def test_another_claim_can_be_the_subject() -> None:
    assert (
        KeyId("token:test:ada@example.com")
        == bearer_of(PERSON, issuer(rule("a", sub="*"), subject="email")).subject
    )


@pytest.mark.parametrize("subject", ["a b", "a\nb", "ä", "x" * 500, "a~b", "\ud800"])
def test_a_strange_subject_has_a_bounded_safe_id_of_its_own(subject: str) -> None:
    found = subject_id("test", subject)

    assert re.fullmatch(r"token:test:[A-Za-z0-9._:@/+=|~-]{1,100}", found)
    assert found != subject_id("test", subject.replace("b", "_") + "_")
    assert is_subject(found)


def test_subjects_that_look_alike_once_cleaned_stay_apart() -> None:
    cleaned = subject_id("test", "a b")

    assert len({cleaned, subject_id("test", "a_b"), subject_id("test", "a\tb"), subject_id("x", "a b")}) == 4
    assert cleaned != subject_id("test", cleaned.removeprefix("token:test:"))
    assert subject_id("test", "x" * 101) != subject_id("test", "x" * 102)


def test_no_subject_can_pass_for_a_key_or_the_gateway_itself() -> None:
    assert subject_id("warming", "demo").startswith("token:warming:")
    assert not is_subject("warming:demo")
    assert not is_subject("0aB3cD4e")


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("sub", "system:serviceaccount:payments:worker"),
        ("/kubernetes.io/pod/name", "worker-5c9"),
        ("kubernetes.io/pod", None),
        ("/sub", "system:serviceaccount:payments:worker"),
        ("/sub/deeper", None),
        ("/aud/0", None),
    ],
)
def test_a_path_leads_into_objects_only(path: str, found: object) -> None:
    assert found == find_claim(POD, path)


def test_a_path_can_name_what_has_a_slash() -> None:
    claims = {"https://example.com/roles": {"a~b": "yes"}}

    assert find_claim(claims, "/https:~1~1example.com~1roles/a~0b") == "yes"
    assert find_claim(claims, "https://example.com/roles") == {"a~b": "yes"}


def test_values_of_tags_are_bounded_and_printable() -> None:
    tagged = replace(rule("a", sub="*"), tags=(("x-team", "team"),))
    claims = {"sub": "a", "team": "line\r\nbreak" + "x" * 500}

    (tag,) = bearer_of(claims, issuer(tagged)).tags
    assert ("x-team", ("line__break" + "x" * 500)[:200]) == tag
