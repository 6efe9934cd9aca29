"""Who watches the work sees all of it, and can harm none of it."""

import logging
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobSchema,
    Limit,
    LocalClient,
    Orchestrator,
    Reject,
    RetryLater,
    Scheduler,
    Unique,
    job_from_schema,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.observing.job_logging import JobLogger
from mindtrace.jobs.application.process.graceful_stop import SecondSignal
from mindtrace.jobs.domain.errors import InvalidInput, QueueNotFound
from mindtrace.jobs.ports import Attempt, Observer, Outcome, SlotOutcome

MakeConsumer = Callable[..., Consumer]


class Recording(Observer):
    def __init__(self) -> None:
        self.seen: list[Any] = []

    @contextmanager
    def publishing(self, queue: str, count: int) -> Iterator[Mapping[str, str]]:
        self.seen.append(("publishing", queue, count))
        yield {"traceparent": "00-1-2-01"}

    def polled(self, queue: str, received: int) -> None:
        self.seen.append(("polled", queue, received))

    def held_back(self, queue: str, count: int) -> None:
        self.seen.append(("held back", queue, count))

    def stood(self, queue: str, count: int) -> None:
        self.seen.append(("stood", queue, count))

    def replaced(self, queue: str, count: int) -> None:
        self.seen.append(("replaced", queue, count))

    def slot(self, queue: str, outcome: SlotOutcome) -> None:
        self.seen.append((outcome.value, queue))

    def started(self, queue: str, job: Job[Any]) -> None:
        self.seen.append(("started", queue, job.headers.get("traceparent")))

    def ended(self, attempt: Attempt) -> None:
        self.seen.append(attempt)


class Broken(Observer):
    def __init__(self, raised: type[BaseException] = ZeroDivisionError) -> None:
        self.raised = raised

    @contextmanager
    def publishing(self, queue: str, count: int) -> Iterator[Mapping[str, str]]:
        yield {"broken": "yes"}
        raise ZeroDivisionError

    def polled(self, queue: str, received: int) -> None:
        raise self.raised

    def stood(self, queue: str, count: int) -> None:
        raise self.raised

    def started(self, queue: str, job: Job[Any]) -> None:
        raise self.raised

    def ended(self, attempt: Attempt) -> None:
        raise self.raised


def watched(client: LocalClient, schema: Any, *observers: Observer) -> Orchestrator:
    orchestrator = Orchestrator(client, observers=observers)
    orchestrator.register(schema)
    return orchestrator


def test_each_attempt_is_seen_from_its_publish_to_its_end(
    client: LocalClient, schema: Any, make_consumer: MakeConsumer
) -> None:
    observer = Recording()
    orchestrator = watched(client, schema, observer)
    job_id = orchestrator.publish("points", {"x": 1})
    make_consumer(lambda job: None, to=orchestrator, poll_timeout_s=0.01).consume(1)

    publishing, polled, started, attempt, *_ = observer.seen
    assert publishing == ("publishing", "points", 1)
    assert polled == ("polled", "points", 1)
    assert started == ("started", "points", "00-1-2-01")
    assert attempt[:4] == ("points", job_id, 1, Outcome.DONE)
    assert attempt.duration_s >= 0


def of_kinds(observer: Recording, *kinds: str) -> list[Any]:
    return [each for each in observer.seen if each[0] in kinds]


class Point(JobInput):
    x: float = 0.0


def test_unique_jobs_that_met_another_are_seen(client: LocalClient) -> None:
    observer = Recording()
    first, newest = (
        JobSchema(name, Point, unique=Unique(by="x", replace=name == "newest"))
        for name in ("first", "newest")
    )
    orchestrator = watched(client, first, Broken(), observer)
    orchestrator.register(newest)
    for queue in ("first", "newest"):
        orchestrator.publish(queue, Point())
        orchestrator.publish_batch(queue, [Point(), Point(), Point(x=1)])
        orchestrator.publish(queue, Point())
    assert of_kinds(observer, "stood", "replaced") == [
        *(("stood", "first", 2), ("stood", "first", 1)),
        *(("replaced", "newest", 2), ("replaced", "newest", 1)),
    ]


def test_slots_are_seen_with_what_became_of_them(clock: ManualClock, schema: Any) -> None:
    observer, hour = Recording(), timedelta(hours=1)
    with LocalClient(clock=clock) as client:
        orchestrator = watched(client, schema, observer)
        orchestrator.register(JobSchema("gone", Point))
        orchestrator.schedule("hourly", "points", every=hour)
        orchestrator.schedule("skipping", "points", every=hour, misfire="skip", grace_s=1)
        orchestrator.schedule("without", "gone", every=hour)
        orchestrator.delete_queue("gone")
        scheduler = Scheduler(orchestrator)
        assert scheduler._pass() > 0
        assert of_kinds(observer, "published", "missed", "failed") == []
        clock.advance(3600 * 3)
        scheduler._pass()
    assert of_kinds(observer, "published", "missed", "failed") == [
        *(("missed", "points"), ("published", "points")),
        *(("missed", "points"), ("failed", "gone")),
    ]


def test_jobs_that_must_wait_for_a_limit_are_seen(
    client: LocalClient, schema: Any, make_consumer: MakeConsumer
) -> None:
    observer = Recording()
    limited = JobSchema("points", schema.input, schema.output, concurrency_limit=Limit(1))
    orchestrator = watched(client, limited, observer)
    orchestrator.publish_batch("points", [{"x": 1}, {"x": 2}])
    other = make_consumer(lambda job: None, to=orchestrator, poll_timeout_s=0.01)

    def wait_beside(job: Job[Any]) -> None:
        assert other.consume(1) == 0

    consumer = make_consumer(wait_beside, to=orchestrator, poll_timeout_s=0.01, prefetch=1)
    assert consumer.consume(1) == 1
    assert of_kinds(observer, "held back") == [("held back", "points", 1)]
    assert other.consume(1) == 1


@pytest.mark.parametrize(
    ("raised", "outcome", "error"),
    [
        (ValueError("no"), Outcome.RETRIED, "ValueError: no"),
        (RetryLater(1, "busy"), Outcome.RETRIED, "busy"),
        (Reject("bad"), Outcome.DEAD, "bad"),
    ],
)
def test_an_attempt_that_fails_is_seen_with_its_error(
    client: LocalClient,
    schema: Any,
    make_consumer: MakeConsumer,
    raised: Exception,
    outcome: Outcome,
    error: str,
) -> None:
    observer = Recording()
    orchestrator = watched(client, schema, observer)
    orchestrator.publish("points", {"x": 1})

    def work(job: Job[Any]) -> None:
        raise raised

    make_consumer(work, to=orchestrator, poll_timeout_s=0.01).consume(1)

    (attempt,) = [seen for seen in observer.seen if isinstance(seen, Attempt)]
    assert (attempt.outcome, attempt.error) == (outcome, error)


@pytest.mark.parametrize("raised", [ZeroDivisionError, KeyboardInterrupt, SystemExit, GeneratorExit])
def test_one_that_fails_harms_neither_the_work_nor_the_others(
    client: LocalClient,
    schema: Any,
    make_consumer: MakeConsumer,
    caplog: pytest.LogCaptureFixture,
    raised: type[BaseException],
) -> None:
    """Whatever it raises is logged, each time."""
    observer = Recording()
    orchestrator = watched(client, schema, Broken(raised), observer)
    job_id = orchestrator.publish("points", {"x": 1})
    make_consumer(lambda job: {"total": 2}, to=orchestrator, poll_timeout_s=0.01).consume(1)

    assert orchestrator.result("points", job_id).total == 2
    assert any(isinstance(seen, Attempt) for seen in observer.seen)
    assert "Broken failed" in caplog.text
    assert "an observer failed" in caplog.text


def test_a_second_signal_in_one_ends_the_consumer(
    client: LocalClient, schema: Any, make_consumer: MakeConsumer
) -> None:
    """Wherever it came, and no job is lost."""
    orchestrator = watched(client, schema, Broken(SecondSignal))
    orchestrator.publish("points", {"x": 1})
    consumer = make_consumer(to=orchestrator, poll_timeout_s=0.01)
    with pytest.raises(SecondSignal):
        consumer.consume(1)
    consumer.close()

    assert orchestrator.counts("points").ready == 1


def test_an_error_of_the_publish_goes_its_way(client: LocalClient, schema: Any) -> None:
    orchestrator = watched(client, schema, Recording())
    orchestrator.delete_queue("points")
    client.close()
    with pytest.raises(QueueNotFound):
        orchestrator.publish("points", {"x": 1})


def test_headers_of_the_job_are_kept(client: LocalClient, schema: Any, make_consumer: MakeConsumer) -> None:
    """Also where there are so many that none can be added."""
    orchestrator = watched(client, schema, Recording())
    full = {f"h{n}": "x" for n in range(32)}
    orchestrator.publish("points", job_from_schema(schema, {}, headers={"traceparent": "mine"}))
    orchestrator.publish("points", job_from_schema(schema, {}, headers=full))
    seen: list[Any] = []
    make_consumer(lambda job: seen.append(dict(job.headers)), to=orchestrator, poll_timeout_s=0.01).consume(2)

    assert seen == [{"traceparent": "mine"}, full]


def test_the_job_log_does_not_say_that_an_expired_job_ran(
    schema: Any, make_consumer: MakeConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "tests.joblog")
    clock = ManualClock()
    orchestrator = watched(LocalClient(clock=clock), schema, JobLogger(logging.getLogger("tests.joblog")))
    job_id = orchestrator.publish("points", {"x": 1}, expires_s=1)
    clock.advance(1)
    make_consumer(lambda job: None, to=orchestrator, poll_timeout_s=0.01).consume(1)

    (record,) = [record for record in caplog.records if record.name == "tests.joblog"]
    assert record.getMessage() == f"job {job_id} of points: attempt 1 wasn't run: expired"


def test_the_job_log_is_one_line_an_attempt(
    client: LocalClient, schema: Any, make_consumer: MakeConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """With id, queue, attempt, duration and outcome, for people and as fields."""
    caplog.set_level(logging.INFO, "tests.joblog")
    orchestrator = watched(client, schema, JobLogger(logging.getLogger("tests.joblog")))
    job_id = orchestrator.publish("points", {"x": 1})
    make_consumer(lambda job: None, to=orchestrator, poll_timeout_s=0.01).consume(1)

    (record,) = [record for record in caplog.records if record.name == "tests.joblog"]
    assert re.match(rf"job {job_id} of points: attempt 1 ran for [\d.]+ s: done", record.getMessage())
    assert record.job | {"duration_s": 0} == {  # type: ignore[attr-defined]
        "id": job_id,
        "queue": "points",
        "attempt": 1,
        "duration_s": 0,
        "outcome": "done",
    }


def test_a_line_of_log_has_no_control_characters_of_its_job(
    client: LocalClient, schema: Any, make_consumer: MakeConsumer, caplog: pytest.LogCaptureFixture
) -> None:
    """Its fields have the error as it was."""
    caplog.set_level(logging.INFO)
    orchestrator = watched(client, schema, JobLogger(logging.getLogger("tests.joblog")))
    orchestrator.publish("points", {"x": 1})

    def reject(job: Job[Any]) -> None:
        raise Reject("bad\njob forged\x1b[31m")

    make_consumer(reject, to=orchestrator, poll_timeout_s=0.01).consume(1)

    messages = [record.getMessage() for record in caplog.records]
    told = [message for message in messages if r"bad\njob forged\x1b[31m" in message]
    assert [message.split()[0] for message in told] == ["job", "job"]
    assert all(message.isprintable() for message in messages)
    (fields,) = [record.job for record in caplog.records if hasattr(record, "job")]
    assert fields["error"] == "bad\njob forged\x1b[31m"


def test_observers_that_come_one_by_one_are_refused(client: LocalClient) -> None:
    """A look at them used them up, and none was told of anything."""
    with pytest.raises(InvalidInput, match="pass a list of observers"):
        Orchestrator(client, observers=iter([Observer()]))  # type: ignore[arg-type]
