"""How fast the parts are, and the whole on queues in memory, with a job of two floats: ``make bench``.

Each run tells the jobs per second of its median round in ``extra_info``, and what its fastest round cost a
job, as a multiple of a reference that is measured right before and after.
"""

import logging
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    LocalClient,
    Orchestrator,
    RetryPolicy,
    job_from_schema,
)
from mindtrace.jobs.application.consuming.executor import Executor
from mindtrace.jobs.domain.envelope import decode, encode
from mindtrace.jobs.ports import Ack, Delivery

from .conftest import reference_s

BATCH = 1000
ROUNDS = 50


class Point(JobInput):
    x: float
    y: float


class Total(JobOutput):
    total: float


SCHEMA = JobSchema("points", Point, Total)
POINT = Point(x=1.5, y=2.5)
JOB = job_from_schema(SCHEMA, POINT)
BODY = encode(JOB, SCHEMA)


class Add(Consumer):
    def run(self, job: Job[Point]) -> Total:
        return Total(total=job.payload.x + job.payload.y)


class Nothing(Consumer):
    def run(self, job: Job[Point]) -> None:
        pass


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with LocalClient() as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(SCHEMA)
        yield orchestrator


@pytest.fixture
def measure(benchmark: BenchmarkFixture) -> Iterator[Callable[..., Any]]:
    """Time a step that handles so many jobs, and tell how many that is a second."""
    jobs = 1
    reference = reference_s()

    def run(step: Callable[..., Any], *, each: int = 1, setup: Callable[[], None] | None = None) -> Any:
        nonlocal jobs
        jobs = each
        if each == 1:
            return benchmark(step)
        return benchmark.pedantic(step, setup=setup, rounds=ROUNDS, warmup_rounds=0 if setup else 3)

    yield run
    stats = benchmark.stats.stats
    benchmark.extra_info["jobs/s"] = round(jobs / stats.median)
    benchmark.extra_info["ratio"] = stats.min / jobs / min(reference, reference_s())


def test_job_from_schema(measure: Callable[..., Any]) -> None:
    """A job of an instance of its model."""
    assert measure(lambda: job_from_schema(SCHEMA, POINT)).payload is POINT


def test_job_from_schema_of_a_dict(measure: Callable[..., Any]) -> None:
    """A job of a dict, which is validated."""
    assert measure(lambda: job_from_schema(SCHEMA, {"x": 1.5, "y": 2.5})).payload == POINT


def test_encode(measure: Callable[..., Any]) -> None:
    """A job into an envelope, and the check that it can be read back."""
    assert measure(lambda: encode(JOB, SCHEMA)) == BODY


def test_decode(measure: Callable[..., Any]) -> None:
    """An envelope into a job, its bounds checked and its payload validated."""
    assert measure(lambda: decode(BODY, SCHEMA)) == JOB


def test_execute(measure: Callable[..., Any]) -> None:
    """One delivery through the pipe: decode, run, validate and encode the result."""
    consumer = Add("points")
    executor = Executor(SCHEMA, consumer.run, RetryPolicy(), True, 1024, logging.getLogger())
    delivery = Delivery(JOB.id, BODY, "receipt", 1, 1, 0, 30.0)

    assert isinstance(measure(lambda: executor.execute(delivery)), Ack)


def test_publish_in_batches(measure: Callable[..., Any], orchestrator: Orchestrator) -> None:
    """A thousand jobs in one call."""
    points = [POINT] * BATCH

    measure(lambda: orchestrator.publish_batch("points", points), each=BATCH)

    assert orchestrator.clean_queue("points") >= BATCH * ROUNDS


def test_publish_one_by_one(measure: Callable[..., Any], orchestrator: Orchestrator) -> None:
    """One job in one call."""
    assert len(measure(lambda: orchestrator.publish("points", POINT))) == 32


@pytest.mark.parametrize("consumer_class", [Nothing, Add], ids=["without a result", "with a result"])
def test_consume(
    measure: Callable[..., Any], orchestrator: Orchestrator, consumer_class: type[Consumer]
) -> None:
    """A thousand jobs that wait, on one thread."""
    with consumer_class("points") as consumer:
        consumer.connect(orchestrator)

        measure(
            lambda: consumer.consume(BATCH),
            each=BATCH,
            setup=lambda: orchestrator.publish_batch("points", [POINT] * BATCH) and None,
        )

        assert consumer.stats.done == consumer.stats.attempted == BATCH * ROUNDS


def test_loop(measure: Callable[..., Any], orchestrator: Orchestrator, benchmark: BenchmarkFixture) -> None:
    """What the loop and the queue in memory cost a job, its decoding and validation apart."""
    with Nothing("points") as consumer:
        consumer.connect(orchestrator)
        measure(
            lambda: consumer.consume(BATCH),
            each=BATCH,
            setup=lambda: orchestrator.publish_batch("points", [POINT] * BATCH) and None,
        )

    def decode_all() -> float:
        began = time.perf_counter()
        for _ in range(BATCH):
            decode(BODY, SCHEMA)
        return time.perf_counter() - began

    least = min(decode_all() for _ in range(ROUNDS))
    benchmark.extra_info["loop_us"] = (benchmark.stats.stats.min - least) / BATCH * 1e6
