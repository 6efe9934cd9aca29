"""A process with several consumers, each on a thread, for the test that pauses them; records each start."""

import argparse
import os
import threading
import time
from pathlib import Path

from mindtrace.jobs import BatchConsumer, Consumer, Job, JobInput, JobSchema, Orchestrator


class Number(JobInput):
    number: int


SCHEMA = JobSchema("numbers", Number)
KINDS = ("one at a time", "threads", "tasks", "batches")


class Recorder:
    """Writes a line for each job that starts: its number, its attempt, and when by the store's clock.

    Args:
        orchestrator: Whose store's clock it is.
        path: The file.
    """

    def __init__(self, orchestrator: Orchestrator, path: Path) -> None:
        self._ahead_s = orchestrator.backend.coordination.now() - time.monotonic()
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def note(self, job: Job[Number]) -> None:
        """Write a line for a job that starts now."""
        now = time.monotonic() + self._ahead_s
        os.write(self._file, f"{job.payload.number} {job.attempt} {now:.6f}\n".encode())


def consumer_of(kind: str, recorder: Recorder, job_s: float) -> Consumer:
    """Make a consumer of one of :data:`KINDS`."""

    class One(Consumer):
        schema = SCHEMA
        concurrency = 3 if kind == "threads" else 1

        def run(self, job: Job[Number]) -> None:
            recorder.note(job)
            time.sleep(job_s)

    class Tasks(Consumer):
        schema = SCHEMA
        concurrency = 3

        async def run(self, job: Job[Number]) -> None:
            import asyncio

            recorder.note(job)
            await asyncio.sleep(job_s)

    class Batches(BatchConsumer):
        schema = SCHEMA
        batch_size, batch_wait_s = 3, 0.01

        def run_batch(self, jobs: list[Job[Number]]) -> list[None]:
            for job in jobs:
                recorder.note(job)
            time.sleep(job_s)
            return [None] * len(jobs)

    made: dict[str, type[Consumer]] = {"tasks": Tasks, "batches": Batches}
    return made.get(kind, One)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("record", type=Path, help="a file that gets a line for every start")
    parser.add_argument("--consumers", type=int, default=5)
    parser.add_argument("--job-s", type=float, default=0.02)
    options = parser.parse_args()
    with Orchestrator(options.url) as orchestrator:
        recorder = Recorder(orchestrator, options.record)
        for number in range(options.consumers):
            consumer = consumer_of(KINDS[number % len(KINDS)], recorder, options.job_s)
            consumer.connect(orchestrator, prefetch=10)
            threading.Thread(target=consumer.consume, daemon=True).start()
        print("ready", flush=True)
        input()  # until the test ends this process


if __name__ == "__main__":
    main()
