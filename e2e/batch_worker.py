"""A worker of batches, as a user would write it; some of its jobs kill the process that runs them.

Writes down every batch before it runs and after it was done, and how many crashes each delivery has had.
"""

import os
import signal
import sys
from collections.abc import Sequence

from mindtrace.jobs import (
    BatchConsumer,
    ConsumerBackend,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    RetryPolicy,
)
from mindtrace.jobs.ports import Delivery, Settled, Settlement

KILLER = "kill me"
BATCH_SIZE = 32


class Image(JobInput):
    note: str = ""


class Embedding(JobOutput):
    size: int


SCHEMA = JobSchema("embed", Image, Embedding, retry=RetryPolicy(max_crashes=3))


class Embed(BatchConsumer[Image, Embedding]):
    schema = SCHEMA
    batch_size = BATCH_SIZE
    batch_wait_s = 0.05

    def __init__(self, record: int) -> None:
        super().__init__()
        self._record = record

    def run_batch(self, jobs: Sequence[Job[Image]]) -> list[Embedding]:
        ids = " ".join(job.id for job in jobs)
        self.note(f"started {ids}")
        if any(job.payload.note == KILLER for job in jobs):
            os.kill(os.getpid(), signal.SIGKILL)
        self.note(f"finished {ids}")
        return [Embedding(size=len(job.payload.note)) for job in jobs]

    def note(self, line: str) -> None:
        os.write(self._record, f"{line}\n".encode())

    def watch(self, backend: ConsumerBackend) -> None:
        """Write down what is received, before anybody else knows of it."""
        receive, settle = backend.receive, backend.settle

        def note(deliveries: list[Delivery]) -> None:
            self.note("received " + " ".join(f"{one.id}:{one.crashes}" for one in deliveries))

        def watched_receive(max_jobs: int, timeout_s: float) -> list[Delivery]:
            deliveries = receive(max_jobs, timeout_s)
            note(deliveries)
            return deliveries

        def watched_settle(settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
            settled = settle(settlements, take=take)
            note(settled.deliveries)
            return settled

        backend.receive = watched_receive  # type: ignore[method-assign]
        backend.settle = watched_settle  # type: ignore[method-assign]


def main(url: str, record: str, lease_s: str) -> None:
    with Orchestrator(url) as orchestrator, Embed(os.open(record, os.O_WRONLY | os.O_APPEND)) as consumer:
        consumer.connect(orchestrator, lease_s=float(lease_s))
        consumer.watch(consumer.consumer_backend)
        consumer.consume()


if __name__ == "__main__":
    main(*sys.argv[1:])
