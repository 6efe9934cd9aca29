"""Ctrl-C at any line of a consumer's loop: no job stays with a consumer that doesn't know of it."""

import itertools
from collections.abc import Iterator

import pytest

from brokers.rabbitmq_server import PrivateRabbitMQ
from conditions import LIMIT_S, eventually
from interrupts import interrupt_at
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator, QueueCounts

FILES = [
    "consuming/loop.py",
    "consuming/sequential_loop.py",
    "consuming/in_flight.py",
    "gates/gated_consumer.py",
    "rabbitmq/consumer/backend.py",
    "rabbitmq/consumer/credit.py",
    "rabbitmq/consumer/settler.py",
]


class Empty(JobInput):
    pass


class Notes(Consumer):
    schema = JobSchema("notes", Empty)

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def run(self, job: Job[Empty]) -> None:
        self.ran.append(job.id)


@pytest.fixture
def orchestrator(rabbitmq_node: PrivateRabbitMQ) -> Iterator[Orchestrator]:
    with rabbitmq_node.client("interrupts", retry_timeout_s=LIMIT_S) as client, Orchestrator(client) as made:
        made.register(Notes.schema)
        yield made


@pytest.mark.parametrize("file", FILES)
def test_a_job_whose_delivery_was_interrupted_runs_in_the_next_run(
    orchestrator: Orchestrator, file: str
) -> None:
    """The connection is its lease, which doesn't end as long as the consumer goes on (SET-4)."""
    with Notes() as consumer:
        consumer.connect(orchestrator)
        for point in itertools.count(1):
            job_id = orchestrator.publish(Notes.schema, {})
            was_interrupted = interrupt_at(point, file, lambda: consumer.consume(1))
            eventually(lambda: consumer.consume(1, block=False) or consumer.ran, f"the job runs: {point}")
            assert set(consumer.ran) == {job_id}, point
            assert not consumer.consumer_backend.given_out(), point
            assert orchestrator.counts(Notes.schema) == QueueCounts(0, 0, None, 0), point
            consumer.ran.clear()
            if not was_interrupted:
                return
