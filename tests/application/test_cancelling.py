"""Cancelling jobs: what handlers and callers see (CAN-1 to CAN-4)."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mindtrace.jobs import (
    AsyncOrchestrator,
    Attempt,
    BatchConsumer,
    CancelOutcome,
    Consumer,
    Job,
    JobCancelled,
    JobInput,
    JobSchema,
    JobStatus,
    Limit,
    LocalClient,
    Observer,
    Orchestrator,
    Outcome,
    RetryLater,
    Unique,
    job_handler,
)
from mindtrace.jobs.application.pausing import watch
from mindtrace.jobs.domain.errors import InvalidInput, InvalidName, UnsupportedCapability

LONG_S = 60.0


class Point(JobInput):
    x: int = 0


SCHEMA = JobSchema("points", Point)
CANCELLED, REQUESTED = CancelOutcome.CANCELLED, CancelOutcome.REQUESTED


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for announcements often, so that no test waits for it."""
    monkeypatch.setattr(watch, "LOOK_S", 0.005)


class Heard(Observer):
    """Records how attempts ended."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def ended(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def jobs(heard: Heard) -> Iterator[Orchestrator]:
    with LocalClient() as client:
        made = Orchestrator(client, observers=[heard])
        made.register(SCHEMA)
        yield made


class Sleeper(Consumer):
    """A coroutine that waits, and notes how it ended."""

    schema = SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Semaphore(0)
        self.ends: list[str] = []

    async def run(self, job: Job[Point]) -> None:
        self.started.release()
        try:
            await asyncio.sleep(LONG_S)
        except asyncio.CancelledError:
            self.ends.append("cancelled")
            raise
        self.ends.append("done")


class Loop(Consumer):
    """A plain handler that looks whether it is to end, and ends by ``end``."""

    schema = SCHEMA

    def __init__(self, end: Callable[[], Any], looks: Callable[["Loop", Job[Point]], bool]) -> None:
        super().__init__()
        self.started = threading.Semaphore(0)
        self.end, self.looks = end, looks

    def run(self, job: Job[Point]) -> Any:
        self.started.release()
        give_up = threading.Event()
        while not self.looks(self, job):
            assert not give_up.wait(0.001)
        return self.end()


def raising(error: BaseException) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end


@pytest.fixture
def running(jobs: Orchestrator, background: Any) -> Iterator[Callable[..., Any]]:
    """Start a consumer in a thread, and stop it in the end."""
    consumers: list[tuple[Consumer, Any]] = []

    def start(consumer: Any, **settings: Any) -> Any:
        consumer.connect(jobs, **settings)
        consumers.append((consumer, background(consumer.consume)))
        return consumer

    yield start
    for consumer, future in consumers:
        consumer.stop()
        future.result()
        consumer.close()


def expect_cancelled(jobs: Orchestrator, job_id: str) -> None:
    with pytest.raises(JobCancelled, match=job_id):
        jobs.result("points", job_id, timeout_s=LONG_S)
    assert jobs.status("points", job_id) is JobStatus.CANCELLED
    assert jobs.counts("points").dead == 0
    assert jobs.count_queue_messages("points") == 0


@pytest.mark.parametrize("concurrency", [1, 3])
def test_a_coroutine_is_cancelled_at_its_await(
    jobs: Orchestrator, running: Any, heard: Heard, concurrency: int
) -> None:
    sleeper = running(Sleeper(), concurrency=concurrency)
    job_id = jobs.publish("points", Point())
    assert sleeper.started.acquire(timeout=LONG_S)

    assert jobs.cancel("points", job_id) is REQUESTED
    expect_cancelled(jobs, job_id)

    assert sleeper.ends == ["cancelled"]
    assert [(each.job_id, each.outcome, each.error) for each in heard.attempts] == [
        (job_id, Outcome.CANCELLED, None)
    ]
    assert jobs.cancel("points", job_id) is CANCELLED


def test_only_the_one_coroutine_is_cancelled(jobs: Orchestrator, running: Any) -> None:
    sleeper = running(Sleeper(), concurrency=3)
    ids = [jobs.publish("points", Point()) for _ in range(3)]
    for _ in ids:
        assert sleeper.started.acquire(timeout=LONG_S)

    jobs.cancel("points", ids[1])
    expect_cancelled(jobs, ids[1])

    assert sleeper.ends == ["cancelled"]
    assert [jobs.status("points", id_) for id_ in (ids[0], ids[2])] == [JobStatus.RUNNING] * 2
    assert jobs.cancel_batch("points", ids) == [REQUESTED, CANCELLED, REQUESTED]


@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("error", [JobCancelled(), ValueError("stopped"), RetryLater(0.0)], ids=repr)
@pytest.mark.parametrize(
    "looks", [lambda consumer, _: consumer.cancelled, lambda _, job: job.cancelled], ids=["self", "job"]
)
def test_a_plain_handler_sees_it_and_ends_by_raising(
    jobs: Orchestrator, running: Any, eventually: Any, concurrency: int, error: Exception, looks: Any
) -> None:
    loop = running(Loop(raising(error), looks), concurrency=concurrency)
    job_id = jobs.publish("points", Point())
    assert loop.started.acquire(timeout=LONG_S)

    jobs.cancel("points", job_id)
    expect_cancelled(jobs, job_id)

    eventually(lambda: loop.stats.cancelled == 1)  # counted once the end is settled
    assert (loop.stats.retried, loop.stats.dead) == (0, 0)


def test_a_handler_that_returns_is_done(jobs: Orchestrator, running: Any) -> None:
    loop = running(Loop(lambda: None, lambda consumer, _: consumer.cancelled))
    job_id = jobs.publish("points", Point())
    assert loop.started.acquire(timeout=LONG_S)

    assert jobs.cancel("points", job_id) is REQUESTED

    assert jobs.result("points", job_id, timeout_s=LONG_S) is None
    assert jobs.cancel("points", job_id) is CancelOutcome.TOO_LATE


def test_a_job_that_was_taken_and_not_started_ends_without_a_start(jobs: Orchestrator, running: Any) -> None:
    sleeper = Sleeper()
    ids = [jobs.publish("points", Point()) for _ in range(4)]
    running(sleeper, prefetch=4)
    assert sleeper.started.acquire(timeout=LONG_S)

    jobs.cancel_batch("points", ids[1:])
    for job_id in ids[1:]:
        with pytest.raises(JobCancelled):
            jobs.result("points", job_id, timeout_s=LONG_S)

    assert not sleeper.started.acquire(blocking=False)
    jobs.cancel("points", ids[0])
    expect_cancelled(jobs, ids[0])


class Batch(BatchConsumer):
    """Ends one of its jobs once that is to be cancelled; each job says how it ends."""

    schema = SCHEMA

    def __init__(self, outcome: Any) -> None:
        super().__init__()
        self.outcome = outcome
        self.started = threading.Event()
        self.told: list[bool] = []

    def run_batch(self, jobs: Sequence[Job[Point]]) -> list[Any]:
        self.started.set()
        pause = threading.Event()
        while not any(self.is_cancelled(job) for job in jobs):
            pause.wait(0.001)
        self.told = [self.is_cancelled(job) for job in jobs]
        assert self.told == [job.cancelled for job in jobs]
        assert self.cancelled
        return [self.outcome if told else None for told in self.told]


@pytest.mark.parametrize("outcome", [ValueError("stopped"), JobCancelled(), RetryLater(0.0)], ids=repr)
def test_one_job_of_a_batch_is_cancelled(jobs: Orchestrator, running: Any, outcome: Any) -> None:
    ids = [jobs.publish("points", Point()) for _ in range(3)]
    batch = running(Batch(outcome), batch_size=3, batch_wait_s=LONG_S)
    assert batch.started.wait(LONG_S)

    jobs.cancel("points", ids[1])
    expect_cancelled(jobs, ids[1])

    assert batch.told == [False, True, False]
    assert [jobs.result("points", id_, timeout_s=LONG_S) for id_ in (ids[0], ids[2])] == [None, None]


def test_a_job_of_a_batch_that_is_done_stays_done(jobs: Orchestrator, running: Any) -> None:
    job_id = jobs.publish("points", Point())
    batch = running(Batch(None), batch_size=1)
    assert batch.started.wait(LONG_S)

    assert jobs.cancel("points", job_id) is REQUESTED
    assert jobs.result("points", job_id, timeout_s=LONG_S) is None


def test_the_key_of_a_unique_job_is_free_again(jobs: Orchestrator, running: Any) -> None:
    schema = JobSchema("single", Point, unique=Unique())
    queue = jobs.queue(schema)
    waiting = queue.publish(Point(x=1))
    assert queue.publish(Point(x=1)).id == waiting.id
    assert waiting.cancel() is CANCELLED
    second = queue.publish(Point(x=1))
    assert second.id != waiting.id

    class Single(Sleeper):
        pass

    Single.schema = schema
    sleeper = running(Single())
    assert sleeper.started.acquire(timeout=LONG_S)
    assert second.cancel() is REQUESTED
    with pytest.raises(JobCancelled):
        second.result(timeout_s=LONG_S)
    third = queue.publish(Point(x=1))
    assert third.id not in (waiting.id, second.id)
    third.cancel()


def test_the_place_of_a_limited_job_is_free_again(jobs: Orchestrator, running: Any) -> None:
    """Also of one that waits for its place at a consumer."""
    schema = JobSchema("limited", Point, concurrency_limit=Limit(1))
    queue = jobs.queue(schema)

    class Limited(Sleeper):
        pass

    Limited.schema = schema
    sleeper = running(Limited(), concurrency=3, lease_s=1.0)
    first, second, third = (queue.publish(Point(x=x)) for x in range(3))
    assert sleeper.started.acquire(timeout=LONG_S)
    second.cancel()
    first.cancel()
    for handle in (first, second):
        with pytest.raises(JobCancelled):
            handle.result(timeout_s=LONG_S)
    assert sleeper.started.acquire(timeout=LONG_S)
    third.cancel()
    with pytest.raises(JobCancelled):
        third.result(timeout_s=LONG_S)


def test_a_cancel_needs_no_pauses(jobs: Orchestrator, running: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the announcement a consumer learns of it with the next extension of its leases."""
    monkeypatch.setattr("mindtrace.jobs.application.cancelling.admin.announce", lambda *_: None)
    sleeper = running(Sleeper(), lease_s=0.3)
    job_id = jobs.publish("points", Point())
    assert sleeper.started.acquire(timeout=LONG_S)
    jobs.cancel("points", job_id)
    expect_cancelled(jobs, job_id)


def test_a_handler_that_is_no_class_sees_it(jobs: Orchestrator, running: Any) -> None:
    started = threading.Event()

    @job_handler(SCHEMA)
    def loop(job: Job[Point]) -> None:
        started.set()
        pause = threading.Event()
        while not job.cancelled:
            pause.wait(0.001)
        raise JobCancelled

    running(loop.consumer())
    job_id = jobs.publish("points", Point())
    assert started.wait(LONG_S)
    jobs.cancel("points", job_id)
    expect_cancelled(jobs, job_id)


def test_outside_a_handler_no_job_is_cancelled(jobs: Orchestrator) -> None:
    assert jobs.job("points", Point()).cancelled is False
    assert Sleeper().cancelled is False


def test_coroutines_cancel_as_well(jobs: Orchestrator) -> None:
    async def main() -> None:
        async with AsyncOrchestrator(jobs) as calls:
            queue = await calls.queue(SCHEMA)
            handle = await queue.publish(Point(), delay_s=LONG_S)
            assert await handle.cancel() is CANCELLED
            assert await queue.cancel("never") is CancelOutcome.UNKNOWN
            assert await calls.cancel_batch(SCHEMA, [handle.id, "never"]) == [
                CANCELLED,
                CancelOutcome.UNKNOWN,
            ]
            assert await calls.cancel(SCHEMA, handle.id) is CANCELLED
            with pytest.raises(JobCancelled):
                await handle.result()

    asyncio.run(main())


def test_mistakes_are_told(jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InvalidInput, match=r"pass a list of ids, or call cancel\(\)"):
        jobs.cancel_batch("points", "abc")
    with pytest.raises(InvalidName):
        jobs.cancel("points", "no id")
    unable = replace(jobs.backend.capabilities, cancel=False, coordination=False, guarded_publish=False)
    monkeypatch.setattr(LocalClient, "capabilities", property(lambda _: unable))
    with pytest.raises(UnsupportedCapability, match="can't cancel jobs"):
        jobs.cancel("points", "job")
