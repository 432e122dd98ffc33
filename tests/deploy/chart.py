"""The chart, rendered by Helm's own engine: what tests and the examples of helm/README.md are made from."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import helm_python as helm

ROOT = Path(__file__).parents[2]
CHART = ROOT / "helm" / "claude-cache-gateway"
IMAGE = "registry.example/claude-cache-gateway"
"""Where values name none: there is no default."""
RELEASE, NAMESPACE = "demo", "claude"
FULL_NAME = f"{RELEASE}-claude-cache-gateway"

Object = dict[str, Any]
Values = Mapping[str, Any]


def values_of(name: str) -> Object:
    """The values of `ci/NAME-values.yaml`; none for `defaults`."""
    return {} if name == "defaults" else read_yaml((CHART / "ci" / f"{name}-values.yaml").read_text())


def read_yaml(text: str) -> Object:
    """As Kubernetes and Helm read it: `on` and `off` are true and false."""
    return helm.values_from_yaml(text)


def render(values: Values | None = None) -> dict[str, str]:
    """Text by the name of its template; raises `helm.HelmError` with what the chart has to say."""
    prefix = f"{CHART.name}/templates/"
    given = dict(values or {})
    given["image"] = {"repository": IMAGE, **given.get("image", {})}
    rendered = _chart().render(given, name=RELEASE, namespace=NAMESPACE)
    return {name.removeprefix(prefix): text for name, text in rendered.items() if text.strip()}


@functools.cache
def rendered(name: str) -> tuple[Object, ...]:
    """The objects of `values_of(name)`; shared, so leave them as they are."""
    return objects(values_of(name))


def objects(values: Values | None = None) -> tuple[Object, ...]:
    """All that is made, notes aside."""
    return tuple(
        found
        for name, text in render(values).items()
        if not name.endswith(".txt")
        for found in _documents(text)
    )


def one(found: tuple[Object, ...], kind: str, name: str = FULL_NAME) -> Object:
    """The only object of that kind and name."""
    (only,) = [thing for thing in found if (thing["kind"], thing["metadata"]["name"]) == (kind, name)]
    return only


def workload(found: tuple[Object, ...]) -> Object:
    """The StatefulSet or Deployment."""
    (only,) = [thing for thing in found if thing["kind"] in ("StatefulSet", "Deployment")]
    return only


def pod_of(found: tuple[Object, ...]) -> Object:
    """Its pod."""
    pod: Object = workload(found)["spec"]["template"]
    return pod


def container_of(found: tuple[Object, ...]) -> Object:
    """The gateway's own container in it."""
    (only,) = [each for each in pod_of(found)["spec"]["containers"] if each["name"] == "gateway"]
    gateway: Object = only
    return gateway


def pods_in(found: tuple[Object, ...]) -> Iterator[Object]:
    """The specs of all pods: of the workload, of hooks and of the test."""
    for thing in found:
        if thing["kind"] == "Pod":
            yield thing["spec"]
        elif "template" in thing.get("spec", {}):
            yield thing["spec"]["template"]["spec"]


def schema() -> Object:
    """values.schema.json."""
    read: Object = json.loads((CHART / "values.schema.json").read_text())
    return read


@functools.cache
def _chart() -> helm.chart.Chart:
    return helm.chart.Chart.load(CHART)


def _documents(text: str) -> Iterator[Object]:
    for document in f"\n{text}".split("\n---\n"):
        read = read_yaml(document) if document.strip() else None
        if read:
            yield read
