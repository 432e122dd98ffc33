"""The parts of helm/README.md that are the chart's own. `python -m tests.deploy.update_examples` writes them.

A part stands between `<!-- made: NAME ARGUMENT -->` and `<!-- end -->`; the names are those of `MAKERS`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from ruamel.yaml import YAML

from tests.deploy.chart import CHART, ROOT, Object, one, pod_of, render, rendered, values_of, workload

README = ROOT / "helm" / "README.md"
_PART = re.compile(r"(<!-- made: (\w+) ?(\w*) -->\n).*?(<!-- end -->)", re.DOTALL)
_KEY = re.compile(r"^( *)([A-Za-z]\w*):")
_LONGEST_DEFAULT = 60


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


MAKERS: dict[str, Callable[[str], str]] = {
    "values_file": values_file,
    "settings_file": settings_file,
    "notes": notes,
    "object_list": object_list,
    "grace_period": grace_period,
    "values_table": values_table,
}


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
    README.write_text(updated(README.read_text()))
