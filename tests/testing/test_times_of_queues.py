"""All times of queues pass by the kit's clock, and drain ends by itself."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mindtrace.jobs import (
    Consumer,
    Every,
    Job,
    JobExpired,
    JobInput,
    JobSchema,
    JobStatus,
    Limit,
    Rate,
    Reject,
    RetryPolicy,
    Then,
    Unique,
    job_handler,
)
from mindtrace.jobs.testing import JobKit


class Image(JobInput):
    path: str = "a.png"
    tenant: str = "acme"


def recorder(jobs: JobKit, schema: JobSchema[Image, Any], starts: list[tuple[float, str]]) -> Any:
    began = jobs.now

    @job_handler(schema)
    def record(job: Job[Image]) -> None:
        starts.append((round((jobs.now - began).total_seconds(), 2), job.payload.path))

    return record


def test_a_slow_rate_takes_few_steps(jobs: JobKit) -> None:
    schema, starts = JobSchema("inspect", Image, rate=Rate(2, per_s=86_400, burst=2)), []
    jobs.connect(recorder(jobs, schema, starts))
    jobs.publish_batch(schema, [Image(path=str(n)) for n in range(5)])
    assert jobs.drain() == 5
    assert [s for s, _ in starts] == [0, 0, 43_200, 86_400, 129_600]


def test_a_rate_by_a_field_lets_others_overtake(jobs: JobKit) -> None:
    schema, starts = JobSchema("inspect", Image, rate=Rate(1, per_s=600, by="tenant")), []
    jobs.connect(recorder(jobs, schema, starts))
    jobs.publish_batch(schema, [Image(path="a1"), Image(path="a2"), Image(path="b1", tenant="b")])
    assert jobs.drain() == 3
    assert sorted(path for s, path in starts if s == 0) == ["a1", "b1"]
    assert starts[2] == (pytest.approx(600, abs=15), "a2")


def test_a_pause_keeps_jobs_that_wait_for_their_turn(jobs: JobKit) -> None:
    schema, starts = JobSchema("inspect", Image, rate=Rate(1, per_s=4)), []
    jobs.connect(recorder(jobs, schema, starts))
    _, waits = jobs.publish_batch(schema, [Image(), Image()])
    assert jobs.advance(1) == 1
    jobs.pause(schema)
    assert jobs.drain() == 0
    jobs.advance(3600)
    assert waits.status() is not JobStatus.DONE
    with jobs.backend.open_consumer(schema.name) as consumer:
        [delivery] = consumer.receive(1, 0.0)
        assert delivery.crashes == 0


def test_a_limit_by_a_field_and_a_rate_together(jobs: JobKit) -> None:
    schema = JobSchema("inspect", Image, rate=Rate(1, per_s=60), concurrency_limit=Limit(1, by="tenant"))
    starts: list[tuple[float, str]] = []
    jobs.connect(recorder(jobs, schema, starts), concurrency=4)
    jobs.publish_batch(schema, [Image(path=str(n)) for n in range(4)])
    assert jobs.drain() == 4
    assert [s for s, _ in starts] == pytest.approx([0, 60, 120, 180], abs=7)


def test_a_debounced_job_runs_once_after_the_last_publish(jobs: JobKit) -> None:
    schema, starts = JobSchema("inspect", Image, unique=Unique("tenant", debounce_s=10)), []
    jobs.connect(recorder(jobs, schema, starts))
    for path in "abc":
        jobs.publish(schema, Image(path=path))
        assert jobs.advance(9) == 0
    assert jobs.drain() == 1
    assert starts == [(28, "c")]


def test_a_job_expires(jobs: JobKit) -> None:
    schema, starts = JobSchema("inspect", Image, expires_s=10), []
    jobs.register(schema)
    late = jobs.publish(schema, Image())
    jobs.advance(11)
    jobs.connect(recorder(jobs, schema, starts))
    jobs.drain()
    assert starts == []
    with pytest.raises(JobExpired):
        jobs.result(schema, late)
    assert jobs.history(late)[-1].what == "expired"


def test_not_before_is_a_date_of_the_kit(jobs: JobKit) -> None:
    schema, starts = JobSchema("inspect", Image), []
    jobs.connect(recorder(jobs, schema, starts))
    jobs.advance(86_400)
    jobs.publish(schema, Image(), not_before=jobs.now + timedelta(hours=1))
    jobs.assert_published(schema, delay_s=3600)
    assert jobs.drain() == 1
    assert starts == [(90_000, "a.png")]


def test_a_dead_letter_is_kept_for_its_time(jobs: JobKit) -> None:
    schema = JobSchema("inspect", Image, dead_ttl_s=3600, on_dead=Then(JobSchema("alert", Image), Image()))
    jobs.register(JobSchema("alert", Image))

    @job_handler(schema)
    def rejects(job: Job[Image]) -> None:
        raise Reject("no")

    jobs.connect(rejects)
    jobs.publish(schema, Image())
    jobs.drain()
    letter = jobs.assert_dead(schema, reason="rejected")
    assert abs((letter.died_at - jobs.now).total_seconds()) < 0.001
    jobs.assert_published("alert")
    jobs.advance(3601)
    with pytest.raises(AssertionError, match="none is dead there"):
        jobs.assert_dead(schema)


def test_the_schedule_of_a_class_is_run(jobs: JobKit) -> None:
    class Reporter(Consumer[Image, Any]):
        schema = JobSchema("report", Image)
        schedule = Every(timedelta(minutes=10))

        def run(self, job: Job[Image]) -> None:
            pass

    jobs.connect(Reporter)
    assert jobs.advance(timedelta(hours=1)) == 6


def test_slots_that_a_drain_passes_are_published_at_their_times() -> None:
    schema, starts = JobSchema("inspect", Image), []
    with JobKit(start=datetime(2030, 1, 1, tzinfo=UTC)) as jobs:
        jobs.connect(recorder(jobs, schema, starts))
        jobs.schedule("often", schema, Image(path="slot"), every=timedelta(seconds=20))
        jobs.publish(schema, Image(), delay_s=50)
        assert jobs.drain() == 3
    assert [path for _, path in starts] == ["slot", "slot", "a.png"]


def test_a_job_is_cancelled(jobs: JobKit) -> None:
    schema, starts = JobSchema("inspect", Image), []
    jobs.connect(recorder(jobs, schema, starts))
    job_id = jobs.publish(schema, Image(), delay_s=5)
    jobs.cancel(schema, job_id)
    assert jobs.drain() == 0
    assert [event.what for event in jobs.history(job_id)] == ["published", "cancelled"]


def test_backoff_of_the_default_policy_is_not_waited_for(jobs: JobKit) -> None:
    @job_handler(JobSchema("inspect", Image, retry=RetryPolicy(max_attempts=12)))
    def fails(job: Job[Image]) -> None:
        raise ValueError

    jobs.connect(fails)
    jobs.publish("inspect", Image())
    assert jobs.drain() == 12
    jobs.assert_dead("inspect", reason="attempts exhausted")
