"""After every test: nothing that it printed or logged holds a credential or a prompt that was planted. Before
the first: Ctrl-C reaches the commands under test, and properties get the examples that they always get."""

from __future__ import annotations

import signal
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.support.canaries import found_in

# The same examples in each run, however slow the machine is: a run that fails says something of its change.
# `--hypothesis-profile=seeking` draws new ones.
settings.register_profile("seeking", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("steady", settings.get_profile("seeking"), derandomize=True)
settings.load_profile("steady")


def pytest_configure() -> None:
    """A shell starts what runs in its background with SIGINT ignored, and every child inherits that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


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
