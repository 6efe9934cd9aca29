"""A worker process with limits, as a user would write it: several consumers, each with several threads.

Writes down each start and end of a job by the clock of the coordination store.
"""

import os
import sys
import threading

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Limit, Orchestrator, RetryPolicy

CONSUMERS = 4
CONCURRENCY = 4
LIMIT = 3


class Frame(JobInput):
    camera: int
    seconds: float = 0.02


SCHEMA = JobSchema(
    "limited",
    Frame,
    retry=RetryPolicy(max_crashes=1_000),
    concurrency_limit=Limit(LIMIT, by="camera"),
)


class Work(Consumer[Frame]):
    schema = SCHEMA

    def __init__(self, record: int) -> None:
        super().__init__()
        self._record = record

    def run(self, job: Job[Frame]) -> None:
        self.note("start", job)
        threading.Event().wait(job.payload.seconds)
        self.note("end", job)

    def note(self, what: str, job: Job[Frame]) -> None:
        now = self.orchestrator.backend.coordination.now()
        line = f"{what} {job.payload.camera} {job.id} {os.getpid()} {now!r}\n"
        os.write(self._record, line.encode())


def work(url: str, record: int, lease_s: float) -> None:
    with Orchestrator(url) as orchestrator, Work(record) as consumer:
        consumer.connect(orchestrator, lease_s=lease_s, concurrency=CONCURRENCY)
        consumer.consume()


def main(url: str, record: str, lease_s: str) -> None:
    file = os.open(record, os.O_WRONLY | os.O_APPEND)
    threads = [
        threading.Thread(target=work, args=(url, file, float(lease_s)), daemon=True) for _ in range(CONSUMERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
