"""Say what still runs when the time of a run is over, and fail a run whose process died unnoticed.

For runs with pytest-xdist. SIGTERM says that the time is over: ``.ci/run`` has ``timeout`` send it, and make
passes it on.
"""

import os
import signal
import time
from typing import Any, NoReturn

import pytest

from brokers.watchdog import children_of, running, send_signal

_DUMP_S = 5.0
"""How long a process is given to write its stacks and end: two at once would write them into each other."""


class OverdueRun:
    """What the controlling process knows of the tests and processes of a run."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._running: dict[str, float] = {}
        self._dead: list[str] = []

    def pytest_sessionstart(self) -> None:
        """Listen to SIGTERM, where tests run in other processes: here they may use it themselves."""
        if self._config.pluginmanager.hasplugin("dsession"):
            signal.signal(signal.SIGTERM, self._end)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_logstart(self, nodeid: str) -> None:
        """Note that a test runs, before it is printed."""
        self._running[nodeid] = time.monotonic()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        """Note that it has ended."""
        self._running.pop(nodeid, None)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        """Note that a process died."""
        if error:
            self._dead.append(f"{node.gateway.id}: {error}")

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail a run whose tests passed, where a process died: pytest-xdist would only replace it."""
        if self._dead and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Name the processes that died."""
        for process in self._dead:
            terminalreporter.write_line(f"ERROR a process of the tests died: {process}")

    def _end(self, *_: object) -> NoReturn:
        writer = self._config.get_terminal_writer()
        write = writer.line
        write("\nThe time of this run is over. These tests still run:")
        now = time.monotonic()
        for nodeid, since in sorted(self._running.items(), key=lambda each: each[1]):
            write(f"{now - since:6.0f} s  {nodeid}")
        writer.flush()
        for process in children_of(os.getpid()):
            send_signal(process, signal.SIGABRT)  # on which pytest has each write the stacks of its threads
            give_up = time.monotonic() + _DUMP_S
            while running([process]) and time.monotonic() < give_up:
                time.sleep(0.05)
        pytest.exit("the time of this run is over", returncode=1)
