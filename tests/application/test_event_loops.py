"""Coroutines on another event loop than asyncio's own: consumers' handlers, and calls of async methods."""

import asyncio
import sys
from collections.abc import Sequence
from typing import Any

import pytest

from mindtrace.jobs import (
    AsyncOrchestrator,
    BatchConsumer,
    Consumer,
    Job,
    JobSchema,
    Orchestrator,
    job_handler,
)

if sys.platform == "win32":
    pytest.skip("there is no uvloop for Windows", allow_module_level=True)

import uvloop

Loops = list[asyncio.AbstractEventLoop]


class FastConsumer(Consumer):
    """Notes the loops that its jobs run on."""

    loop_factory = uvloop.new_event_loop

    def __init__(self, loops: Loops) -> None:
        super().__init__("points")
        self.loops = loops

    async def run(self, job: Job[Any]) -> None:
        await asyncio.sleep(0)
        self.loops.append(asyncio.get_running_loop())


class FastBatchConsumer(BatchConsumer):
    """Likewise, of batches."""

    loop_factory = uvloop.new_event_loop

    def __init__(self, loops: Loops) -> None:
        super().__init__("points")
        self.loops = loops

    async def run_batch(self, jobs: Sequence[Job[Any]]) -> list[None]:
        self.loops += [asyncio.get_running_loop()] * len(jobs)
        return [None] * len(jobs)


def publish(orchestrator: Orchestrator, count: int) -> None:
    orchestrator.publish_batch("points", [{"x": n} for n in range(count)])


@pytest.mark.parametrize("concurrency", [1, 8])
def test_jobs_run_on_the_loop_that_the_class_makes(orchestrator: Orchestrator, concurrency: int) -> None:
    """All on one, be it one job at a time or many at once."""
    publish(orchestrator, 20)
    with FastConsumer(loops := []) as consumer:
        consumer.connect(orchestrator, concurrency=concurrency)
        assert consumer.consume_until_empty() == 20

    assert {type(loop) for loop in loops} == {uvloop.Loop}
    assert (len(loops), len(set(loops))) == (20, 1)


def test_batches_run_on_it_too(orchestrator: Orchestrator) -> None:
    """The loop of the class of a batch consumer."""
    publish(orchestrator, 20)
    with FastBatchConsumer(loops := []) as consumer:
        consumer.connect(orchestrator)
        assert consumer.consume_until_empty() == 20

    assert [type(loop) for loop in loops] == [uvloop.Loop] * 20


@pytest.mark.parametrize("concurrency", [1, 8])
def test_the_decorator_takes_a_loop_as_well(
    orchestrator: Orchestrator, schema: JobSchema[Any, Any], concurrency: int
) -> None:
    """As the class does."""
    loops: Loops = []

    @job_handler(schema, concurrency=concurrency, loop_factory=uvloop.new_event_loop)
    async def handle(job: Job[Any]) -> None:
        loops.append(asyncio.get_running_loop())

    publish(orchestrator, 5)
    with handle.consumer() as consumer:
        consumer.connect(orchestrator)
        assert consumer.consume_until_empty() == 5

    assert [type(loop) for loop in loops] == [uvloop.Loop] * 5


def test_async_methods_are_awaited_on_it(orchestrator: Orchestrator) -> None:
    """A publish and a result, beside a consumer on the same loop."""

    async def publish_and_wait() -> Any:
        async with AsyncOrchestrator(orchestrator.backend) as jobs:
            await jobs.register(orchestrator.schema_registry.registered("points").schema)
            job_id = await jobs.publish("points", {"x": 1.0})
            with FastConsumer([]) as consumer:
                consumer.connect(orchestrator, concurrency=8)
                assert await consumer.consume_async(1) == 1
            return await jobs.result("points", job_id, timeout_s=60.0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        assert runner.run(publish_and_wait()) is None
