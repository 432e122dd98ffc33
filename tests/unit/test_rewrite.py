"""The two answers that the gateway changes."""

from __future__ import annotations

import json

import pytest

from gateway.core.rewrite import filter_models, point_results_home

PAGE = {
    "data": [{"id": "claude-opus-5", "new": 1.0}, {"id": "claude-haiku-5-5"}],
    "has_more": True,
    "first_id": "claude-opus-5",
    "last_id": "claude-haiku-5-5",
}


def test_trap_67_lists_only_models_that_the_workspace_may_use() -> None:
    kept = json.loads(filter_models(json.dumps(PAGE).encode(), lambda model: "haiku" in model))

    assert [model["id"] for model in kept["data"]] == ["claude-haiku-5-5"]
    assert (kept["has_more"], kept["last_id"]) == (True, "claude-haiku-5-5")


def test_a_list_without_denied_models_comes_back_as_it_was() -> None:
    body = json.dumps(PAGE, indent=3).encode()

    assert filter_models(body, lambda model: True) is body


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"data": 3}', b'{"data": [{}]}', b'{"id": "m"}'])
def test_what_is_no_list_of_models_comes_back_as_it_was(body: bytes) -> None:
    assert filter_models(body, lambda model: False) is body


def test_points_every_results_url_home() -> None:
    body = (
        b'{"data":[{"results_url" : "https://up.test/p/v1/messages/batches/a/results"},{"results_url":null}]}'
    )

    assert point_results_home(body, "https://up.test/p", "http://here:8080") == body.replace(
        b"https://up.test/p", b"http://here:8080"
    )


def test_leaves_urls_of_others_alone() -> None:
    body = b'{"results_url":"https://up.test.evil/v1","url":"https://up.test/v1"}'

    assert point_results_home(body, "https://up.test", "http://here") == body
