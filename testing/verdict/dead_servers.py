"""End a run at its first failure after a server that the tests share has died.

Each further test would wait for the server as long as for one on a busy machine, and fail only then.
"""

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from brokers.run_servers import log_of_server, servers_folder, shared_addresses

PATIENCE_S = 45.0
"""How long a server may take to answer; the busiest machine has it answer sooner."""
_LINES = 60


class DeadServers:
    """What looks after a failure whether the shared servers answer; lives in the controlling process."""

    def __init__(self, config: pytest.Config, *, patience_s: float) -> None:
        self._config = config
        self._patience_s = patience_s

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Ask the servers, if a test failed."""
        if not report.failed:
            return
        folder = servers_folder(self._config)
        for name, address in shared_addresses(folder).items():
            if not _answers(address, self._patience_s):
                self._end(folder, name, address)

    def _end(self, folder: Path, name: str, address: Any) -> None:
        write = self._config.get_terminal_writer().line
        log = log_of_server(folder, name)
        write(f"\nThe {name} that the tests share doesn't answer at {address.host}:{address.port}.")
        if log is None:
            write("It isn't one that the tests started, so see its own log.")
        else:
            write("The end of its log:")
            write("\n".join(log.splitlines()[-_LINES:]))
        pytest.exit(f"the {name} that the tests share has died or is wedged", returncode=1)


def _answers(address: Any, within_s: float) -> bool:
    """Whether a server answers in time; one that is wedged may leave the question open for ever."""
    answered = threading.Event()

    def ask() -> None:
        give_up = time.monotonic() + within_s
        while time.monotonic() < give_up:
            if address.answers():
                answered.set()
                return
            time.sleep(0.5)

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(within_s)
    return answered.is_set()
