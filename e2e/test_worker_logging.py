"""What a worker logs: with its own configuration, and with one that a consumer's module brings."""

import fcntl
import json
import os
import signal
import subprocess
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from whole_lines import whole_lines

from conditions import LIMIT_S, eventually
from mindtrace.jobs import JobInput, JobSchema, Orchestrator, QueueCounts


class Nothing(JobInput):
    """As the workers have it."""


BARE = """
import logging

from mindtrace.jobs import Consumer, JobInput, JobSchema


class Nothing(JobInput):
    pass


class Loud(Consumer):
    schema = JobSchema(name="loud", input=Nothing)

    def run(self, job):
        logging.getLogger("mine").info("hello")
        self.logger.info("hello too")
"""
CONFIGURED = {
    "basicConfig": """
import logging, sys

logging.basicConfig(level="INFO", stream=sys.stdout, format="mine: %(message)s")
""",
    "dictConfig": """
import logging.config

logging.config.dictConfig(
    {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"job": {"()": "mindtrace.jobs.JobContextFilter"}},
        "formatters": {"line": {"format": "mine: %(job_queue)s/%(job_id)s/%(job_attempt)s %(message)s"}},
        "handlers": {
            "out": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stdout",
                "filters": ["job"],
                "formatter": "line",
            }
        },
        "root": {"level": "INFO", "handlers": ["out"]},
    }
)
""",
}

Work = Callable[..., tuple[str, str]]


@pytest.fixture
def work(tmp_path: Path) -> Work:
    """Run one job by a worker, and return what that wrote to stdout and to stderr."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MINDTRACE_JOBS_")}
    command = Path(sysconfig.get_path("scripts"), "mindtrace-jobs")

    def work(tasks: str, *options: str) -> tuple[str, str]:
        tmp_path.joinpath("tasks.py").write_text(tasks, "utf-8")
        for words in (
            ["publish", "loud", "--json", "{}", "--schema", "tasks:Loud", "--id", "a"],
            ["worker", "tasks:Loud", "--burst", *options],
        ):
            done = subprocess.run(
                [command, *words],
                cwd=tmp_path,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                timeout=120,
            )
            assert done.returncode == 0, done.stderr
        return done.stdout, done.stderr

    return work


def test_lines_of_a_handler_begin_with_its_job(work: Work) -> None:
    _, told = work(BARE)

    lines = [line.split(maxsplit=3)[-1] for line in told.splitlines()]
    assert "[loud a 1] hello" in lines
    assert "[loud a 1] hello too" in lines
    assert any(line.startswith("job a of loud: attempt 1 ran for") for line in lines)


def test_and_as_json_they_have_it_as_fields(work: Work) -> None:
    _, told = work(BARE, "--log-format", "json")

    lines = {line["message"]: line for line in map(json.loads, told.splitlines())}
    assert lines["hello"]["job"] == {"id": "a", "queue": "loud", "attempt": 1}
    assert lines["hello too"]["job"] == lines["hello"]["job"]
    (ended,) = (line["job"] for message, line in lines.items() if "s: done" in message)
    assert (ended["id"], ended["outcome"]) == ("a", "done")


@pytest.mark.parametrize("how", CONFIGURED)
def test_a_configuration_of_the_module_is_neither_replaced_nor_doubled(work: Work, how: str) -> None:
    """Its processes log as the module says, each line once; ours is left to the supervisor."""
    said, told = work(CONFIGURED[how] + BARE)

    job = "loud/a/1 " if how == "dictConfig" else ""
    lines = said.splitlines()
    assert lines.count(f"mine: {job}hello") == 1
    assert lines.count(f"mine: {job}hello too") == 1
    assert sum("job a of loud: attempt 1 ran for" in line for line in lines) == 1
    assert "hello" not in told
    assert "s: done" not in told
    assert "processes: 1" in told


PRINTING = """
from mindtrace.jobs import Consumer, JobInput, JobSchema


class Nothing(JobInput):
    pass


class Loud(Consumer):
    schema = JobSchema(name="loud", input=Nothing)

    def run(self, job):
        if {prints}:
            print("x" * 1_000_000)
"""


def start_worker(folder: Path, *, stdout: int | None, stderr: int) -> "subprocess.Popen[bytes]":
    """Start a worker of the jobs and the database in a folder, which prints to these descriptors."""
    command = [Path(sysconfig.get_path("scripts"), "mindtrace-jobs"), "worker", "tasks:Loud", "--grace", "2"]
    return subprocess.Popen(
        [*command, "--backend", f"sqlite:///{folder}/mindtrace-jobs.db"],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if not key.startswith("MINDTRACE_JOBS_")},
        stdout=stdout,
        stderr=stderr,
    )


@pytest.mark.parametrize("prints", [False, True])
def test_a_worker_whose_output_nobody_reads_works_and_stops(tmp_path: Path, prints: bool) -> None:
    """A job that waits for its reader is given back after the grace period."""
    tmp_path.joinpath("tasks.py").write_text(PRINTING.format(prints=prints), "utf-8")
    reader, writer = os.pipe()
    fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    with Orchestrator(f"sqlite:///{tmp_path}/mindtrace-jobs.db") as orchestrator:
        orchestrator.register(JobSchema(name="loud", input=Nothing))
        orchestrator.publish_batch("loud", [{}] * 100)
        worker = start_worker(tmp_path, stdout=writer, stderr=writer)
        os.close(writer)
        if prints:
            eventually(lambda: orchestrator.counts("loud").in_flight, "a job runs")
        else:
            eventually(lambda: orchestrator.counts("loud").waiting == 0, "all jobs run")
        worker.send_signal(signal.SIGTERM)
        assert worker.wait(LIMIT_S) == 0
        assert orchestrator.counts("loud") == QueueCounts(100 if prints else 0, 0, 0, 0)
    os.close(reader)


LOADED = """
import os

from mindtrace.jobs import Consumer, JobInput, JobSchema

with open("loaded", "a") as file:
    file.write(f"{os.getpid()}\\n")


class Nothing(JobInput):
    pass


class Loud(Consumer):
    schema = JobSchema(name="loud", input=Nothing)

    def run(self, job):
        pass
"""


def test_a_process_that_fails_is_replaced_though_nobody_reads_why(tmp_path: Path) -> None:
    tmp_path.joinpath("tasks.py").write_text(LOADED, "utf-8")
    loaded = tmp_path / "loaded"
    reader, writer = os.pipe()
    with Orchestrator(f"sqlite:///{tmp_path}/mindtrace-jobs.db") as orchestrator:
        orchestrator.register(JobSchema(name="loud", input=Nothing))
        worker = start_worker(tmp_path, stdout=None, stderr=writer)
        try:
            orchestrator.publish("loud", {})
            eventually(lambda: orchestrator.counts("loud").waiting == 0, "the job runs")
            fill(writer)
            before = set(whole_lines(loaded))
            orchestrator.delete_queue("loud")
            eventually(lambda: set(whole_lines(loaded)) > before, "another takes its place")
            worker.send_signal(signal.SIGTERM)
            worker.wait(LIMIT_S)
        finally:
            worker.kill()
            worker.wait(LIMIT_S)
            os.close(writer)
            os.close(reader)


def fill(pipe: int) -> None:
    """Write to a pipe until it has no room, by a descriptor of our own: others may wait on theirs."""
    own = os.open(f"/proc/self/fd/{pipe}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(own, b"x")
    os.close(own)
