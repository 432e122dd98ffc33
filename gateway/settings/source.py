"""Files and variables, read to plain values with their positions. Knows YAML; knows no setting.

YAML 1.2 by ruamel.yaml, made stricter: a key twice, an anchor and a tag are errors, and so is anything that
looks like a credential, be it in a comment.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.composer import Composer, ComposerError
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from gateway.core.errors import ConfigProblem

FILE_NAMES = ("gateway.yaml", "limits.yaml", "prices.yaml", "workspaces.yaml")
LARGEST_FILE_BYTES = 1 << 20
DEEPEST_NESTING = 32
MOST_VALUES = 100_000
ENVIRONMENT = "environment"
"""Stands where the name of a file would."""
VARIABLE_PREFIX = "GATEWAY_"

Value = None | bool | int | float | str | list["Value"] | dict[str, "Value"]
KeyPath = tuple[str | int, ...]

_SECRET = re.compile(r"sk-ant-[\w-]*|cgw_[0-9A-Za-z]{8}_\w*")
_PLAIN_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("null", "bool", "int", "float"))
_MAPPING_TAG, _SEQUENCE_TAG = "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq"
_TEXT_TAGS = frozenset(f"tag:yaml.org,2002:{name}" for name in ("str", "timestamp", "merge", "value"))


@dataclass(slots=True)
class Document:
    """One source of settings: its value, where each part of it stands, and what is wrong with it."""

    file: str
    """As people know it: a path, or `environment`."""
    value: Value = None
    positions: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    """Line and column of each value, from 1."""
    key_positions: dict[KeyPath, tuple[int, int]] = field(default_factory=dict)
    variables: dict[KeyPath, str] = field(default_factory=dict)
    """The environment variables that settings come from, by the path that their names spell."""
    problems: list[ConfigProblem] = field(default_factory=list)

    def problem(self, path: KeyPath, message: str, *, at_key: bool = False) -> ConfigProblem:
        """A problem at `path`, or at the nearest place above it that was written down."""
        place = self.key_positions.get(path) if at_key else None
        known = path
        while place is None:
            place = self.positions.get(known)
            if place is None and not known:
                place = (0, 0)
            known = known[:-1]
        return ConfigProblem(
            file=self.file,
            line=place[0],
            column=place[1],
            key=redacted(self._shown(path)),
            message=redacted(message),
        )

    def holds(self, path: KeyPath) -> bool:
        """Whether there is anything at `path`, be it null."""
        value = self.value
        for part in path:
            known = range(len(value)) if isinstance(value, list) else value
            if not isinstance(known, (dict, range)) or part not in known:
                return False
            value = value[part]  # type: ignore[index]
        return True

    def _shown(self, path: KeyPath) -> str:
        """As people wrote it: a path in a file, or the name of a variable and a path in its value."""
        for length in range(len(path), 0, -1):
            if name := self.variables.get(path[:length]):
                return show_path((name, *path[length:]))
        below = (name for known, name in self.variables.items() if known[: len(path)] == path)
        return next(below, show_path(path))


def read_directory(directory: Path) -> dict[str, bytes]:
    """The bytes of the files that are there, by name. Raises `OSError`.

    Kubernetes swaps a mounted ConfigMap as a whole, by a symlink `..data`; it is followed once, so that one
    reading never mixes two versions.
    """
    swapped = directory / "..data"
    base = swapped.resolve() if swapped.is_symlink() else directory
    contents = {}
    for name in FILE_NAMES:
        path = base / name if (base / name).exists() else directory / name
        if path.exists():
            contents[name] = path.read_bytes()
    return contents


def content_digest(contents: Mapping[str, bytes]) -> str:
    """Names a version of the configuration; equal contents, equal digest."""
    digest = hashlib.sha256()
    for name, content in sorted(contents.items()):
        digest.update(f"{name}:{len(content)}:".encode() + content)
    return digest.hexdigest()


def read_yaml(file: str, content: bytes) -> Document:
    """Never raises: what cannot be read is a problem of the document."""
    document = Document(file)
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        document.problems.append(ConfigProblem(file=file, line=1, column=1, message="not UTF-8 text"))
        return document
    if len(content) > LARGEST_FILE_BYTES:
        document.problems.append(ConfigProblem(file=file, message="larger than 1 MiB"))
        return document
    document.problems.extend(_find_secrets(file, text))
    yaml = YAML(typ="safe", pure=True)
    yaml.Composer = _BoundedComposer
    try:
        node = yaml.compose(text)
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        document.problems.append(
            ConfigProblem(
                file=file,
                line=mark.line + 1 if mark else 0,
                column=mark.column + 1 if mark else 0,
                message=redacted(f"not YAML: {error.problem or error.context}"),
            )
        )
        return document
    except (YAMLError, ValueError) as error:
        message = redacted(f"not YAML: {' '.join(str(error).split())}")
        document.problems.append(ConfigProblem(file=file, message=message))
        return document
    if node is None:
        document.value = {}
    else:
        document.value = _Walk(document, yaml).value(node, ())
    return document


def read_environment(environ: Mapping[str, str], prefix: str = VARIABLE_PREFIX) -> Document:
    """`GATEWAY_STORE__KIND=redis` as `{"store": {"kind": "redis"}}`. Only names with two underscores in a row
    are settings; values are read as YAML where they are a list or a mapping."""
    document = Document(ENVIRONMENT, {})
    root = document.value
    assert isinstance(root, dict)
    for name, text in sorted(environ.items()):
        if not name.startswith(prefix) or "__" not in name:
            continue
        path = tuple(name.removeprefix(prefix).lower().split("__"))
        document.variables[path] = name
        if _SECRET.search(text):
            message = "holds a credential itself; name where the credential is found instead"
            document.problems.append(document.problem(path, message))
            continue
        target: dict[str, Value] = root
        for part in path[:-1]:
            below = target.setdefault(part, {})
            if not isinstance(below, dict):
                document.problems.append(
                    document.problem(path, "sets a part of what another variable sets whole")
                )
                break
            target = below
        else:
            target[path[-1]] = _variable_value(text)
    return document


def overlay(below: Value, above: Value) -> Value:
    """`above` over `below`: mappings are merged, everything else is replaced, a secret's reference too: a
    variable that names a file takes the place of one that named a variable."""
    if not isinstance(above, dict) or (above and above.keys() <= {"env", "file"}):
        return above
    if not isinstance(below, dict):
        return above  # also over a value that has no parts: the model says that it wants one
    merged = dict(below)
    for key, value in above.items():
        merged[key] = overlay(merged.get(key), value)
    return merged


def show_path(path: KeyPath) -> str:
    """`upstreams.default.base_url`, `defaults[2].amount`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def redacted(text: str) -> str:
    """`text` without anything that looks like a credential."""
    return _SECRET.sub("(credential)", text)


class _BoundedComposer(Composer):
    """Stops where a text nests deeper, or holds more, than any configuration does: before the interpreter
    would, and in seconds. A warning of the parser's own would quote the text."""

    _depth = _nodes = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.parser.peek_event()
        self._nodes += 1
        if self._depth > DEEPEST_NESTING:
            raise ComposerError(problem="nested too deeply", problem_mark=event.start_mark)
        if self._nodes > MOST_VALUES:
            raise ComposerError(problem="holds too many values", problem_mark=event.start_mark)
        if event.anchor in self.anchors and not isinstance(event, AliasEvent):
            raise ComposerError(problem="names two anchors alike", problem_mark=event.start_mark)
        self._depth += 1
        try:
            return super().compose_node(parent, index)
        finally:
            self._depth -= 1


class _Walk:
    """From nodes to values, once."""

    def __init__(self, document: Document, yaml: YAML) -> None:
        self._document = document
        self._construct = yaml.constructor.construct_object
        self._open: set[int] = set()

    def value(self, node: Node, path: KeyPath) -> Value:
        mark = node.start_mark
        self._document.positions[path] = (mark.line + 1, mark.column + 1)
        if node.anchor is not None or id(node) in self._open or len(path) > DEEPEST_NESTING:
            self._wrong(path, "anchors, aliases and deep nesting are not understood here; write it out")
            return None
        tag = str(node.tag)
        if isinstance(node, MappingNode) and tag == _MAPPING_TAG:
            return self._mapping(node, path)
        if isinstance(node, SequenceNode) and tag == _SEQUENCE_TAG:
            return [self.value(item, (*path, index)) for index, item in enumerate(node.value)]
        if isinstance(node, ScalarNode) and tag in _TEXT_TAGS:
            return str(node.value)
        if isinstance(node, ScalarNode) and tag in _PLAIN_TAGS:
            scalar: Value = self._construct(node)
            return scalar
        self._wrong(path, "tags are not understood here; write the value without one")
        return None

    def _mapping(self, node: MappingNode, path: KeyPath) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            here = (*path, key)
            mark = key_node.start_mark
            if not isinstance(key_node, ScalarNode):
                self._wrong(path, "a key must be plain text")
                continue
            if key in values:
                first = self._document.key_positions[here][0]
                self._document.problems.append(
                    ConfigProblem(
                        file=self._document.file,
                        line=mark.line + 1,
                        column=mark.column + 1,
                        key=redacted(show_path(here)),
                        message=f"written twice, first in line {first}",
                    )
                )
                continue
            self._document.key_positions[here] = (mark.line + 1, mark.column + 1)
            values[key] = self.value(value_node, here)
        return values

    def _wrong(self, path: KeyPath, message: str) -> None:
        self._document.problems.append(self._document.problem(path, message))


def _find_secrets(file: str, text: str) -> list[ConfigProblem]:
    message = "this looks like a credential; name where it is found instead, as `env: NAME` or `file: PATH`"
    return [
        ConfigProblem(file=file, line=number, column=match.start() + 1, message=message)
        for number, line in enumerate(text.splitlines(), start=1)
        for match in _SECRET.finditer(line)
    ]


def _variable_value(text: str) -> Value:
    if text[:1] not in ("[", "{"):
        return None if text in ("", "null") else text
    document = read_yaml(ENVIRONMENT, text.encode())
    return text if document.problems else document.value
