"""The results of many jobs on each backend, while workers run them in another thread."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from background import Background
from conditions import LIMIT_S
from mindtrace.jobs import (
    AsyncJobHandle,
    AsyncOrchestrator,
    Consumer,
    Job,
    JobCancelled,
    JobFailed,
    JobHandle,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    Reject,
    ResultNotReady,
)

from .backend_urls import own_url

BACKENDS = ["memory", "sqlite", "redis", "postgresql", "rabbitmq"]
JOBS = 300
BAD = 7


class Number(JobInput):
    n: int


class Square(JobOutput):
    square: int


class Text(JobOutput):
    text: str


SQUARES = JobSchema("squares", Number, Square)
TEXTS = JobSchema("texts", Number, Text)


class Squarer(Consumer[Number, Square]):
    schema = SQUARES

    def run(self, job: Job[Number]) -> Square:
        if job.payload.n == BAD:
            raise Reject("a bad number")
        return Square(square=job.payload.n**2)


class Writer(Consumer[Number, Text]):
    schema = TEXTS

    def run(self, job: Job[Number]) -> Text:
        return Text(text=str(job.payload.n))


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """On the backend that the test is run on, which is left as it was."""
    with own_url(request.param, request, tmp_path) as url, Orchestrator(url) as jobs:
        yield url  # queues in memory last while an orchestrator has them
        jobs.delete_queue("squares")
        jobs.delete_queue("texts")


@contextmanager
def workers(jobs: Orchestrator, may_begin: threading.Event) -> Iterator[None]:
    """Run the jobs of both queues in threads, from when they may."""
    with Squarer() as squarer, Writer() as writer, Background() as pool:
        consumers: list[Consumer[Any, Any]] = [squarer, writer]
        for consumer in consumers:
            consumer.connect(jobs, poll_timeout_s=0.2)

        def work(consumer: Consumer[Any, Any]) -> None:
            assert may_begin.wait(LIMIT_S)
            consumer.consume()

        running = [pool.submit(work, consumer) for consumer in consumers]
        try:
            yield
        finally:
            may_begin.set()
            for consumer in consumers:
                consumer.stop()
            for each in running:
                each.result(LIMIT_S)


def check(results: list[Any]) -> None:
    """Look at the results of the squares, and then of the texts."""
    assert isinstance(results[BAD], JobFailed)
    assert "a bad number" in str(results[BAD])
    assert [each.square for n, each in enumerate(results[:JOBS]) if n != BAD] == [
        n**2 for n in range(JOBS) if n != BAD
    ]
    assert [each.text for each in results[JOBS:]] == [str(n) for n in range(JOBS)]


@pytest.mark.parametrize("url", BACKENDS, indirect=True)
def test_results_come_in_order_and_as_jobs_end(url: str) -> None:
    """Of two queues, to callers that began to wait before and after the jobs ended."""
    numbers = [Number(n=n) for n in range(JOBS)]
    may_begin = threading.Event()
    with Orchestrator(url) as jobs:
        handles: list[JobHandle[Any]] = [
            *jobs.publish_batch(SQUARES, numbers),
            *jobs.publish_batch(TEXTS, numbers),
        ]
        with workers(jobs, may_begin), Background() as pool:
            in_order = pool.submit(jobs.results, handles, timeout_s=LIMIT_S, return_exceptions=True)
            as_completed = pool.submit(lambda: list(jobs.as_completed(handles, timeout_s=LIMIT_S)))
            squares = pool.submit(lambda: list(jobs.as_completed(handles[:JOBS], timeout_s=LIMIT_S)))
            may_begin.set()
            check(in_order.result())
            assert sorted(map(id, as_completed.result())) == sorted(map(id, handles))
            assert {each.id for each in squares.result()} == {each.id for each in handles[:JOBS]}
        again = [handle.queue.handle(handle.id) for handle in handles]
        check(jobs.results(again, return_exceptions=True))
        with pytest.raises(JobFailed, match="a bad number"):
            jobs.results(again)
        (late,) = jobs.publish_batch(SQUARES, [Number(n=1)])
        with pytest.raises(ResultNotReady, match=f"job {late.id}"):
            jobs.results([again[0], late], timeout_s=0.01)


@pytest.mark.parametrize("url", BACKENDS, indirect=True)
def test_coroutines_get_the_same(url: str) -> None:
    numbers = [Number(n=n) for n in range(JOBS)]
    may_begin = threading.Event()

    async def main(sync: Orchestrator) -> None:
        async with AsyncOrchestrator(sync) as jobs:
            handles: list[AsyncJobHandle[Any]] = [
                *await jobs.publish_batch(SQUARES, numbers),
                *await jobs.publish_batch(TEXTS, numbers),
            ]
            in_order = asyncio.create_task(jobs.results(handles, timeout_s=LIMIT_S, return_exceptions=True))
            may_begin.set()
            ended = [handle.id async for handle in jobs.as_completed(handles, timeout_s=LIMIT_S)]
            check(await in_order)
            assert sorted(ended) == sorted(handle.id for handle in handles)
            (late,) = await jobs.publish_batch(SQUARES, [Number(n=1)], delay_s=3600)
            with pytest.raises(ResultNotReady, match=f"job {late.id}"):
                await jobs.results([late], timeout_s=0.01)
            if sync.backend.capabilities.cancel:
                await late.cancel()
                with pytest.raises(JobCancelled):
                    await jobs.results([late], timeout_s=LIMIT_S)

    with Orchestrator(url) as sync, workers(sync, may_begin):
        asyncio.run(main(sync))
