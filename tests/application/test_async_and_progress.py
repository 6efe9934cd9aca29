"""Handlers that are ``async def``, and handlers that say how far they have come."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, LocalClient, Orchestrator, Progress, progress
from mindtrace.jobs.application.consuming import progress_reporter
from mindtrace.jobs.application.tools.results import await_result
from mindtrace.jobs.domain.errors import (
    BackendUnavailable,
    JobFailed,
    JobNotFound,
    ResultNotReady,
    UsageError,
)

MakeConsumer = Callable[..., Consumer]


def test_an_async_handler_runs_and_its_result_is_kept(orchestrator: Orchestrator) -> None:
    """On one loop from job to job, which is closed when the consumer ends."""
    loops: list[asyncio.AbstractEventLoop] = []

    class Async(Consumer):
        async def run(self, job: Job[Any]) -> Any:
            loops.append(asyncio.get_running_loop())
            await asyncio.sleep(0)
            return {"total": job.payload.x}

    ids = [orchestrator.publish("points", {"x": n}) for n in range(3)]
    with Async("points") as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.01)
        consumer.consume(3)

    assert [orchestrator.result("points", id_).total for id_ in ids] == [0, 1, 2]
    assert len(set(loops)) == 1
    assert loops[0].is_closed()


def test_an_async_handler_that_raises_fails_its_job_alone(orchestrator: Orchestrator) -> None:
    """Cancelled or otherwise."""

    class Async(Consumer):
        async def run(self, job: Job[Any]) -> Any:
            if job.payload.x == 0:
                asyncio.current_task().cancel()  # type: ignore[union-attr]
                await asyncio.sleep(1)
            if job.payload.x == 1:
                raise ValueError
            job.progress(1, 2)

    orchestrator.publish_batch("points", [{"x": n} for n in range(3)])
    with Async("points") as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.01)
        consumer.consume_until_empty()

        assert (consumer.stats.done, consumer.stats.retried, consumer.stats.dead) == (1, 4, 2)


def test_a_task_left_behind_that_ends_the_loop_leaves_no_job_running_beside_the_next(
    orchestrator: Orchestrator,
) -> None:
    """The job that it interrupts is cancelled and tried again, on the same loop."""
    started: list[float] = []
    running: set[float] = set()
    loops: set[asyncio.AbstractEventLoop] = set()

    class Async(Consumer):
        async def run(self, job: Job[Any]) -> None:
            started.append(job.payload.x)
            loops.add(asyncio.get_running_loop())
            assert not running
            if job.payload.x == 0:
                self.stray = asyncio.create_task(leave())
                return
            running.add(job.payload.x)
            try:
                await (asyncio.Event().wait() if started == [0, 1] else asyncio.sleep(0))
            finally:
                running.clear()

    async def leave() -> None:
        while not running:
            await asyncio.sleep(0)
        raise SystemExit

    orchestrator.publish_batch("points", [{"x": n} for n in range(3)])
    with Async("points") as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.01, prefetch=1)
        consumer.consume_until_empty()

        assert started == [0, 1, 2, 1]
        assert (consumer.stats.done, consumer.stats.retried) == (3, 1)
    assert isinstance(consumer.stray.exception(), SystemExit)
    assert len(loops) == 1


def test_a_task_left_behind_that_fails_when_it_is_cancelled_ends_no_consumer(
    orchestrator: Orchestrator,
) -> None:
    class Async(Consumer):
        async def run(self, job: Job[Any]) -> None:
            self.stray = asyncio.create_task(refuse())
            await asyncio.sleep(0)

    async def refuse() -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise SystemExit from None

    orchestrator.publish("points", {})
    with Async("points") as consumer:
        consumer.connect(orchestrator)

        assert consumer.consume_until_empty() == 1
        assert consumer.stats.done == 1
        assert isinstance(consumer.stray.exception(), SystemExit)  # seen: nothing is left to be logged later


def test_progress_is_seen_while_the_job_runs(orchestrator: Orchestrator, make_consumer: MakeConsumer) -> None:
    seen: list[dict[str, Progress]] = []

    def work(job: Job[Any]) -> None:
        job.progress(3, 10)
        seen.append(orchestrator.progress("points"))

    job_id = orchestrator.publish("points", {})
    make_consumer(work).consume(1)

    assert seen == [{job_id: Progress(3, 10)}]
    assert orchestrator.progress("points") == {}


def test_the_broker_is_told_seldom_however_often_the_handler_tells(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of each job, and then twice a second at most."""
    told: list[Progress] = []
    now_s = 1000.0
    monkeypatch.setattr(progress_reporter, "monotonic", lambda: now_s)

    def work(job: Job[Any]) -> None:
        nonlocal now_s
        for n in range(1000):
            progress(n)
            now_s += 1 / 1024

    orchestrator.publish_batch("points", [{}, {}])
    consumer = make_consumer(work)
    consumer.consumer_backend.report = lambda receipt, progress: told.append(progress)  # type: ignore[method-assign]
    consumer.consume(2)

    assert told == [Progress(0), Progress(512)] * 2


def test_a_broker_that_cannot_be_told_costs_the_job_nothing(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And isn't asked again for a while."""
    now_s = 1000.0
    monkeypatch.setattr(progress_reporter, "monotonic", lambda: now_s)
    tries: list[str] = []

    def report(receipt: str, progress: Progress) -> None:
        tries.append(receipt)
        raise BackendUnavailable

    def work(job: Job[Any]) -> None:
        nonlocal now_s
        for n in range(10):
            progress(n)
            now_s += 0.9

    job_id = orchestrator.publish("points", {})
    consumer = make_consumer(work)
    consumer.consumer_backend.report = report  # type: ignore[method-assign]
    consumer.consume(1)

    assert orchestrator.result("points", job_id) is None
    assert len(tries) == 1


# -- waiting for a result without its schema ------------------------------------------------------


def test_whoever_waits_sees_the_progress_and_then_the_result(
    client: LocalClient, orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any
) -> None:
    """Asked of every queue there is, with no schema known."""
    seen: list[Progress] = []

    def work(job: Job[Any]) -> Any:
        job.progress(1, 2)
        while not seen:
            time.sleep(0.001)
        return {"total": 7}

    job_id = orchestrator.publish("points", {})
    consuming = background(make_consumer(work).consume, 1)

    assert await_result(Orchestrator(client), job_id, timeout_s=60, on_progress=seen.append) == {"total": 7.0}
    assert seen[0] == Progress(1, 2)
    consuming.result()


def test_a_dead_job_and_an_unknown_one_raise(
    client: LocalClient, orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    job_id = orchestrator.publish("points", {})
    make_consumer(lambda job: 1 / 0).consume_until_empty()
    with pytest.raises(JobFailed, match="ZeroDivisionError"):
        await_result(Orchestrator(client), job_id)
    with pytest.raises(JobNotFound, match="not known in queue 'points'"):
        await_result(Orchestrator(client), "nobody", "points")
    orchestrator.register(JobSchema("other", JobInput))
    with pytest.raises(JobNotFound, match="not known in any queue: other, points"):
        await_result(Orchestrator(client), "nobody")
    waiting = orchestrator.publish("points", {})
    with pytest.raises(ResultNotReady, match="it is waiting"):
        await_result(Orchestrator(client), waiting)


def test_an_async_handler_is_refused_under_a_running_event_loop(
    orchestrator: Orchestrator,
) -> None:
    """Before any job is taken: Python can't run a second loop there, and each job would fail."""

    class Async(Consumer):
        async def run(self, job: Job[Any]) -> Any:
            await asyncio.sleep(0)

    orchestrator.publish("points", {})
    with Async("points") as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.01)

        async def main() -> None:
            with pytest.raises(UsageError, match=r"await consumer.consume_async\(\)"):
                consumer.consume(1)
            assert await consumer.consume_async(1) == 1

        asyncio.run(main())

        assert consumer.stats.done == 1
    assert orchestrator.dead_letters("points") == []
