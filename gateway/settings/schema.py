"""What editors and readers need of the models: JSON Schema files, and the tables of config/README.md."""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from typing import Any, get_args

from pydantic import BaseModel

from gateway.settings.gateway import RESTART_SECTIONS, GatewayFile
from gateway.settings.limits import LimitsFile
from gateway.settings.prices import PricesFile
from gateway.settings.workspaces import WorkspacesFile

FILE_MODELS: dict[str, type[BaseModel]] = {
    "gateway": GatewayFile,
    "limits": LimitsFile,
    "prices": PricesFile,
    "workspaces": WorkspacesFile,
}


def schema_texts() -> dict[str, str]:
    """JSON Schema of each file, as committed under config/schema, by file name."""
    return {f"{name}.schema.json": _schema_text(model) for name, model in FILE_MODELS.items()}


def settings_table(name: str) -> str:
    """The Markdown table of one file's settings, as it stands in config/README.md."""
    lines = ["| Setting | Default | Meaning |", "|---|---|---|"]
    lines += [f"| `{path}` | {default} | {text} |" for path, default, text in _rows(FILE_MODELS[name], "")]
    return "\n".join(lines)


def _schema_text(model: type[BaseModel]) -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **model.model_json_schema()}
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def _rows(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, str, str]]:
    for name, field in model.model_fields.items():
        path = f"{prefix}{field.alias or name}"
        restart = " (restart)" if not prefix and name in RESTART_SECTIONS else ""
        text = " ".join((field.description or "").replace("|", r"\|").split())
        nested, suffix = _nested(field.annotation)
        if nested is None or nested.__name__ == "SecretRef":
            yield path, _default(model, name), text
            continue
        about = text or " ".join((nested.__doc__ or "").split())
        yield path + suffix, _required(field), f"{about}{restart}"
        yield from _rows(nested, f"{path}{suffix}.")


def _nested(annotation: object) -> tuple[type[BaseModel] | None, str]:
    """The model that a field holds, and how its entries are written in a path."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation, ""
    origin_text = str(annotation)
    for argument in get_args(annotation):
        found, _ = _nested(argument)
        if found is not None:
            if "dict[" in origin_text:
                return found, ".NAME"
            return found, "[]" if "tuple[" in origin_text or "list[" in origin_text else ""
    return None, ""


def _required(field: Any) -> str:
    return "required" if field.is_required() else ""


def _default(model: type[BaseModel], name: str) -> str:
    field = model.model_fields[name]
    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True, validated_data={})
    if isinstance(default, BaseModel):
        shown: object = default.model_dump(exclude_none=True)
        return f"`{json.dumps(shown)}`"
    # The model's own serialisers know that 30.0 is written as 30s.
    value = model.model_construct(**{name: default}).model_dump(mode="json", include={name}).get(name)
    if isinstance(default, Enum):
        value = default.value
    return f"`{value if isinstance(value, str) else json.dumps(value)}`"
