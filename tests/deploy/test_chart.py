"""The chart as Kubernetes gets it: every object is valid, and what has to fit together does."""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import helm_python as helm
import kubernetes_validate  # type: ignore[import-untyped]
import kubernetes_validate.utils  # type: ignore[import-untyped]
import pytest

import gateway
from gateway.adapters.prometheus import Metrics
from gateway.web.health import PROBE_PATHS
from tests.deploy.chart import (
    CHART,
    FULL_NAME,
    IMAGE,
    NAMESPACE,
    RELEASE,
    ROOT,
    container_of,
    objects,
    one,
    pod_of,
    pods_in,
    read_yaml,
    render,
    rendered,
    values_of,
    workload,
)

CI = sorted(path.name.removesuffix("-values.yaml") for path in (CHART / "ci").glob("*-values.yaml"))
CASES = ["defaults", *CI]
MINORS = ["1.30", "1.31", "1.33", "1.35", "1.37"]
CUSTOM = {"ExternalSecret", "HTTPRoute", "ServiceMonitor", "PrometheusRule"}
"""Kinds that a cluster knows from others; they are looked at by hand below."""

REDIS = {
    "store": {"kind": "redis", "redis": {"existingSecret": "redis"}},
    "prefixes": {"existingSecret": "prefixes"},
}
POSTGRES = {
    "ledger": {
        "kind": "postgres",
        "postgres": {"existingSecret": "books"},
        "key": {"existingSecret": "books-key"},
        "migrate": {"existingSecret": "books-owner"},
    }
}
SWITCHES: dict[str, tuple[dict[str, Any], set[str]]] = {
    "autoscaling": ({**REDIS, "autoscaling": {"enabled": True}}, {"HorizontalPodAutoscaler"}),
    "dashboards": ({"dashboards": {"enabled": True}}, set()),
    "deployment": (
        {**REDIS, **POSTGRES, "workload": {"kind": "Deployment"}},
        {"Deployment", "Job"},
    ),
    "external secrets": (
        {
            "externalSecrets": {
                "enabled": True,
                "secretStoreRef": {"name": "vault"},
                "secrets": {"claude-credential": {"api-key": {"key": "prod/claude"}}},
            }
        },
        {"ExternalSecret"},
    ),
    "http route": ({"httpRoute": {"enabled": True, "parentRefs": [{"name": "public"}]}}, {"HTTPRoute"}),
    "ingress": ({"ingress": {"enabled": True, "hosts": [{"host": "a.example"}]}}, {"Ingress"}),
    "network policy": ({"networkPolicy": {"enabled": True}}, {"NetworkPolicy"}),
    "no budget of disruptions": ({"podDisruptionBudget": {"enabled": False}}, set()),
    "no service account": ({"serviceAccount": {"create": False}}, set()),
    "no volume": ({"persistence": {"enabled": False}}, set()),
    "no preStop": ({"preStopSeconds": 0}, set()),
    "postgres": (POSTGRES, {"Job"}),
    "redis": (REDIS, set()),
    "rules": ({"prometheusRule": {"enabled": True}}, {"PrometheusRule"}),
    "service monitor": ({"serviceMonitor": {"enabled": True}}, {"ServiceMonitor"}),
    "upstream identity": ({"upstreamIdentity": {"enabled": True, "audience": "claude"}}, set()),
}
ALWAYS = {"ConfigMap", "Pod", "PodDisruptionBudget", "Service", "ServiceAccount", "StatefulSet"}


@pytest.fixture(scope="module", autouse=True)
def schemas_are_read_once() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        once = functools.cache(kubernetes_validate.utils.schema_contents)
        patch.setattr(kubernetes_validate.utils, "schema_contents", once)
        yield


@pytest.mark.parametrize("minor", MINORS)
@pytest.mark.parametrize("case", CASES)
def test_every_object_is_valid_in_every_supported_kubernetes(case: str, minor: str) -> None:
    for thing in rendered(case):
        if thing["kind"] not in CUSTOM:
            kubernetes_validate.validate(thing, minor, strict=True)


@pytest.mark.parametrize("switch", SWITCHES)
def test_each_switch_alone_adds_its_objects_and_leaves_them_valid(switch: str) -> None:
    values, added = SWITCHES[switch]
    found = objects(values)

    kinds = {thing["kind"] for thing in found}
    assert added - ALWAYS <= kinds
    assert kinds - ALWAYS <= added
    for thing in found:
        assert thing["metadata"]["namespace"] == NAMESPACE
        if thing["kind"] not in CUSTOM:
            kubernetes_validate.validate(thing, MINORS[0], strict=True)


@pytest.mark.parametrize("case", CASES)
def test_lint_has_nothing_to_say_but_that_there_is_no_icon(case: str) -> None:
    report = helm.lint(CHART, values_of(case), strict=True)

    assert report["errors"] == []
    assert [message["error"] for message in report["messages"]] == ["icon is recommended"]


def test_chart_and_gateway_have_one_version() -> None:
    chart = read_yaml((CHART / "Chart.yaml").read_text())

    assert chart["appVersion"] == gateway.__version__
    assert chart["kubeVersion"] == f">={MINORS[0]}.0-0"


@pytest.mark.parametrize("case", CASES)
def test_no_two_objects_have_one_name(case: str) -> None:
    names = [(thing["kind"], thing["metadata"]["name"]) for thing in rendered(case)]

    assert len(set(names)) == len(names)


@pytest.mark.parametrize("case", CASES)
def test_selectors_match_the_pod_and_never_change_with_a_version(case: str) -> None:
    found = rendered(case)
    labels = pod_of(found)["metadata"]["labels"]
    release = ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/component"]

    selectors = [workload(found)["spec"]["selector"]["matchLabels"]]
    selectors += [thing["spec"]["selector"] for thing in found if thing["kind"] == "Service"]
    selectors += [
        thing["spec"]["selector"]["matchLabels"] for thing in found if thing["kind"] == "PodDisruptionBudget"
    ]
    spread = pod_of(found)["spec"]["topologySpreadConstraints"]
    selectors += [constraint["labelSelector"]["matchLabels"] for constraint in spread]
    for selector in selectors:
        assert sorted(selector) == sorted(release)
        assert selector.items() <= labels.items()
    for template in workload(found)["spec"].get("volumeClaimTemplates", []):
        assert template["metadata"]["labels"] == selectors[0]


@pytest.mark.parametrize("case", CASES)
def test_pods_of_hooks_and_tests_get_no_calls_of_apps(case: str) -> None:
    found = rendered(case)
    for thing in found:
        labels = thing["metadata"]["labels"] if thing["kind"] == "Pod" else None
        if thing["kind"] == "Job":
            labels = thing["spec"]["template"]["metadata"]["labels"]
        if labels:
            assert labels["app.kubernetes.io/component"] in ("test", "migrate")


@pytest.mark.parametrize("case", CASES)
def test_every_pod_keeps_to_the_restricted_security_standard(case: str) -> None:
    for pod in pods_in(rendered(case)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
        assert not pod.keys() & {"hostNetwork", "hostPID", "hostIPC"}
        assert {key for volume in pod.get("volumes", []) for key in volume} <= {
            *("name", "configMap", "emptyDir", "projected")
        }
        own = [each for each in pod["containers"] if each["name"] in ("gateway", "migrate", "test")]
        assert len(own) == 1
        context = own[0]["securityContext"]
        assert context["allowPrivilegeEscalation"] is False
        assert context["readOnlyRootFilesystem"] is True
        assert context["capabilities"] == {"drop": ["ALL"]}
        assert "memory" in own[0]["resources"]["limits"]
        assert "cpu" not in own[0]["resources"]["limits"]


def test_probes_ask_what_the_admin_plane_serves() -> None:
    container = container_of(rendered("defaults"))

    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    environ = {entry["name"]: entry["value"] for entry in container["env"]}
    assert environ["GATEWAY_LISTEN__DATA"] == f"0.0.0.0:{ports['data']}"
    assert environ["GATEWAY_LISTEN__ADMIN"] == f"0.0.0.0:{ports['admin']}"
    asked = {name: container[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert {probe["port"] for probe in asked.values()} == {"admin"}
    assert {probe["path"] for probe in asked.values()} <= PROBE_PATHS
    assert asked["readiness"]["path"] == "/readyz"


def test_services_lead_to_ports_that_the_pod_has_and_apps_never_to_the_admin_plane() -> None:
    found = rendered("defaults")
    data, admin = one(found, "Service"), one(found, "Service", f"{FULL_NAME}-admin")

    assert [port["targetPort"] for port in data["spec"]["ports"]] == ["data"]
    assert [port["targetPort"] for port in admin["spec"]["ports"]] == ["admin"]
    assert admin["spec"]["clusterIP"] == "None"
    assert workload(found)["spec"]["serviceName"] == admin["metadata"]["name"]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ({}, 10 + 5 + 300 + 30),
        ({"config": {"gateway": {"drain": {"timeout": "10m"}}}}, 10 + 5 + 600 + 30),
        ({"config": {"gateway": {"drain": {"announce": "1200ms", "timeout": "1.5h"}}}}, 10 + 2 + 5400 + 30),
        ({"config": {"gateway": {"drain": None}}}, 10 + 5 + 300 + 30),
        ({"preStopSeconds": 0, "graceSeconds": 60}, 5 + 300 + 60),
    ],
)
def test_a_pod_has_the_time_that_its_drain_may_take(values: dict[str, Any], seconds: int) -> None:
    assert pod_of(objects(values))["spec"]["terminationGracePeriodSeconds"] == seconds


def test_an_autoscaler_decides_alone_how_many_replicas_there_are() -> None:
    exported = {spec.name for spec in Metrics(canonical=lambda model: model, version="1").specs}

    assert workload(rendered("defaults"))["spec"]["replicas"] == 1
    for case in ("everything", "stateless"):
        found = rendered(case)
        (scaler,) = [thing for thing in found if thing["kind"] == "HorizontalPodAutoscaler"]
        target = workload(found)
        assert "replicas" not in target["spec"]
        assert scaler["spec"]["scaleTargetRef"]["kind"] == target["kind"]
        assert scaler["spec"]["scaleTargetRef"]["name"] == target["metadata"]["name"]
        metrics = {metric["type"]: metric for metric in scaler["spec"]["metrics"]}
        assert metrics["Pods"]["pods"]["metric"]["name"] in exported


def test_a_digest_beats_the_tag_and_the_version_stands_in_for_both() -> None:
    digest = "sha256:" + "0" * 64
    images = [
        container_of(objects({"image": image}))["image"]
        for image in ({}, {"tag": "2"}, {"tag": "2", "digest": digest})
    ]

    name = IMAGE
    assert images == [f"{name}:{gateway.__version__}", f"{name}:2", f"{name}@{digest}"]


def test_a_deployment_replaces_pods_without_a_gap_and_a_statefulset_keeps_their_volumes() -> None:
    deployment = workload(rendered("stateless"))["spec"]
    assert deployment["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}

    spec = workload(rendered("replicas"))["spec"]
    assert [template["metadata"]["name"] for template in spec["volumeClaimTemplates"]] == ["state"]
    assert spec["persistentVolumeClaimRetentionPolicy"] == {"whenDeleted": "Retain", "whenScaled": "Retain"}
    assert "state" not in {volume["name"] for volume in pod_of(rendered("replicas"))["spec"]["volumes"]}


@pytest.mark.parametrize("case", CASES)
def test_every_mount_has_its_volume_and_the_configuration_is_no_sub_path(case: str) -> None:
    found = rendered(case)
    spec = workload(found)["spec"]
    volumes = {volume["name"] for volume in pod_of(found)["spec"]["volumes"]}
    volumes |= {template["metadata"]["name"] for template in spec.get("volumeClaimTemplates", [])}

    mounts = container_of(found)["volumeMounts"]
    assert {mount["name"] for mount in mounts} <= volumes
    assert not [mount for mount in mounts if "subPath" in mount]
    assert [mount["mountPath"] for mount in mounts if not mount.get("readOnly")] == ["/data", "/tmp"]


def test_names_that_look_like_numbers_stay_names() -> None:
    secret = {"existingSecret": "123", "key": "0456"}
    found = objects(
        {
            "upstreams": {"default": {"credential": secret}},
            "store": {"kind": "redis", "redis": secret},
            "prefixes": secret,
            "ledger": {"kind": "postgres", "postgres": secret, "key": secret, "migrate": secret},
            "admin": {"token": secret},
            "serviceAccount": {"name": "123"},
            "persistence": {"storageClass": "1"},
            "priorityClassName": "2",
            "secretFiles": {"more": secret},
        }
    )

    for thing in found:
        kubernetes_validate.validate(thing, MINORS[0], strict=True)


def test_templates_ask_no_cluster_anything() -> None:
    for path in (CHART / "templates").rglob("*"):
        if path.is_file():
            assert not re.search(r"\blookup\b|Capabilities", path.read_text()), path


def test_the_notes_say_how_to_call_it_and_how_to_make_a_key() -> None:
    notes = render()["NOTES.txt"]

    assert f"ANTHROPIC_BASE_URL=http://{FULL_NAME}.{NAMESPACE}.svc\n" in notes
    assert f"exec statefulset/{FULL_NAME} -- gateway keys create --workspace demo" in notes
    assert (
        "ANTHROPIC_BASE_URL=https://claude.internal.example\n" in render(values_of("replicas"))["NOTES.txt"]
    )


def test_the_image_sets_nothing_that_the_chart_leaves_to_it() -> None:
    image = set(re.findall(r"\bGATEWAY_\w+__\w+(?==)", (ROOT / "Dockerfile").read_text()))

    assert image <= {entry["name"] for entry in container_of(rendered("defaults"))["env"]}


def test_the_package_holds_all_that_is_needed_and_renders_the_same(tmp_path: Path) -> None:
    archive = helm.package(CHART, destination=tmp_path)

    with helm.Chart.load(archive) as chart:
        files = {file["name"] for file in chart.files}
        packaged = chart.render(values_of("everything"), name=RELEASE, namespace=NAMESPACE)
    assert not [name for name in files if name.startswith("ci/")]
    plain = {name.partition("/templates/")[2]: text for name, text in packaged.items() if text.strip()}
    assert plain == render(values_of("everything"))
