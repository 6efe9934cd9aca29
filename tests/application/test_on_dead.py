"""Schemas with ``on_dead``: another job is published as one becomes a dead letter."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from mindtrace.jobs import (
    BatchConsumer,
    Capabilities,
    Consumer,
    DeadJob,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    LocalClient,
    Orchestrator,
    Reject,
    RetryPolicy,
    Then,
    Unique,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.failures.failed_attempts import AGAIN_S
from mindtrace.jobs.errors import BackendUnavailable, UnsupportedCapability
from mindtrace.jobs.ports import Message

LONG_S = 60.0
ONCE = RetryPolicy(max_attempts=1, max_crashes=1, dont_retry_on=(KeyError,))


class Order(JobInput):
    number: int


class Alert(JobInput):
    job_id: str
    queue: str = ""
    reason: str = ""
    error: str = ""
    number: int | None = None


class Receipt(JobOutput):
    total: int


ALERT = JobSchema("alert", Alert)
UNREGISTERED = JobSchema("unregistered", Alert)


def alert(dead: DeadJob[Order]) -> Then:
    number = None if dead.payload is None else dead.payload.number
    return Then(
        ALERT,
        Alert(job_id=dead.id, queue=dead.queue, reason=dead.reason, error=dead.error, number=number),
    )


def orders(on_dead: Any = alert, **settings: Any) -> JobSchema[Order, Receipt]:
    return JobSchema("orders", Order, Receipt, on_dead=on_dead, **{"retry": ONCE, **settings})


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client(clock: ManualClock) -> Iterator[LocalClient]:
    with LocalClient(clock=clock) as client:
        yield client


@pytest.fixture
def jobs(client: LocalClient) -> Iterator[Orchestrator]:
    with Orchestrator(client) as jobs:
        jobs.register(ALERT)
        yield jobs


class Doomed(Consumer[Order, Receipt]):
    """Raises or returns what it is given."""

    def __init__(self, end: Any) -> None:
        super().__init__("orders")
        self.end = end
        self.attempts: list[int] = []

    def run(self, job: Job[Order]) -> Any:
        self.attempts.append(job.attempt)
        if isinstance(self.end, BaseException):
            raise self.end
        return self.end


class AsyncDoomed(Doomed):
    async def run(self, job: Job[Order]) -> Any:
        return Doomed.run(self, job)


class DoomedBatches(BatchConsumer[Order, Receipt]):
    def __init__(self, end: Any) -> None:
        super().__init__("orders")
        self.end = end

    def run_batch(self, jobs: Sequence[Job[Order]]) -> Any:
        return [self.end for _ in jobs]


def consume(jobs: Orchestrator, consumer: Consumer[Any, Any], **settings: Any) -> Any:
    with consumer:
        consumer.connect(jobs, poll_timeout_s=0.0, **settings)
        consumer.consume(block=False)
        return consumer.stats


def alerts(jobs: Orchestrator, schema: JobSchema[Alert] = ALERT) -> list[Alert]:
    """Take all alerts."""
    came: list[Alert] = []
    while (job := jobs.receive_message(schema)) is not None:
        came.append(job.payload)
    return came


def reasons(jobs: Orchestrator) -> list[str]:
    return [letter.reason for letter in jobs.dead_letters("orders")]


# -- every way to die -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [Doomed, AsyncDoomed, DoomedBatches])
@pytest.mark.parametrize(
    ("end", "reason", "error"),
    [
        (ValueError("no such order"), "attempts exhausted", "ValueError: no such order"),
        (KeyError("never"), "error not retried", "KeyError: 'never'"),
        (Reject("not ours"), "rejected", "not ours"),
        ({"sum": 1}, "invalid result", "InvalidPayload: result: "),
    ],
)
def test_a_job_whose_handler_ends_it_as_dead_has_its_next_job(
    jobs: Orchestrator, make: Callable[[Any], Consumer[Any, Any]], end: Any, reason: str, error: str
) -> None:
    jobs.register(orders())
    id_ = jobs.publish("orders", Order(number=7))

    stats = consume(jobs, make(end))

    assert (stats.dead, reasons(jobs)) == (1, [reason])
    (came,) = alerts(jobs)
    assert (came.job_id, came.queue, came.reason, came.number) == (id_, "orders", reason, 7)
    assert came.error.startswith(error)
    assert came.error == jobs.dead_letters("orders")[0].error


def test_an_attempt_that_is_retried_has_none(jobs: Orchestrator) -> None:
    jobs.register(orders(retry=RetryPolicy(max_attempts=3, base_delay_s=0.0)))
    jobs.publish("orders", Order(number=7))

    doomed = Doomed(ValueError("no"))
    consume(jobs, doomed)

    assert doomed.attempts == [1, 2, 3]
    assert len(alerts(jobs)) == 1


def test_a_job_that_is_done_has_none(jobs: Orchestrator) -> None:
    jobs.register(orders())
    jobs.publish("orders", Order(number=7))

    assert consume(jobs, Doomed(Receipt(total=1))).done == 1
    assert alerts(jobs) == []


def test_a_malformed_job_has_one_without_a_payload(jobs: Orchestrator, client: LocalClient) -> None:
    jobs.register(orders())
    client.publish("orders", [Message("odd", b"{")])

    consume(jobs, Doomed(None))

    (came,) = alerts(jobs)
    assert (came.job_id, came.reason, came.number) == ("odd", "malformed", None)


def test_a_job_that_kills_its_workers_has_one(
    jobs: Orchestrator, client: LocalClient, clock: ManualClock
) -> None:
    """The consumer that takes it next finds its crashes, and runs nothing (RTY-3)."""
    jobs.register(orders())
    id_ = jobs.publish("orders", Order(number=7))
    client.open_consumer("orders", lease_s=5.0).receive(1, 0.0)
    clock.advance(5.0)

    doomed = Doomed(None)
    consume(jobs, doomed)

    assert doomed.attempts == []
    (came,) = alerts(jobs)
    assert (came.job_id, came.reason, came.number) == (id_, "crash budget exhausted", 7)


def test_a_job_that_expired_has_one_if_it_is_dead(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.register(orders(expires_s=10, on_expired="dead"))
    id_ = jobs.publish("orders", Order(number=7))
    clock.advance(10)

    consume(jobs, Doomed(None))

    (came,) = alerts(jobs)
    assert (came.job_id, came.reason, came.number) == (id_, "expired", 7)


def test_a_job_that_ends_as_expired_has_none(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.register(orders(expires_s=10))
    jobs.publish("orders", Order(number=7))
    clock.advance(10)

    assert consume(jobs, Doomed(None)).expired == 1
    assert alerts(jobs) == []


def test_a_job_that_timed_out_has_one() -> None:
    """By the clock of the machine, which alone ends handlers."""

    class Slow(Doomed):
        async def run(self, job: Job[Order]) -> Any:
            from asyncio import sleep

            await sleep(LONG_S)

    with Orchestrator("memory://") as jobs:
        jobs.register(ALERT)
        jobs.register(orders(timeout_s=0.05))
        jobs.publish("orders", Order(number=7))
        consume(jobs, Slow(None))

        (came,) = alerts(jobs)
        assert (came.reason, came.number) == ("timed out", 7)


def test_what_receive_message_finds_dead_has_one(
    jobs: Orchestrator, client: LocalClient, clock: ManualClock
) -> None:
    jobs.register(orders(expires_s=10, on_expired="dead"))
    client.publish("orders", [Message("odd", b"{")])
    jobs.publish("orders", Order(number=7))
    clock.advance(10)

    assert jobs.receive_message("orders") is None
    assert [each.reason for each in alerts(jobs)] == ["malformed", "expired"]


def test_a_job_that_is_cancelled_has_none(jobs: Orchestrator) -> None:
    jobs.register(orders())
    id_ = jobs.publish("orders", Order(number=7))

    class Cancelled(Doomed):
        def run(self, job: Job[Order]) -> Any:
            jobs.cancel("orders", id_)
            raise ValueError("no")

    assert consume(jobs, Cancelled(None)).cancelled == 1
    assert alerts(jobs) == []


# -- what is published ----------------------------------------------------------------------------


def test_it_may_be_the_same_job_for_each(jobs: Orchestrator) -> None:
    jobs.register(orders(Then(ALERT, Alert(job_id="some order"), delay_s=0.0)))
    for number in range(3):
        jobs.publish("orders", Order(number=number))

    consume(jobs, Doomed(ValueError("no")))

    assert alerts(jobs) == [Alert(job_id="some order")] * 3


def test_it_may_be_several_or_none(jobs: Orchestrator) -> None:
    jobs.register(ALERT, queue="others")

    def some(dead: DeadJob[Order]) -> Then | None:
        assert dead.payload is not None
        if dead.payload.number == 0:
            return None
        return Then.all(alert(dead), Then(ALERT, Alert(job_id=dead.id), queue="others"))

    jobs.register(orders(some))
    ids = [jobs.publish("orders", Order(number=number)) for number in range(3)]

    consume(jobs, Doomed(ValueError("no")))

    assert [each.job_id for each in alerts(jobs)] == ids[1:]
    assert jobs.count_queue_messages("others") == 2
    assert len(reasons(jobs)) == 3


def test_its_schema_is_registered_if_it_isnt_yet(jobs: Orchestrator) -> None:
    jobs.register(orders(Then(UNREGISTERED, Alert(job_id="some order"))))
    jobs.publish("orders", Order(number=7))

    consume(jobs, Doomed(ValueError("no")))

    assert len(alerts(jobs, UNREGISTERED)) == 1


def test_a_redriven_job_that_dies_again_has_another(jobs: Orchestrator) -> None:
    jobs.register(orders())
    id_ = jobs.publish("orders", Order(number=7))
    for _ in range(2):
        consume(jobs, Doomed(ValueError("no")))
        assert [each.job_id for each in alerts(jobs)] == [id_]
        assert jobs.redrive("orders") == 1


def test_the_alert_of_the_death_before_counts_while_it_waits(jobs: Orchestrator) -> None:
    """It has the same id (PUB-5)."""
    jobs.register(orders())
    jobs.publish("orders", Order(number=7))
    for _ in range(2):
        consume(jobs, Doomed(ValueError("no")))
        jobs.redrive("orders")

    assert len(alerts(jobs)) == 1


def test_a_job_that_dies_in_place_of_publishing_its_next_has_that_of_its_death(jobs: Orchestrator) -> None:
    jobs.register(orders())
    jobs.publish("orders", Order(number=7))

    consume(jobs, Doomed(Then(ALERT, {"nobody": 1})))

    assert [each.reason for each in alerts(jobs)] == ["invalid result"]


# -- what can't be published ----------------------------------------------------------------------


def broken(dead: DeadJob[Order]) -> Then:
    raise RuntimeError("the function is wrong")


@pytest.mark.parametrize(
    ("on_dead", "said"),
    [
        (broken, "RuntimeError: the function is wrong"),
        (lambda dead: "alert", "on_dead returned 'alert': return Then(schema, payload), or None"),
        (lambda dead: Then(ALERT, {"nobody": 1}), "the next job, Then(alert): payload: "),
        (lambda dead: Then(ALERT, {"job_id": "a"}, result={}), "a dead job has none; leave result= out"),
        (Then(ALERT, {"job_id": "a"}, queue="nowhere"), "the next job, Then(nowhere): "),
        (Then(JobSchema("only", Alert, unique=Unique()), {"job_id": "a"}), "schema 'only' is unique"),
    ],
)
def test_what_another_run_wouldnt_mend_leaves_the_job_dead_and_is_told(
    jobs: Orchestrator, caplog: pytest.LogCaptureFixture, on_dead: Any, said: str
) -> None:
    jobs.register(orders(on_dead))
    id_ = jobs.publish("orders", Order(number=7))

    consume(jobs, Doomed(ValueError("no")))

    assert reasons(jobs) == ["attempts exhausted"]
    (told,) = [record for record in caplog.records if "without a next job" in record.getMessage()]
    assert (told.levelname, id_ in told.getMessage()) == ("ERROR", True)
    assert told.exc_info is not None
    error = told.exc_info[1]
    assert said in f"{type(error).__name__}: {error}"


def test_a_queue_that_was_deleted_meanwhile_keeps_the_job_alive(
    jobs: Orchestrator, clock: ManualClock
) -> None:
    """It runs again after a while, and dies with its alert once the queue is there (THEN-3, THEN-4)."""
    jobs.register(orders())
    jobs.publish("orders", Order(number=7))
    jobs.backend.delete("alert")

    first = Doomed(Reject("not ours"))
    assert consume(jobs, first).retried == 1
    assert (first.attempts, reasons(jobs)) == ([1], [])
    jobs.register(ALERT)
    clock.advance(AGAIN_S)
    second = Doomed(Reject("not ours"))
    assert consume(jobs, second).dead == 1

    assert (second.attempts, reasons(jobs)) == ([2], ["rejected"])
    assert [each.error for each in alerts(jobs)] == ["not ours"]
    (failure,) = jobs.dead_letters("orders")[0].history
    assert failure.error.startswith("not ours; it isn't dead yet, as its next jobs couldn't be published")


def test_a_refused_ack_whose_death_is_refused_as_well_is_retried(jobs: Orchestrator) -> None:
    """Nothing that was refused is held for good by the consumer that had it."""
    jobs.register(orders())
    jobs.publish("orders", Order(number=7))
    jobs.backend.delete("alert")

    stats = consume(jobs, Doomed(Then(ALERT, Alert(job_id="next"))))

    assert (stats.retried, stats.dead, stats.done) == (1, 0, 0)
    counts = jobs.counts("orders")
    assert (counts.delayed, counts.in_flight, counts.dead) == (1, 0, 0)


def test_receive_message_leaves_alive_what_has_no_queue_for_its_alert(
    jobs: Orchestrator, client: LocalClient
) -> None:
    jobs.register(orders())
    client.publish("orders", [Message("odd", b"{")])
    jobs.backend.delete("alert")

    assert jobs.receive_message("orders") is None
    counts = jobs.counts("orders")
    assert (counts.delayed, counts.in_flight, counts.dead) == (1, 0, 0)


def test_a_broker_that_is_away_when_a_queue_is_to_be_declared_keeps_the_job_alive(clock: ManualClock) -> None:
    class Away(LocalClient):
        is_away = False

        def declare(self, queue: Any) -> None:
            if self.is_away and queue.name == UNREGISTERED.name:
                raise BackendUnavailable("the broker is away")
            super().declare(queue)

    with Away(clock=clock) as client, Orchestrator(client) as jobs:
        jobs.register(orders(Then(UNREGISTERED, Alert(job_id="a"))))
        jobs.publish("orders", Order(number=7))
        client.is_away = True
        assert consume(jobs, Doomed(ValueError("no"))).retried == 1
        client.is_away = False
        clock.advance(AGAIN_S)
        assert consume(jobs, Doomed(ValueError("no"))).dead == 1
        assert len(alerts(jobs, UNREGISTERED)) == 1


def test_a_backend_that_publishes_nothing_with_a_death_is_refused_by_connect() -> None:
    class Older(LocalClient):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, then=False, atomic_then=False)

    with Older() as client, Orchestrator(client) as jobs:
        jobs.register(orders())
        with pytest.raises(UnsupportedCapability, match="doesn't support Then"):
            Doomed(None).connect(jobs)
