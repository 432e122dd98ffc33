"""The two answers that the gateway changes."""

from __future__ import annotations

import json

import pytest

from gateway.core.rewrite import models_page, point_results_home, whole_list

PAGE = {
    "data": [{"id": "claude-opus-5", "new": 1.0}, {"id": "claude-haiku-5-5"}],
    "has_more": True,
    "first_id": "claude-opus-5",
    "last_id": "claude-haiku-5-5",
}


def listed(target: str, *, of: int = 7, only: str = "claude-b") -> tuple[list[str], bool]:
    """What a client gets of a list of `of` models, every other of which may be used."""
    models = [{"id": f"claude-{'ab'[at % 2]}{at}"} for at in range(of)]
    body = json.dumps({"data": models, "has_more": False, "first_id": "x", "last_id": "y"}).encode()
    page = json.loads(models_page(body, target, lambda model: model.startswith(only)))
    shown = [model["id"] for model in page["data"]]
    assert (page["first_id"], page["last_id"]) == ((shown[0], shown[-1]) if shown else (None, None))
    return shown, page["has_more"]


def test_trap_67_lists_only_models_that_the_workspace_may_use() -> None:
    kept = json.loads(models_page(json.dumps(PAGE).encode(), "/v1/models", lambda model: "haiku" in model))

    assert [model["id"] for model in kept["data"]] == ["claude-haiku-5-5"]
    assert (kept["has_more"], kept["last_id"]) == (False, "claude-haiku-5-5")


@pytest.mark.parametrize(
    ("query", "shown", "has_more"),
    [
        ("", ["claude-b1", "claude-b3", "claude-b5"], False),
        ("?limit=1", ["claude-b1"], True),
        ("?limit=2&after_id=claude-b1", ["claude-b3", "claude-b5"], False),
        ("?limit=1&after_id=claude-a2", ["claude-b3"], True),
        ("?limit=1&before_id=claude-b5", ["claude-b3"], True),
        ("?before_id=claude-b3", ["claude-b1"], False),
        ("?after_id=claude-b5", [], False),
        ("?after_id=nobody", [], False),
        ("?before_id=nobody", [], False),
    ],
)
def test_pages_are_of_what_may_be_used(query: str, shown: list[str], has_more: bool) -> None:
    assert listed("/v1/models" + query) == (shown, has_more)


def test_all_models_are_asked_for_where_some_are_left_out() -> None:
    assert whole_list("/v1/models") == "/v1/models?limit=1000"
    assert whole_list("/v1/models?beta=true&limit=2&after_id=x") == "/v1/models?beta=true&limit=1000"
    for same in ("/v1/models/claude-a", "/v1/models?limit=0", "/v1/models?limit=1001", "/v1/models?limit=x"):
        assert whole_list(same) == same


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data": 3}', b'{"data": [{}]}', b'{"id": "m"}'])
def test_what_is_no_list_of_models_comes_back_as_it_was(body: bytes) -> None:
    assert models_page(body, "/v1/models", lambda model: False) is body


@pytest.mark.parametrize(
    "base",
    ["https://up.test/p", "https://api.anthropic.com", "https://API.anthropic.com:443", "http://egress:1"],
)
def test_points_every_results_url_home(base: str) -> None:
    batch = f'{{"results_url" : "{base}/v1/messages/batches/a/results"}}'
    body = f'{{"data":[{batch},{{"results_url":null}},{batch}]}}'.encode()

    home = body.replace(base.encode(), b"http://here:8080")
    assert point_results_home(body, "http://here:8080") == home


def test_leaves_other_urls_alone() -> None:
    body = b'{"results_url":null,"url":"https://up.test/v1/messages/batches/a","note":"results_url"}'

    assert point_results_home(body, "http://here") == body
