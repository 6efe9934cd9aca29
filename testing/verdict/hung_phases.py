"""End a process of the tests that hangs, with the stacks of all its threads.

pytest-timeout makes a test that takes too long fail. It cancels its timer as soon as any phase of the test
fails, so nothing limits the teardown that follows; and what it raises can be caught by what the test runs.
This is the limit behind it. It is a thread of faulthandler, which needs no GIL and raises nothing, and it is
armed anew for each phase.

With pytest-xdist, the test whose process ends is reported as failed. ``overdue_run`` makes a run fail whose
process ended after its last test.
"""

import faulthandler
import os
from collections.abc import Generator

import pytest

COLLECTION_S = 600.0
BEYOND_TIMEOUT_S = 60.0
"""How much longer than its ``timeout`` a phase may take: then pytest-timeout had no effect."""
TEARDOWN_S = 300.0
END_S = 900.0
"""Limit of the session's end, in which a process waits for all others that use a server that it opened."""


class HungPhases:
    """The limit of the phase that runs in this process."""

    def __init__(self, config: pytest.Config, *, divisor: float) -> None:
        self._stderr = os.dup(2)  # while tests run, 2 is a file in which pytest captures
        self._divisor = divisor
        given = config.getoption("timeout")
        self._timeout_s = float(config.getini("timeout") or 0.0) if given is None else given

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_collection(self) -> Generator[None, object, object]:
        """Limit the collection, and nothing while this process waits for its tests."""
        self._limit(COLLECTION_S)
        try:
            return (yield)
        finally:
            faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        """Limit the setup."""
        self._limit_by_timeout(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_call(self, item: pytest.Item) -> None:
        """Limit the test itself."""
        self._limit_by_timeout(item)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_teardown(self) -> None:
        """Limit the teardown, also that of a test that failed."""
        self._limit(TEARDOWN_S / self._divisor)

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logfinish(self) -> None:
        """Limit nothing while this process waits for its next test."""
        faulthandler.cancel_dump_traceback_later()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        """Limit the end, and also what comes after it: as Python exits, it joins threads."""
        self._limit(END_S / self._divisor)

    def _limit_by_timeout(self, item: pytest.Item) -> None:
        mark = item.get_closest_marker("timeout")
        timeout_s = float(mark.args[0]) if mark and mark.args else self._timeout_s
        if timeout_s:  # 0 stands for none
            self._limit(timeout_s + BEYOND_TIMEOUT_S / self._divisor)

    def _limit(self, seconds: float) -> None:
        faulthandler.dump_traceback_later(seconds, exit=True, file=self._stderr)
