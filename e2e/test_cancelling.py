"""A thousand running coroutines are cancelled on each backend, and what waits doesn't run."""

import asyncio
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from conditions import eventually
from mindtrace.jobs import CancelOutcome, Consumer, Job, JobInput, JobSchema, Orchestrator
from mindtrace.jobs.application.cancelling import admin
from mindtrace.jobs.ports import JobResult, ResultStatus

from .backend_urls import own_url

JOBS = 1_000
HEARTBEATS_APART_S = 600.0


class Point(JobInput):
    x: int = 0


SCHEMA = JobSchema("points", Point)


class Sleeper(Consumer):
    """Coroutines that wait until they are cancelled."""

    schema = SCHEMA
    concurrency = JOBS

    def __init__(self) -> None:
        super().__init__()
        self.running: set[str] = set()
        self.cancelled_ids: set[str] = set()

    async def run(self, job: Job[Point]) -> None:
        self.running.add(job.id)
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled_ids.add(job.id)
            raise


@pytest.fixture
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orchestrator]:
    """On the backend that the test is run on, which is left as it was."""
    with own_url(request.param, request, tmp_path) as url, Orchestrator(url) as orchestrator:
        orchestrator.register(SCHEMA)
        yield orchestrator
        orchestrator.delete_queue(SCHEMA.name)


@pytest.mark.parametrize("jobs", ["memory", "sqlite", "redis", "postgresql"], indirect=True)
def test_one_heartbeat_ends_a_thousand_cancelled_coroutines(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing else tells the consumer: its heartbeats are far apart, and the one that counts is asked for."""
    monkeypatch.setattr(admin, "announce", lambda *_: None)
    sleeper, beats = Sleeper(), list[int]()
    sleeper.connect(jobs, lease_s=3 * HEARTBEATS_APART_S)
    extend = sleeper.consumer_backend.extend

    def counted(receipts: Sequence[str]) -> Any:
        beats.append(len(receipts))
        return extend(receipts)

    monkeypatch.setattr(sleeper.consumer_backend, "extend", counted)
    ids = [handle.id for handle in jobs.publish_batch(SCHEMA, [Point(x=x) for x in range(JOBS)])]
    thread = threading.Thread(target=sleeper.consume)
    thread.start()
    try:
        eventually(lambda: len(sleeper.running) == JOBS, "all jobs run")
        assert set(jobs.cancel_batch(SCHEMA, ids)) == {CancelOutcome.REQUESTED}
        assert (sleeper.cancelled_ids, beats) == (set(), [])

        assert sleeper._connection is not None
        sleeper._connection.loop.renew()
        eventually(lambda: jobs.counts(SCHEMA).in_flight == 0, "all jobs have ended")
        eventually(lambda: sleeper.stats.cancelled == JOBS, "the consumer knows")
    finally:
        sleeper.stop()
        thread.join()
        sleeper.close()
    assert (sleeper.cancelled_ids, beats) == (set(ids), [JOBS])
    results = jobs.backend.results(SCHEMA.name, ids)
    assert list(results.values()) == [JobResult(ResultStatus.CANCELLED)] * JOBS
    counts = jobs.counts(SCHEMA)
    assert (counts.waiting, counts.in_flight, counts.dead) == (0, 0, 0)


@pytest.mark.parametrize("jobs", ["rabbitmq"], indirect=True)
def test_a_borrowed_store_cancels_what_runs_and_what_waits(jobs: Orchestrator) -> None:
    """RabbitMQ itself can't; what waits there is dropped when its turn comes."""
    sleeper = Sleeper()
    sleeper.connect(jobs, concurrency=JOBS // 2, prefetch=JOBS // 2)
    ids = [handle.id for handle in jobs.publish_batch(SCHEMA, [Point(x=x) for x in range(JOBS)])]
    thread = threading.Thread(target=sleeper.consume)
    thread.start()
    try:
        eventually(lambda: len(sleeper.running) == JOBS // 2, "as many jobs run as may")
        assert set(jobs.cancel_batch(SCHEMA, ids)) == {CancelOutcome.REQUESTED}
        results = jobs.backend.results
        eventually(lambda: len(results(SCHEMA.name, ids)) == JOBS, "all jobs have ended")
        eventually(lambda: sleeper.stats.cancelled == JOBS // 2, "the consumer knows")
    finally:
        sleeper.stop()
        thread.join()
        sleeper.close()
    assert len(sleeper.running) == JOBS // 2
    assert sleeper.cancelled_ids == sleeper.running
    assert list(results(SCHEMA.name, ids).values()) == [JobResult(ResultStatus.CANCELLED)] * JOBS
    assert set(jobs.cancel_batch(SCHEMA, ids)) == {CancelOutcome.CANCELLED}
    counts = jobs.counts(SCHEMA)
    assert (counts.waiting, counts.dead) == (0, 0)


@pytest.mark.parametrize("jobs", ["rabbitmq"], indirect=True)
def test_a_call_that_takes_one_job_takes_none_that_a_borrowed_store_has_cancelled(jobs: Orchestrator) -> None:
    first, second = (outcome.id for outcome in jobs.publish_batch(SCHEMA, [Point(x=1), Point(x=2)]))
    assert jobs.cancel(SCHEMA, first) is CancelOutcome.REQUESTED
    taken: list[str] = []

    def take() -> bool:
        taken.extend(job.id for job in (jobs.receive_message(SCHEMA),) if job is not None)
        return bool(taken)

    eventually(take, "the other job came")
    assert taken == [second]
    assert jobs.backend.results(SCHEMA.name, [first]) == {first: JobResult(ResultStatus.CANCELLED)}
