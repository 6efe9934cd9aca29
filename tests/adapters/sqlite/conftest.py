"""A file with one queue in it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindtrace.jobs import Queue, SQLiteClient
from mindtrace.jobs.adapters.sqlite import clock


class Machine:
    """A machine whose starts and calendar a test decides on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.boot = "first"
        self.uptime_s = 1000.0
        self.calendar_s = 1_800_000_000.0
        monkeypatch.setattr(clock, "boot_id", lambda: self.boot)
        monkeypatch.setattr(clock, "since_boot_us", lambda: round(self.uptime_s * 1_000_000))
        monkeypatch.setattr(time, "time_ns", lambda: round(self.calendar_s * 1_000_000_000))

    def run(self, seconds: float) -> None:
        """Let time pass while it is on."""
        self.uptime_s += seconds
        self.calendar_s += seconds

    def restart(self, off_s: float, boot: str = "second") -> None:
        """Be off for a while, and start anew."""
        self.boot, self.uptime_s = boot, 5.0
        self.calendar_s += off_s


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is, or will be."""
    return tmp_path / "jobs.db"


@pytest.fixture
def client(path: Path) -> Iterator[SQLiteClient]:
    """A client with the queue ``points`` declared."""
    with SQLiteClient(path) as client:
        client.declare(Queue("points"))
        yield client
