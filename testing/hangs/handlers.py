"""Consumers whose handlers hang, each in another way, and one whose jobs are the load beside them.

Each handler notes its job, the time, and which attempt it is, as it begins.
"""

import asyncio
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from mindtrace.jobs import BatchConsumer, Consumer, Job, JobInput, JobSchema, RetryPolicy

TIMEOUT_S = 0.5
KILL_AFTER_S = 0.5
FOR_EVER_S = 3600.0
BEGAN, DONE = "began", "done"
"""The files of handlers that have begun, and of those that came to their end."""


class Hang(JobInput):
    """How a handler hangs; not at all, if this says nothing."""

    how: str = ""


PLAIN, ASYNC, BATCHES, LOAD = SCHEMAS = [
    JobSchema(f"hangs-{name}", Hang, retry=RetryPolicy(max_attempts=1), kill_after_s=KILL_AFTER_S)
    for name in ("plain", "async", "batches", "load")
]
WAYS = {PLAIN: ("python", "c", "lock", "child"), ASYNC: ("await", "c"), BATCHES: ("python", "lock")}


def note(name: str, job: Job[Hang]) -> None:
    """Add a line to a file, in one write."""
    descriptor = os.open(Path(os.environ["HANGS_FOLDER"], name), os.O_CREAT | os.O_WRONLY | os.O_APPEND)
    os.write(descriptor, f"{job.id} {time.time()} {job.attempt}\n".encode())
    os.close(descriptor)


def hang(how: str) -> None:
    """Hang within Python, in a call of C, at a lock, or for a child."""
    if how == "python":
        while True:
            pass
    if how == "c":
        time.sleep(FOR_EVER_S)
    if how == "lock":
        lock = threading.Lock()
        lock.acquire()
        lock.acquire()
    if how == "child":
        subprocess.run([sys.executable, "-c", f"import time; time.sleep({FOR_EVER_S})"], check=False)


class Plain(Consumer):
    """Threads."""

    schema = PLAIN
    concurrency = 2

    def run(self, job: Job[Hang]) -> None:
        """Hang, if the job says so."""
        note(BEGAN, job)
        hang(job.payload.how)
        note(DONE, job)


class Async(Consumer):
    """Tasks."""

    schema = ASYNC
    concurrency = 2

    async def run(self, job: Job[Hang]) -> None:
        """Hang, if the job says so."""
        note(BEGAN, job)
        if job.payload.how == "await":
            await asyncio.Event().wait()
        hang(job.payload.how)
        note(DONE, job)


class Batches(BatchConsumer):
    """Batches, of one job each."""

    schema = BATCHES
    batch_size = 1

    def run_batch(self, jobs: Sequence[Job[Hang]]) -> list[None]:
        """Hang, if the job says so."""
        for job in jobs:
            note(BEGAN, job)
            hang(job.payload.how)
            note(DONE, job)
        return [None] * len(jobs)


class Load(Consumer):
    """What runs beside those that hang; each job takes a moment."""

    schema = LOAD
    concurrency = 4

    def run(self, job: Job[Hang]) -> None:
        """Work for a moment."""
        note(BEGAN, job)
        time.sleep(0.05)
        note(DONE, job)
