"""A worker as a user would write it, for the tests that kill one: consumes until it is told to stop.

Records every execution, and prints its statistics when it ends gracefully.
"""

import argparse
import asyncio
import dataclasses
import json
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

from mindtrace.jobs import (
    Consumer,
    ConsumerBackend,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    Reject,
    RetryPolicy,
)
from mindtrace.jobs.ports import Delivery, Settled, Settlement


class Numbered(JobInput):
    number: int
    note: str = ""


class Square(JobOutput):
    square: int


SCHEMA = JobSchema("squares", Numbered, Square, retry=RetryPolicy(max_crashes=20))


REJECTED = "reject me"
POINTS = ("received", "mid-job", "effect done", "settled")

OnPoint = Callable[[str], None]
"""Called with the name of each of :data:`POINTS` that the worker passes."""


def signal_at(point: str | None, times: int, number: signal.Signals) -> OnPoint:
    """Send this process a signal, as the kernel or an operator may, when it passes a point so many times."""
    left = times

    def on_point(by: str) -> None:
        nonlocal left
        if by == point:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), number)

    return on_point


def record_calls(backend: ConsumerBackend, received: int, on_point: OnPoint) -> None:
    """Record deliveries, and call ``on_point`` after a receive or a settle, before the consumer knows."""
    receive, settle = backend.receive, backend.settle

    def note(deliveries: list[Delivery]) -> None:
        os.write(received, "".join(f"{os.getpid()} {one.id}\n" for one in deliveries).encode())
        on_point("received")

    def watched_receive(max_jobs: int, timeout_s: float) -> list[Delivery]:
        if deliveries := receive(max_jobs, timeout_s):
            note(deliveries)
        return deliveries

    def watched_settle(settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        settled = settle(settlements, take=take)
        if settlements:
            on_point("settled")
        if settled.deliveries:
            note(settled.deliveries)
        return settled

    backend.receive = watched_receive  # type: ignore[method-assign]
    backend.settle = watched_settle  # type: ignore[method-assign]


class Worker(Consumer):
    def __init__(
        self,
        record: str,
        job_s: float,
        finished: str,
        received: str = os.devnull,
        on_point: OnPoint = lambda point: None,
    ) -> None:
        super().__init__("squares")
        self._received = os.open(received, os.O_WRONLY | os.O_APPEND)
        self._record = os.open(record, os.O_WRONLY | os.O_APPEND)
        self._finished = os.open(finished, os.O_WRONLY | os.O_APPEND)
        self._job_s = job_s
        self._on_point = on_point

    def connect(self, orchestrator: Orchestrator, **options: Any) -> None:
        super().connect(orchestrator, **options)
        record_calls(self.consumer_backend, self._received, self._on_point)

    def run(self, job: Job[Numbered]) -> Square:
        self.note_start(job)
        if job.payload.note == REJECTED:
            raise Reject("as it asked")
        time.sleep(self._job_s)
        self._on_point("mid-job")
        os.write(self._finished, f"{os.getpid()} {job.id}\n".encode())
        self._on_point("effect done")
        return Square(square=job.payload.number**2)

    def note_start(self, job: Job[Numbered]) -> None:
        os.write(self._record, f"{os.getpid()} {job.id}\n".encode())

    def close(self) -> None:
        super().close()
        for descriptor in (self._record, self._finished, self._received):
            os.close(descriptor)


class AsyncWorker(Worker):
    """The same with an ``async def``, so that its jobs run as tasks."""

    async def run(self, job: Job[Numbered]) -> Square:  # type: ignore[override]
        self.note_start(job)
        await asyncio.sleep(self._job_s)
        os.write(self._finished, f"{os.getpid()} {job.id}\n".encode())
        return Square(square=job.payload.number**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("record", help="a file that gets a line for every execution")
    parser.add_argument("--finished", default=os.devnull, help="one that gets a line when it was done")
    parser.add_argument("--received", default=os.devnull, help="one that gets a line for every delivery")
    parser.add_argument("--lease-s", type=float, default=30.0)
    parser.add_argument("--job-s", type=float, default=0.001, help="how long a job takes")
    parser.add_argument("--prefetch", type=int)
    parser.add_argument("--concurrency", type=int, default=1, help="how many jobs run at once")
    parser.add_argument("--tasks", type=int, default=0, help="whether they run as tasks, not on threads")
    parser.add_argument("--signal-at", choices=POINTS, help="where this process is sent a signal")
    parser.add_argument("--signal-after", type=int, default=1, help="when it passes there for the n-th time")
    parser.add_argument("--signal-name", default="SIGKILL", help="which signal")
    options = parser.parse_args()
    on_point = signal_at(options.signal_at, options.signal_after, signal.Signals[options.signal_name])

    orchestrator = Orchestrator(options.url)
    orchestrator.register(SCHEMA)
    kind = AsyncWorker if options.tasks else Worker
    with kind(options.record, options.job_s, options.finished, options.received, on_point) as worker:
        worker.connect(
            orchestrator,
            concurrency=options.concurrency,
            lease_s=options.lease_s,
            prefetch=options.prefetch,
        )
        worker.consume()
        print(json.dumps(dataclasses.asdict(worker.stats)))
    orchestrator.close()


if __name__ == "__main__":
    main()
