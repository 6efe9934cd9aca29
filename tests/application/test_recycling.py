"""When a process asks for another in its place: after so many jobs, or with so much memory."""

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs.application.worker import recycling
from mindtrace.jobs.application.worker.memory import available_bytes, resident_bytes
from mindtrace.jobs.application.worker.recycling import RecyclingLimits
from mindtrace.jobs.ports import Attempt, Outcome

LOGGER = logging.getLogger("tests.recycling")
MIB = 1 << 20
MACHINE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
MakeLimits = Callable[..., tuple[RecyclingLimits, list[str]]]


@pytest.fixture
def make() -> MakeLimits:
    """Limits, and what they asked."""

    def make(**limits: Any) -> tuple[RecyclingLimits, list[str]]:
        asked: list[str] = []
        return RecyclingLimits(asked.append, LOGGER, **limits), asked

    return make


def end(limits: RecyclingLimits, outcome: Outcome = Outcome.DONE, jobs: int = 1) -> None:
    for _ in range(jobs):
        limits.ended(Attempt("points", "1", 1, outcome, 0.0))


def holding(monkeypatch: pytest.MonkeyPatch, mib: int) -> None:
    monkeypatch.setattr(recycling, "resident_bytes", lambda: mib * MIB)


def test_it_asks_once_after_so_many_jobs_however_they_ended(make: MakeLimits) -> None:
    limits, asked = make(max_jobs=3)
    end(limits)
    end(limits, Outcome.RETRIED)
    assert asked == []
    end(limits, Outcome.DEAD)
    assert asked == ["it has run 3 jobs, of at most 3"]
    end(limits, jobs=5)
    assert len(asked) == 1


def test_a_job_that_expired_ran_no_handler(make: MakeLimits) -> None:
    limits, asked = make(max_jobs=1)
    end(limits, Outcome.EXPIRED, jobs=5)
    assert asked == []


def test_it_asks_again_if_it_could_not(make: MakeLimits) -> None:
    """Such as where a disk is full: the next job finds it as the last one did."""
    limits, asked = make(max_jobs=1)
    errors = [OSError("no room")]

    def ask(why: str) -> None:
        if errors:
            raise errors.pop()
        asked.append(why)

    limits._ask = ask
    with pytest.raises(OSError, match="no room"):
        end(limits)
    end(limits, jobs=2)
    assert asked == ["it has run 2 jobs, of at most 1"]


def test_it_asks_once_though_many_threads_end_jobs(make: MakeLimits) -> None:
    limits, asked = make(max_jobs=100)
    threads = [threading.Thread(target=end, args=(limits, Outcome.DONE, 100)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(asked) == 1


def test_it_asks_once_it_holds_more_than_it_may(
    make: MakeLimits, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    limits, asked = make(max_memory_bytes=100 * MIB)
    holding(monkeypatch, 100)
    end(limits)
    assert asked == []
    holding(monkeypatch, 101)
    end(limits)
    assert asked == ["it holds 101 MiB after 2 jobs, of at most 100 MiB"]
    assert not caplog.records


def test_a_limit_below_what_an_idle_process_holds_is_told(
    make: MakeLimits, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is obeyed: each process runs a job at least."""
    limits, asked = make(max_memory_bytes=10 * MIB)
    holding(monkeypatch, 60)
    end(limits)
    assert len(asked) == 1
    assert "holds 60 MiB after its first job, and may hold 10 MiB" in caplog.text


def test_what_a_process_holds_rises_with_what_it_keeps() -> None:
    before = resident_bytes()
    kept = bytearray(os.urandom(64 * MIB))
    assert resident_bytes() - before > 32 * MIB
    del kept


@pytest.mark.parametrize(
    ("files", "available"),
    [
        ({}, MACHINE),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "1048576\n"}, MIB),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/memory.max": "max\n"}, MACHINE),
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/b/memory.max": "3145728\n",
                "sys/fs/cgroup/a/memory.max": "2097152\n",
            },
            2 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "5:cpu:/x\n4:memory:/docker/1\n0::/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "4194304\n",
            },
            4 * MIB,
        ),
        (
            {
                "proc/self/cgroup": "4:memory:/\n",
                "sys/fs/cgroup/memory/memory.limit_in_bytes": "9223372036854771712\n",
            },
            MACHINE,
        ),
    ],
    ids=["none", "of a container", "unlimited", "the smallest", "version 1", "version 1, unlimited"],
)
def test_a_container_has_what_its_control_groups_allow(
    tmp_path: Path, files: dict[str, str], available: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, "ascii")
    assert available_bytes(tmp_path) == available


def test_this_machine_is_asked_by_default() -> None:
    assert 0 < available_bytes() <= MACHINE
