"""A worker whose consumers share permits: seen by their handlers, in processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mindtrace.jobs import JobInput, JobSchema, Orchestrator

TASKS = """
import os, time
from mindtrace.jobs import Consumer, JobInput, JobSchema


def work(queue):
    folder = os.environ["RECORDS"]
    mine = os.open(f"{folder}/running.{os.getpid()}", os.O_CREAT | os.O_EXCL)  # fails beside another
    time.sleep(0.002)
    os.close(mine)
    os.unlink(f"{folder}/running.{os.getpid()}")
    with open(f"{folder}/ran", "a") as ran:
        ran.write(f"{queue}\\n")


class High(Consumer):
    schema = JobSchema("high", JobInput)

    def run(self, job):
        work("high")


class Middle(Consumer):
    schema = JobSchema("middle", JobInput)
    concurrency = 4

    def run(self, job):
        work("middle")


class Low(Consumer):
    schema = JobSchema("low", JobInput)
    concurrency = 4

    async def run(self, job):
        work("low")
"""


@pytest.mark.parametrize("processes", ["1", "2"])
def test_three_consumers_of_a_process_run_one_job_at_a_time(tmp_path: Path, processes: str) -> None:
    """A handler fails that finds another at work in its process."""
    tmp_path.joinpath("tasks.py").write_text(TASKS, "utf-8")
    url = f"sqlite:///{tmp_path / 'jobs.db'}"
    options = ["--jobs", "1", "--order", "strict", "--processes", processes, "--log-level", "warning"]
    with Orchestrator(url) as jobs:
        for queue in ("high", "middle", "low"):
            jobs.register(JobSchema(queue, JobInput))
            jobs.publish_batch(queue, [{}] * 100)
        done = subprocess.run(
            [sys.executable, "-m", "mindtrace.jobs", "worker", "tasks", "-b", url, "--burst", *options],
            cwd=tmp_path,
            env=os.environ | {"RECORDS": str(tmp_path)},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert (done.returncode, done.stderr) == (0, "")
        counts = [jobs.counts(queue) for queue in ("high", "middle", "low")]
    ran = tmp_path.joinpath("ran").read_text("utf-8").split()
    assert [(each.waiting, each.dead) for each in counts] == [(0, 0)] * 3
    assert [ran.count(queue) for queue in ("high", "middle", "low")] == [100, 100, 100]
