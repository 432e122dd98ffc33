"""The OpenAPI 3.1 document of the admin API, made from the operations that are served: it cannot name a route
that is not there, nor leave one out.

Schemas come from the models that the answers are made of. Nothing here serves anything.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic.json_schema import models_json_schema

from gateway.core.ledger import usd

Document = dict[str, Any]
"""JSON, as it goes out."""

NDJSON = "application/x-ndjson"
_SCHEMAS = "#/components/schemas/{model}"


class Answer(BaseModel):
    """An object of an answer. Frozen; the docstring of a field is its description in the document."""

    model_config = ConfigDict(frozen=True, use_attribute_docstrings=True)


class Money(Answer):
    """An amount, exact in both forms."""

    nanousd: int
    """Billionths of a dollar."""
    usd: str
    """Dollars, with nine decimals."""

    @classmethod
    def of(cls, nanousd: int) -> Money:
        return cls(nanousd=nanousd, usd=usd(nanousd))


class ErrorBody(Answer):
    """What went wrong."""

    status: int
    """The HTTP status."""
    message: str
    """A sentence for whoever reads it: what is wrong and what to do."""


class Error(Answer):
    """The one shape of all errors of the admin plane."""

    error: ErrorBody


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One parameter of a query or a path."""

    name: str
    description: str
    required: bool = False
    pattern: str | None = None
    place: str = "query"
    """Or `path`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What the document says of one operation."""

    id: str
    summary: str
    text: str = ""
    parameters: tuple[Parameter, ...] = ()
    takes: str | None = None
    """Content type of the request's body, where there is one."""
    takes_text: str = ""
    takes_model: type[Answer] | None = None
    """What a body of JSON holds; text where it is None."""
    gives: str = "application/json"
    """Content type of the answer."""
    answer: type[Answer] | None = None
    """The answer, or each line of it; any object where it is None."""
    errors: Mapping[int, str] | None = None
    """Statuses and what they mean, beside 401."""
    with_key: bool = False
    """Whether it takes a virtual key in place of the admin token."""


def openapi_document(operations: Sequence[tuple[str, str, Description]], *, version: str) -> Document:
    """The document of `operations`: method, path, description."""
    models: list[type[Answer]] = [Error]
    bodies: list[type[Answer]] = []
    paths: dict[str, Document] = {}
    for method, path, description in operations:
        if description.answer is not None:
            models.append(description.answer)
        if description.takes_model is not None:
            bodies.append(description.takes_model)
        paths.setdefault(path, {})[method.lower()] = _operation(description)
    _, schemas = models_json_schema(
        [
            *((model, "serialization") for model in dict.fromkeys(models)),
            *((body, "validation") for body in dict.fromkeys(bodies)),
        ],
        ref_template=_SCHEMAS,
    )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Claude cache gateway, admin API",
            "version": version,
            "description": "On the admin plane's own address, never on the one that apps call. Amounts of "
            "money are integers of nano-dollars, with the same in dollars as text beside them.",
        },
        "security": [{}, {"admin_token": []}],
        "paths": paths,
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {
                "admin_token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token of `listen.admin_token`, where one is configured. Without one, "
                    "routes answer on a loopback address only, and to nobody whom a proxy passes on.",
                },
                "virtual_key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key that apps call with.",
                },
            },
        },
    }


def _operation(description: Description) -> Document:
    schema: Document = {"type": "object"}
    if description.answer is not None:
        schema = {"$ref": _SCHEMAS.format(model=description.answer.__name__)}
    missing = "key" if description.with_key else "admin token"
    errors = {401: f"The {missing} is missing or wrong.", **(description.errors or {})}
    operation: Document = {
        "operationId": description.id,
        "summary": description.summary,
        "responses": {
            "200": {"description": description.summary, "content": {description.gives: {"schema": schema}}},
            **{str(status): _error(text) for status, text in sorted(errors.items())},
        },
    }
    if description.text:
        operation["description"] = description.text
    if description.with_key:
        operation["security"] = [{"virtual_key": []}]
    if description.parameters:
        operation["parameters"] = [_parameter(parameter) for parameter in description.parameters]
    if description.takes is not None:
        body: Document = {"type": "string"}
        if description.takes_model is not None:
            body = {"$ref": _SCHEMAS.format(model=description.takes_model.__name__)}
        operation["requestBody"] = {
            "required": True,
            "description": description.takes_text,
            "content": {description.takes: {"schema": body}},
        }
    return operation


def _parameter(parameter: Parameter) -> Document:
    schema: Document = {"type": "string"}
    if parameter.pattern is not None:
        schema["pattern"] = parameter.pattern
    return {
        "name": parameter.name,
        "in": parameter.place,
        "required": parameter.required,
        "description": parameter.description,
        "schema": schema,
    }


def _error(text: str) -> Document:
    return {
        "description": text,
        "content": {"application/json": {"schema": {"$ref": _SCHEMAS.format(model="Error")}}},
    }
