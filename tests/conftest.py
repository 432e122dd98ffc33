"""After every test: nothing that it printed or logged holds a credential or a prompt that was planted."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.support.canaries import found_in


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.passed:
        for name, text in report.sections:
            if (canary := found_in(text)) is not None:
                report.outcome = "failed"
                report.longrepr = f"{name} of this test holds what must be nowhere: {canary[:12]}..."
    return report
