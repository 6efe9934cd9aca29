"""Jobs expire by the broker's clock on each backend, also if a worker is killed meanwhile."""

import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import pytest

from conditions import eventually
from mindtrace.jobs import (
    Consumer,
    Job,
    JobExpired,
    JobInput,
    JobOutput,
    JobSchema,
    JobStatus,
    Orchestrator,
    UnsupportedCapability,
)

from .backend_urls import own_url

BACKENDS = ["memory", "sqlite", "redis", "postgresql", "rabbitmq"]
JOBS = 50
HOUR_S = 3600.0


class Frame(JobInput):
    number: int = 0


class Seen(JobOutput):
    number: int


SCHEMA = JobSchema("frames", Frame, Seen, expires_s=HOUR_S)


class Camera(Consumer[Frame, Seen]):
    """Notes which frames it was given."""

    schema = SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[int] = []

    def run(self, job: Job[Frame]) -> Seen:
        self.ran.append(job.payload.number)
        return Seen(number=job.payload.number)


@pytest.fixture
def jobs(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orchestrator]:
    """On the backend that the test is run on, which is left as it was."""
    with own_url(request.param, request, tmp_path) as url, Orchestrator(url) as orchestrator:
        orchestrator.register(SCHEMA)
        yield orchestrator
        orchestrator.delete_queue(SCHEMA.name)


@pytest.mark.parametrize("jobs", BACKENDS, indirect=True)
def test_what_has_expired_ends_and_what_has_not_runs(jobs: Orchestrator) -> None:
    """One by one and in batches; who asks hears why, where results are kept."""
    short = [jobs.publish(SCHEMA, Frame(number=-1), expires_s=0.05)]
    short += [each.id for each in jobs.publish_batch(SCHEMA, [Frame(number=-1)] * JOBS, expires_s=0.05)]
    long = [each.id for each in jobs.publish_batch(SCHEMA, [Frame(number=n) for n in range(JOBS)])]
    over_s = jobs.clock() + 0.1
    eventually(lambda: jobs.clock() >= over_s, "the broker's clock goes on")

    with Camera() as camera:
        camera.connect(jobs)
        camera.consume(len(short) + len(long))
        assert camera.ran == list(range(JOBS))
        assert (camera.stats.expired, camera.stats.done) == (len(short), JOBS)
    assert jobs.counts(SCHEMA).waiting == 0
    if jobs.backend.capabilities.results:
        assert {jobs.status(SCHEMA, id_) for id_ in short} == {JobStatus.EXPIRED}
        assert {jobs.status(SCHEMA, id_) for id_ in long} == {JobStatus.DONE}
        for id_ in short:
            with pytest.raises(JobExpired):
                jobs.result(SCHEMA, id_)
    else:
        with pytest.raises(UnsupportedCapability):
            jobs.status(SCHEMA, short[0])


@pytest.mark.parametrize("jobs", BACKENDS, indirect=True)
def test_a_job_whose_worker_was_lost_is_not_run_again_once_it_has_expired(jobs: Orchestrator) -> None:
    """It comes back by itself, and ends then."""
    jobs.publish(SCHEMA, Frame(number=1), expires_s=0.5)
    lost = jobs.backend.open_consumer(SCHEMA.name, lease_s=1.0)
    eventually(lambda: lost.receive(1, 1.0), "a consumer has the job")
    if lost.lease_s is None:  # the connection is the lease
        lost.close()
    over_s = jobs.clock() + 0.6
    eventually(lambda: jobs.clock() >= over_s, "the broker's clock goes on")
    with Camera() as camera:
        camera.connect(jobs)
        eventually(lambda: camera.consume_until_empty() or camera.stats.expired, "the job has ended")
        assert (camera.stats.expired, camera.ran) == (1, [])
    lost.close()


@pytest.mark.parametrize("jobs", ["sqlite", "redis", "postgresql", "rabbitmq"], indirect=True)
def test_a_wrong_clock_of_the_publisher_changes_nothing(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither does the worker's (LSE-5)."""
    true = time.time

    def set_by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: true() + seconds)
        monkeypatch.setattr("mindtrace.jobs.application.broker.broker_clock.time", lambda: true() + seconds)

    set_by(-10 * HOUR_S)  # its jobs would have expired long ago
    id_ = jobs.publish(SCHEMA, Frame(number=1))
    set_by(10 * HOUR_S)  # for a worker, too
    job = jobs.receive_message(SCHEMA)
    assert job is not None
    assert job.id == id_
    assert isinstance(job.expires_at, datetime)
    assert abs(job.expires_at.timestamp() - true() - HOUR_S) < HOUR_S / 2
