"""A file's time: one for all processes, moved by no change of date, going on over a start of the machine."""

import time
from pathlib import Path

import pytest

from mindtrace.jobs import Queue, QueueCounts, SQLiteClient
from mindtrace.jobs.adapters.sqlite import clock
from mindtrace.jobs.ports import Message

from .conftest import Machine

HOUR_S = 3600.0


@pytest.fixture
def delayed(machine: Machine, path: Path) -> Path:
    """A file with a job that is due in an hour."""
    with SQLiteClient(path) as client:
        client.declare(Queue("points"))
        client.publish("points", [Message("job", b"{}", 0, HOUR_S)])
    return path


def is_due(path: Path) -> bool:
    with SQLiteClient(path) as client:
        counts = client.counts("points")
        assert counts in (QueueCounts(1, 0, 0, 0), QueueCounts(0, 1, 0, 0))
        return counts.ready == 1


@pytest.mark.parametrize("off_s", [-10 * HOUR_S, 10 * HOUR_S])
def test_a_change_of_date_moves_nothing(machine: Machine, delayed: Path, off_s: float) -> None:
    """Neither for who has the file open, nor for who opens it (LSE-5)."""
    machine.calendar_s += off_s
    machine.run(HOUR_S - 1)
    assert not is_due(delayed)
    machine.run(2)
    assert is_due(delayed)


def test_time_goes_on_while_the_machine_is_off(machine: Machine, delayed: Path) -> None:
    """By the calendar, as nothing else tells how long that was."""
    machine.restart(off_s=HOUR_S - 10)
    assert not is_due(delayed)
    machine.run(11)
    assert is_due(delayed)


def test_time_never_goes_back(machine: Machine, delayed: Path) -> None:
    """A machine that starts with a calendar that lost its battery goes on where it was."""
    machine.restart(off_s=-20 * 365 * 24 * HOUR_S)
    machine.run(HOUR_S - 10)
    assert not is_due(delayed)
    machine.run(11)
    assert is_due(delayed)


def test_a_start_shows_without_a_boot_id_in_a_count_that_is_behind(machine: Machine, path: Path) -> None:
    """Where the system has none."""
    machine.boot = ""
    with SQLiteClient(path) as client:
        client.declare(Queue("points"))
        client.publish("points", [Message("job", b"{}", 0, HOUR_S)])
    machine.restart(off_s=HOUR_S + 1, boot="")

    assert is_due(path)


def test_the_machines_own_count_and_boot_id_are_read() -> None:
    """Microseconds, and a name that stays."""
    began = clock.since_boot_us()
    time.sleep(0.01)

    assert 10_000 <= clock.since_boot_us() - began < 600_000_000
    assert clock.boot_id() == clock.boot_id()
