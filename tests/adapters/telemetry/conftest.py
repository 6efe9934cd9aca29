"""One publish, and a few attempts: what an observer has to tell of."""

from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, LocalClient, Orchestrator, Reject, RetryPolicy
from mindtrace.jobs.ports import Observer

Work = Callable[[Observer], str]


class Half(Consumer):
    schema = JobSchema(name="halves", input=JobInput, retry=RetryPolicy(base_delay_s=0))

    def run(self, job: Job[Any]) -> None:
        if job.attempt == 1:
            raise ValueError("not at once")
        if job.priority == 1:
            raise Reject("never")


@pytest.fixture
def work() -> Work:
    """Publish a job that fails once and then is done, with an observer at hand; return its id."""

    def run(observer: Observer) -> str:
        with LocalClient() as client, Half() as consumer:
            orchestrator = Orchestrator(client, observers=[observer])
            orchestrator.register(Half.schema)
            job_id = orchestrator.publish("halves", {})
            consumer.connect(orchestrator, poll_timeout_s=0.01)
            consumer.consume_until_empty()
            return job_id

    return run
