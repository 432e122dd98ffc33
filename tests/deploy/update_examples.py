"""What of the chart is made from something else. `python -m tests.deploy.update_examples` writes it.

The parts of helm/README.md that are the chart's own stand between `<!-- made: NAME ARGUMENT -->` and
`<!-- end -->`; the names are those of `MAKERS`. In values.schema.json it is what gateway.yaml may hold.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from ruamel.yaml import YAML

from gateway.settings.gateway import GatewayFile
from tests.deploy.chart import CHART, ROOT, Object, one, pod_of, render, rendered, schema, values_of, workload

README = ROOT / "helm" / "README.md"
SCHEMA = CHART / "values.schema.json"
_PART = re.compile(r"(<!-- made: (\w+) ?(\w*) -->\n).*?(<!-- end -->)", re.DOTALL)
_KEY = re.compile(r"^( *)([A-Za-z]\w*):")
_LONGEST_DEFAULT = 60
_WIDTH = 120


def updated(text: str) -> str:
    """`text` with each part as the chart has it now."""
    return _PART.sub(lambda part: f"{part[1]}{MAKERS[part[2]](part[3])}\n{part[4]}", text)


def values_file(case: str) -> str:
    """The values of a case, as a block."""
    return _block("yaml", (CHART / "ci" / f"{case}-values.yaml").read_text())


def settings_file(case: str) -> str:
    """gateway.yaml as it is rendered for a case."""
    found = rendered(case)
    return _block(
        "yaml", one(found, "ConfigMap", workload(found)["metadata"]["name"])["data"]["gateway.yaml"]
    )


def notes(case: str) -> str:
    """What Helm prints after an installation."""
    return _block("", render(values_of(case))["NOTES.txt"])


def object_list(case: str) -> str:
    """What a case makes, one row for each object."""
    rows = sorted((thing["kind"], thing["metadata"]["name"]) for thing in rendered(case))
    return "\n".join(["| Kind | Name |", "|---|---|", *(f"| {kind} | `{name}` |" for kind, name in rows)])


def grace_period(case: str) -> str:
    """The sum, in seconds."""
    return f"terminationGracePeriodSeconds: {pod_of(rendered(case))['spec']['terminationGracePeriodSeconds']}"


def values_table(_: str) -> str:
    """Every value with its default and the text that stands above it in values.yaml."""
    text = (CHART / "values.yaml").read_text()
    values: Object = YAML(typ="safe", pure=True).load(text)  # in the order of the file, which Helm forgets
    rows = _rows(values, dict(_comments(text)))
    return "\n".join(["| Value | Default | Meaning |", "|---|---|---|", *rows])


def updated_schema() -> str:
    """values.schema.json with gateway.yaml as the gateway has it now: the definitions with a capital."""
    values = schema()
    kept = {name: part for name, part in values["definitions"].items() if name[0].islower()}
    made = GatewayFile.model_json_schema(ref_template="#/definitions/{model}")
    shapes = {name: _shape(part) for name, part in made.pop("$defs").items()}
    values["definitions"] = kept | shapes | {GatewayFile.__name__: _shape(made)}
    return _json(values) + "\n"


MAKERS: dict[str, Callable[[str], str]] = {
    "values_file": values_file,
    "settings_file": settings_file,
    "notes": notes,
    "object_list": object_list,
    "grace_period": grace_period,
    "values_table": values_table,
}


def _shape(part: Any) -> Any:
    """What refuses something, and the texts that editors show. The gateway itself knows the defaults."""
    if isinstance(part, list):
        return [_shape(each) for each in part]
    if not isinstance(part, dict):
        return part
    shape: Object = {}
    for key, value in part.items():
        if key in ("properties", "patternProperties"):
            shape[key] = {name: _shape(each) for name, each in value.items()}
        elif key == "description":
            shape[key] = " ".join(value.split())
        elif key not in ("title", "default"):
            shape[key] = _shape(value)
    if words := shape.get("enum"):
        # Helm reads the words `on` and `off` as true and false, and the chart turns them back.
        del shape["type"]
        shape["enum"] = words + [word == "on" for word in ("on", "off") if word in words]
    return shape


def _json(value: Any, indent: int = 0, before: int = 0, after: int = 0) -> str:
    """On one line where it fits between what stands `before` and `after` it."""
    text = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict | list) or not value or before + len(text) + after <= _WIDTH:
        return text
    pairs: list[tuple[str, Any]] = (
        [(f"{json.dumps(name)}: ", each) for name, each in value.items()]
        if isinstance(value, dict)
        else [("", each) for each in value]
    )
    pad = " " * (indent + 2)
    lines = [
        pad + name + _json(each, indent + 2, len(pad + name), number < len(pairs))
        for number, (name, each) in enumerate(pairs, start=1)
    ]
    opened, closed = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([opened, ",\n".join(lines), " " * indent + closed])


def _block(language: str, text: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"


def _rows(values: Object, comments: dict[str, str], path: str = "") -> Iterator[str]:
    for name, value in values.items():
        here = f"{path}{name}"
        if isinstance(value, dict) and value and here not in comments:
            yield from _rows(value, comments, f"{here}.")
            continue
        default = json.dumps(value)
        shown = f"`{default}`" if len(default) <= _LONGEST_DEFAULT else "see values.yaml"
        yield f"| `{here}` | {shown} | {comments.get(here, '')} |"


def _comments(text: str) -> Iterator[tuple[str, str]]:
    """Paths of keys, and the comment `# --` right above each."""
    path: list[tuple[int, str]] = []
    said: list[str] = []
    for line in text.splitlines():
        words = line.strip()
        if words.startswith("# -- "):
            said = [words.removeprefix("# -- ")]
        elif words.startswith("#") and said:
            said.append(words.removeprefix("#").strip())
        elif key := _KEY.match(line):
            depth = len(key[1])
            path = [*(step for step in path if step[0] < depth), (depth, key[2])]
            if said:
                yield ".".join(name for _, name in path), " ".join(said).replace("|", "\\|")
            said = []
        else:
            said = []


if __name__ == "__main__":
    SCHEMA.write_text(updated_schema())
    README.write_text(updated(README.read_text()))
