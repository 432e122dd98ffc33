"""Endpoints and models that a workspace may use."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.core.endpoints import Endpoint
from gateway.core.errors import Forbidden, NotFound
from gateway.core.ids import WorkspaceId
from gateway.core.permission import allows, permit_endpoint, permit_model, permit_models
from gateway.core.prompt import Prompt
from gateway.core.prompt_reader import read_prompt
from gateway.core.rules import UnknownModels, Workspace
from tests.support.fakes import make_rules

ANY = Workspace(id=WorkspaceId("w"), organisation="o", upstream="u")
HAIKU = replace(ANY, models=("claude-haiku-*",))


def test_an_empty_list_allows_every_model() -> None:
    assert allows(ANY, "claude-next")


def test_globs_decide_and_case_matters() -> None:
    assert allows(HAIKU, "claude-haiku-5-5")
    assert not allows(HAIKU, "claude-opus-5")
    assert not allows(HAIKU, "Claude-Haiku-5-5")


def test_the_refusal_names_what_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(Forbidden, match="claude-haiku-\\*"):
        permit_model("claude-opus-5", HAIKU, make_rules(tmp_path, {}))


def test_unknown_models_pass_unless_the_configuration_refuses_them(tmp_path: Path) -> None:
    rules = make_rules(tmp_path, {})
    permit_model("claude-next-9", ANY, rules)

    with pytest.raises(Forbidden, match="no price"):
        permit_model("claude-next-9", ANY, replace(rules, unknown_models=UnknownModels.REFUSE))


def test_a_model_that_is_not_allowed_is_not_there() -> None:
    permit_endpoint(Endpoint.MODELS, "GET", "/v1/models/claude-haiku-5-5", HAIKU)
    permit_endpoint(Endpoint.MODELS, "GET", "/v1/models?limit=1", HAIKU)

    with pytest.raises(NotFound):
        permit_endpoint(Endpoint.MODELS, "GET", "/v1/models/claude-opus-5", HAIKU)


@pytest.mark.parametrize(
    "path", ["/v1/complete", "/v1/sessions", "/v1/Sessions//s_1/events", "/v1/%63omplete"]
)
def test_what_runs_models_unseen_is_not_for_who_may_use_certain_ones(path: str) -> None:
    permit_endpoint(Endpoint.OTHER, "POST", path, ANY)
    permit_endpoint(Endpoint.OTHER, "GET", path, HAIKU)
    permit_endpoint(Endpoint.OTHER, "POST", "/v1/skills", HAIKU)

    with pytest.raises(Forbidden, match="certain models"):
        permit_endpoint(Endpoint.OTHER, "POST", path, HAIKU)


def test_a_path_without_v1_is_told_about_the_base_url() -> None:
    with pytest.raises(NotFound, match="/v1"):
        permit_endpoint(Endpoint.UNKNOWN, "POST", "/messages", ANY)


def test_a_base_url_that_ends_in_v1_is_told_so_and_reaches_nobody() -> None:
    with pytest.raises(
        NotFound, match=r"'/v1/v1/messages' here: the base URL of your client should not end in /v1"
    ):
        permit_endpoint(Endpoint.OTHER, "POST", "/v1/v1/messages?beta=true", ANY)


def test_batches_do_not_get_past_a_list_of_models_where_they_are_not_read() -> None:
    """Where they are, each item is permitted on its own; the rest passes always."""
    with pytest.raises(Forbidden, match="batches"):
        permit_endpoint(
            Endpoint.BATCHES, "POST", "/v1/messages/batches?beta=true", HAIKU, reads_batches=False
        )
    permit_endpoint(Endpoint.BATCHES, "POST", "/v1/messages/batches", HAIKU)
    permit_endpoint(Endpoint.BATCHES, "POST", "/v1/messages/batches", ANY, reads_batches=False)
    permit_endpoint(Endpoint.BATCHES, "GET", "/v1/messages/batches", HAIKU, reads_batches=False)
    permit_endpoint(Endpoint.BATCHES, "POST", "/v1/messages/batches/b1/cancel", HAIKU, reads_batches=False)


FABLE = "claude-fable-5-2"


def a_body(**more: object) -> Prompt:
    return read_prompt(json.dumps({"model": "claude-haiku-5-5", "max_tokens": 9, **more}).encode())


@pytest.mark.parametrize(
    "more",
    [
        {"fallbacks": [{"model": "claude-haiku-5-5"}, {"model": FABLE}]},
        {"tools": [{"type": "advisor_20260301", "name": "advisor", "model": FABLE}]},
    ],
    ids=lambda more: next(iter(more)),
)
def test_models_that_a_call_names_besides_are_permitted_too(more: dict[str, object], tmp_path: Path) -> None:
    """A fallback or an advisor answers, and is billed, as any model."""
    rules = make_rules(tmp_path, {})

    assert FABLE in permit_models(a_body(**more), ANY, rules)
    assert permit_models(a_body(), HAIKU, rules) == ()
    with pytest.raises(Forbidden, match=f"may not use model '{FABLE}'"):
        permit_models(a_body(**more), HAIKU, rules)


def test_fallbacks_that_upstream_chooses_are_refused_where_only_some_models_are_allowed(
    tmp_path: Path,
) -> None:
    rules, prompt = make_rules(tmp_path, {}), a_body(fallbacks="default")

    assert permit_models(prompt, ANY, rules) == ()
    assert permit_models(prompt, replace(ANY, models=("claude-*",)), rules) == ()
    with pytest.raises(Forbidden, match="Name the fallbacks"):
        permit_models(prompt, HAIKU, rules)
