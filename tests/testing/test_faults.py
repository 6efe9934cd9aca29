"""Workers that die and leases that are lost, for each kind of handler."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest

from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    JobStatus,
    Limit,
    RetryPolicy,
    Then,
    batch_handler,
    job_handler,
)
from mindtrace.jobs.ports import Place
from mindtrace.jobs.testing import JobKit


class Image(JobInput):
    path: str = "a.png"


class Report(JobOutput):
    defects: int


INSPECT = JobSchema("inspect", Image, Report)
NOTIFY = JobSchema("notify", Image)
runs: Counter[str] = Counter()


@pytest.fixture(autouse=True)
def _none_has_run() -> None:
    runs.clear()


@job_handler(INSPECT)
def plain(job: Job[Image]) -> Report:
    runs[job.id] += 1
    return Report(defects=runs[job.id])


@job_handler(INSPECT)
async def coroutine(job: Job[Image]) -> Report:
    runs[job.id] += 1
    await asyncio.sleep(0)
    return Report(defects=runs[job.id])


@batch_handler(INSPECT, batch_size=4)
def batch(jobs: Sequence[Job[Image]]) -> list[Report]:
    runs.update(job.id for job in jobs)
    return [Report(defects=runs[job.id]) for job in jobs]


HANDLERS = [(plain, 1), (plain, 4), (coroutine, 1), (coroutine, 4), (batch, 1)]


@pytest.mark.parametrize(("handler", "concurrency"), HANDLERS)
@pytest.mark.parametrize("fault", ["kill_worker", "lose_lease"])
def test_no_job_is_lost_or_settled_by_the_first_run(
    jobs: JobKit, handler: Any, concurrency: int, fault: str
) -> None:
    jobs.connect(handler, concurrency=concurrency)
    handles = jobs.publish_batch(INSPECT, [Image(path=str(n)) for n in range(8)])
    getattr(jobs, fault)()
    jobs.drain()

    again = [job_id for job_id, count in runs.items() if count > 1]
    assert len(runs) == 8
    assert 1 <= len(again) <= 4
    for handle in handles:
        report = handle.result()
        assert report is not None
        assert report.defects == runs[handle.id]
        kinds = [event.what for event in jobs.history(handle.id)]
        assert kinds.count("started") == runs[handle.id]
        assert kinds.count("done") == 1
    assert jobs.counts(INSPECT).in_flight == 0


def test_what_a_killed_worker_returned_is_not_published(jobs: JobKit) -> None:
    jobs.register(NOTIFY)

    @job_handler(INSPECT)
    def inspect(job: Job[Image]) -> Then:
        return Then(NOTIFY, Image(path="next"), result=Report(defects=1))

    jobs.connect(inspect)
    jobs.kill_worker()
    jobs.publish(INSPECT, Image())
    assert jobs.drain() == 2
    assert len(jobs.published(NOTIFY)) == 1


def test_another_worker_is_made_of_the_class_and_starts_anew(jobs: JobKit) -> None:
    made = []

    class Inspector(Consumer[Image, Report]):
        schema = INSPECT

        def __init__(self) -> None:
            super().__init__()
            made.append(self)

        def run(self, job: Job[Image]) -> Report:
            return Report(defects=1)

    jobs.connect(Inspector)
    jobs.publish(INSPECT, Image())
    jobs.kill_worker()
    jobs.drain()
    assert len(made) == 2


def test_a_consumer_that_was_killed_is_connected_again(jobs: JobKit) -> None:
    consumer = plain.consumer()
    jobs.connect(consumer)
    jobs.kill_worker()
    jobs.publish(INSPECT, Image())
    assert jobs.drain() == 2
    jobs.publish(INSPECT, Image())
    assert jobs.drain() == 1


def test_a_failure_of_a_killed_worker_spends_no_attempt(jobs: JobKit) -> None:
    attempts = []

    @job_handler(INSPECT, retry=RetryPolicy(max_attempts=1))
    def fails_once(job: Job[Image]) -> Report:
        attempts.append(job.attempt)
        if len(attempts) == 1:
            raise ValueError
        return Report(defects=1)

    jobs.connect(fails_once)
    jobs.kill_worker()
    job_id = jobs.publish(INSPECT, Image())
    jobs.drain()
    assert attempts == [1, 1]
    assert jobs.status(INSPECT, job_id) is JobStatus.DONE


def test_a_place_of_a_killed_worker_is_free_after_its_lease(jobs: JobKit) -> None:
    schema = JobSchema("inspect", Image, Report, concurrency_limit=Limit(1))

    @job_handler(schema)
    def limited(job: Job[Image]) -> Report:
        return plain(job)  # type: ignore[return-value]

    jobs.connect(limited, limited)
    jobs.publish_batch(schema, [Image() for _ in range(5)])
    jobs.kill_worker()
    jobs.drain()
    assert sorted(runs.values()) == [1, 1, 1, 1, 2]


def test_a_killed_worker_fails_its_own_advance_no_more_than_its_lease(jobs: JobKit) -> None:
    jobs.connect(plain, lease_s=100)
    jobs.kill_worker()
    jobs.publish(INSPECT, Image())
    assert jobs.advance(99) == 1
    assert jobs.advance(1) == 1


def test_a_place_that_nobody_leaves_is_awaited_in_few_steps(
    jobs: JobKit, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = JobSchema("inspect", Image, Report, concurrency_limit=Limit(1))

    @job_handler(schema)
    def limited(job: Job[Image]) -> Report:
        return plain(job)  # type: ignore[return-value]

    store, asked = jobs.backend.coordination, list[Place]()
    take_places = store.take_places

    def noting(places: Sequence[Place], **times: Any) -> list[bool]:
        asked.extend(places)
        return take_places(places, **times)

    monkeypatch.setattr(store, "take_places", noting)
    jobs.connect(limited, lease_s=30)
    jobs.publish(schema, Image())
    jobs.drain()
    take_places([asked[0]._replace(holder="a process that stands still")], ttl_s=3600)
    waits = jobs.publish(schema, Image())
    assert jobs.drain() == 1

    assert len(asked) < 1000
    started = next(event for event in jobs.history(waits) if event.what == "started")
    assert started.after_s == pytest.approx(3600, abs=6)
    assert jobs.dead_letters(schema) == []
    assert jobs.result(schema, waits) == Report(defects=1)
