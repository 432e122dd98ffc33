"""Schedules of warm-ups: what cannot work is said before their time comes."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.settings.checks import check_prompts
from tests.unit.settings.conftest import GATEWAY, Directory

BODY = '{"model": "claude-opus-5-5", "messages": [{"role": "user", "content": "warmup"}]}\n'


def a_schedule(
    directory: Directory, prompts: str | Path, workspace: str = "demo", cron: str = "45 8 * * 1-5"
) -> None:
    directory.write(
        "gateway.yaml",
        f"{GATEWAY}warming:\n  schedules:\n    morning: "
        f'{{cron: "{cron}", workspace: {workspace}, prompts: "{prompts}"}}\n',
    )


def test_a_schedule_whose_prompts_can_be_warmed_is_good(directory: Directory, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(BODY)
    a_schedule(directory, prompts)

    settings = directory.load()

    assert settings.warnings == ()
    assert check_prompts(settings) == []


def test_a_schedule_of_an_unknown_workspace_is_an_error(directory: Directory) -> None:
    a_schedule(directory, "absent.jsonl", workspace="nobody")

    assert directory.lines() == [
        "gateway.yaml:7:48: warming.schedules.morning.workspace: workspaces.yaml has no workspace 'nobody'; "
        "it has: demo"
    ]


def test_a_file_that_is_not_there_yet_is_a_warning(directory: Directory) -> None:
    a_schedule(directory, "absent.jsonl")

    settings = directory.load()

    assert ["absent.jsonl cannot be read now" in str(warning) for warning in settings.warnings] == [True]
    assert check_prompts(settings) == []


def test_a_workspace_without_a_warming_budget_is_a_warning(directory: Directory, tmp_path: Path) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(BODY)
    directory.write("workspaces.yaml", "workspaces: {demo: {warming_per_day: $0.00}}\n")
    a_schedule(directory, prompts)

    assert ["warming_per_day of $0.00" in str(warning) for warning in directory.load().warnings] == [True]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not valid JSON"),
        (BODY.replace("{", '{"thinking": {"type": "enabled"}, ', 1), "thinking of type enabled"),
    ],
)
def test_each_line_that_cannot_be_warmed_is_named(
    directory: Directory, tmp_path: Path, line: str, message: str
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text(BODY + line)
    a_schedule(directory, prompts)

    (problem,) = check_prompts(directory.load())

    assert str(problem).startswith(f"{prompts}:2:1: schedule morning cannot warm it: ")
    assert message in str(problem)


@pytest.mark.parametrize("cron", ["* * * * * *", "45 8 * *", "61 8 * * *"])
def test_what_is_no_time_is_refused(directory: Directory, cron: str) -> None:
    a_schedule(directory, "absent.jsonl", cron=cron)

    (line,) = directory.lines()

    assert "write for example 45 8 * * mon-fri" in line
