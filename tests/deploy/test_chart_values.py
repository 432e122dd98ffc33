"""What the chart refuses before anything is installed, and in which words."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import helm_python as helm
import pytest

from tests.deploy.chart import CHART, Object, read_yaml, render, schema

REDIS: dict[str, Any] = {
    "store": {"kind": "redis", "redis": {"existingSecret": "redis"}},
    "prefixes": {"existingSecret": "prefixes"},
}
SIGN_IN = {"issuer": "https://login.example", "client_id": "gw"}


def settings(**gateway: Any) -> dict[str, Any]:
    return {"config": {"gateway": gateway}}


MISSHAPEN: list[tuple[dict[str, Any], str, str]] = [
    ({"replicas": 0}, "/replicas", "minimum"),
    ({"replicas": "two"}, "/replicas", "want integer"),
    ({"replica": 2}, "''", "'replica' not allowed"),
    ({"image": {"digest": "latest"}}, "/image/digest", "pattern"),
    ({"image": {"pullPolicy": "Sometimes"}}, "/image/pullPolicy", "IfNotPresent"),
    ({"store": {"kind": "memory"}}, "/store/kind", "'sqlite', 'redis'"),
    ({"store": {"url": "redis://h"}}, "/store", "'url' not allowed"),
    ({"store": {"redis": {"existingSecret": "redis://:pw@host"}}}, "/store/redis/existingSecret", "pattern"),
    ({"ledger": {"kind": "mysql"}}, "/ledger/kind", "'postgres'"),
    ({"workload": {"kind": "DaemonSet"}}, "/workload/kind", "'StatefulSet', 'Deployment'"),
    ({"upstreams": {"default": None}}, "/upstreams", "minProperties"),
    ({"upstreams": {"Products": {"credential": {"file": "/f"}}}}, "'Products'", "pattern"),
    ({"upstreams": {"products": {}}}, "/upstreams/products", "'credential'"),
    ({"config": {"limits": {"defaults": []}}}, "/config/limits", "want string"),
    ({"config": {"workspaces": ""}}, "/config/workspaces", "minLength"),
    ({"config": {"files": {"limits.yaml": ""}}}, "'limits.yaml'", "propertyName"),
    ({"persistence": {"accessModes": ["ReadWriteMany"]}}, "/persistence/accessModes/0", "ReadWriteOnce"),
    ({"service": {"port": 70000}}, "/service/port", "maximum"),
    ({"resources": None, "podLabels": {"a": 1}}, "/podLabels/a", "want string"),
    ({"podDisruptionBudget": {"maxUnavailable": 0}}, "/podDisruptionBudget/maxUnavailable", "minimum"),
    ({"networkPolicy": {"admin": {"from": []}}}, "/networkPolicy/admin/from", "minItems"),
    ({"upstreamIdentity": {"expirationSeconds": 60}}, "/upstreamIdentity/expirationSeconds", "minimum"),
    ({"extraEnv": {"A": "b"}}, "/extraEnv", "want array"),
    (settings(placment={"mode": "shadow"}), "/config/gateway", "'placment' not allowed"),
    (settings(placement={"mode": "shdow"}), "/config/gateway/placement/mode", "'shadow'"),
    (settings(responses={"limit_headers": True}), "/config/gateway/responses/limit_headers", "'own'"),
    (settings(store={"lease": "abc"}), "/config/gateway/store/lease", "pattern"),
    (settings(drain={"timeout": 300}), "/config/gateway/drain/timeout", "want string"),
    (settings(drain={"timeout": "5 minutes"}), "/config/gateway/drain/timeout", "pattern"),
    (
        {"upstreams": {"default": {"settings": {"heder": "bearer"}}}},
        "/upstreams/default/settings",
        "'heder' not allowed",
    ),
]

TOGETHER: list[tuple[dict[str, Any], str]] = [
    ({"image": {"repository": ""}}, "image.repository is empty: push the image"),
    (settings(page={"public_url": "https://gw.example"}), "page.public_url needs admin.token.existingSecret"),
    (settings(page={"sign_in": SIGN_IN}), "page.sign_in needs admin.token.existingSecret"),
    (
        {"serviceMonitor": {"enabled": True}, "admin": {"token": {"existingSecret": "a"}}},
        "admin.metricsToken.existingSecret",
    ),
    (settings(listen={"metrics_token": {"env": "T"}}), "set admin.metricsToken instead"),
    ({"replicas": 2}, "More than one replica needs store.kind: redis"),
    ({"autoscaling": {"enabled": True}}, "More than one replica needs store.kind: redis"),
    ({"store": {"kind": "redis"}}, "store.redis.existingSecret"),
    ({"store": REDIS["store"]}, "prefixes.existingSecret"),
    ({"ledger": {"kind": "postgres"}}, "ledger.postgres.existingSecret"),
    ({"ledger": {"kind": "postgres", "postgres": {"existingSecret": "b"}}}, "ledger.migrate.existingSecret"),
    ({**REDIS, "workload": {"kind": "Deployment"}}, "loses the state directory with each pod"),
    ({"upstreams": {"default": {"credential": {"file": "/f"}}}}, "exactly one of existingSecret"),
    (
        {"upstreams": {"b": {"credential": {"federation": {"rule": "fdrl_1"}}}}},
        "needs upstreamIdentity.enabled",
    ),
    (
        {"upstreams": {"default": {"settings": {"credential": {"env": "A"}}}}},
        "write it below upstreams.default.credential",
    ),
    ({"upstreamIdentity": {"enabled": True}}, "needs upstreamIdentity.audience"),
    (settings(store={"kind": "redis"}), "config.gateway.store.kind is written by the chart: set store.kind"),
    (settings(listen={"data": "0.0.0.0:80"}), "config.gateway.listen.data is written by the chart"),
    (settings(upstreams={"a": {}}), "config.gateway.upstreams is written by the chart: set upstreams"),
    (settings(prefixes={"secret": {"env": "A"}}), "config.gateway.prefixes.secret is written by the chart"),
    (
        {"extraEnv": [{"name": "GATEWAY_DRAIN__TIMEOUT", "value": "1h"}]},
        "is a setting; write it in config.gateway",
    ),
    (
        {"extraEnv": [{"name": "ANTHROPIC_API_KEY", "value": "sk-ant-test"}]},
        "A credential stands in the values",
    ),
    ({"config": {"workspaces": "# cgw_" + "A" * 8 + "_" + "b" * 38}}, "A credential stands in the values"),
    (
        {**REDIS, "autoscaling": {"enabled": True, "targetCPUUtilizationPercentage": 0}},
        "needs targetCPUUtilizationPercentage or targetOpenStreams",
    ),
    (
        {**REDIS, "autoscaling": {"enabled": True, "minReplicas": 9}},
        "autoscaling.maxReplicas is less than autoscaling.minReplicas",
    ),
    ({"ingress": {"enabled": True}}, "ingress.enabled needs ingress.hosts"),
    ({"httpRoute": {"enabled": True}}, "httpRoute.enabled needs httpRoute.parentRefs"),
    ({"externalSecrets": {"enabled": True}}, "externalSecrets.secretStoreRef.name"),
]


@pytest.mark.parametrize(("values", "place", "reason"), MISSHAPEN)
def test_values_of_the_wrong_shape_are_refused_with_place_and_reason(
    values: dict[str, Any], place: str, reason: str
) -> None:
    with pytest.raises(helm.HelmError) as refused:
        render(values)

    text = str(refused.value)
    assert place in text
    assert reason.lower() in text.lower()


@pytest.mark.parametrize(("values", "sentence"), TOGETHER)
def test_values_that_contradict_each_other_are_refused_in_a_sentence(
    values: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(helm.HelmError, match=re.escape(sentence)):
        render(values)


def test_the_schema_knows_every_value_and_no_other() -> None:
    values = read_yaml((CHART / "values.yaml").read_text())
    optional = {
        "global",
        *(f"probes.{name}.initialDelaySeconds" for name in ("startup", "liveness", "readiness")),
    }

    assert set(places_of_schema(schema())) - optional == set(places_of_values(values, schema()))


def places_of_schema(part: Object, path: str = "") -> Iterator[str]:
    for name, below in part.get("properties", {}).items():
        yield f"{path}{name}"
        yield from places_of_schema(below, f"{path}{name}.")


def places_of_values(values: Object, part: Object, path: str = "") -> Iterator[str]:
    """Only so far down as the schema names keys: labels and upstreams have names of their own."""
    for name, value in values.items():
        yield f"{path}{name}"
        below = part["properties"].get(name, {})
        if isinstance(value, dict) and "properties" in below:
            yield from places_of_values(value, below, f"{path}{name}.")


def test_every_value_is_used() -> None:
    templates = "".join(path.read_text() for path in (CHART / "templates").rglob("*") if path.is_file())
    values = read_yaml((CHART / "values.yaml").read_text())

    unused = [name for name in values if f".Values.{name}" not in templates]
    assert unused == []
