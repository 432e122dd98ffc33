"""What a caller may use: endpoints and models. Pure; raises the refusal that the client is shown."""

from __future__ import annotations

from fnmatch import fnmatchcase

from gateway.core.endpoints import Endpoint, creates_batch, runs_models
from gateway.core.errors import Forbidden, NotFound
from gateway.core.other_models import falls_back_by_default, other_models
from gateway.core.prompt import Prompt
from gateway.core.rules import Rules, UnknownModels, Workspace

SHOWN_CHARACTERS = 100
"""Of what a client sent, so much is repeated in an error at most."""


def allows(workspace: Workspace, model: str) -> bool:
    """Whether the workspace's allow-list (globs; empty: everything) has the model."""
    return not workspace.models or any(fnmatchcase(model, glob) for glob in workspace.models)


def permit_endpoint(
    endpoint: Endpoint, method: str, target: str, workspace: Workspace, *, reads_batches: bool = True
) -> None:
    """Raises `Forbidden` or `NotFound`. `reads_batches`: whether the models of a batch's items are permitted
    one by one; where they are not, a workspace with a list of models may create none."""
    path = target.partition("?")[0]
    if endpoint is Endpoint.CLOSED:
        raise Forbidden("This gateway does not relay the provider's administration and token endpoints.")
    if endpoint is Endpoint.UNKNOWN:
        raise NotFound(
            f"There is no {path[:SHOWN_CHARACTERS]!r} here. The API's paths begin with /v1/; check whether "
            "the base URL of your client has to end in /v1."
        )
    if path.startswith("/v1/v1/"):  # the commonest slip: official clients bring /v1 themselves
        raise NotFound(
            f"There is no {path[:SHOWN_CHARACTERS]!r} here: the base URL of your client should not end "
            "in /v1."
        )
    if workspace.models and not reads_batches and creates_batch(endpoint, method, target):
        raise Forbidden(
            f"Workspace {workspace.id} may use certain models only, and this gateway does not look into "
            "batches: send the calls one by one, or ask whoever runs the gateway."
        )
    if workspace.models and runs_models(method, target):
        raise Forbidden(
            f"Workspace {workspace.id} may use certain models only, and this gateway cannot tell which "
            f"ones POST {path[:SHOWN_CHARACTERS]} runs. Ask whoever runs the gateway for another workspace."
        )
    if endpoint is Endpoint.MODELS:
        model = path[len("/v1/models") :].lstrip("/")
        if model and not allows(workspace, model):
            raise NotFound(f"model: {model[:SHOWN_CHARACTERS]}")


def permit_model(model: str, workspace: Workspace, rules: Rules) -> None:
    """Raises `Forbidden` where the workspace may not use the model, or nobody knows its price and the
    configuration refuses such models."""
    if not allows(workspace, model):
        raise Forbidden(
            f"Workspace {workspace.id} may not use model {model[:SHOWN_CHARACTERS]!r}; it may use: "
            f"{', '.join(workspace.models)}. Whoever runs the gateway can allow more."
        )
    if rules.unknown_models is UnknownModels.REFUSE and rules.models.canonical(model) is None:
        raise Forbidden(
            f"This gateway has no price for model {model[:SHOWN_CHARACTERS]!r} and is set to refuse such "
            "models. Check the spelling, or ask whoever runs the gateway to add a price row."
        )


def permit_models(prompt: Prompt, workspace: Workspace, rules: Rules) -> tuple[str, ...]:
    """The same for all models that a call may come to: the one that it asks for, and the others that it names
    as fallbacks and advisors, which are returned. Raises `BadRequest` where these cannot be read."""
    permit_model(prompt.model, workspace, rules)
    others = other_models(prompt)
    for model in others:
        permit_model(model, workspace, rules)
    if falls_back_by_default(prompt) and not all(allows(workspace, each.id) for each in rules.models.known()):
        raise Forbidden(
            f"Workspace {workspace.id} may use certain models only, and the API chooses if `fallbacks` are "
            f"'default'. Name the fallbacks; it may use: {', '.join(workspace.models)}."
        )
    return others
