"""Whole requests beside what becomes of them, byte for byte: `tests/golden/<case>/`.

`request.json` is what the client sends, `placed.json` what goes upstream, `why.txt` one line on why that is
right. The model of these cases caches from 20 tokens on, at 4 bytes a token, so that they stay readable.
`1h` or `complete` in a case's name sets the workspace so. After a deliberate change of policy, write
`placed.json` anew with `python -m tests.unit.test_golden` and read the difference.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.core.edit import apply_placement
from gateway.core.ids import WorkspaceId
from gateway.core.models import ModelFacts
from gateway.core.placement import check_placement
from gateway.core.prefix import cache_scope, prefix_keys
from gateway.core.prompt_reader import read_prompt
from gateway.core.rule_policy import RulePolicy
from gateway.core.rules import ClientMarks, Workspace

CASES = sorted(path.parent for path in Path(__file__).parents[1].glob("golden/*/request.json"))
FACTS = ModelFacts(id="golden", minimum_cacheable_tokens=20, bytes_per_token=4.0)


def place(case: Path) -> bytes:
    workspace = Workspace(
        id=WorkspaceId("golden"),
        organisation="default",
        upstream="default",
        ttl="1h" if "1h" in case.name else "5m",
        client_marks=ClientMarks.COMPLETE if "complete" in case.name else ClientMarks.HANDS_OFF,
    )
    prompt = read_prompt((case / "request.json").read_bytes())
    scope = cache_scope(secret=b"golden", workspace=workspace.id, prompt=prompt)
    placement = RulePolicy().plan(prompt, prefix_keys(prompt, scope), FACTS, workspace)
    assert check_placement(prompt, placement) is None
    return b"".join(apply_placement(prompt, placement))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_request_is_placed_as_recorded(case: Path) -> None:
    assert place(case) == (case / "placed.json").read_bytes()


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_says_why(case: Path) -> None:
    (line,) = (case / "why.txt").read_text().splitlines()

    assert line.endswith(".")


def test_there_are_cases() -> None:
    assert len(CASES) >= 12


if __name__ == "__main__":
    for each in CASES:
        (each / "placed.json").write_bytes(place(each))
