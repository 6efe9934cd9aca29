"""Time limits of handlers: what ends a handler, and what becomes of its jobs."""

import asyncio
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import (
    AsyncOrchestrator,
    Attempt,
    BatchConsumer,
    Closed,
    Consumer,
    Job,
    JobFailed,
    JobInput,
    JobSchema,
    JobTimedOut,
    NotConnected,
    Observer,
    Orchestrator,
    Outcome,
    Reject,
    RetryLater,
    RetryPolicy,
    Then,
    Unique,
    batch_handler,
    job_handler,
)
from mindtrace.jobs.application.consuming.deadlines import deadlines
from mindtrace.jobs.application.consuming.time_limits import LimitedRun
from mindtrace.jobs.domain.dead_reasons import DeadReason

LONG_S = 60.0
SHORT_S = 0.05
ONCE = RetryPolicy(max_attempts=1)
TWICE = RetryPolicy(max_attempts=2, base_delay_s=0.0)


class Point(JobInput):
    x: int = 0


def schema_of(policy: RetryPolicy = ONCE, **settings: Any) -> JobSchema[Point, Any]:
    return JobSchema("points", Point, retry=policy, **{"timeout_s": SHORT_S, **settings})


class Heard(Observer):
    """Records how attempts ended."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []

    def ended(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture(params=["memory", "sqlite"])
def jobs(request: pytest.FixtureRequest, tmp_path: Path, heard: Heard) -> Iterator[Orchestrator]:
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/jobs.db"
    with Orchestrator(url, observers=[heard]) as orchestrator:
        yield orchestrator


def consume(jobs: Orchestrator, consumer: Consumer, attempts: int = 1, **settings: Any) -> Consumer:
    consumer.connect(jobs, **settings)
    try:
        assert consumer.consume(attempts) == attempts
    finally:
        consumer.close()
    return consumer


HANGS = threading.Event()
"""Set by a handler that has come to where it hangs."""


@pytest.fixture
def only_what_hangs_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have no time be over before the handler hangs, however busy the machine is."""
    expire = LimitedRun.expire

    def expire_what_hangs(run: LimitedRun) -> float | None:
        if not (run._was_interrupted or HANGS.is_set()):
            return 0.001
        HANGS.clear()
        return expire(run)

    HANGS.clear()
    monkeypatch.setattr(LimitedRun, "expire", expire_what_hangs)


def busy(_job: object = None) -> None:
    """Run Python code until an error ends it."""
    HANGS.set()
    while True:
        pass


async def endless(_job: object = None) -> None:
    HANGS.set()
    await asyncio.Event().wait()


def waits_in_c(_job: object = None) -> None:
    """Sleep in C, again and again: Python can raise only in between."""
    HANGS.set()
    while True:
        time.sleep(0.01)


def waits_for_a_lock(_job: object = None) -> None:
    """Wait for a lock that nobody releases, but look up now and then."""
    lock = threading.Lock()
    lock.acquire()
    HANGS.set()
    while not lock.acquire(timeout=0.01):
        pass


HANGING: list[Callable[[Any], Any]] = [busy, endless, waits_in_c, waits_for_a_lock]


@pytest.mark.usefixtures("only_what_hangs_is_ended")
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("handler", HANGING)
def test_a_handler_is_ended_and_its_job_is_dead_as_timed_out(
    jobs: Orchestrator, heard: Heard, handler: Callable[[Any], Any], concurrency: int
) -> None:
    consumer = job_handler(schema_of(TWICE), concurrency=concurrency)(handler).consumer()
    consumer.connect(jobs)
    job_id = jobs.publish("points", Point())
    assert consumer.consume(2) == 2
    stats = consumer.stats
    consumer.close()

    assert (stats.retried, stats.dead, stats.lost) == (1, 1, 0)
    (letter,) = jobs.dead_letters("points")
    error = f"JobTimedOut: the handler ran for longer than {SHORT_S:g} s"
    assert (letter.id, letter.reason, letter.attempt, letter.crashes) == (job_id, DeadReason.TIMED_OUT, 2, 0)
    assert letter.error == error
    assert [failure.error for failure in letter.history] == [error]
    assert handler.__name__ in (letter.traceback or "")
    assert ", in call" not in (letter.traceback or "")
    assert [(each.outcome, each.timed_out) for each in heard.attempts] == [
        (Outcome.RETRIED, True),
        (Outcome.DEAD, True),
    ]
    with pytest.raises(JobFailed, match="ran for longer than"):
        jobs.result("points", job_id)


@pytest.mark.usefixtures("only_what_hangs_is_ended")
@pytest.mark.parametrize("concurrency", [1, 3])
@pytest.mark.parametrize("handler", [busy, endless])
def test_neighbours_of_a_handler_that_hangs_are_done(
    jobs: Orchestrator, heard: Heard, handler: Callable[[Any], Any], concurrency: int
) -> None:
    if asyncio.iscoroutinefunction(handler):

        @job_handler(schema_of(), concurrency=concurrency)
        async def run(job: Job[Point]) -> None:
            if job.payload.x == 3:
                await handler(job)
    else:

        @job_handler(schema_of(), concurrency=concurrency)
        def run(job: Job[Point]) -> None:
            if job.payload.x == 3:
                handler(job)

    for x in range(9):
        jobs.publish(run.schema, Point(x=x), timeout_s=SHORT_S if x == 3 else LONG_S)
    consumer = run.consumer()
    consumer.connect(jobs)
    consumer.consume_until_empty()
    stats = consumer.stats
    consumer.close()
    assert (stats.done, stats.dead) == (8, 1)
    assert sorted(each.timed_out for each in heard.attempts) == [False] * 8 + [True]


class Asks(Consumer):
    """Looks whether its time is over, and then ends by ``end``."""

    schema = schema_of()

    def __init__(self, end: Callable[[], Any]) -> None:
        super().__init__()
        self._end_of_run = end
        self.saw: list[tuple[bool, bool]] = []

    def run(self, job: Job[Point]) -> Any:
        try:
            busy()
        except JobTimedOut:
            self.saw.append((self.timed_out, job.timed_out))
        return self._end_of_run()


def raising(error: BaseException) -> Callable[[], Any]:
    def end() -> Any:
        raise error

    return end


@pytest.mark.usefixtures("only_what_hangs_is_ended")
def test_a_handler_sees_that_its_time_is_over(jobs: Orchestrator) -> None:
    jobs.publish(Asks.schema, Point())
    consumer = Asks(lambda: None)
    assert not consumer.timed_out
    consume(jobs, consumer)
    assert consumer.saw == [(True, True)]
    assert not consumer.timed_out


@pytest.mark.usefixtures("only_what_hangs_is_ended")
def test_a_handler_that_only_looks_ends_in_its_own_way(jobs: Orchestrator) -> None:
    """Coroutines in a thread of their own, for example, are never interrupted."""
    ended = []

    @job_handler(schema_of())
    def run(job: Job[Point]) -> None:
        def work() -> None:
            while not job_times_out():
                time.sleep(0.001)
            ended.append(True)

        def job_times_out() -> bool:
            return consumer.timed_out

        thread = threading.Thread(target=work)
        thread.start()
        try:
            HANGS.set()
            thread.join()
        finally:
            thread.join()

    jobs.publish(run.schema, Point())
    consumer = run.consumer()
    consume(jobs, consumer)
    assert ended == [True]
    assert jobs.dead_letters("points")[0].reason == DeadReason.TIMED_OUT


@pytest.mark.usefixtures("only_what_hangs_is_ended")
def test_a_handler_that_swallows_the_error_and_returns_is_done(jobs: Orchestrator, heard: Heard) -> None:
    jobs.publish(Asks.schema, Point())
    consume(jobs, Asks(lambda: None))
    assert [(each.outcome, each.timed_out) for each in heard.attempts] == [(Outcome.DONE, False)]
    assert jobs.counts("points").dead == 0


@pytest.mark.usefixtures("only_what_hangs_is_ended")
@pytest.mark.parametrize(
    ("error", "reason", "text"),
    [
        (ValueError("broken"), DeadReason.TIMED_OUT, "and then raised ValueError: broken"),
        (JobTimedOut(), DeadReason.TIMED_OUT, "JobTimedOut: the handler ran for longer than 0.05 s"),
        (RetryLater(0.0, "later"), DeadReason.TIMED_OUT, "later"),
        (Reject("no good"), DeadReason.REJECTED, "no good"),
    ],
)
def test_any_error_after_the_limit_is_a_time_out_but_a_rejection(
    jobs: Orchestrator, error: BaseException, reason: DeadReason, text: str
) -> None:
    jobs.publish(Asks.schema, Point())
    consume(jobs, Asks(raising(error)))
    (letter,) = jobs.dead_letters("points")
    assert letter.reason == reason
    assert text in letter.error


def test_a_handler_that_raises_the_error_by_itself_has_just_failed(jobs: Orchestrator, heard: Heard) -> None:
    @job_handler(schema_of(timeout_s=LONG_S))
    def run(job: Job[Point]) -> None:
        raise JobTimedOut

    jobs.publish(run.schema, Point())
    consume(jobs, run.consumer())
    assert jobs.dead_letters("points")[0].reason == DeadReason.ATTEMPTS
    assert not heard.attempts[0].timed_out


@pytest.mark.usefixtures("only_what_hangs_is_ended")
def test_a_coroutine_that_cleans_up_has_timed_out(jobs: Orchestrator) -> None:
    cleaned = []

    @job_handler(schema_of())
    async def run(job: Job[Point]) -> None:
        try:
            await endless()
        finally:
            await asyncio.sleep(0)
            cleaned.append(job.timed_out)

    jobs.publish(run.schema, Point())
    consume(jobs, run.consumer())
    assert cleaned == [True]
    assert jobs.dead_letters("points")[0].reason == DeadReason.TIMED_OUT


# -- whose limit counts ---------------------------------------------------------------------------


def limit_of(text: str) -> float:
    return float(text.partition("longer than ")[2].removesuffix(" s"))


@pytest.mark.parametrize(
    ("schema_s", "class_s", "connect_s", "job_s", "expected_s"),
    [
        (0.01, None, None, None, 0.01),
        (LONG_S, 0.01, None, None, 0.01),
        (0.01, 0.02, None, None, 0.02),
        (LONG_S, LONG_S, 0.01, None, 0.01),
        (0.01, 0.01, 0.02, None, 0.02),
        (LONG_S, LONG_S, LONG_S, 0.01, 0.01),
        (0.01, 0.01, 0.01, 0.02, 0.02),
        (None, None, None, 0.01, 0.01),
    ],
)
@pytest.mark.parametrize("kind", ["plain", "async", "batch"])
def test_the_nearest_limit_counts(
    kind: str,
    schema_s: float | None,
    class_s: float | None,
    connect_s: float | None,
    job_s: float | None,
    expected_s: float,
) -> None:
    schema = schema_of(timeout_s=schema_s)
    handlers: dict[str, Any] = {
        "plain": lambda: job_handler(schema, timeout_s=class_s)(busy),
        "async": lambda: job_handler(schema, timeout_s=class_s)(endless),
        "batch": lambda: batch_handler(schema, timeout_s=class_s)(busy_batch),
    }
    with Orchestrator("memory://") as jobs:
        jobs.publish(schema, Job(schema_name="points", payload=Point(), timeout_s=job_s))
        consume(jobs, handlers[kind]().consumer(), timeout_s=connect_s)
        assert limit_of(jobs.dead_letters("points")[0].error) == expected_s


def busy_batch(jobs: Sequence[Job[Point]]) -> list[None]:
    busy()
    return []


def test_a_limit_of_a_job_stays_with_it_through_retries_and_redrive(jobs: Orchestrator) -> None:
    run = job_handler(schema_of(TWICE, timeout_s=None))(busy)
    jobs.publish(run.schema, Job(schema_name="points", payload=Point(), timeout_s=0.01))
    for _ in range(2):
        consume(jobs, run.consumer(), 2)
        (letter,) = jobs.dead_letters("points")
        assert (letter.reason, limit_of(letter.error)) == (DeadReason.TIMED_OUT, 0.01)
        jobs.redrive("points")


@pytest.mark.parametrize("publish", ["one", "batch", "a queue's", "a unique one", "async", "async batch"])
def test_a_publish_sets_the_limit_of_its_jobs(publish: str) -> None:
    schema = schema_of(timeout_s=LONG_S, unique=Unique(by="x") if publish == "a unique one" else None)

    async def publish_async(jobs: Orchestrator) -> None:
        async with AsyncOrchestrator(jobs.backend) as there:
            if publish == "async":
                await there.publish(schema, Point(), timeout_s=0.01)
            else:
                await there.publish_batch(schema, [Point()], timeout_s=0.01)

    with Orchestrator("memory://") as jobs:
        if publish.startswith("async"):
            asyncio.run(publish_async(jobs))
        elif publish == "batch":
            jobs.publish_batch(schema, [Job(schema_name="points", payload=Point())], timeout_s=0.01)
        elif publish == "a queue's":
            jobs.queue(schema).publish(Point(), timeout_s=0.01)
        else:
            jobs.publish(schema, Job(schema_name="points", payload=Point(), timeout_s=LONG_S), timeout_s=0.01)
        consume(jobs, job_handler(schema)(busy).consumer())
        assert limit_of(jobs.dead_letters("points")[0].error) == 0.01


def test_a_next_job_may_have_a_limit_of_its_own(jobs: Orchestrator) -> None:
    second = job_handler(JobSchema("seconds", Point, retry=ONCE))(busy)

    @job_handler(schema_of(timeout_s=LONG_S))
    def first(job: Job[Point]) -> Any:
        return Then(second.schema, Point(), timeout_s=0.01)

    jobs.publish(first.schema, Point())
    consume(jobs, first.consumer())
    consume(jobs, second.consumer())
    assert limit_of(jobs.dead_letters("seconds")[0].error) == 0.01


# -- batches --------------------------------------------------------------------------------------


class Batches(BatchConsumer):
    """Hangs until it has been interrupted so many times."""

    schema = schema_of(TWICE)
    batch_wait_s = 0.0

    def __init__(self, hangs: int) -> None:
        super().__init__()
        self.hangs = hangs
        self.sizes: list[int] = []

    def run_batch(self, jobs: Sequence[Job[Point]]) -> Any:
        self.sizes.append(len(jobs))
        if len(self.sizes) <= self.hangs:
            busy()
        return [None] * len(jobs)


@pytest.mark.usefixtures("only_what_hangs_is_ended")
def test_a_batch_times_out_as_a_whole_and_runs_again(jobs: Orchestrator, heard: Heard) -> None:
    jobs.publish_batch(Batches.schema, [Point(x=x) for x in range(4)])
    consumer = Batches(1)
    consumer.connect(jobs)
    consumer.consume_until_empty()
    stats = consumer.stats
    consumer.close()
    assert sum(consumer.sizes) == 8
    assert (stats.retried, stats.done) == (4, 4)
    assert sorted(each.timed_out for each in heard.attempts) == [False] * 4 + [True] * 4


def test_the_shortest_limit_of_its_jobs_is_that_of_a_batch(jobs: Orchestrator) -> None:
    run = batch_handler(schema_of(timeout_s=LONG_S), batch_wait_s=0.0)(busy_batch)
    limits = (30.0, None, 0.01)
    jobs.publish_batch(
        run.schema, [Job(schema_name="points", payload=Point(), timeout_s=each) for each in limits]
    )
    consume(jobs, run.consumer(), 3)
    assert {limit_of(letter.error) for letter in jobs.dead_letters("points")} == {0.01}


def test_a_batch_of_coroutines_times_out(jobs: Orchestrator) -> None:
    @batch_handler(schema_of(), batch_wait_s=0.0)
    async def run(batch: Sequence[Job[Point]]) -> Any:
        await endless()

    jobs.publish_batch(run.schema, [Point(), Point()])
    consume(jobs, run.consumer(), 2)
    assert [letter.reason for letter in jobs.dead_letters("points")] == [DeadReason.TIMED_OUT] * 2


# -- the two threads that meet --------------------------------------------------------------------


def test_no_late_error_hits_what_follows_the_handler(heard: Heard) -> None:
    """Handlers that end at about their limit: each job ends once, and nothing is raised elsewhere."""
    jobs_count = 400
    limit_s = 0.002

    @job_handler(schema_of(timeout_s=limit_s), concurrency=4)
    def run(job: Job[Point]) -> None:
        until = time.monotonic() + limit_s * job.payload.x / jobs_count * 2
        while time.monotonic() < until:
            pass

    with Orchestrator("memory://", observers=[heard]) as jobs:
        jobs.publish_batch(run.schema, [Point(x=x) for x in range(jobs_count)])
        consumer = run.consumer()
        consumer.connect(jobs)
        assert consumer.consume_until_empty() == jobs_count
        stats = consumer.stats
        consumer.close()
        assert stats.done + stats.dead == jobs_count
        assert (stats.released, stats.lost) == (0, 0)
        assert len(heard.attempts) == jobs_count
        assert {letter.reason for letter in jobs.dead_letters("points")} <= {DeadReason.TIMED_OUT}


def test_one_thread_watches_all_deadlines(jobs: Orchestrator) -> None:
    width = 8
    barrier = threading.Barrier(width + 1)

    @job_handler(schema_of(timeout_s=LONG_S), concurrency=width)
    def run(job: Job[Point]) -> None:
        barrier.wait(LONG_S)
        barrier.wait(LONG_S)

    jobs.publish_batch(run.schema, [Point()] * width)
    consumer = run.consumer()
    consumer.connect(jobs)
    thread = threading.Thread(target=consumer.consume, args=(width,))
    thread.start()
    barrier.wait(LONG_S)
    names = [each.name for each in threading.enumerate()]
    barrier.wait(LONG_S)
    thread.join()
    consumer.close()
    assert names.count("mindtrace-jobs-deadlines") == 1


def test_runs_that_have_ended_are_not_kept_until_their_deadlines() -> None:
    run = job_handler(schema_of(timeout_s=3600.0))(lambda job: None)
    with Orchestrator("memory://") as jobs:
        jobs.publish_batch(run.schema, [Point()] * 1000)
        consume(jobs, run.consumer(), 1000)
    assert len(deadlines._heap) < 200


def test_a_job_without_a_limit_starts_no_thread(monkeypatch: pytest.MonkeyPatch, jobs: Orchestrator) -> None:
    monkeypatch.setattr(deadlines, "add", lambda *_: pytest.fail("it has no limit"))
    run = job_handler(schema_of(timeout_s=None))(lambda job: None)
    jobs.publish(run.schema, Point())
    consume(jobs, run.consumer())
    assert jobs.counts("points").dead == 0


# -- a handler that goes on -----------------------------------------------------------------------


class Stubborn(Consumer):
    """Sleeps in C for as long as the test wants: nothing interrupts it."""

    schema = schema_of(TWICE, kill_after_s=SHORT_S)
    concurrency = 2

    def __init__(self) -> None:
        super().__init__()
        self._reading, writing = os.pipe()
        self._writing: int | None = writing
        self.hanging: set[int] = set()
        """The threads whose handlers have come to where nothing interrupts them."""

    def run(self, job: Job[Point]) -> None:
        if job.payload.x != 1:
            return
        thread_id = threading.get_ident()
        try:
            self.hanging.add(thread_id)
            os.read(self._reading, 1)
        except JobTimedOut:  # it may come before the call
            os.read(self._reading, 1)
            raise
        finally:
            self.hanging.discard(thread_id)

    def let_go(self) -> None:
        """Have all handlers end."""
        if self._writing is not None:
            os.close(self._writing)
            self._writing = None

    def forget(self) -> None:
        os.close(self._reading)


def handler_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name.startswith("mindtrace-jobs-points-")]


@pytest.fixture
def stubborn(jobs: Orchestrator, eventually: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Stubborn]:
    """A consumer whose handlers' time is over once they hang, however busy the machine is."""
    consumer = Stubborn()
    consumer.connect(jobs)
    expire = LimitedRun.expire

    def expire_what_hangs(run: LimitedRun) -> float | None:
        hangs = run._was_interrupted or run._thread_id in consumer.hanging
        return expire(run) if hangs else 0.001

    monkeypatch.setattr(LimitedRun, "expire", expire_what_hangs)

    def work() -> None:
        with suppress(Closed):
            consumer.consume()

    thread = threading.Thread(target=work)
    thread.start()
    yield consumer
    consumer.let_go()
    with suppress(NotConnected):
        consumer.stop()
    thread.join()
    consumer.close()
    eventually(lambda: not handler_threads())
    consumer.forget()


def test_where_nobody_replaces_the_process_it_is_told_and_the_job_goes_on(
    jobs: Orchestrator, stubborn: Stubborn, caplog: pytest.LogCaptureFixture, eventually: Any, heard: Heard
) -> None:
    job_id = jobs.publish("points", Point(x=1))
    eventually(lambda: [each for each in caplog.records if each.levelno == logging.CRITICAL])
    (record,) = [each for each in caplog.records if each.levelno == logging.CRITICAL]
    assert job_id in record.getMessage()
    assert "mindtrace-jobs worker" in record.getMessage()
    where = re.search(r"it is at \S*test_time_limits.py:\d+ \(run\)$", record.getMessage())
    assert where, "the handler's frames, and none of ours"
    assert jobs.counts("points").in_flight == 1
    assert heard.attempts == []


def test_given_up_it_is_settled_once_and_the_process_is_to_end(
    jobs: Orchestrator, stubborn: Stubborn, eventually: Any, heard: Heard
) -> None:
    told = threading.Event()
    stubborn.end_process_by(told.set)
    job_id = jobs.publish("points", Point(x=1))
    assert told.wait(LONG_S)
    assert heard.attempts == []
    stubborn.give_up_timed_out()
    stubborn.stop()
    eventually(lambda: stubborn.stats.retried == 1)
    (attempt,) = heard.attempts
    assert (attempt.job_id, attempt.outcome, attempt.timed_out) == (job_id, Outcome.RETRIED, True)
    assert "didn't end within 0.05 s after that" in (attempt.error or "")

    # Its handler ends after all, before the process does.
    (thread,) = handler_threads()
    stubborn.let_go()
    thread.join(LONG_S)
    assert len(heard.attempts) == 1
    stats = stubborn.stats
    assert (stats.attempted, stats.retried, stats.done) == (1, 1, 0)
    eventually(lambda: jobs.counts("points").ready == 1)


def test_all_whose_time_is_over_are_given_up_at_once(
    jobs: Orchestrator, stubborn: Stubborn, eventually: Any, heard: Heard
) -> None:
    """Each of two that hang would otherwise wait for its own turn to end a process."""
    told = threading.Event()
    stubborn.end_process_by(told.set)
    ids = [handle.id for handle in jobs.publish_batch("points", [Point(x=1), Point(x=1)])]
    assert told.wait(LONG_S)
    assert stubborn._connection is not None
    eventually(lambda: len(stubborn._connection.limits.interrupted) == 2)
    stubborn.give_up_timed_out()
    stubborn.close()
    assert {(each.job_id, each.timed_out) for each in heard.attempts} == {(id_, True) for id_ in ids}
    assert jobs.counts("points").ready == 2


def test_other_jobs_of_a_process_that_is_to_end_are_given_back(
    jobs: Orchestrator, stubborn: Stubborn, eventually: Any, heard: Heard
) -> None:
    """Without an attempt, and without a crash."""
    told = threading.Event()
    stubborn.end_process_by(told.set)
    hung = jobs.publish("points", Point(x=1))
    patient: Job[Point] = Job(schema_name="points", payload=Point(x=1), timeout_s=LONG_S)
    other = jobs.publish("points", patient)
    assert told.wait(LONG_S)
    stubborn.give_up_timed_out()
    stubborn.close()
    counts = jobs.counts("points")
    assert (counts.ready, counts.in_flight) == (2, 0)
    seen = {}

    class Sees(Consumer):
        timeout_s = LONG_S

        def run(self, job: Job[Point]) -> None:
            seen[job.id] = job.attempt

    consume(jobs, Sees("points"), 2)
    assert seen == {hung: 2, other: 1}


# -- where an error would do harm beyond its thread -------------------------------------------------


@pytest.fixture
def until_looked_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """What returns once the deadline of a run was looked at some times meanwhile, by the thread that watches.

    No deadline is looked at before.
    """
    looks: int | None = None
    expire = LimitedRun.expire

    def count(run: LimitedRun) -> float | None:
        nonlocal looks
        if looks is None:
            return SHORT_S
        looks += 1
        return expire(run)

    def wait() -> None:
        nonlocal looks
        looks = 0
        while looks < 3:
            time.sleep(0.001)

    monkeypatch.setattr(LimitedRun, "expire", count)
    return wait


def start_a_thread_slowly(wait: Callable[[], None]) -> None:
    class Slow(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            wait()
            return super().wait(timeout)

    thread = threading.Thread(target=int)
    thread._started = Slow()  # type: ignore[attr-defined]
    thread.start()


def test_the_error_does_not_come_while_a_handler_starts_a_thread(
    jobs: Orchestrator, until_looked_at: Callable[[], None]
) -> None:
    """On Python 3.11 it could reach the new thread in its place."""
    finished: list[bool] = []

    class Starts(Consumer):
        schema = schema_of(timeout_s=0.001, kill_after_s=LONG_S)

        def run(self, job: Job[Point]) -> None:
            start_a_thread_slowly(until_looked_at)
            finished.append(True)
            busy()

    jobs.publish(Starts.schema, Point())
    consume(jobs, Starts())
    assert finished == [True]
    assert jobs.counts("points").dead == 1


def test_the_lock_of_a_log_handler_does_not_stay_locked(jobs: Orchestrator) -> None:
    """Before Python 3.13 an error may come between the call that takes it and the ``try``."""
    log_handler = logging.Handler()

    class Logs(Consumer):
        schema = schema_of()

        def run(self, job: Job[Point]) -> None:
            log_handler.acquire()
            busy()

    jobs.publish(Logs.schema, Point())
    thread = threading.Thread(target=consume, args=(jobs, Logs()), daemon=True)
    thread.start()
    thread.join()
    assert log_handler.lock is not None
    assert log_handler.lock.acquire(blocking=False)
    assert jobs.counts("points").dead == 1


TAKEN_BACK = """
import faulthandler, sys
from mindtrace.jobs.application.consuming.thread_interrupt import take_back

faulthandler.dump_traceback_later(60, exit=True)
take_back()
sys.setprofile(lambda *event: None)
take_back()
sys.setprofile(None)
"""


def test_an_error_that_was_taken_back_leaves_profilers_and_debuggers_alone() -> None:
    """CPython 3.11 never forgets an error that was taken back by setting none."""
    run = [sys.executable, "-c", TAKEN_BACK]

    assert subprocess.run(run, capture_output=True, text=True, check=False, timeout=LIMIT_S).stderr == ""
