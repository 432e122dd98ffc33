"""What stands around the pods: whom they may reach, how calls get to them, and what watches them."""

from __future__ import annotations

from tests.deploy.chart import CHART, FULL_NAME, objects, one, pod_of, read_yaml, rendered


def test_the_monitor_finds_the_admin_service_and_brings_the_token() -> None:
    found = rendered("replicas")
    monitor = one(found, "ServiceMonitor")
    labels = one(found, "Service", f"{FULL_NAME}-admin")["metadata"]["labels"]

    assert monitor["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert not (
        monitor["spec"]["selector"]["matchLabels"].items()
        <= one(found, "Service")["metadata"]["labels"].items()
    )
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], endpoint["path"]) == ("admin", "/metrics")
    assert endpoint["authorization"]["credentials"] == {"name": "gateway-metrics", "key": "token"}
    assert monitor["metadata"]["labels"]["release"] == "kube-prometheus-stack"


def test_rules_are_those_of_the_rules_file_with_links_to_the_runbook() -> None:
    text = (CHART / "files/prometheus-rules.yaml").read_text()

    plain = one(objects({"prometheusRule": {"enabled": True}}), "PrometheusRule")
    assert plain["spec"] == read_yaml(text)
    url = "https://runbooks.example/gateway"
    linked = one(objects({"prometheusRule": {"enabled": True, "runbookUrl": url}}), "PrometheusRule")
    assert linked["spec"] == read_yaml(text.replace("deploy/RUNBOOK.md#", f"{url}#"))
    assert url in str(linked["spec"])


def test_dashboards_are_the_files_themselves() -> None:
    files = {path.name: path.read_text() for path in (CHART / "files/dashboards").glob("*.json")}
    found = [
        thing
        for thing in objects({"dashboards": {"enabled": True}})
        if thing["metadata"]["labels"].get("grafana_dashboard") == "1"
    ]

    made = {name: text for thing in found for name, text in thing["data"].items()}
    assert {name: text.rstrip() for name, text in made.items()} == {
        name: text.rstrip() for name, text in files.items()
    }
    assert files
    assert {thing["metadata"]["annotations"]["grafana_folder"] for thing in found} == {"Claude gateway"}


def test_a_route_bounds_no_stream_and_an_ingress_buffers_none() -> None:
    (route,) = [thing for thing in rendered("everything") if thing["kind"] == "HTTPRoute"]
    (ingress,) = [thing for thing in rendered("everything") if thing["kind"] == "Ingress"]

    (rule,) = route["spec"]["rules"]
    assert rule["timeouts"] == {"request": "0s", "backendRequest": "0s"}
    assert rule["backendRefs"] == [{"name": "demo-cgw", "port": 8080}]
    annotations = ingress["metadata"]["annotations"]
    assert annotations["nginx.ingress.kubernetes.io/proxy-buffering"] == "off"


def test_an_external_secret_makes_the_keys_that_pods_mount() -> None:
    made = {
        (thing["spec"]["target"]["name"], entry["secretKey"])
        for thing in rendered("everything")
        if thing["kind"] == "ExternalSecret"
        for entry in thing["spec"]["data"]
    }

    (secrets,) = [v for v in pod_of(rendered("everything"))["spec"]["volumes"] if v["name"] == "secrets"]
    mounted = {
        (source["secret"]["name"], item["key"])
        for source in secrets["projected"]["sources"]
        if "secret" in source
        for item in source["secret"]["items"]
    }
    owner = {("gateway-ledger-owner", "url")}  # of the job alone
    assert made > owner
    assert made - owner <= mounted


def test_an_external_secret_of_the_migration_is_there_before_its_job() -> None:
    """The job is a hook: what the release itself makes does not exist yet, and the job would wait in vain."""
    found = {
        thing["metadata"]["name"]: thing
        for thing in rendered("everything")
        if thing["kind"] == "ExternalSecret"
    }
    owner, other = found["gateway-ledger-owner"], found["gateway-redis"]
    (job,) = [thing for thing in rendered("everything") if thing["kind"] == "Job"]
    hooks, before = job["metadata"]["annotations"], owner["metadata"]["annotations"]

    assert before["helm.sh/hook"] == hooks["helm.sh/hook"] == "pre-install,pre-upgrade"
    assert int(before["helm.sh/hook-weight"]) < int(hooks["helm.sh/hook-weight"])
    assert owner["spec"]["target"]["creationPolicy"] == "Orphan", (
        "an upgrade replaces the hook, not the Secret"
    )
    assert "annotations" not in other["metadata"]


def test_the_network_policy_lets_in_and_out_what_is_needed_and_no_more() -> None:
    policy = one(rendered("replicas"), "NetworkPolicy")

    assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"]
    ports = [port["port"] for rule in policy["spec"]["egress"] for port in rule["ports"]]
    assert ports == [53, 53, 443, 6379, 5432]
    admin = [
        rule for rule in policy["spec"]["ingress"] if {"port": "admin", "protocol": "TCP"} in rule["ports"]
    ]
    assert len(admin) == 2
    assert "monitoring" in str(admin[0]["from"])
    assert "test" in str(admin[1]["from"])


def test_objects_that_clusters_know_from_others_have_the_fields_that_these_know() -> None:
    known = {
        "ServiceMonitor": {"jobLabel", "namespaceSelector", "selector", "endpoints"},
        "PrometheusRule": {"groups"},
        "HTTPRoute": {"parentRefs", "hostnames", "rules"},
        "ExternalSecret": {"refreshInterval", "secretStoreRef", "target", "data"},
    }
    versions = {
        "ServiceMonitor": "monitoring.coreos.com/v1",
        "PrometheusRule": "monitoring.coreos.com/v1",
        "HTTPRoute": "gateway.networking.k8s.io/v1",
        "ExternalSecret": "external-secrets.io/v1",
    }
    found = [thing for thing in rendered("everything") if thing["kind"] in known]

    assert {thing["kind"] for thing in found} == set(known)
    for thing in found:
        assert set(thing) == {"apiVersion", "kind", "metadata", "spec"}
        assert thing["apiVersion"] == versions[thing["kind"]]
        assert set(thing["spec"]) == known[thing["kind"]]
