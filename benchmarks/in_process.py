"""This project in the measuring process: one job, and drains through the port and through a consumer."""

import time
from collections.abc import Callable

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator, job_from_schema
from mindtrace.jobs.domain.envelope import encode
from mindtrace.jobs.ports import Ack, Message, OrchestratorBackend

QUEUE = "bench"


class Pair(JobInput):
    x: float
    y: float


class Idle(Consumer):
    schema = JobSchema(QUEUE, Pair)

    first = last = 0.0

    def run(self, job: Job[Pair]) -> None:
        self.last = time.perf_counter()
        self.first = self.first or self.last


PAIR = Pair(x=1.5, y=2.5)


def timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def connect(url: str) -> Orchestrator:
    orchestrator = Orchestrator(url)
    orchestrator.register(Idle.schema)
    return orchestrator


def messages(count: int) -> list[Message]:
    jobs = [job_from_schema(Idle.schema, PAIR) for _ in range(count)]
    return [Message(job.id, encode(job, Idle.schema)) for job in jobs]


def publish_port(backend: OrchestratorBackend, jobs: list[Message], batch: int) -> None:
    for start in range(0, len(jobs), batch):
        backend.publish(QUEUE, jobs[start : start + batch])


def drain_port(backend: OrchestratorBackend, batch: int, count: int) -> None:
    """Drain through the port alone: what the adapter can do, without decoding or running anything."""
    with backend.open_consumer(QUEUE) as consumer:
        deliveries = consumer.receive(batch, 1.0)
        taken = len(deliveries)
        while deliveries:
            acks = [Ack(delivery.receipt) for delivery in deliveries]
            deliveries = consumer.settle(acks, take=min(batch, count - taken)).deliveries
            if not deliveries and taken < count:
                deliveries = consumer.receive(min(batch, count - taken), 1.0)
            taken += len(deliveries)
    if taken < count:
        raise RuntimeError("not every job came")


def drain_port_one_by_one(backend: OrchestratorBackend, count: int) -> float:
    """Seconds from the first job to the last, each settled before the next is taken."""
    with backend.open_consumer(QUEUE) as consumer:
        deliveries = consumer.receive(1, 1.0)
        began = time.perf_counter()
        for _ in range(count - 1):
            ack = Ack(deliveries[0].receipt)
            deliveries = consumer.settle([ack], take=1).deliveries or consumer.receive(1, 1.0)
        took = time.perf_counter() - began
        consumer.settle([Ack(deliveries[0].receipt)])
    return took


def drain_application(orchestrator: Orchestrator, prefetch: int | None, count: int) -> float:
    """Seconds from the first job to the last, through a consumer."""
    with Idle(QUEUE) as consumer:
        consumer.connect(orchestrator, prefetch=prefetch)
        if consumer.consume(count) != count:
            raise RuntimeError("not every job came")
        return consumer.last - consumer.first
