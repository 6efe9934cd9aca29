"""What one bad or slow job may cost the others that are in hand with it: nothing."""

import copy
import pickle
import threading
from collections.abc import Callable
from typing import Any

import pytest

from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    LocalClient,
    Orchestrator,
    RetryPolicy,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.process.graceful_stop import SecondSignal
from mindtrace.jobs.domain.dead_reasons import DeadReason

MakeConsumer = Callable[..., Consumer]


class WorkerDied(SecondSignal):
    """Ends a consumer in the midst of a job, as a crash does."""


def test_a_job_that_kills_its_worker_drags_no_other_along(
    far: Orchestrator, clock: ManualClock, line: Any, make_consumer: MakeConsumer
) -> None:
    """What was in hand with it when two workers died runs alone afterwards, whatever the prefetch (RTY-3)."""
    bad, *innocent = [handle.id for handle in far.publish_batch("points", [{"x": n} for n in range(4)])]
    done: list[str] = []

    def handler(job: Any) -> None:
        if job.id == bad:
            line.breaks["settle"] = 1_000_000  # nothing is released: the worker is dead
            raise WorkerDied
        done.append(job.id)

    for _ in range(RetryPolicy().max_crashes):
        with pytest.raises(WorkerDied):
            make_consumer(handler, to=far, prefetch=4).consume(4)
        line.breaks.clear()
        clock.advance(60)
    make_consumer(handler, to=far, prefetch=4).consume_until_empty()

    assert sorted(done) == sorted(innocent)
    (letter,) = far.dead_letters("points")
    assert (letter.id, letter.reason) == (bad, DeadReason.CRASHES)


def test_what_is_done_is_not_kept_waiting_by_a_slow_job(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any
) -> None:
    """A result is there while the next job of the batch still runs (RES-2)."""
    finish = threading.Event()
    quick, slow = [handle.id for handle in orchestrator.publish_batch("points", [{"x": 1}, {"x": 2}])]

    def handler(job: Any) -> dict[str, float]:
        if job.id == slow:
            finish.wait()
        return {"total": job.payload.x}

    consuming = background(make_consumer(handler, prefetch=2).consume, 2)
    try:
        assert orchestrator.result("points", quick, timeout_s=60).total == 1
    finally:
        finish.set()
    assert consuming.result() == 2


def test_a_result_that_is_too_large_is_a_failure(client: LocalClient) -> None:
    """As with any other output that can't be kept, the job is tried again and dies in the end."""

    class Note(JobOutput):
        text: str

    class Writer(Consumer):
        def run(self, job: Job[Any]) -> Note:
            return Note(text="x" * 400)

    orchestrator = Orchestrator(client, max_body_bytes=300)
    orchestrator.register(JobSchema("notes", JobInput, Note, retry=RetryPolicy(max_attempts=1)))
    orchestrator.publish("notes", {})
    writer = Writer("notes")
    writer.connect(orchestrator)
    writer.consume(1)

    (letter,) = orchestrator.dead_letters("notes")
    assert letter.error == "BodyTooLarge: result of 411 bytes: the limit is 300 bytes"


def test_a_consumer_tells_whether_it_was_stopped(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """A program that consumes in rounds can see that it is to end."""
    orchestrator.publish_batch("points", [{}, {}])
    consumer = make_consumer(lambda job: None)

    consumer.consume(1)
    assert consumer.stopped is False
    consumer.stop()
    consumer.consume(1)
    assert consumer.stopped is True


def test_a_job_can_be_sent_to_another_process() -> None:
    """It pickles, copies and hashes, headers included."""
    job = Job(schema_name="points", payload=None, headers={"trace": "1"})

    for twin in (pickle.loads(pickle.dumps(job)), copy.deepcopy(job)):
        assert twin == job
        assert hash(twin) == hash(job)
