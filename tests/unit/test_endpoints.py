"""Routing by method and path."""

from __future__ import annotations

import pytest

from gateway.core.endpoints import Endpoint, creates_batch, deleted_batch, route


@pytest.mark.parametrize(
    ("method", "target", "endpoint"),
    [
        ("POST", "/v1/messages", Endpoint.MESSAGES),
        ("POST", "/v1/messages?beta=true", Endpoint.MESSAGES),
        ("POST", "/v1/messages/count_tokens?beta=true", Endpoint.COUNT_TOKENS),
        ("GET", "/v1/models?limit=1000", Endpoint.MODELS),
        ("GET", "/v1/models/claude-opus-5", Endpoint.MODELS),
        ("POST", "/v1/messages/batches", Endpoint.BATCHES),
        ("DELETE", "/v1/messages/batches/b1", Endpoint.BATCHES),
        ("GET", "/v1/messages/batches/b1/results", Endpoint.BATCH_RESULTS),
        ("POST", "/v1/files", Endpoint.FILES),
        ("GET", "/v1/files/f1/content", Endpoint.FILES),
        ("POST", "/v1/skills", Endpoint.OTHER),
        ("GET", "/v1/messages", Endpoint.OTHER),
        ("HEAD", "/", Endpoint.PROBE),
        ("HEAD", "/api/hello", Endpoint.PROBE),
        ("OPTIONS", "/v1/messages", Endpoint.PROBE),
        ("POST", "/messages", Endpoint.UNKNOWN),
        ("GET", "/metrics", Endpoint.UNKNOWN),
        ("POST", "/v1", Endpoint.UNKNOWN),
    ],
)
def test_routes_on_method_and_path_alone(method: str, target: str, endpoint: Endpoint) -> None:
    assert route(method, target) is endpoint


@pytest.mark.parametrize(
    "target",
    [
        "/v1/organizations",
        "/v1/organizations/users?limit=1",
        "/v1/ORGANIZATIONS/users",
        "/v1//organizations/users",
        "/v1/./organizations",
        "/v1/files/../organizations/api_keys",
        "/v1/%6frganizations",
        "/v1/%256frganizations",
        "/v1/files/%2e%2e/organizations",
        "/v1/organizations%2fusers",
        "/v1\\organizations",
        "/v1/organizations;x=1/users",
        "/v1/organizations#x",
        "/v1/organizations%3Fx/users",
        "/v1/oauth/token",
    ],
)
def test_closes_administration_in_every_spelling(target: str) -> None:
    """An upstream may normalise what we would not: the gateway's own credential must not serve these."""
    for method in ("GET", "POST", "DELETE"):
        assert route(method, target) is Endpoint.CLOSED


def test_keeps_neighbours_of_closed_paths_open() -> None:
    assert route("GET", "/v1/organizations_of_ours") is Endpoint.OTHER


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("POST", "/v1/%6dessages"),
        ("POST", "/v1/messages/"),
        ("POST", "/v1/messages#x"),
        ("POST", "/v1/messages#?beta=true"),
        ("POST", "/v1/messages%23"),
        ("POST", "/v1/messages%3Fbeta=true"),
        ("POST", "/v1/messages/batches#/b1/cancel"),
        ("POST", "/v1//messages"),
        ("POST", "/v1/./messages"),
        ("POST", "/v1/files/../messages"),
        ("POST", "/v1/Messages"),
        ("POST", "/v1/messages/count%5ftokens"),
        ("GET", "/v1/mod%65ls"),
        ("GET", "/v1/messages/b%61tches/b1"),
    ],
)
def test_no_spelling_of_a_path_gets_past_a_limit(method: str, target: str) -> None:
    """An upstream that decodes it would serve it; we would neither plan, price nor check it."""
    assert route(method, target) is Endpoint.UNKNOWN


@pytest.mark.parametrize(
    "target",
    ["/v1/files/File_Ab1", "/v1/files/a%20b/content", "/v1/files/a%23b", "/v1/skills/X/versions/1.0"],
)
def test_odd_names_within_a_path_stay_what_they_are(target: str) -> None:
    assert route("GET", target) in (Endpoint.FILES, Endpoint.OTHER)


@pytest.mark.parametrize(
    ("method", "target", "creates"),
    [
        ("POST", "/v1/messages/batches", True),
        ("POST", "/v1/messages/batches?beta=true", True),
        ("POST", "/v1/messages/batches/", True),
        ("POST", "/v1/messages/batches/.", True),
        ("POST", "/v1/messages/batches/b1/cancel/..", True),
        ("POST", "/v1/messages/batches/b1/cancel", False),
        ("POST", "/v1/messages/batches/b1/cancel?beta=true", False),
        ("GET", "/v1/messages/batches", False),
        ("POST", "/v1/messages", False),
    ],
)
def test_no_spelling_creates_a_batch_unread(method: str, target: str, creates: bool) -> None:
    assert creates_batch(route(method, target), method, target) == creates


def test_knows_which_batch_is_deleted() -> None:
    path = "/v1/messages/batches"
    assert deleted_batch("batches", "DELETE", path + "/b1?x=1") == "b1"
    assert deleted_batch("batches", "GET", path + "/b1") is None
    assert deleted_batch("batches", "DELETE", path) is None
