"""Consumers of a worker that runs one handler at a time.

Each of their jobs notes when it finds another at work in its process.
"""

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from job_audit import ExecutionRecord
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, RetryPolicy

_RETRY = RetryPolicy(max_crashes=1000)
HIGH, MIDDLE, LOW = SCHEMAS = [
    JobSchema(f"soak-{name}", JobInput, retry=_RETRY) for name in ("high", "middle", "low")
]
RAN, MET = "sharing_ran", "sharing_met"
"""The files of the jobs that ran, and of those that met another."""
_WORK_S = 0.004
_at_work = threading.Lock()


def record(name: str) -> ExecutionRecord:
    """The record of that name, in the folder that the environment names."""
    return ExecutionRecord(Path(os.environ["SOAK_FOLDER"], name))


def note(name: str, job_id: str) -> None:
    """Add a job to a record."""
    descriptor = record(name).writer()
    ExecutionRecord.write(descriptor, job_id)
    os.close(descriptor)


@contextmanager
def alone(job: Job[JobInput]) -> Iterator[None]:
    """Note whether another job is at work, and that this one ran."""
    if not _at_work.acquire(blocking=False):
        note(MET, job.id)
        yield
        note(RAN, job.id)
        return
    try:
        yield
        note(RAN, job.id)
    finally:
        _at_work.release()


class High(Consumer):
    """One thread."""

    schema = HIGH

    def run(self, job: Job[JobInput]) -> None:
        """Work for a moment."""
        with alone(job):
            time.sleep(_WORK_S)


class Middle(High):
    """Several threads."""

    schema = MIDDLE
    concurrency = 4


class Low(Consumer):
    """Several tasks of an event loop."""

    schema = LOW
    concurrency = 4

    async def run(self, job: Job[JobInput]) -> None:
        """Work for a moment."""
        with alone(job):
            await asyncio.sleep(_WORK_S)
