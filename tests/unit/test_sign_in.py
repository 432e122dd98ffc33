"""People who sign in at an identity provider: where they are sent, and whom their ID tokens let in."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from gateway.core.bearer import BadToken
from gateway.core.errors import Forbidden
from gateway.core.sign_in import Attempt, SignedIn, SignInRules, authorisation_url, signed_in

RULES = SignInRules(
    client_id="gateway",
    scopes=("openid", "email"),
    name="email",
    editors=(("groups", ("platform",)),),
    viewers=(("groups", ("staff", "platform")),),
)
ATTEMPT = Attempt(state="state-1", nonce="nonce-1", verifier="v" * 64)
CLAIMS: dict[str, Any] = {
    "aud": "gateway",
    "nonce": "nonce-1",
    "email": "ada@example.com",
    "groups": ["staff"],
}


def test_a_browser_is_sent_with_state_nonce_and_the_digest_of_the_verifier() -> None:
    url = authorisation_url("https://login.test/authorise?tenant=1", RULES, ATTEMPT, "https://gw.test/back")
    query = parse_qs(urlsplit(url).query)

    assert query["tenant"] == ["1"]
    assert (query["state"], query["nonce"]) == (["state-1"], ["nonce-1"])
    assert query["code_challenge_method"] == ["S256"]
    digest = hashlib.sha256(ATTEMPT.verifier.encode()).digest()
    assert base64.urlsafe_b64decode(query["code_challenge"][0] + "=") == digest
    assert ATTEMPT.verifier not in url


def test_a_role_is_what_claims_say() -> None:
    assert signed_in(CLAIMS, RULES, "nonce-1") == SignedIn(name="ada@example.com", may_edit=False)
    assert signed_in(CLAIMS | {"groups": ["platform"]}, RULES, "nonce-1").may_edit


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"groups": []}, "not for you"),
        ({"groups": None}, "not for you"),
        ({"email": None}, "who you are"),
        ({"email": " "}, "who you are"),
        ({"email": "a\nb"}, "who you are"),
    ],
)
def test_who_has_no_role_or_no_name_is_turned_away(changed: dict[str, Any], says: str) -> None:
    with pytest.raises(Forbidden, match=says):
        signed_in(CLAIMS | changed, RULES, "nonce-1")


def test_without_conditions_a_role_is_nobodys() -> None:
    with pytest.raises(Forbidden):
        signed_in(CLAIMS | {"groups": ["platform"]}, replace(RULES, editors=(), viewers=()), "nonce-1")


@pytest.mark.parametrize(
    "changed",
    [
        {"nonce": "another"},
        {"nonce": None},
        {"nonce": 5},
        {"azp": "another-client"},
        {"aud": ["gateway", "another"]},
        {"aud": ["gateway", "another"], "azp": "another"},
    ],
)
def test_a_token_of_another_attempt_or_client_is_refused(changed: dict[str, Any]) -> None:
    with pytest.raises(BadToken):
        signed_in(CLAIMS | changed, RULES, "nonce-1")


def test_a_token_for_several_is_taken_where_it_says_that_we_asked() -> None:
    claims = CLAIMS | {"aud": ["gateway", "another"], "azp": "gateway"}

    assert signed_in(claims, RULES, "nonce-1").name == "ada@example.com"
