"""From a directory to validated `Settings`, or to one error that names everything that is wrong.

Shapes live in the models beside this file, checks that span files in `checks.py`, YAML in `source.py`.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError

import gateway
from gateway.core.errors import ConfigError, ConfigProblem
from gateway.settings.checks import check_across
from gateway.settings.gateway import GatewayFile
from gateway.settings.limits import LimitsFile
from gateway.settings.prices import PricesFile
from gateway.settings.shared import SecretRef
from gateway.settings.source import (
    FILE_NAMES,
    Document,
    KeyPath,
    content_digest,
    overlay,
    read_directory,
    read_environment,
    read_yaml,
)
from gateway.settings.workspaces import WorkspacesFile

PRICES = "prices.yaml"
File = TypeVar("File", bound=BaseModel)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything that people configured, validated, at one moment. Immutable."""

    directory: Path
    gateway: GatewayFile
    limits: LimitsFile
    workspaces: WorkspacesFile
    prices: PricesFile
    digest: str
    """Names this version of the files; see `content_digest`."""
    warnings: tuple[ConfigProblem, ...] = ()
    """What is doubtful but can be served."""
    environ: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Where `env:` references are looked up."""


def find_directory(given: Path | None, environ: Mapping[str, str]) -> Path:
    """The directory that `--config` or GATEWAY_CONFIG names; else `config/` of the working directory; else
    the defaults that came with the package."""
    if given is not None:
        return given
    if environ.get("GATEWAY_CONFIG"):
        return Path(environ["GATEWAY_CONFIG"])
    here = Path("config")
    return here if (here / "gateway.yaml").exists() else packaged_directory()


def packaged_directory() -> Path:
    """The defaults as shipped: beside the code in a wheel, in `config/` in a clone."""
    package = Path(gateway.__file__).parent
    shipped = package / "default_config"
    return shipped if shipped.exists() else package.parent / "config"


def load_settings(directory: Path, environ: Mapping[str, str]) -> Settings:
    """Read and check a configuration directory. Raises `ConfigError` with every problem of every file.

    Reads the four files, and nothing that they refer to except whether it exists. `prices.yaml` may be
    missing: then the prices that came with the package hold.
    """
    problems: list[ConfigProblem] = []
    contents = _read_all(directory, problems)
    documents = {name: read_yaml(str(directory / name), content) for name, content in contents.items()}
    variables = read_environment(environ)
    for document in (*documents.values(), variables):
        problems.extend(document.problems)

    def read(name: str, model: type[File], above: Document | None = None) -> File | None:
        document = documents.get(name)
        if document is None or (document.value is None and document.problems):
            return None
        parsed, wrong = validate(model, document, above)
        problems.extend(wrong)
        return parsed

    gateway_file = read("gateway.yaml", GatewayFile, variables)
    limits = read("limits.yaml", LimitsFile)
    workspaces = read("workspaces.yaml", WorkspacesFile)
    prices = read("prices.yaml", PricesFile)
    if not (gateway_file and limits and workspaces and prices):
        raise config_error(problems)
    settings = Settings(
        directory=directory,
        gateway=gateway_file,
        limits=limits,
        workspaces=workspaces,
        prices=prices,
        digest=content_digest(contents),
        environ=environ,
    )
    errors, warnings = check_across(settings, documents, variables)
    if problems or errors:
        raise config_error([*problems, *errors])
    return replace(settings, warnings=tuple(warnings))


def read_contents(directory: Path) -> dict[str, bytes]:
    """The bytes of all files that count: those of the directory, and the packaged prices where it has none.
    Raises `OSError`."""
    contents = read_directory(directory)
    if PRICES not in contents:
        contents[PRICES] = (packaged_directory() / PRICES).read_bytes()
    return contents


def _read_all(directory: Path, problems: list[ConfigProblem]) -> dict[str, bytes]:
    try:
        contents = read_contents(directory)
    except OSError as error:
        place = str(error.filename or directory)
        problems.append(ConfigProblem(file=place, message=f"cannot be read: {error.strerror}"))
        return {}
    if not directory.is_dir():
        message = "is no directory; --config DIR or GATEWAY_CONFIG names the one of the four files"
        problems.append(ConfigProblem(file=str(directory), message=message))
        return {}
    for name in FILE_NAMES:
        if name not in contents:
            where = str(directory / name)
            message = "is missing; an empty one could hide a budget, so write it, or start from the examples"
            problems.append(ConfigProblem(file=where, message=message))
    return contents


def config_error(problems: list[ConfigProblem]) -> ConfigError:
    unique = tuple(dict.fromkeys(problems))
    return ConfigError("\n".join(str(problem) for problem in unique), unique)


def validate(
    model: type[File], document: Document, above: Document | None = None
) -> tuple[File | None, list[ConfigProblem]]:
    """`document` as `model`, with `above` laid over it; problems name whichever of the two is to blame."""
    value = document.value
    if above is not None and isinstance(value, dict):  # what is no mapping is to be told of, not laid over
        value = overlay(value, above.value)
    try:
        return model.model_validate(value), []
    except ValidationError as error:
        return None, [_problem(model, document, above, item) for item in error.errors(include_input=False)]


def _problem(model: type[BaseModel], document: Document, above: Document | None, item: Any) -> ConfigProblem:
    path = _written_path(tuple(item["loc"]), document, above)
    source = above if above is not None and path and above.holds(path) else document
    kind, message = item["type"], str(item["msg"])
    if kind == "extra_forbidden":
        known = list(_keys_at(model, path[:-1]))
        close = difflib.get_close_matches(str(path[-1]), known, n=1, cutoff=0.5)
        message = f'unknown key; did you mean "{close[0]}"?' if close else _unknown(known)
        return source.problem(path, message, at_key=True)
    return source.problem(path, _said(kind, message, item.get("ctx", {}), path))


def _said(kind: str, message: str, context: Mapping[str, Any], path: KeyPath) -> str:
    if kind in ("enum", "literal_error"):
        return f"must be {str(context['expected']).replace(chr(39), '')}"
    if kind == "model_type" and context.get("class_name") == SecretRef.__name__:
        return "must be a mapping that says where the secret is found: `{env: NAME}` or `{file: PATH}`"
    if kind == "string_pattern_mismatch" and path[-1:] == ("env",):
        return "must be the name of an environment variable: letters, digits and _"
    return _WORDS.get(kind) or message.removeprefix("Value error, ").replace("Input should be", "must be")


_WORDS = {
    "missing": "is missing",
    "model_type": "must be a mapping, of keys and values",
    "dict_type": "must be a mapping, of keys and values",
    "tuple_type": "must be a list",
    "frozen_set_type": "must be a list",
    **dict.fromkeys(("int_parsing", "int_type", "int_from_float"), "must be a whole number"),
    **dict.fromkeys(("float_parsing", "float_type"), "must be a number"),
    **dict.fromkeys(("bool_parsing", "bool_type"), "must be true or false"),
    "string_type": "must be text; in quotes, where it could be read as a number",
}
"""What pydantic says in the words of another language, by its type of error."""


def _unknown(known: list[str]) -> str:
    return f"unknown key; known here: {', '.join(sorted(known))}" if known else "unknown key"


def _written_path(location: KeyPath, document: Document, above: Document | None) -> KeyPath:
    """`location` without the parts that pydantic adds, such as which member of a union it tried."""
    path: KeyPath = ()
    for index, part in enumerate(location):
        longer = (*path, part)
        last = index == len(location) - 1
        written = document.holds(longer) or (above is not None and above.holds(longer))
        if written or (last and isinstance(part, str) and part.isidentifier()):
            path = longer
    return path


def _keys_at(model: object, path: KeyPath) -> Iterator[str]:
    """Names that a mapping at `path` may have."""
    for found in _models_in(model):
        if not path:
            yield from (field.alias or name for name, field in found.model_fields.items())
        elif isinstance(path[0], str) and path[0] in found.model_fields:
            below = found.model_fields[path[0]].annotation
            # A name or an index of a collection is no field: the model is what the collection holds.
            is_collection = not (isinstance(below, type) and issubclass(below, BaseModel))
            yield from _keys_at(below, path[2:] if is_collection and len(path) > 1 else path[1:])


def _models_in(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
