"""A worker process with limits, as a user would write it: several consumers, each with several threads.

Either all are of one queue, which has a limit by camera, or each is of one of the queues that share a limit.

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
SHARING = [
    JobSchema(f"sharing-{n}", Frame, retry=SCHEMA.retry, concurrency_limit=Limit(LIMIT, name="gpu"))
    for n in range(3)
]


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
        line = f"{what} {job.payload.camera} {self.queue_name}/{job.id} {os.getpid()} {now!r}\n"
        os.write(self._record, line.encode())


class First(Work):
    schema = SHARING[0]


class Second(Work):
    schema = SHARING[1]


class Third(Work):
    schema = SHARING[2]


def work(orchestrator: Orchestrator, record: int, lease_s: float, cls: type[Work]) -> None:
    with cls(record) as consumer:
        consumer.connect(orchestrator, lease_s=lease_s, concurrency=CONCURRENCY)
        consumer.consume()


def main(url: str, record: str, lease_s: str, which: str) -> None:
    file = os.open(record, os.O_WRONLY | os.O_APPEND)
    if which == "sharing":  # one orchestrator: eight such processes would need many connections
        work_for = [(one, cls) for one in [Orchestrator(url)] for cls in (First, Second, Third)]
    else:
        work_for = [(Orchestrator(url), Work) for _ in range(CONSUMERS)]
    threads = [
        threading.Thread(target=work, args=(orchestrator, file, float(lease_s), cls), daemon=True)
        for orchestrator, cls in work_for
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    main(*sys.argv[1:])
