"""Consumers whose handlers hang, each in another way, until something ends them."""

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mindtrace.jobs import BatchConsumer, Consumer, Job, JobInput, JobSchema, Reject, RetryPolicy

TWICE = RetryPolicy(max_attempts=2, base_delay_s=0.0)
FOR_EVER_S = 3600.0


class Hang(JobInput):
    """How a handler hangs; not at all, if this says nothing."""

    how: str = ""


def schema_of(name: str) -> JobSchema[Hang, Any]:
    return JobSchema(name, Hang, retry=TWICE, kill_after_s=0.5)


PLAIN, ASYNC, BATCHES, PATIENT = map(schema_of, ("plain", "async", "batches", "patient"))


def note(file: str, text: str) -> None:
    with Path(file).open("a") as notes:
        notes.write(text)


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
        child = subprocess.Popen([sys.executable, "-c", f"import time; time.sleep({FOR_EVER_S})"])
        note("children", f"{child.pid}\n")
        child.wait()


class Plain(Consumer):
    schema = PLAIN
    concurrency = 2

    def run(self, job: Job[Hang]) -> None:
        hang(job.payload.how)
        note("done", f"{job.id}\n")


class Async(Consumer):
    schema = ASYNC
    concurrency = 2

    async def run(self, job: Job[Hang]) -> None:
        if job.payload.how == "await":
            await asyncio.Event().wait()
        hang(job.payload.how)
        note("done", f"{job.id}\n")


class Batches(BatchConsumer):
    schema = BATCHES
    batch_size = 1

    def run_batch(self, jobs: Sequence[Job[Hang]]) -> list[None]:
        for job in jobs:
            hang(job.payload.how)
            note("done", f"{job.id}\n")
        return [None] * len(jobs)


class Patient(Consumer):
    """Runs beside those that hang, until the test is over with them."""

    schema = PATIENT

    def run(self, job: Job[Hang]) -> None:
        note("patient", "x")
        while not Path("go").exists():
            time.sleep(0.01)
        raise Reject("the test is over")
