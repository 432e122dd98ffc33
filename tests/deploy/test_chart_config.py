"""The configuration that the chart writes is one that this gateway takes, serves with, and reloads."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import BaseModel

from gateway.service import Service
from gateway.settings import ConfigWatcher, Settings, find_directory, load_settings, packaged_directory
from gateway.settings.gateway import RESTART_SECTIONS, GatewayFile
from gateway.settings.ledger import LedgerKind
from gateway.settings.secrets import ledger_url
from gateway.settings.shared import SecretRef
from tests.deploy.chart import (
    CHART,
    FULL_NAME,
    Object,
    container_of,
    objects,
    one,
    pod_of,
    read_yaml,
    rendered,
    values_of,
    workload,
)

CASES = ["defaults", "everything", "replicas", "stateless"]
RELOADED: dict[str, Any] = {
    "upstreams": {"upstreams": {"default": {"settings": {"proxy": "http://proxy.example:3128"}}}},
    "models": {"config": {"gateway": {"models": {"unknown": "refuse"}}}},
    "responses": {"config": {"gateway": {"responses": {"cost_headers": False}}}},
    "tags": {"config": {"gateway": {"tags": {"headers": ["x-team"]}}}},
    "retries": {"config": {"gateway": {"retries": {"attempts": 1}}}},
    "placement.mode": {"config": {"gateway": {"placement": {"mode": "shadow"}}}},
    "placement.header": {"config": {"gateway": {"placement": {"header": "x-plain"}}}},
    "limits.yaml": {"config": {"limits": "defaults: []\n"}},
    "workspaces.yaml": {"config": {"workspaces": "workspaces: {another: {}}\n"}},
}
RESTARTED: dict[str, Any] = {
    "listen": {"public_url": "https://claude.example"},
    "store": {"lease": "20m"},
    "ledger": {"keep": "400d"},
    "warming": {"per_minute": 30},
    "timeouts": {"client_head": "20s"},
    "sizes": {"messages": "16MiB"},
    "capacity": {"exchanges": 100},
    "drain": {"timeout": "6m"},
    "logging": {"level": "debug"},
    "metrics": {"model_label": False},
    "placement": {"hold": "1s"},
}
"""A change to each section of gateway.yaml that the chart leaves to its values."""
CHARTS_OWN = {
    "listen": ["data", "admin", "admin_token", "metrics_token"],
    "state": ["directory"],
    "store": ["kind", "url"],
    "ledger": ["kind", "url", "key"],
    "prefixes": ["secret"],
}
"""What it writes there itself."""


def laid_out(found: tuple[Object, ...], folder: Path, number: int = 1) -> Path:
    """The ConfigMap as the kubelet lays it out: links into a directory that is swapped as a whole. Another
    `number` is another version of it."""
    config_map = one(found, "ConfigMap", workload(found)["metadata"]["name"])
    version = folder / f"..{number}"
    version.mkdir(parents=True)
    for name, text in config_map["data"].items():
        (version / name).write_text(text)
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(Path("..data") / name)
    (folder / "..next").symlink_to(version.name)
    (folder / "..next").replace(folder / "..data")
    return folder


def environ_of(found: tuple[Object, ...]) -> dict[str, str]:
    return {entry["name"]: entry["value"] for entry in container_of(found)["env"]}


def loaded(found: tuple[Object, ...], folder: Path) -> Settings:
    return load_settings(laid_out(found, folder), environ_of(found))


def references(model: object) -> Iterator[SecretRef]:
    """Every secret that a model names."""
    if isinstance(model, SecretRef):
        yield model
    elif isinstance(model, dict):
        for value in model.values():
            yield from references(value)
    elif isinstance(model, BaseModel):
        for name in type(model).model_fields:
            yield from references(getattr(model, name))


def test_each_setting_of_the_shipped_file_may_stand_in_the_values(tmp_path: Path) -> None:
    given = read_yaml((packaged_directory() / "gateway.yaml").read_text())
    upstream = given.pop("upstreams")["default"]
    for section, names in CHARTS_OWN.items():
        for name in names:
            del given[section][name]
    for name in ("credential", "federation"):
        del upstream[name]

    found = objects({"config": {"gateway": given}, "upstreams": {"default": {"settings": upstream}}})

    written, defaults = loaded(found, tmp_path).gateway, GatewayFile()
    for section in GatewayFile.model_fields:
        if section not in (*CHARTS_OWN, "upstreams"):
            assert getattr(written, section) == getattr(defaults, section), section


@pytest.mark.parametrize("case", CASES)
def test_the_gateway_takes_the_rendered_configuration(case: str, tmp_path: Path) -> None:
    settings = loaded(rendered(case), tmp_path)

    # Secrets and schedules' prompts are no files on this machine; anything else would be doubtful.
    doubts = [str(warning) for warning in settings.warnings if "cannot be read now" not in warning.message]
    assert doubts == []
    assert settings.gateway.state.directory == "/data"


@pytest.mark.parametrize("case", CASES)
def test_every_secret_of_the_configuration_is_a_file_that_the_pod_mounts(case: str, tmp_path: Path) -> None:
    found = rendered(case)
    settings = loaded(found, tmp_path)

    (volume,) = [each for each in pod_of(found)["spec"]["volumes"] if each["name"] == "secrets"]
    mounted = set()
    for source in volume["projected"]["sources"]:
        (of,) = source.values()
        mounted |= {f"/run/secrets/gateway/{item['path']}" for item in of.get("items", [of])}
    named = [*references(settings.gateway), *references(settings.workspaces)]
    used = {str(ref.file) for ref in named if ref.env is None}
    used |= {
        issuer.jwks_authority for issuer in settings.workspaces.issuers.values() if issuer.jwks_authority
    }
    assert used - {"/run/exchange/token"} == mounted
    # A variable is named by nothing but defaults: of stores that are not used, and below federation.
    assert {ref.env for ref in named} <= {ref.env for ref in references(GatewayFile())} | {None}


def test_words_that_helm_reads_as_true_and_false_arrive_as_words(tmp_path: Path) -> None:
    settings = loaded(rendered("everything"), tmp_path)

    assert settings.gateway.placement.mode.value == "on"
    assert settings.gateway.responses.limit_headers.value == "off"


def test_large_numbers_arrive_as_they_were_written(tmp_path: Path) -> None:
    settings = loaded(rendered("everything"), tmp_path)

    assert settings.gateway.placement.known_prefixes == 16_777_216
    assert settings.workspaces.workspaces["assistant"].output_cap_tokens == 1_000_000


def test_prices_are_those_of_the_image_unless_others_are_given(tmp_path: Path) -> None:
    text = (packaged_directory() / "prices.yaml").read_text()

    assert "prices.yaml" not in one(rendered("defaults"), "ConfigMap")["data"]
    given = objects({"config": {"prices": text}})
    assert one(given, "ConfigMap")["data"]["prices.yaml"] == text
    loaded(given, tmp_path)


def checksum(values: dict[str, Any]) -> str:
    annotations = pod_of(objects(values))["metadata"]["annotations"]
    return str(annotations["checksum/restart-settings"])


def test_pods_are_replaced_for_what_is_read_at_start_up_and_for_nothing_else() -> None:
    before, pod = checksum({}), pod_of(objects())

    kept = {name for name, values in RELOADED.items() if pod_of(objects(values)) == pod}
    assert kept == set(RELOADED)
    replaced = {
        section
        for section, change in RESTARTED.items()
        if checksum({"config": {"gateway": {section: change}}}) != before
    }
    assert replaced == set(RESTARTED)


def test_a_running_gateway_takes_over_what_the_chart_replaces_no_pods_for(tmp_path: Path) -> None:
    watcher = ConfigWatcher(loaded(rendered("defaults"), tmp_path))

    asked_for: dict[str, tuple[str, ...]] = {}
    changes = RELOADED | {name: {"config": {"gateway": {name: change}}} for name, change in RESTARTED.items()}
    for number, (name, values) in enumerate(changes.items(), start=2):
        laid_out(objects(values), tmp_path, number)
        assert watcher.has_changed(), name
        asked_for[name] = watcher.reload().needs_restart
    # Placement reads the rest of its section at start-up, which a reload does not tell.
    restarted = {name: (name,) for name in RESTARTED if name != "placement"}
    assert {name: sections for name, sections in asked_for.items() if sections} == restarted


def test_no_section_that_is_read_at_start_up_only_is_taken_for_one_that_reloads() -> None:
    template = (CHART / "templates/_config.tpl").read_text()
    (omitted,) = re.findall(r"omit \(include \S+ \. \| fromYaml\)((?: \"\w+\")+)", template)
    reloads = set(omitted.replace('"', "").split())

    assert reloads <= set(GatewayFile.model_fields)
    assert reloads.isdisjoint(RESTART_SECTIONS)
    assert reloads == {name for name in RELOADED if "." not in name}


def test_a_secret_that_is_named_or_another_store_replaces_pods() -> None:
    before = pod_of(objects())

    for values in (
        {"prefixes": {"existingSecret": "prefixes"}},
        {"admin": {"token": {"existingSecret": "admin"}}},
        {"listenHost": "[::]"},
        {"persistence": {"enabled": False}},
    ):
        assert pod_of(objects(values)) != before


def test_the_migration_needs_nothing_of_the_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    job = one(rendered("replicas"), "Job", f"{FULL_NAME}-migrate")
    (container,) = job["spec"]["template"]["spec"]["containers"]

    assert container["args"] == ["ledger", "migrate"]
    environ = {entry["name"]: entry.get("value", "") for entry in container["env"]}
    (secret,) = [entry for entry in container["env"] if "valueFrom" in entry]
    assert secret["valueFrom"]["secretKeyRef"] == {"name": "gateway-ledger-owner", "key": "url"}
    environ[secret["name"]] = "postgresql://owner@books.example/books"
    settings = load_settings(find_directory(None, environ), environ)
    assert settings.directory == packaged_directory()
    assert settings.gateway.ledger.kind is LedgerKind.POSTGRES
    assert ledger_url(settings.gateway, environ) == environ[secret["name"]]
    assert {volume["name"] for volume in job["spec"]["template"]["spec"]["volumes"]} == {"tmp"}
    assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"


async def test_a_gateway_with_the_charts_configuration_answers_its_probes_and_the_helm_test(
    tmp_path: Path,
) -> None:
    found = rendered("defaults")
    environ = environ_of(found) | {
        "GATEWAY_LISTEN__DATA": "127.0.0.1:0",
        "GATEWAY_LISTEN__ADMIN": "127.0.0.1:0",
        "GATEWAY_STATE__DIRECTORY": str(tmp_path / "state"),
    }
    service = Service(load_settings(laid_out(found, tmp_path / "config"), environ), quiet=True)
    await service.start()
    try:
        async with aiohttp.ClientSession() as session:
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                path = container_of(found)[probe]["httpGet"]["path"]
                async with session.get(service.admin_url + path) as answer:
                    assert answer.status == 200
        assert await helm_test(found, service.data_url, service.admin_url) == (
            0,
            "The gateway is ready, and asks for a key.\n",
        )
        # The admin plane asks nobody for a key: taken for the data plane, it must not pass.
        code, _ = await helm_test(found, service.admin_url, service.admin_url)
        assert code != 0
    finally:
        await service.stop()


async def helm_test(found: tuple[Object, ...], data_url: str, admin_url: str) -> tuple[int, str]:
    """Exit code and output of what the test pod runs."""
    pod = one(found, "Pod", f"{FULL_NAME}-test")
    (container,) = pod["spec"]["containers"]
    (script,) = container["args"]
    assert container["command"] == ["python", "-c"]
    assert script == (CHART / "files/connection_test.py").read_text()
    assert [entry["name"] for entry in container["env"]] == ["DATA_URL", "ADMIN_URL"]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", script),
        env={"DATA_URL": data_url, "ADMIN_URL": admin_url},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, _ = await process.communicate()
    return process.returncode or 0, output.decode()


def test_files_for_schedules_stand_beside_the_configuration() -> None:
    found = rendered("everything")
    (mount,) = [mount for mount in container_of(found)["volumeMounts"] if mount["name"] == "config"]
    (schedule,) = values_of("everything")["config"]["gateway"]["warming"]["schedules"].values()

    folder, _, name = schedule["prompts"].rpartition("/")
    assert folder == mount["mountPath"] == environ_of(found)["GATEWAY_CONFIG"]
    assert name in one(found, "ConfigMap", workload(found)["metadata"]["name"])["data"]
