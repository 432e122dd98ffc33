"""Reading a directory: what is refused, where it says so, and what it says instead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.core.errors import ConfigError
from gateway.core.rules import PlacementMode
from gateway.settings.gateway import StoreKind
from gateway.settings.load import find_directory, load_settings
from tests.unit.settings.conftest import GATEWAY, LIMITS, WORKSPACES, Directory


def test_defaults_hold_where_nothing_is_said(directory: Directory) -> None:
    settings = directory.load()

    assert settings.gateway.timeouts.client_head == 15.0
    assert settings.warnings == ()


def test_an_unknown_key_names_its_place_and_the_nearest_key(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "timeouts:\n  upstream_conect: 5s\n")

    assert directory.lines() == [
        'gateway.yaml:6:3: timeouts.upstream_conect: unknown key; did you mean "upstream_connect"?'
    ]


def test_an_unknown_key_below_a_name_or_in_a_list_has_a_nearest_key_too(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "    proxxy: http://proxy.example:1\n")
    directory.write("limits.yaml", LIMITS + "    timezon: UTC\n")
    directory.write("workspaces.yaml", "workspaces:\n  demo:\n    keys:\n    - {idd: x}\n")

    lines = directory.lines()

    assert 'gateway.yaml:5:5: upstreams.default.proxxy: unknown key; did you mean "proxy"?' in lines
    assert 'limits.yaml:8:5: defaults[0].timezon: unknown key; did you mean "timezone"?' in lines
    assert 'workspaces.yaml:4:8: workspaces.demo.keys[0].idd: unknown key; did you mean "id"?' in lines


def test_all_errors_of_all_files_are_reported_at_once(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "drain: {timeout: 30}\nlisten: {data: nowhere}\n")
    directory.write("limits.yaml", LIMITS.replace("$25.00", "25"))
    directory.write("workspaces.yaml", "workspaces: {}\n")

    files = [line.partition(":")[0] for line in directory.lines()]

    assert files == ["gateway.yaml", "gateway.yaml", "limits.yaml", "workspaces.yaml"]


def test_errors_across_files_come_with_those_of_other_files(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY)
    directory.write("workspaces.yaml", "workspaces:\n  demo:\n    upstream: other\n")

    assert directory.lines() == [
        "workspaces.yaml:3:15: workspaces.demo.upstream: "
        "gateway.yaml has no upstream 'other'; it has: default"
    ]


def test_a_key_written_twice_is_refused_with_both_lines(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "drain: {timeout: 1s}\ndrain: {timeout: 2s}\n")

    assert directory.lines() == ["gateway.yaml:6:1: drain: written twice, first in line 5"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [1, 2\n", "not YAML"),
        ("a: &x 1\nb: *x\n", "anchors"),
        ("a: &x {b: *x}\n", "anchors"),
        ("drain: !!python/object:os.system {}\n", "not YAML|tags"),
        ("drain: !secret x\n", "not YAML|tags"),
        ("[" * 200, "not YAML|nesting"),
        ("? [a]\n: 1\n", "plain text"),
        ("--- {}\n--- {}\n", "not YAML"),
        ("- a\n", "must be a mapping"),
        ("drain: {timeout: 30}\n", "30s"),
    ],
)
def test_yaml_that_could_surprise_is_refused(directory: Directory, text: str, message: str) -> None:
    directory.write("gateway.yaml", text)
    problems = directory.problems()

    assert problems[0].line >= 1
    assert any(re.search(message, problem.message) for problem in problems)


def test_bytes_that_are_no_text_are_refused(directory: Directory) -> None:
    directory.write("gateway.yaml", b"\xff\xfe\x00")

    assert directory.lines() == ["gateway.yaml:1:1: not UTF-8 text"]


def test_words_of_older_yaml_stay_words(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "placement: {mode: off}\n")

    assert directory.load().gateway.placement.mode is PlacementMode.OFF


@pytest.mark.parametrize("name", ["gateway.yaml", "limits.yaml", "workspaces.yaml"])
def test_a_missing_file_is_not_an_empty_one(directory: Directory, name: str) -> None:
    (directory.path / name).unlink()

    assert any("is missing" in line and line.startswith(name) for line in directory.lines())


def test_a_missing_directory_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^\S+nowhere: is no directory; --config DIR") as caught:
        load_settings(tmp_path / "nowhere", {})

    assert len(caught.value.problems) == 1


@pytest.mark.parametrize(
    "text",
    [
        GATEWAY.replace("{env: UPSTREAM_KEY}", "sk-ant-test"),
        GATEWAY.replace("UPSTREAM_KEY", "sk-ant-test"),
        GATEWAY + "# old: sk-ant-test\n",
        GATEWAY + "sk-ant-test: 1\n",
        GATEWAY + "tags: {headers: [cgw_0123abcd_secret]}\n",
    ],
)
def test_a_literal_that_looks_like_a_credential_is_refused_and_not_repeated(
    directory: Directory, text: str
) -> None:
    directory.write("gateway.yaml", text)
    lines = directory.lines()

    assert any("looks like a credential" in line for line in lines)
    assert "sk-ant" not in str(lines)
    assert "cgw_0123abcd" not in str(lines)


def test_a_variable_wins_over_the_file(directory: Directory) -> None:
    settings = directory.load(
        {
            "GATEWAY_STORE__KIND": "redis",
            "GATEWAY_STORE__URL__FILE": "/nowhere",
            "GATEWAY_TAGS__HEADERS": "[X-Team, x-feature]",
            "GATEWAY_UPSTREAMS__DEFAULT__BASE_URL": "http://127.0.0.1:1234/",
            "GATEWAY_UPSTREAMS__DEFAULT__PROXY": "",
            "GATEWAY_CAPACITY__EXCHANGES": "7",
            "GATEWAY_LISTEN__DATA": "[::1]:8080",
            "GATEWAY_SERVICE_HOST": "10.0.0.1",
        }
    ).gateway

    assert settings.store.kind is StoreKind.REDIS
    assert settings.tags.headers == ("x-team", "x-feature")
    assert settings.upstreams["default"].base_url == "http://127.0.0.1:1234"
    assert settings.upstreams["default"].credential.env == "UPSTREAM_KEY"
    assert settings.capacity.exchanges == 7
    assert settings.listen.data == "[::1]:8080"


def test_a_reference_by_file_replaces_one_by_variable(directory: Directory) -> None:
    """Deployments overlay the place of a secret; the place in the file below must not stand beside it."""
    settings = directory.load({"GATEWAY_UPSTREAMS__DEFAULT__CREDENTIAL": "{file: /run/secrets/key}"})

    assert settings.gateway.upstreams["default"].credential.file == "/run/secrets/key"


def test_a_wrong_variable_is_named(directory: Directory) -> None:
    lines = directory.lines({"GATEWAY_STORE__KNID": "redis", "GATEWAY_DRAIN__TIMEOUT": "30"})

    assert 'environment: GATEWAY_STORE__KNID: unknown key; did you mean "kind"?' in lines
    assert any(line.startswith("environment: GATEWAY_DRAIN__TIMEOUT: not a duration") for line in lines)


def test_a_variable_for_a_part_of_what_has_none_is_refused(directory: Directory) -> None:
    directory.write("gateway.yaml", GATEWAY + "store: {kind: sqlite}\ndrain: {timeout: 30s}\n")
    lines = directory.lines({"GATEWAY_STORE__KIND__X": "1", "GATEWAY_DRAIN__TIMEOUT__Y": "1"})

    assert [line.rpartition(": ")[0] for line in lines] == [
        "environment: GATEWAY_STORE__KIND__X",
        "environment: GATEWAY_DRAIN__TIMEOUT__Y",
    ]


def test_a_file_that_is_no_mapping_is_told_of_whatever_variables_say(directory: Directory) -> None:
    directory.write("gateway.yaml", "[]\n")

    assert directory.lines({"GATEWAY_STORE__KIND": "memory"})[0].startswith("gateway.yaml:1:1: must be")


def test_a_wrong_section_of_a_variable_and_a_wrong_part_of_its_value_are_named_by_the_variable(
    directory: Directory,
) -> None:
    lines = directory.lines(
        {"GATEWAY_STOER__KIND": "redis", "GATEWAY_TAGS__HEADERS": "[x-team, 'not a name']"}
    )

    assert 'environment: GATEWAY_STOER__KIND: unknown key; did you mean "store"?' in lines
    assert any(line.startswith("environment: GATEWAY_TAGS__HEADERS[1]: ") for line in lines)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("GATEWAY_CAPACITY__EXCHANGES", "many", "must be a whole number"),
        ("GATEWAY_CAPACITY__EXCHANGES", "0", "must be greater than or equal to 1"),
        ("GATEWAY_PAGE__ENABLED", "perhaps", "must be true or false"),
        ("GATEWAY_PLACEMENT__HOLDOUT_SHARE", "some", "must be a number"),
    ],
)
def test_a_value_of_the_wrong_kind_is_told_in_plain_words(
    directory: Directory, name: str, value: str, message: str
) -> None:
    assert f"environment: {name}: {message}" in directory.lines({name: value})


def test_a_doubtful_value_of_a_variable_is_named_by_the_variable(directory: Directory) -> None:
    settings = directory.load({"GATEWAY_UPSTREAMS__DEFAULT__BASE_URL": "http://api.example"})

    (warning,) = [str(each) for each in settings.warnings if "unencrypted" in each.message]
    assert warning.startswith("environment: GATEWAY_UPSTREAMS__DEFAULT__BASE_URL: ")


def test_a_variable_with_one_underscore_too_few_is_told_and_strangers_are_not(directory: Directory) -> None:
    settings = directory.load(
        {"GATEWAY_STORE_KIND": "redis", "GATEWAY_SERVICE_PORT": "80", "GATEWAY_LEDGER_KEY": "a secret"}
    )

    said = [str(each) for each in settings.warnings if each.file == "environment"]
    assert said == ["environment: GATEWAY_STORE_KIND: is not read; did you mean GATEWAY_STORE__KIND?"]


def test_a_credential_in_a_setting_variable_is_refused(directory: Directory) -> None:
    lines = directory.lines({"GATEWAY_UPSTREAMS__DEFAULT__CREDENTIAL": "sk-ant-test"})

    assert "holds a credential itself" in str(lines)
    assert "sk-ant" not in str(lines)


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("base_url: https://api.example/v1", "must not end in /v1"),
        ("base_url: https://user:pass@api.example", "must not hold a credential"),
        ("base_url: ftp://api.example", "not a URL"),
        ("base_url: https://api.example:99999", "port"),
        ("proxy: http://proxy.example/path", "without a path"),
        ("credential: {}", "either `env: NAME` or `file: PATH`"),
        ("credential: {env: A, file: b}", "either `env: NAME` or `file: PATH`"),
        ("credential: {env: A-B}", "name of an environment variable"),
        ("credential: ${UPSTREAM_KEY}", "{env: NAME}"),
    ],
)
def test_upstreams_that_cannot_work_are_refused(directory: Directory, setting: str, message: str) -> None:
    directory.write("gateway.yaml", f"upstreams:\n  default:\n    {setting}\n")
    (problem,) = directory.problems()

    assert message in problem.message.replace("Port out of range", "port")
    assert problem.line == 3
    assert "pass" not in str(problem)


def test_doubtful_things_are_warnings(directory: Directory) -> None:
    directory.environ = {}
    directory.write("gateway.yaml", GATEWAY.replace("https", "http") + "store: {kind: redis}\n")
    directory.write("limits.yaml", "defaults: []\n")
    directory.write("workspaces.yaml", "workspaces:\n  demo:\n    models: [claude-*, clod-*]\n")
    directory.write("limit.yaml", "")

    warnings = [str(problem).removeprefix(f"{directory.path}/") for problem in directory.load().warnings]

    assert [warning.partition(": ")[0] for warning in warnings] == [
        "gateway.yaml:4:17",
        "gateway.yaml:3:15",
        "gateway.yaml:5:8",
        "gateway.yaml:1:1",
        "workspaces.yaml:3:24",
        "limits.yaml:1:1",
        "limit.yaml",
    ]


def test_prices_come_with_the_package_where_there_is_no_file(directory: Directory) -> None:
    assert not (directory.path / "prices.yaml").exists()
    assert directory.load().prices.models


def test_the_directory_is_told_or_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shipped = find_directory(None, {})
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "gateway.yaml").touch()

    assert (shipped / "gateway.yaml").exists()
    assert find_directory(None, {}) == Path("config")
    assert find_directory(None, {"GATEWAY_CONFIG": "/etc/gateway"}) == Path("/etc/gateway")
    assert find_directory(Path("x"), {"GATEWAY_CONFIG": "/etc/gateway"}) == Path("x")


def test_two_keys_of_one_id_are_refused(directory: Directory) -> None:
    key = f"    keys:\n    - {{id: aaaaaaaa, name: n, digest: 'sha256:{'0' * 64}'}}\n"
    directory.write("workspaces.yaml", f"workspaces:\n  a:\n{key}  b:\n{key}")

    assert "two keys have the id aaaaaaaa" in str(directory.lines())


def test_limits_are_checked_against_workspaces_and_each_other(directory: Directory) -> None:
    directory.write("workspaces.yaml", WORKSPACES)
    directory.write(
        "limits.yaml",
        LIMITS
        + "  - {id: month, scope: key, unit: requests, amount: 1, per: second, comment: twice}\n"
        + "  - {id: day, scope: workspace, unit: usd, amount: $1, per: day, subject: nobody, comment: who}\n"
        + "  - {id: demo, scope: workspace, unit: usd, amount: $1, per: month, subject: demo, comment: two}\n"
        + "overrides:\n"
        + "  - {limit: absent, subject: demo, amount: $1, comment: none}\n"
        + "  - {limit: month, subject: demo, amount: 5, comment: unit}\n"
        + "  - {limit: day, subject: demo, amount: $5, comment: one}\n",
    )

    lines = directory.lines()

    assert [line.split(": ", 1)[0] for line in lines] == [
        "limits.yaml:8:10",
        "limits.yaml:9:75",
        "limits.yaml:10:78",
        "limits.yaml:12:13",
        "limits.yaml:13:43",
        "limits.yaml:14:13",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("$25.00", "$9,007,199.26"), "9,007,199.25"),
        (("$25.00", "400k"), "$250.00"),
        (("per: month", "per: month\n    burst: $50"), "starts full"),
        (("per: month", "per: fortnight"), "per: must be second, minute, hour, day, week or month"),
        (("comment: for all", "comment: ''"), "at least 3"),
        (("    comment: for all\n", ""), "is missing"),
        (("per: month", "per: month\n    timezone: Europe/Atlantis"), "time zone"),
        (("amount: $25.00\n    per: month", "amount: $0\n    per: hour"), "more than 0"),
        (("unit: usd", "unit: requests"), "dollars need `unit: usd`"),
    ],
)
def test_limits_that_cannot_work_are_refused(
    directory: Directory, change: tuple[str, str], message: str
) -> None:
    directory.write("limits.yaml", LIMITS.replace(*change))

    assert message in str(directory.lines())


@pytest.mark.parametrize("name", ["Authorization", "X-API-Key", "cookie", "content-type", "anthropic-beta"])
def test_a_tag_cannot_be_a_credential_or_a_header_of_the_api(directory: Directory, name: str) -> None:
    """Tags are kept in the ledger and do not go upstream."""
    directory.write("gateway.yaml", GATEWAY + f"tags: {{headers: [x-team, {name}]}}\n")

    (line,) = directory.lines()

    assert line == "gateway.yaml:5:26: tags.headers[1]: must be a header of your own, beginning with x-"
