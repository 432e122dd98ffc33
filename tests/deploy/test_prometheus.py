"""A real Prometheus reads a real gateway under traffic, by the configuration that is shipped: every rule and
every panel can be asked, asks for what is there, and gets an answer."""

from __future__ import annotations

import asyncio
import copy
import re
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from ruamel.yaml import YAML

from tests.deploy.shipped import PROMETHEUS, RULES, alerts, exported, filled_in, panels, read_yaml, recorded
from tests.deploy.traffic import one_of_each, teach
from tests.support.prometheus_server import PrometheusServer, a_prometheus
from tests.support.redis_server import RedisServer
from tests.support.stack import Stack, a_stack

TOKEN = "test-of-the-admin-plane"
SETTINGS = """\
store: {kind: redis}
placement: {recording: RECORDING}
"""
BUDGETS = """\
defaults:
  - {id: month, scope: workspace, unit: usd, amount: $50.00, per: month, warn_at: [0.001], comment: test}
  - {id: calls, scope: workspace, unit: requests, amount: 10000, per: day, comment: test}
  - {id: input, scope: workspace, unit: input_tokens, amount: 90M, per: day, comment: test}
  - {id: output, scope: workspace, unit: output_tokens, amount: 9M, per: day, comment: test}
  - {id: in, scope: workspace, unit: input_tokens, cache_reads: counted, amount: 9M, per: hour, comment: two}
  - {id: open, scope: workspace, unit: concurrent, amount: 100, comment: test}
  - {id: tight, scope: workspace, unit: requests, amount: 1, per: day, mode: shadow, comment: test}
  - {id: cents, scope: workspace, unit: usd, amount: $0.0001, per: week, mode: shadow, comment: spent at once}
overrides:
  - {limit: month, subject: poor, amount: $0.000001, comment: test}
"""

WITHOUT_DATA = {
    "gateway_ledger_shipping_": "a shared ledger, which needs PostgreSQL, is not part of this stack",
    "gateway_ledger_shipped_total": "the same",
    "gateway_schedule_firings_total": "no schedule is due within these seconds",
    "gateway_store_errors_total": "the store does not fail here; see tests/contract/test_redis_faults.py",
    "gateway_peer_failures_total": "the same",
    "gateway_observer_failures_total": "no observer fails here; tests/contract/test_observers.py is for that",
    "gateway_metrics_label_overflow_total": "there are few label sets here",
    "gateway_budget_runs_out_timestamp_seconds": "there only where a budget does not last",
    "gateway_overrun_usd_total": "nothing costs more than was set aside",
    "gateway_budget_used_usd{": "spending may stand still, or go down, while Prometheus looks",
    "limit_workspace:gateway_budget_used_usd:max[1h]": "the same",
}
"""What a query may name to return nothing, and why."""


def excused(expression: str) -> bool:
    return any(metric in expression for metric in WITHOUT_DATA)


def configuration(folder: Path, admin_url: str) -> dict[str, Any]:
    """That of deploy/, quicker, and with this gateway for a target."""
    config: dict[str, Any] = copy.deepcopy(read_yaml(PROMETHEUS))
    config["global"] = {"scrape_interval": "250ms", "scrape_timeout": "250ms", "evaluation_interval": "250ms"}
    assert config["rule_files"] == ["/etc/prometheus/prometheus-rules.yaml"]
    config["rule_files"] = [str(RULES), str(_all_at_once(folder))]
    del config["alerting"]
    (job,) = config["scrape_configs"]
    (folder / "token").write_text(TOKEN)
    job["authorization"]["credentials_file"] = str(folder / "token")
    job["static_configs"] = [{"targets": [admin_url.removeprefix("http://")]}]
    return config


def _all_at_once(folder: Path) -> Path:
    """Rules in which each alert fires at once, with all labels that a text may name: for its texts."""
    labels = sorted(
        {found for rule in alerts().values() for found in re.findall(r"\$labels\.(\w+)", str(rule))}
    )
    expression = "vector(0.5)"
    for label in labels:
        expression = f'label_replace({expression}, "{label}", "some {label}", "", "")'
    rules = [
        {**rule, "alert": f"Text{name}", "expr": expression, "for": "0s"} for name, rule in alerts().items()
    ]
    path = folder / "all.yaml"
    YAML(typ="safe").dump({"groups": [{"name": "texts", "rules": rules}]}, path)
    return path


@pytest.fixture
def quick_gauges(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.spending.GAUGES_SECONDS", 0.2)


async def names_on_the_page(admin_url: str) -> set[str]:
    headers = {"authorization": f"Bearer {TOKEN}"}
    async with aiohttp.ClientSession(headers=headers) as session, session.get(f"{admin_url}/metrics") as page:
        lines = (await page.text()).splitlines()
    return {re.split(r"[{\s]", line)[0] for line in lines if not line.startswith("#")}


async def seen(prometheus: PrometheusServer, scrapes: int) -> None:
    """Until it has looked so many times from now on."""
    ((_, before),) = await prometheus.query("sum(count_over_time(gateway_build_info[5m])) or vector(0)")
    await prometheus.until(f"sum(count_over_time(gateway_build_info[5m])) >= {before + scrapes:.0f}")


@pytest.mark.usefixtures("quick_gauges")
async def test_rules_and_dashboards_work_on_a_gateway_under_traffic(tmp_path: Path) -> None:
    environ = {"ADMIN_TOKEN": TOKEN, "GATEWAY_LISTEN__ADMIN_TOKEN": "{env: ADMIN_TOKEN}"}
    settings = SETTINGS.replace("RECORDING", str(tmp_path / "recording"))
    with RedisServer(tmp_path / "redis") as redis:
        environ["REDIS_URL"] = redis.url
        async with (
            a_stack(tmp_path, environ=environ, settings=settings, limits=BUDGETS) as stack,
            a_prometheus(
                tmp_path / "prometheus", configuration(tmp_path, stack.service.admin_url)
            ) as prometheus,
        ):
            await under_traffic(stack, prometheus)
            await every_rule_is_healthy(prometheus)
            await every_text_can_be_read(prometheus)
            await every_query_has_an_answer(prometheus)
            await what_is_wrong_here_is_said_and_nothing_else(prometheus)
            page = await names_on_the_page(stack.service.admin_url)
            await stack.service.stop()
            await prometheus.until(
                'ALERTS{alertname="GatewayReplicaDown"} and on () ALERTS{alertname="GatewayAbsent"}'
            )

    assert {name for name in page if name.startswith("gateway_")} <= exported()


async def under_traffic(stack: Stack, prometheus: PrometheusServer) -> None:
    """Twice, and looked at before, between and after: a rate takes two readings that differ."""
    await asyncio.gather(seen(prometheus, 1), teach(stack))
    for round_ in range(2):
        await one_of_each(stack, round_)
        await seen(prometheus, 3)


async def every_rule_is_healthy(prometheus: PrometheusServer) -> None:
    groups = (await prometheus.get("rules"))["groups"]
    sick = {
        rule["name"]: rule.get("lastError", rule["health"])
        for group in groups
        for rule in group["rules"]
        if rule["health"] != "ok"
    }

    assert sick == {}
    assert sum(len(group["rules"]) for group in groups) == len(recorded()) + 2 * len(alerts())


async def every_text_can_be_read(prometheus: PrometheusServer) -> None:
    firing = {
        alert["labels"]["alertname"]: alert["annotations"]
        for alert in (await prometheus.get("alerts"))["alerts"]
        if alert["labels"]["alertname"].startswith("Text")
    }
    assert set(firing) == {f"Text{name}" for name in alerts()}
    broken = {
        name: text
        for name, texts in firing.items()
        for text in texts.values()
        if re.search(r"<error|<no value>|%!|\{\{", text) or not text
    }

    assert broken == {}


async def every_query_has_an_answer(prometheus: PrometheusServer) -> None:
    queries = {panel.name: panel.expression for panel in panels()}
    queries |= recorded()
    silent = {
        name: expression
        for name, expression in queries.items()
        if not await prometheus.query(filled_in(expression)) and not excused(expression)
    }
    for expression in (rule["expr"] for rule in alerts().values()):
        await prometheus.query(expression)

    assert silent == {}


async def what_is_wrong_here_is_said_and_nothing_else(prometheus: PrometheusServer) -> None:
    """Pending or firing: most wait for minutes before they fire."""
    active = {
        alert["labels"]["alertname"]
        for alert in (await prometheus.get("alerts"))["alerts"]
        if not alert["labels"]["alertname"].startswith("Text")
    }

    assert active >= {
        "GatewayBudgetSpent",
        "GatewayUpstreamFailing",
        "GatewayUpstreamRateLimited",
        "GatewayUpstreamOverloaded",
        "GatewayUpstreamCredentialRefused",
    }
    assert not active & {
        "GatewayAbsent",
        "GatewayReplicaDown",
        "GatewayStoreDegraded",
        "GatewayInternalErrors",
    }
    assert not {name for name in active if re.match("Gateway(Ledger|Config|Reconcile|Prices|Observer)", name)}
