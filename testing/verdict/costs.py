"""What each file of tests costs: where a run that takes too long spends its time."""

import os
from collections import defaultdict
from collections.abc import Generator

import pytest

_PROPERTY = "processor_s"
_FILES = 12
LONG_S = 60.0
"""What the tests of a run must take together, to be worth telling."""


class CostMeter:
    """Measures what the processor does for each test, in the process that runs it."""

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Begin to count."""
        item.stash[_BEGAN] = _processor_s()
        return (yield)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_teardown(self, item: pytest.Item) -> Generator[None, object, object]:
        """Send the count along with the report on the end of the test."""
        try:
            return (yield)
        finally:
            item.user_properties.append((_PROPERTY, _processor_s() - item.stash[_BEGAN]))


class CostsByFile:
    """Adds up what all tests cost, in the controlling process, and prints the files that cost the most."""

    def __init__(self, *, long_s: float) -> None:
        self._long_s = long_s
        self._processor_s: defaultdict[str, float] = defaultdict(float)
        self._took_s: defaultdict[str, float] = defaultdict(float)
        self._tests: defaultdict[str, int] = defaultdict(int)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Add a part of a test."""
        file = report.nodeid.partition("::")[0]
        self._took_s[file] += report.duration
        if report.when == "teardown":
            self._tests[file] += 1
            for name, value in report.user_properties:
                if name == _PROPERTY:
                    self._processor_s[file] += float(str(value))

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Print them, after a long run."""
        if sum(self._took_s.values()) < self._long_s:
            return
        terminalreporter.section("costliest files: seconds of the processor, seconds in all, tests")
        costliest = sorted(self._took_s, key=lambda file: -self._processor_s[file])
        for file in costliest[:_FILES]:
            processor_s, took_s = self._processor_s[file], self._took_s[file]
            terminalreporter.write_line(f"{processor_s:7.0f} {took_s:7.0f} {self._tests[file]:6} {file}")
        spent, took = sum(self._processor_s.values()), sum(self._took_s.values())
        terminalreporter.write_line(f"{spent:7.0f} {took:7.0f} {sum(self._tests.values()):6} in all")


_BEGAN = pytest.StashKey[float]()


def _processor_s() -> float:
    """Return what this process has used of the processor, and those of its children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
