"""Handlers that keep memory, in a real worker: its processes are replaced, and each job runs once."""

import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from whole_lines import whole_lines

from conditions import LIMIT_S, eventually
from mindtrace.jobs import JobInput, JobSchema, Orchestrator

from .backend_urls import own_url

TASKS = """
import os, time
from mindtrace.jobs import JobInput, JobSchema, job_handler

KEPT = []
while os.path.exists("hold"):  # as modules do that take long to import
    time.sleep(0.01)


@job_handler(JobSchema("leaks", JobInput))
def leak(job):
    KEPT.append(os.urandom(1 << 20))
    with open("/proc/self/statm") as statm:
        held = int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    with open(f"{os.getpid()}.ran", "a") as ran:
        ran.write(f"{job.id} {held}\\n")
"""
LEAKS = JobSchema("leaks", JobInput)
MIB = 1 << 20
WAVE = 10


class Leaking:
    """A worker of leaking handlers, and what they recorded."""

    def __init__(self, url: str, folder: Path, stack: ExitStack, *options: str) -> None:
        folder.joinpath("tasks.py").write_text(TASKS, "utf-8")
        self.jobs = stack.enter_context(Orchestrator(url))
        self.jobs.register(LEAKS)
        stack.callback(self.jobs.delete_queue, LEAKS.name)
        self.published: list[str] = []
        self._folder = folder
        words = [sys.executable, "-m", "mindtrace.jobs", "worker", "tasks:leak", "--backend", url, *options]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=log)
        stack.callback(self._end)

    def _end(self) -> None:
        self.process.kill()
        self.process.wait()

    @property
    def _log(self) -> Path:
        return self._folder / "log.txt"

    @property
    def log(self) -> str:
        return self._log.read_text("utf-8")

    def ran(self) -> dict[int, list[tuple[str, int]]]:
        """By process, the jobs that it ran, each with the memory that it held."""
        found = {}
        for file in self._folder.glob("*.ran"):
            if lines := [line.split() for line in whole_lines(file)]:
                found[int(file.stem)] = [(id_, int(held)) for id_, held in lines]
        return found

    def run_wave(self) -> None:
        """Publish some jobs, and wait until they have run."""
        self.published += [outcome.id for outcome in self.jobs.publish_batch(LEAKS, [{}] * WAVE)]
        count = len(self.published)
        eventually(lambda: sum(map(len, self.ran().values())) >= count, f"{count} jobs ran: {self.log}")

    def wait_until_replaced(self, pid: int) -> None:
        line = f"process {pid} ended, and another takes its place"
        eventually(lambda: line in self.log, f"{line}: {self.log}")

    def stop(self) -> None:
        """Stop it, and check that each job ran once, and none is left."""
        self.process.send_signal(signal.SIGTERM)
        assert self.process.wait(LIMIT_S) == 0, self.log
        assert Counter(id_ for lines in self.ran().values() for id_, _ in lines) == Counter(self.published)
        counts = self.jobs.counts(LEAKS)
        assert (counts.waiting, counts.in_flight or 0, counts.dead) == (0, 0, 0)
        assert "died" not in self.log
        assert "ERROR" not in self.log


Start = Callable[..., Leaking]


@pytest.fixture
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Start]:
    """Start a worker on a backend, with options."""
    with ExitStack() as stack:

        def start(backend: str, *options: str) -> Leaking:
            url = stack.enter_context(own_url(backend, request, tmp_path))
            return Leaking(url, tmp_path, stack, *options)

        yield start


@pytest.mark.parametrize(
    "backend",
    ["sqlite", *(pytest.param(each, marks=pytest.mark.long) for each in ("redis", "rabbitmq", "postgresql"))],
)
def test_what_handlers_leak_is_bounded_and_each_job_runs_once(start: Start, backend: str) -> None:
    """A process that holds too much asks for another; it holds no more than what it runs until its turn."""
    limit = 120 * MIB
    worker = start(backend, "--processes", "2", "--max-memory", "120M")
    for _ in range(25):
        worker.run_wave()
        for pid, lines in worker.ran().items():
            if lines[-1][1] > limit + 2 * MIB:  # it was above the limit at the end of that job, too
                worker.wait_until_replaced(pid)
    worker.stop()

    held = {pid: max(held for _, held in lines) for pid, lines in worker.ran().items()}
    assert len(held) > 2
    assert max(held.values()) < limit + (WAVE + 5) * MIB
    assert "is to be replaced: it holds 1" in worker.log


def test_a_process_is_replaced_after_so_many_jobs(start: Start) -> None:
    worker = start("sqlite", "--max-jobs", str(WAVE))
    for count in range(1, 4):
        worker.run_wave()
        assert len(worker.ran()) == count
        for pid in worker.ran():
            worker.wait_until_replaced(pid)
    worker.stop()

    assert [len(lines) for lines in worker.ran().values()] == [WAVE] * 3
    assert worker.log.count(f"is to be replaced: it has run {WAVE} jobs, of at most {WAVE}") == 3


def test_a_process_works_on_while_its_successor_imports(start: Start, tmp_path: Path) -> None:
    worker = start("sqlite", "--max-jobs", str(WAVE + 1))
    worker.run_wave()
    hold = tmp_path / "hold"
    hold.touch()
    worker.run_wave()
    (first,) = worker.ran()
    asked = f"process {first} is to be replaced"
    eventually(lambda: asked in worker.log, f"{asked}: {worker.log}")
    worker.run_wave()
    assert worker.ran().keys() == {first}
    hold.unlink()
    worker.wait_until_replaced(first)
    worker.run_wave()
    worker.stop()
    assert [len(lines) for lines in worker.ran().values() if len(lines) != 3 * WAVE] == [WAVE]
