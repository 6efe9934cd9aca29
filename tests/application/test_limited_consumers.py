"""Consumers of a schema with limits: one at a time, many at once, and in batches."""

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from mindtrace.jobs import (
    AccessDenied,
    BatchConsumer,
    Capabilities,
    Consumer,
    Job,
    JobInput,
    JobSchema,
    Limit,
    LocalClient,
    Orchestrator,
    Rate,
    UnsupportedCapability,
)
from mindtrace.jobs.adapters.local.coordination import LocalCoordinationStore


class Frame(JobInput):
    camera: int = 0


BY_CAMERA = JobSchema("frames", Frame, concurrency_limit=Limit(2, by="camera"))
WHOLE = JobSchema("frames", Frame, concurrency_limit=Limit(1))
LONG_S = 60.0
RATED = JobSchema("frames", Frame, rate=Rate(100, per_s=1))


class Running:
    """Counts what runs at the same time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._now: Counter[int] = Counter()
        self.most: Counter[int] = Counter()
        self.done = 0

    def run(self, camera: int) -> None:
        with self._lock:
            self._now[camera] += 1
            self.most[camera] = max(self.most[camera], self._now[camera])
        threading.Event().wait(0.001)
        with self._lock:
            self._now[camera] -= 1
            self.done += 1


def consumer_of(schema: JobSchema[Any, Any], run: Any) -> Consumer:
    made: Consumer = type("Frames", (Consumer,), {"schema": schema, "run": lambda self, job: run(job)})()
    return made


@pytest.mark.parametrize("concurrency", [1, 2])
def test_a_store_that_denies_access_keeps_no_job_from_being_settled(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, concurrency: int
) -> None:
    """Its password was changed, say; the broker takes the ack, and the job must not run again (SET-1)."""

    def deny(*_: object, **__: object) -> None:
        raise AccessDenied("the store's password was changed")

    def run(job: Job[Frame]) -> None:
        monkeypatch.setattr(LocalCoordinationStore, "leave_places", deny)
        monkeypatch.setattr(LocalCoordinationStore, "take_places", deny)

    orchestrator.register(WHOLE)
    orchestrator.publish("frames", Frame())
    with consumer_of(WHOLE, run) as consumer:
        consumer.connect(orchestrator, concurrency=concurrency, poll_timeout_s=0.1)
        consumer.consume(1)
        assert (consumer.stats.done, consumer.stats.lost) == (1, 0)
        orchestrator.publish("frames", Frame())
        with pytest.raises(AccessDenied):
            consumer.consume()
    assert orchestrator.counts("frames").ready == 1


@pytest.mark.parametrize("concurrency", [1, 3, 100])
def test_no_more_run_at_once_than_the_limit_says(orchestrator: Orchestrator, concurrency: int) -> None:
    """Over several consumers, each with so many threads."""
    running = Running()
    orchestrator.register(BY_CAMERA)
    orchestrator.publish_batch("frames", [Frame(camera=n % 3) for n in range(90)])

    def work() -> None:
        with consumer_of(BY_CAMERA, lambda job: running.run(job.payload.camera)) as consumer:
            consumer.connect(orchestrator, concurrency=concurrency, poll_timeout_s=0.1)
            consumer.consume_until_empty()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert running.done == 90
    assert max(running.most.values()) <= 2


def test_as_many_run_at_once_as_the_limit_says(orchestrator: Orchestrator) -> None:
    """Two jobs that wait for each other end."""
    both_run = threading.Barrier(2, timeout=LONG_S)

    def meet(job: Job[Frame]) -> None:
        both_run.wait()

    with consumer_of(BY_CAMERA, meet) as consumer:
        consumer.connect(orchestrator, concurrency=3)
        orchestrator.publish_batch("frames", [Frame()] * 2)
        assert consumer.consume_until_empty() == 2
        assert consumer.stats.done == 2


def test_tasks_of_an_event_loop_are_limited_too(orchestrator: Orchestrator) -> None:
    running: Counter[str] = Counter()

    class Frames(Consumer[Frame]):
        schema = BY_CAMERA

        async def run(self, job: Job[Frame]) -> None:
            import asyncio

            running["now"] += 1
            running["most"] = max(running["most"], running["now"])
            await asyncio.sleep(0)
            running["now"] -= 1

    with Frames() as consumer:
        consumer.connect(orchestrator, concurrency=50)
        orchestrator.publish_batch("frames", [Frame()] * 40)
        assert consumer.consume_until_empty() == 40
    assert running["most"] <= 2


def test_a_batch_has_no_more_jobs_than_may_run(orchestrator: Orchestrator) -> None:
    sizes: list[int] = []

    class Frames(BatchConsumer[Frame]):
        schema = BY_CAMERA
        batch_size = 8
        batch_wait_s = 0.0

        def run_batch(self, jobs: Sequence[Job[Frame]]) -> list[None]:
            sizes.append(len(jobs))
            assert max(Counter(job.payload.camera for job in jobs).values()) <= 2
            return [None] * len(jobs)

    with Frames() as consumer:
        consumer.connect(orchestrator)
        orchestrator.publish_batch("frames", [Frame(camera=n % 2) for n in range(20)])
        consumer.consume_until_empty()
    assert (sum(sizes), consumer.stats.dead if consumer._connection else 0) == (20, 0)


@pytest.mark.parametrize("concurrency", [1, 10])
def test_consume_until_empty_waits_for_jobs_that_must_wait(
    orchestrator: Orchestrator, concurrency: int
) -> None:
    done: list[str] = []
    orchestrator.register(RATED)
    orchestrator.publish_batch("frames", [Frame()] * 12)
    with consumer_of(RATED, lambda job: done.append(job.id)) as consumer:
        consumer.connect(orchestrator, concurrency=concurrency)
        assert consumer.consume_until_empty() == 12
    assert len(done) == 12


@pytest.mark.parametrize("concurrency", [1, 10])
def test_a_stop_releases_what_waits(orchestrator: Orchestrator, concurrency: int) -> None:
    started, go_on = threading.Event(), threading.Event()

    def run(job: Job[Frame]) -> None:
        started.set()
        go_on.wait()

    orchestrator.register(WHOLE)
    orchestrator.publish_batch("frames", [Frame()] * 5)
    with consumer_of(WHOLE, run) as consumer:
        consumer.connect(orchestrator, concurrency=concurrency)
        thread = threading.Thread(target=consumer.consume)
        thread.start()
        started.wait()
        consumer.stop()
        go_on.set()
        thread.join()

        counts = orchestrator.counts("frames")
        assert (consumer.stats.done, counts.ready, counts.in_flight) == (1, 4, 0)
    (delivery, *_) = orchestrator.backend.open_consumer("frames").receive(1, 0.0)
    assert (delivery.attempt, delivery.crashes) == (1, 0)


class WithoutStore(LocalClient):
    """A broker without a coordination store."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, coordination=False, guarded_publish=False)


@pytest.mark.parametrize("schema", [BY_CAMERA, RATED], ids=["places", "rate"])
def test_limits_need_a_store(schema: JobSchema[Any, Any]) -> None:
    with Orchestrator(WithoutStore()) as orchestrator:
        with pytest.raises(UnsupportedCapability, match="limits need a coordination store"):
            orchestrator.register(schema)
        with pytest.raises(UnsupportedCapability, match="limits need a coordination store"):
            consumer_of(schema, print).connect(orchestrator)


def test_a_queue_without_limits_is_consumed_as_ever(orchestrator: Orchestrator) -> None:
    plain = JobSchema("frames", Frame)
    orchestrator.register(plain)
    with consumer_of(plain, print) as consumer:
        consumer.connect(orchestrator)
        assert type(consumer.consumer_backend).__name__ == "LocalConsumerBackend"
