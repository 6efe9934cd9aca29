"""The kit for tests of handlers: what it runs, how it moves the clock, and what it says when a test fails."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import (
    BatchConsumer,
    Consumer,
    Job,
    JobFailed,
    JobInput,
    JobNotFound,
    JobOutput,
    JobSchema,
    JobStatus,
    Limit,
    QueueNotFound,
    Rate,
    Reject,
    ResultExpired,
    Retry,
    RetryLater,
    RetryPolicy,
    Snooze,
    Then,
    Unique,
    UsageError,
    batch_handler,
    job_handler,
)
from mindtrace.jobs.testing import JobKit, run_job


class Image(JobInput):
    path: str = "a.png"


class Report(JobOutput):
    defects: int


INSPECT = JobSchema("inspect", Image, Report)
NOTIFY = JobSchema("notify", Image)


@job_handler(INSPECT)
def inspect(job: Job[Image]) -> Report:
    return Report(defects=len(job.payload.path))


class Inspector(Consumer[Image, Report]):
    schema = INSPECT

    def run(self, job: Job[Image]) -> Report:
        return Report(defects=len(job.payload.path))


class Flaky(Consumer[Image, Report]):
    """Fails twice."""

    schema = INSPECT
    retry = RetryPolicy(max_attempts=3, delays_s=[60, 600])

    def run(self, job: Job[Image]) -> Report:
        if job.attempt < 3:
            raise ValueError(f"attempt {job.attempt}")
        return Report(defects=job.attempt)


def events(jobs: JobKit, job_id: str) -> list[tuple[float, str]]:
    return [(round(each.after_s, 3), each.what) for each in jobs.history(job_id)]


# -- handlers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("handler", [Inspector, Inspector(), inspect])
def test_a_handler_of_each_kind_is_run(jobs: JobKit, handler: Any) -> None:
    jobs.connect(handler)
    job_id = jobs.publish(INSPECT, Image())

    assert jobs.drain() == 1
    assert jobs.result(INSPECT, job_id) == Report(defects=5)


def test_a_coroutine_is_run(jobs: JobKit) -> None:
    @job_handler(INSPECT)
    async def inspect(job: Job[Image]) -> Report:
        return Report(defects=1)

    jobs.connect(inspect)
    jobs.publish(INSPECT, Image())
    assert jobs.drain() == 1
    assert run_job(inspect, Image()) == Report(defects=1)


def test_a_batch_gets_what_is_ready_and_waits_for_no_more(jobs: JobKit) -> None:
    sizes = []

    @batch_handler(INSPECT, batch_size=10, batch_wait_s=3600)
    def inspect_all(batch: Sequence[Job[Image]]) -> list[Report]:
        sizes.append(len(batch))
        return [Report(defects=1) for _ in batch]

    jobs.connect(inspect_all)
    handles = jobs.publish_batch(INSPECT, [Image(path=name) for name in "abc"])
    assert jobs.drain() == 3
    assert sizes == [3]
    assert jobs.results(handles) == [Report(defects=1)] * 3


def test_several_jobs_run_at_once(jobs: JobKit) -> None:
    jobs.connect(inspect, concurrency=4)
    jobs.publish_batch(INSPECT, [Image(path=str(n)) for n in range(20)])
    assert jobs.drain() == 20


def test_what_is_no_handler_is_refused(jobs: JobKit) -> None:
    with pytest.raises(Exception, match="is no handler: pass a Consumer, its class, or a function with"):
        jobs.connect(len)  # type: ignore[arg-type]


# -- the clock ------------------------------------------------------------------------------------


def test_drain_moves_the_clock_over_delays_and_retries(jobs: JobKit) -> None:
    jobs.connect(Flaky)
    job_id = jobs.publish(INSPECT, Image(), delay_s=3600)

    assert jobs.drain() == 3
    assert events(jobs, job_id) == [
        (0.0, "published"),
        (3600.0, "started"),
        (3600.0, "retried"),
        (3660.0, "started"),
        (3660.0, "retried"),
        (4260.0, "started"),
        (4260.0, "done"),
    ]
    assert str(jobs.history(job_id)[2]) == (
        "+3600.000 s  retried: ValueError: attempt 1; the next attempt is in 60 s"
    )


def test_advance_runs_what_becomes_due_and_no_more(jobs: JobKit) -> None:
    jobs.connect(inspect)
    began = jobs.now
    jobs.publish(INSPECT, Image(), delay_s=60)

    assert jobs.advance(59.999) == 0
    assert jobs.advance(timedelta(seconds=0.001)) == 1
    assert (jobs.now - began).total_seconds() == pytest.approx(60, abs=1e-5)


def test_a_schedule_publishes_as_the_clock_is_moved() -> None:
    with JobKit(start=datetime(2030, 1, 1, tzinfo=UTC)) as jobs:
        seen: list[str] = []

        @job_handler(NOTIFY)
        def notify(job: Job[Image]) -> None:
            seen.append(jobs.now.isoformat())

        jobs.connect(notify)
        jobs.schedule("nightly", NOTIFY, Image(), cron="0 3 * * *")

        assert jobs.drain() == 0
        assert jobs.advance(2 * 86_400) == 2
        assert seen == ["2030-01-01T03:00:00+00:00", "2030-01-02T03:00:00+00:00"]


def test_tick_publishes_what_is_due_now_and_moves_nothing() -> None:
    with JobKit(start=datetime(2030, 1, 1, 2, 59, tzinfo=UTC)) as jobs:
        jobs.schedule("nightly", NOTIFY, Image(), cron="0 3 * * *")
        assert jobs.scheduler.tick() == 0
        jobs.schedules.run("nightly")
        assert jobs.scheduler.tick() == 0
        jobs.forget_published()
        jobs.advance(60)
        jobs.assert_published(NOTIFY, path="a.png")
        jobs.assert_nothing_else_published()


def test_a_unique_job_may_come_again_after_its_period(jobs: JobKit) -> None:
    schema = JobSchema("inspect", Image, unique=Unique("path", period_s=3600))
    jobs.connect(Recorder.of(schema))
    first = jobs.publish(schema, Image())
    jobs.drain()

    assert jobs.publish(schema, Image()) == first
    jobs.advance(3601)
    assert jobs.publish(schema, Image()) != first


class Recorder(Consumer[Image, Any]):
    """Notes when jobs start."""

    started: list[datetime]

    @classmethod
    def of(cls, schema: JobSchema[Image, Any]) -> "Recorder":
        recorder = type("Recorder", (cls,), {"schema": schema})()
        recorder.started = []
        return recorder

    def run(self, job: Job[Image]) -> None:
        orchestrator = self.orchestrator
        assert isinstance(orchestrator, JobKit)
        self.started.append(orchestrator.now)


@pytest.mark.parametrize("rate", [Rate(1, per_s=60), Rate(1, per_s=2), Rate(1, per_s=2, by="path")])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_a_rate_passes_by_the_kits_clock(jobs: JobKit, rate: Rate, concurrency: int) -> None:
    recorder = Recorder.of(JobSchema("inspect", Image, rate=rate))
    jobs.connect(recorder, concurrency=concurrency)
    jobs.publish_batch(recorder.schema, [Image() for _ in range(4)])

    assert jobs.drain() == 4
    between = [(b - a).total_seconds() for a, b in zip(recorder.started, recorder.started[1:], strict=False)]
    assert between == pytest.approx([rate.interval_s] * 3, rel=0.11)


def test_a_limit_keeps_no_job_for_ever(jobs: JobKit) -> None:
    recorder = Recorder.of(JobSchema("inspect", Image, concurrency_limit=Limit(1)))
    jobs.connect(recorder)
    jobs.publish_batch(recorder.schema, [Image() for _ in range(3)])
    jobs.kill_worker()

    assert jobs.drain() == 4


def test_results_and_ids_grow_old_by_the_kits_clock(jobs: JobKit) -> None:
    jobs.connect(inspect)
    job_id = jobs.publish(INSPECT, Image())
    jobs.drain()
    jobs.advance(INSPECT.result_ttl_s + 1)

    with pytest.raises(ResultExpired):
        jobs.result(INSPECT, job_id)
    fresh = jobs.job(INSPECT, Image())
    assert abs((fresh.created_at - jobs.now).total_seconds()) < 0.001
    with pytest.raises(JobNotFound) as raised:
        jobs.result(INSPECT, fresh.id)
    assert not isinstance(raised.value, ResultExpired)


def test_a_closed_kit_leaves_the_date_to_the_machine() -> None:
    with JobKit(start=datetime(2100, 1, 1, tzinfo=UTC)), JobKit():
        assert Job(schema_name="a", payload=Image()).created_at.year < 2100
    assert Job(schema_name="a", payload=Image()).created_at.year < 2100


def test_a_date_without_a_time_zone_is_refused() -> None:
    with pytest.raises(Exception, match="give it a time zone"):
        JobKit(start=datetime(2030, 1, 1))


# -- tests that would wait for ever ---------------------------------------------------------------


def test_drain_without_a_handler_says_what_is_missing(jobs: JobKit) -> None:
    with pytest.raises(UsageError, match=r"connect one first, as in jobs\.connect\(Inspector\)"):
        jobs.drain()


@pytest.mark.parametrize("signal", [RetryLater(60), Snooze(60)])
def test_a_job_that_comes_for_ever_is_told(jobs: JobKit, signal: Exception) -> None:
    @job_handler(INSPECT, retry=RetryPolicy(max_attempts=1000))
    def never(job: Job[Image]) -> Report:
        raise signal

    began = jobs.now
    jobs.connect(never)
    job_id = jobs.publish(INSPECT, Image())
    with pytest.raises(UsageError) as raised:
        jobs.drain(max_attempts=50)
    last = jobs.history(job_id)[-1]
    assert last.what == ("retried" if isinstance(signal, RetryLater) else "released")
    assert str(raised.value) == (
        "max_attempts are over, and jobs still wait: queue inspect has 1 ready, 0 delayed and 0 leased jobs, "
        f"first job {job_id} ({last}); if so many are meant, pass a greater max_attempts"
    )
    assert jobs.now - timedelta(seconds=50 * 60 - 1) > began


def test_a_result_that_nobody_makes_is_not_waited_for(jobs: JobKit) -> None:
    handles = jobs.publish_batch(INSPECT, [Image(), Image()])
    with pytest.raises(UsageError, match=r"which is waiting, and no handler runs meanwhile: call drain\(\)"):
        handles[0].result(timeout_s=3600)
    with pytest.raises(UsageError, match=r"the test waits for results of queue inspect, and no handler runs"):
        jobs.results(handles, timeout_s=3600)
    jobs.connect(inspect)
    jobs.drain()
    assert jobs.results(handles, timeout_s=3600) == [Report(defects=5)] * 2


def test_another_thread_may_wait_for_a_result(jobs: JobKit, background: Any) -> None:
    jobs.connect(inspect)
    job_id = jobs.publish(INSPECT, Image())
    waiting = background(jobs.result, INSPECT, job_id, timeout_s=LIMIT_S)
    jobs.drain()
    assert waiting.result() == Report(defects=5)


def test_a_paused_queue_is_not_waited_for(jobs: JobKit) -> None:
    jobs.connect(inspect)
    jobs.publish(INSPECT, Image())
    jobs.pause(INSPECT)
    assert jobs.drain() == 0
    jobs.resume(INSPECT)
    assert jobs.drain() == 1


def test_a_handler_may_not_move_the_clock(jobs: JobKit) -> None:
    @job_handler(INSPECT, retry=RetryPolicy(max_attempts=1))
    def moves(job: Job[Image]) -> Report:
        jobs.advance(1)
        return Report(defects=0)

    with pytest.raises(UsageError, match="a handler moves the clock"):
        jobs.run_job(moves, Image())


# -- one handler ----------------------------------------------------------------------------------


def test_run_job_returns_what_the_handler_returned() -> None:
    assert run_job(Inspector, {"path": "b.png"}) == Report(defects=5)


def test_run_job_raises_the_very_error(jobs: JobKit) -> None:
    error = ValueError("no such file")

    class Broken(Inspector):
        def run(self, job: Job[Image]) -> Report:
            raise error

    with pytest.raises(ValueError, match="no such file") as raised:
        jobs.run_job(Broken, Image())
    assert raised.value is error
    counts = jobs.counts(INSPECT)
    assert (counts.waiting, counts.in_flight, counts.dead) == (0, 0, 0)


def test_run_job_of_a_batch_says_what_the_batch_said_of_the_job() -> None:
    class Batches(BatchConsumer[Image, Report]):
        schema = INSPECT

        def run_batch(self, jobs: Sequence[Job[Image]]) -> list[Retry]:
            return [Retry(reason="not yet") for _ in jobs]

    with pytest.raises(AssertionError, match=r"the job wasn't done: retried: not yet"):
        run_job(Batches, Image())


def test_run_job_notes_what_the_handler_publishes(jobs: JobKit) -> None:
    jobs.register(NOTIFY)

    @job_handler(INSPECT)
    def inspect(job: Job[Image]) -> Then:
        jobs.publish(NOTIFY, Image(path="now"), delay_s=60)
        return Then(NOTIFY, Image(path="next"), result=Report(defects=1))

    assert jobs.run_job(inspect, Image()) == Report(defects=1)
    jobs.assert_published(NOTIFY, path="now", delay_s=60)
    jobs.assert_published(NOTIFY, Image(path="next"))
    jobs.assert_nothing_else_published()


def test_run_job_runs_no_other_job(jobs: JobKit) -> None:
    jobs.publish(INSPECT, Image())
    with pytest.raises(UsageError, match="run_job would run another job: 1 of queue inspect are ready"):
        jobs.run_job(inspect, Image())


# -- faults ---------------------------------------------------------------------------------------


def test_a_killed_worker_leaves_its_job_to_another_after_the_lease(jobs: JobKit) -> None:
    jobs.connect(inspect, lease_s=40)
    jobs.kill_worker()
    job_id = jobs.publish(INSPECT, Image())

    assert jobs.drain() == 2
    assert events(jobs, job_id) == [
        (0.0, "published"),
        (0.0, "started"),
        (0.0, "worker killed"),
        (40.0, "started"),
        (40.0, "done"),
    ]
    assert jobs.result(INSPECT, job_id) == Report(defects=5)


def test_a_job_that_kills_each_worker_is_dead(jobs: JobKit) -> None:
    jobs.connect(inspect)
    for _ in range(RetryPolicy().max_crashes + 1):
        jobs.kill_worker()
    jobs.publish(INSPECT, Image())
    jobs.drain()
    letter = jobs.assert_dead(INSPECT)
    assert letter.crashes > 0


def test_a_lost_lease_refuses_the_outcome(jobs: JobKit) -> None:
    jobs.connect(inspect)
    jobs.lose_lease()
    job_id = jobs.publish(INSPECT, Image())

    assert jobs.drain() == 2
    assert [what for _, what in events(jobs, job_id)] == [
        "published",
        "started",
        "lease lost",
        "not settled",
        "started",
        "done",
    ]


# -- assertions -----------------------------------------------------------------------------------


def test_what_was_published_stands_in_the_failure(jobs: JobKit) -> None:
    jobs.publish(NOTIFY, Image(path="b.png"), delay_s=5)
    with pytest.raises(AssertionError) as raised:
        jobs.assert_published(NOTIFY, path="a.png", delay_s=60)
    assert str(raised.value) == (
        "no job was published to queue notify with path='a.png', delay_s=60; there are:\n"
        "  notify  Image(path='b.png') delay_s=5, at +0.000 s"
    )
    with pytest.raises(AssertionError, match="Image has no field 'pth'"):
        jobs.assert_published(NOTIFY, pth="a.png")
    with pytest.raises(AssertionError, match="other jobs were published; there are:\n  notify  Image"):
        jobs.assert_nothing_else_published()


def test_each_assertion_finds_another_job(jobs: JobKit) -> None:
    first, second = jobs.publish(NOTIFY, Image()), jobs.publish(NOTIFY, Image())
    found = [jobs.assert_published(NOTIFY).id for _ in range(2)]
    assert found == [first, second] == [job.id for job in jobs.published(NOTIFY)]
    jobs.assert_nothing_else_published()
    jobs.forget_published()
    with pytest.raises(AssertionError, match="nothing was published"):
        jobs.assert_published(NOTIFY)


def test_a_dead_job_is_found_by_its_reason_and_error(jobs: JobKit) -> None:
    @job_handler(INSPECT)
    def refuses(job: Job[Image]) -> Report:
        raise Reject("not an image")

    jobs.connect(refuses)
    with pytest.raises(AssertionError, match="no job of queue inspect is dead; none is dead there"):
        jobs.assert_dead(INSPECT)
    job_id = jobs.publish(INSPECT, Image())
    jobs.drain()

    letter = jobs.assert_dead(INSPECT, reason="rejected", error="not an image", job_id=job_id)
    assert jobs.status(INSPECT, job_id) is JobStatus.FAILED
    with pytest.raises(
        AssertionError, match=rf"reason='crashed'; there are:\n  {letter.id}  reason='rejected'"
    ):
        jobs.assert_dead(INSPECT, reason="crashed")
    with pytest.raises(JobFailed):
        jobs.result(INSPECT, job_id)


def test_run_job_tells_an_output_that_does_not_fit(jobs: JobKit) -> None:
    @job_handler(INSPECT)
    def wrong(job: Job[Image]) -> Any:
        return {"defects": "many"}

    with pytest.raises(AssertionError, match=r"the job wasn't done: dead: invalid result: .*defects"):
        jobs.run_job(wrong, Image())
    assert jobs.counts(INSPECT).dead == 0


def test_middleware_of_the_program_surrounds_handlers() -> None:
    around: list[str] = []

    @contextmanager
    def noting(job: Job[Image]) -> Iterator[None]:
        around.append(job.payload.path)
        yield

    with JobKit(middleware=[noting]) as jobs:
        jobs.run_job(inspect, Image())
    assert around == ["a.png"]


def dying(kit: JobKit) -> str:
    @job_handler(JobSchema("dying", Image, retry=RetryPolicy(max_attempts=1)))
    def fails(job: Job[Image]) -> None:
        raise ValueError("no image")

    kit.connect(fails)
    job_id = kit.publish("dying", Image())
    assert kit.drain() == 1
    return job_id


def test_a_dead_job_of_which_nobody_asks_fails_the_test_as_it_ends() -> None:
    what = r"dying  \w+  reason='attempts exhausted' error='ValueError: no image'"
    with pytest.raises(AssertionError, match=what), JobKit() as kit:
        dying(kit)


def ask_for_the_result(kit: JobKit, job_id: str) -> None:
    with pytest.raises(JobFailed):
        kit.result("dying", job_id)


@pytest.mark.parametrize(
    "ask",
    [
        lambda kit, _: kit.assert_dead("dying"),
        lambda kit, _: kit.dead_letters("dying"),
        ask_for_the_result,
        lambda kit, _: kit.discard("dying"),
    ],
    ids=["assert_dead", "dead_letters", "result", "discard"],
)
def test_a_dead_job_of_which_a_test_asks_fails_nothing(ask: Callable[[JobKit, str], object]) -> None:
    with JobKit() as kit:
        ask(kit, dying(kit))


def failing(kit: JobKit) -> None:
    with kit:
        dying(kit)
        raise KeyError


def test_an_error_of_a_test_is_not_hidden_by_a_dead_job() -> None:
    with pytest.raises(KeyError):
        failing(JobKit())


def test_one_job_is_asserted_once(jobs: JobKit) -> None:
    """Or a test that expects two would be green with one."""
    schema = JobSchema("inspect", Image)
    jobs.publish(schema, Image())
    jobs.assert_published(schema, path="a.png")
    with pytest.raises(AssertionError, match="no other job was published to queue inspect"):
        jobs.assert_published(schema, path="a.png")


def test_a_misspelt_queue_is_no_queue_without_jobs(jobs: JobKit) -> None:
    jobs.register(JobSchema("inspect", Image))
    for ask in (jobs.published, jobs.assert_published):
        with pytest.raises(QueueNotFound, match="inspct"):
            ask("inspct")


def test_a_job_of_a_paused_queue_does_not_start(jobs: JobKit) -> None:
    @job_handler(JobSchema("inspect", Image))
    def inspect(job: Job[Image]) -> None:
        raise NotImplementedError

    jobs.register(inspect.schema)
    jobs.pause("inspect")
    with pytest.raises(AssertionError, match="queue inspect is paused"):
        jobs.run_job(inspect, Image())
