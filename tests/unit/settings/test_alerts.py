"""The sections `alerts` and `tracing`: what is refused, what is doubtful, what becomes of references."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from gateway.core.alerts import Format
from gateway.core.errors import ConfigError
from gateway.settings import load_settings
from gateway.settings.alerts_checks import build_targets
from gateway.settings.load import Settings, packaged_directory

ENVIRON = {
    "ANTHROPIC_API_KEY": "sk-test",
    "SLACK": "https://hooks.example.com/canary",
    "SECRET": "sk-test-hook",
}


def loaded(folder: Path, section: str, environ: Mapping[str, str] = ENVIRON) -> Settings:
    (folder / "gateway.yaml").write_text(section)
    (folder / "workspaces.yaml").write_text("workspaces: {demo: {team: red}}\n")
    (folder / "limits.yaml").write_bytes((packaged_directory() / "limits.yaml").read_bytes())
    return load_settings(folder, environ)


def refused(folder: Path, section: str) -> str:
    with pytest.raises(ConfigError) as error:
        loaded(folder, section)
    return str(error.value)


def test_targets_read_their_secrets_when_they_send(tmp_path: Path) -> None:
    settings = loaded(
        tmp_path,
        "alerts: {targets: {a: {format: slack, url: {env: SLACK}, teams: [red]},"
        " b: {url: {env: SLACK}, secret: {env: SECRET}, private: true, kinds: [freeze]}}}\n",
    )
    slack, hook = build_targets(settings.gateway.alerts, ENVIRON)

    assert (slack.format, slack.teams) == (Format.SLACK, frozenset({"red"}))
    assert slack.secret is None
    assert not slack.private
    assert hook.secret is not None
    assert (hook.url(), hook.secret(), hook.kinds) == (
        ENVIRON["SLACK"],
        "sk-test-hook",
        frozenset({"freeze"}),
    )
    assert [str(warning) for warning in settings.warnings] == []


@pytest.mark.parametrize(
    ("target", "says"),
    [
        ("{url: {env: SLACK}}", "needs a `secret`"),
        ("{format: slack, url: {env: SLACK}, secret: {env: SECRET}}", "slack has none"),
        ("{format: slack, url: https://hooks.example.com/x}", "mapping"),
        ("{format: slack, url: {env: SLACK}, workspaces: [gone]}", "has no workspace 'gone'; it has: demo"),
        ("{format: slack, url: {env: SLACK}, teams: [blue]}", "has no team 'blue'; it has: red"),
        ("{format: slack, url: {env: SLACK}, kinds: [everything]}", "threshold"),
    ],
)
def test_what_cannot_work_is_refused(tmp_path: Path, target: str, says: str) -> None:
    assert says in refused(tmp_path, f"alerts: {{targets: {{a: {target}}}}}\n")


@pytest.mark.parametrize("value", ["", "ftp://hooks.example.com/canary"])
def test_a_url_that_cannot_be_used_is_a_warning_without_the_url(tmp_path: Path, value: str) -> None:
    section = "alerts: {targets: {a: {format: slack, url: {env: SLACK}}}}\n"
    settings = loaded(tmp_path, section, {**ENVIRON, "SLACK": value})

    (warning,) = (str(each) for each in settings.warnings)
    assert "env SLACK" in warning
    assert "canary" not in warning


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ("alerts: {thresholds: [0.5, 1.5]}", "less than or equal to 1"),
        ("alerts: {thresholds: [0]}", "greater than 0"),
        ("alerts: {anomalies: {deviations: 1}}", "greater than or equal to 2"),
        ("tracing: {endpoint: collector}", "not a URL"),
        ("tracing: {endpoint: 'http://ann:secret@collector/v1/traces'}", "must not hold a credential"),
        ("tracing: {headers: {'a b': {env: X}}}", "pattern"),
    ],
)
def test_values_out_of_bounds_are_refused(tmp_path: Path, section: str, says: str) -> None:
    assert says in refused(tmp_path, section + "\n")


def test_tracing_without_its_extra_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.settings.tracing_checks.has_opentelemetry", lambda: False)

    assert "claude-cache-gateway[otel]" in refused(
        tmp_path, "tracing: {endpoint: 'http://c:4318/v1/traces'}\n"
    )


def test_a_header_for_the_collector_that_cannot_be_read_is_a_warning(tmp_path: Path) -> None:
    section = "tracing: {endpoint: 'http://c:4318/v1/traces', headers: {Authorization: {env: GONE}}}\n"
    settings = loaded(tmp_path, section)

    assert list(settings.gateway.tracing.headers) == ["authorization"]
    assert ["env GONE cannot be read now" in str(each) for each in settings.warnings] == [True]
