"""A real worker that has more processes while jobs wait, and fewer while none does."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from conditions import LIMIT_S, eventually
from mindtrace.jobs import JobInput, JobSchema, Orchestrator

from .backend_urls import own_url

TASKS = """
import os, time
from mindtrace.jobs import JobInput, JobSchema, job_handler


@job_handler(JobSchema("patient", JobInput))
def wait(job):
    open(f"{os.getpid()}.ran", "x").close()
    while not os.path.exists("go"):
        time.sleep(0.05)
"""
PATIENT = JobSchema("patient", JobInput)
Start = Callable[..., "subprocess.Popen[bytes]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a worker, whose log is in ``log.txt``."""
    tmp_path.joinpath("tasks.py").write_text(TASKS, "utf-8")
    with ExitStack() as stack:

        def start(url: str, *options: str) -> "subprocess.Popen[bytes]":
            words = [sys.executable, "-m", "mindtrace.jobs", "worker", "tasks:wait", "--backend", url]
            with tmp_path.joinpath("log.txt").open("wb") as log:
                process = subprocess.Popen([*words, *options], cwd=tmp_path, stdout=log, stderr=log)
            stack.callback(process.wait)
            stack.callback(process.kill)
            return process

        yield start


@pytest.mark.parametrize("shrinks", [False, pytest.param(True, marks=pytest.mark.long)])
def test_processes_come_while_jobs_wait_and_go_once_none_does(
    tmp_path: Path, start: Start, shrinks: bool
) -> None:
    """Each process runs one job, so that the next waits until there is another."""
    url, log = f"sqlite:///{tmp_path / 'jobs.db'}", tmp_path / "log.txt"
    with Orchestrator(url) as jobs:
        jobs.register(PATIENT)
        jobs.publish_batch(PATIENT, [{}] * 3)
        worker = start(url, "--autoscale", "1:2", "--prefetch", "1", "--health-file", "health")
        eventually(lambda: len(list(tmp_path.glob("*.ran"))) == 2, "two processes run jobs")
        assert jobs.counts(PATIENT).ready == 1, "there are two processes at most"
        jobs.backend.purge(PATIENT.name)
        tmp_path.joinpath("go").touch()
        eventually(lambda: jobs.counts(PATIENT).in_flight == 0, "both jobs end")
        if shrinks:
            eventually(lambda: "ended: it was one too many" in log.read_text(), "one process goes")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT_S) == 0, log.read_text()
    assert "processes: 2; the job that is next has waited for" in log.read_text()
    assert "ERROR" not in log.read_text()
    assert tmp_path.joinpath("health").exists()


def test_where_nobody_can_tell_how_long_jobs_wait_it_is_refused(
    tmp_path: Path, start: Start, request: pytest.FixtureRequest
) -> None:
    with own_url("rabbitmq", request, tmp_path) as url:
        worker = start(url, "--autoscale", "1:2")
        assert worker.wait(LIMIT_S) == 2
    log = (tmp_path / "log.txt").read_text()
    assert "--autoscale: this backend doesn't tell for how long jobs wait" in log
