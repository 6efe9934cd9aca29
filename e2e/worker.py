"""A worker as a user would write it, for the tests that kill one: consumes until it is told to stop.

Writes down every execution, and prints its account when it ends gracefully.
"""

import argparse
import dataclasses
import json
import os
import time

from mindtrace.jobs import Consumer, Job, JobInput, JobOutput, JobSchema, Orchestrator, RetryPolicy


class Numbered(JobInput):
    number: int
    note: str = ""


class Square(JobOutput):
    square: int


SCHEMA = JobSchema("squares", Numbered, Square, retry=RetryPolicy(max_deliveries=20))


class Worker(Consumer):
    def __init__(self, record: str, job_s: float, finished: str) -> None:
        super().__init__("squares")
        self._record = os.open(record, os.O_WRONLY | os.O_APPEND)
        self._finished = os.open(finished, os.O_WRONLY | os.O_APPEND)
        self._job_s = job_s

    def run(self, job: Job[Numbered]) -> Square:
        os.write(self._record, f"{os.getpid()} {job.id}\n".encode())
        time.sleep(self._job_s)
        os.write(self._finished, f"{os.getpid()} {job.id}\n".encode())
        return Square(square=job.payload.number**2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("record", help="a file that gets a line for every execution")
    parser.add_argument("--finished", default=os.devnull, help="one that gets a line when it was done")
    parser.add_argument("--lease-s", type=float, default=30.0)
    parser.add_argument("--job-s", type=float, default=0.001, help="how long a job takes")
    parser.add_argument("--prefetch", type=int)
    options = parser.parse_args()

    orchestrator = Orchestrator(options.url)
    orchestrator.register(SCHEMA)
    with Worker(options.record, options.job_s, options.finished) as worker:
        worker.connect(orchestrator, lease_s=options.lease_s, prefetch=options.prefetch)
        worker.consume()
        print(json.dumps(dataclasses.asdict(worker.stats)))
    orchestrator.close()


if __name__ == "__main__":
    main()
