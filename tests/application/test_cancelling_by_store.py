"""Cancelling jobs of a broker that can't: the coordination store keeps the requests (CAN-1 to CAN-3)."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from logging import getLogger
from typing import Any
from unittest.mock import Mock

import pytest

from mindtrace.jobs import (
    CancelOutcome,
    Capabilities,
    Consumer,
    Job,
    JobCancelled,
    JobInput,
    JobSchema,
    JobStatus,
    Limit,
    LocalClient,
    Orchestrator,
    RetryPolicy,
    Unique,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.broker.store_outage import StoreOutage
from mindtrace.jobs.application.cancelling import requests
from mindtrace.jobs.application.gates.cancel_gate import CancelGate
from mindtrace.jobs.application.gates.gated_consumer import GatedConsumer
from mindtrace.jobs.application.pausing import watch
from mindtrace.jobs.domain.errors import (
    AccessDenied,
    BackendUnavailable,
    QueueNotFound,
    UnsupportedCapability,
)
from mindtrace.jobs.ports import (
    ConsumerBackend,
    CoordinationStore,
    Delivery,
    Settled,
    SettleOutcome,
)

LONG_S = 60.0
CANCELLED, REQUESTED, TOO_LATE = CancelOutcome.CANCELLED, CancelOutcome.REQUESTED, CancelOutcome.TOO_LATE


class Point(JobInput):
    x: int = 0


SCHEMA = JobSchema("points", Point, retry=RetryPolicy(max_attempts=3, base_delay_s=0.0))


class OtherBroker(LocalClient):
    """A broker that can't cancel jobs itself."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, cancel=False)

    def cancel(self, queue: str, ids: Sequence[str], *, result_ttl_s: float = 3600.0) -> list[CancelOutcome]:
        raise AssertionError("it can't")


class Worker(Consumer):
    """Notes what it runs, and ends each job as the test says."""

    def __init__(self, end: Callable[["Worker", Job[Point]], object] = lambda *_: None) -> None:
        super().__init__("points")
        self.ran: list[int] = []
        self.started = threading.Semaphore(0)
        self.may_end = threading.Event()
        self.end = end

    def run(self, job: Job[Point]) -> Any:
        self.ran.append(job.payload.x)
        self.started.release()
        return self.end(self, job)


class Sleeper(Consumer):
    schema = SCHEMA
    concurrency = 3

    def __init__(self) -> None:
        super().__init__()
        self.started = threading.Semaphore(0)

    async def run(self, job: Job[Point]) -> None:
        self.started.release()
        await asyncio.Event().wait()


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for requests often, so that no test waits for it; and have no job start before the first look."""
    monkeypatch.setattr(watch, "LOOK_S", 0.005)
    monkeypatch.setattr(watch, "_FIRST_LOOK_S", LONG_S)


@pytest.fixture
def jobs(clock: ManualClock) -> Iterator[Orchestrator]:
    with OtherBroker(clock=clock) as client:
        made = Orchestrator(client)
        made.register(SCHEMA)
        yield made


@pytest.fixture
def running(jobs: Orchestrator, background: Any) -> Iterator[Callable[[Any], Any]]:
    """Start a consumer in a thread, and stop it in the end."""
    consumers: list[tuple[Any, Any]] = []

    def start(consumer: Any) -> Any:
        consumer.connect(jobs)
        consumers.append((consumer, background(consumer.consume)))
        return consumer

    yield start
    for consumer, future in consumers:
        consumer.stop()
        future.result()
        consumer.close()


def run_all(jobs: Orchestrator, consumer: Worker) -> Worker:
    consumer.connect(jobs)
    consumer.consume_until_empty()
    consumer.close()
    return consumer


def expect_cancelled(jobs: Orchestrator, job_id: str) -> None:
    with pytest.raises(JobCancelled, match=job_id):
        jobs.result("points", job_id, timeout_s=LONG_S)
    assert jobs.status("points", job_id) is JobStatus.CANCELLED
    assert jobs.counts("points").dead == 0


def requests_of(jobs: Orchestrator) -> list[str]:
    return [key.rpartition("/")[2] for key in jobs.backend.coordination.scan("cancel-requests/")]


def test_jobs_that_wait_dont_run(jobs: Orchestrator) -> None:
    ids = [jobs.publish("points", Point(x=x)) for x in range(4)]

    assert jobs.cancel_batch("points", [ids[0], ids[3]]) == [REQUESTED, REQUESTED]
    assert jobs.cancel("points", ids[0]) is REQUESTED
    worker = run_all(jobs, Worker())

    assert worker.ran == [1, 2]
    for id_ in (ids[0], ids[3]):
        expect_cancelled(jobs, id_)
    assert jobs.cancel_batch("points", ids) == [CANCELLED, TOO_LATE, TOO_LATE, CANCELLED]
    assert requests_of(jobs) == []


def test_a_job_of_the_same_id_that_comes_later_runs(jobs: Orchestrator) -> None:
    jobs.publish("points", jobs.job("points", Point(x=1), id="same"))
    jobs.cancel("points", "same")
    run_all(jobs, Worker())

    jobs.publish("points", jobs.job("points", Point(x=2), id="same"))

    assert run_all(jobs, Worker()).ran == [2]


def test_running_coroutines_are_cancelled(jobs: Orchestrator, running: Any) -> None:
    sleeper = running(Sleeper())
    ids = [jobs.publish("points", Point()) for _ in range(3)]
    for _ in ids:
        assert sleeper.started.acquire(timeout=LONG_S)

    assert jobs.cancel_batch("points", ids[:2]) == [REQUESTED, REQUESTED]

    for id_ in ids[:2]:
        expect_cancelled(jobs, id_)
    assert jobs.status("points", ids[2]) is JobStatus.RUNNING
    assert jobs.cancel("points", ids[2]) is REQUESTED
    expect_cancelled(jobs, ids[2])
    assert requests_of(jobs) == []


def test_a_plain_handler_sees_it(jobs: Orchestrator, running: Any, eventually: Any) -> None:
    def end(worker: Worker, job: Job[Point]) -> None:
        give_up = threading.Event()
        while not (worker.cancelled and job.cancelled):
            assert not give_up.wait(0.001)
        raise JobCancelled

    worker = running(Worker(end))
    job_id = jobs.publish("points", Point())
    assert worker.started.acquire(timeout=LONG_S)

    jobs.cancel("points", job_id)

    expect_cancelled(jobs, job_id)
    eventually(lambda: worker.stats.cancelled == 1)  # counted once the end is settled
    assert (worker.stats.retried, worker.stats.dead) == (0, 0)


def test_a_job_that_fails_before_its_consumer_is_told_isnt_retried(
    jobs: Orchestrator, running: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request is looked for again before its retry is sent."""

    def end(worker: Worker, _job: Job[Point]) -> None:
        assert worker.may_end.wait(LONG_S)
        raise ValueError("broken")

    monkeypatch.setattr(watch, "LOOK_S", 5.0)
    worker = running(Worker(end))
    job_id = jobs.publish("points", Point())
    assert worker.started.acquire(timeout=LONG_S)
    jobs.cancel("points", job_id)
    worker.may_end.set()

    expect_cancelled(jobs, job_id)
    assert worker.ran == [0]


def test_a_job_that_is_done_first_stays_done(jobs: Orchestrator, running: Any) -> None:
    def end(worker: Worker, _job: Job[Point]) -> None:
        assert worker.may_end.wait(LONG_S)

    worker = running(Worker(end))
    job_id = jobs.publish("points", Point())
    assert worker.started.acquire(timeout=LONG_S)
    jobs.cancel("points", job_id)
    worker.may_end.set()

    assert jobs.result("points", job_id, timeout_s=LONG_S) is None
    assert jobs.cancel("points", job_id) is TOO_LATE


def test_the_key_and_the_place_of_a_cancelled_job_are_free() -> None:
    schema = JobSchema("points", Point, unique=Unique(), concurrency_limit=Limit(1))
    with OtherBroker() as client:
        jobs = Orchestrator(client)
        jobs.register(schema)
        first = jobs.publish("points", Point())
        jobs.cancel("points", first)
        assert run_all(jobs, Worker()).ran == []

        second = jobs.publish("points", Point())

        assert second != first
        assert run_all(jobs, Worker()).ran == [0]


def test_where_nothing_was_cancelled_nobody_looks(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(requests.CancelRequests, "among", lambda *_: pytest.fail("it looked"))
    jobs.publish_batch("points", [Point(x=x) for x in range(10)])

    assert len(run_all(jobs, Worker()).ran) == 10


@pytest.mark.parametrize("error", [BackendUnavailable("no store answers"), AccessDenied("not yours")])
def test_jobs_run_while_the_store_is_away(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """None waits for it but the first."""
    ids = [jobs.publish("points", Point(x=x)) for x in range(3)]
    jobs.cancel("points", ids[0])
    asked: list[object] = []

    def away(*args: object) -> set[str]:
        asked.append(args)
        raise error

    monkeypatch.setattr(watch, "_AWAY_S", LONG_S)
    monkeypatch.setattr(requests.CancelRequests, "among", away)
    worker = Worker()
    worker.connect(jobs, prefetch=1)
    worker.consume_until_empty()
    worker.close()

    assert worker.ran == [0, 1, 2]
    assert len(asked) == 1


def test_a_gate_that_meets_an_outage_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each would have the jobs wait for as long as a request to the store takes."""
    asked: list[Sequence[str]] = []
    with OtherBroker() as client:
        jobs = Orchestrator(client)
        jobs.register(JobSchema("points", Point, unique=Unique(replace=True, by="x")))
        for x in range(3):
            jobs.publish("points", Point(x=x))
        jobs.cancel("points", "another")
        get = type(client.coordination).get

        def away(store: CoordinationStore, keys: Sequence[str]) -> Any:
            if keys[0].startswith("pauses/"):
                return get(store, keys)
            asked.append(keys)
            raise BackendUnavailable("no store answers")

        monkeypatch.setattr(watch, "_AWAY_S", LONG_S)
        monkeypatch.setattr(type(client.coordination), "get", away)

        assert run_all(jobs, Worker()).ran == [0, 1, 2]
    assert len(asked) == 1


def test_an_idle_consumer_looks_before_a_job_starts(
    jobs: Orchestrator, clock: ManualClock, running: Any, eventually: Any
) -> None:
    """While it is idle it hardly looks, and the job comes long after its cancel."""
    worker = running(Worker())
    assert jobs.publish("points", Point(x=1))
    assert worker.started.acquire(timeout=LONG_S)
    eventually(lambda: worker.stats.done == 1)
    job_id = jobs.publish("points", Point(x=2), delay_s=LONG_S)

    jobs.cancel("points", job_id)
    time.sleep(2 * watch.LOOK_S)  # a look before the cancel is too old by now
    clock.advance(LONG_S)

    expect_cancelled(jobs, job_id)
    assert worker.ran == [1]


def test_requests_go_with_their_queue(jobs: Orchestrator) -> None:
    jobs.cancel_batch("points", ["a", "b"])
    assert requests_of(jobs) == ["a", "b"]

    jobs.delete_queue("points")

    assert jobs.backend.coordination.scan("") == {}


def test_a_request_for_no_job_or_for_ended_ones_is_not_kept(jobs: Orchestrator) -> None:
    job_id = jobs.publish("points", Point())
    run_all(jobs, Worker())

    assert jobs.cancel_batch("points", []) == []
    assert jobs.cancel("points", job_id) is TOO_LATE

    assert jobs.backend.coordination.scan("cancel") == {}


def test_who_takes_a_job_without_a_consumer_gets_none_that_is_cancelled(jobs: Orchestrator) -> None:
    first, second = jobs.publish_batch("points", [Point(x=1), Point(x=2)])
    jobs.cancel("points", first.id)

    job = jobs.receive_message("points")

    assert job is not None
    assert job.id == second.id
    expect_cancelled(jobs, first.id)
    assert requests_of(jobs) == []


def test_a_request_ends_one_job(jobs: Orchestrator) -> None:
    """A second of the same id is another one, on a broker that takes an id twice."""
    logger, inner = getLogger("gates"), Mock(spec=ConsumerBackend)
    asked = requests.CancelRequests(jobs.backend.coordination, "points")
    inner.receive.return_value = [Delivery("job", b"{}", receipt, 1, 1, 0, None) for receipt in "123"]
    inner.settle.return_value = Settled([SettleOutcome.OK], [])
    outage = StoreOutage(time.monotonic, logger, LONG_S, "jobs run")
    gate = CancelGate(asked, lambda: True, 60.0, outage, logger)
    backend = GatedConsumer(inner, [gate], lambda: None)
    asked.ask(["job"])

    deliveries = backend.receive(3, LONG_S)

    assert len(deliveries) == 2
    (settlements,) = inner.settle.call_args.args
    assert len(settlements) == 1


def test_a_request_that_couldnt_be_noted_is_told(jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object, **__: object) -> int:
        raise BackendUnavailable("no store answers")

    monkeypatch.setattr(type(jobs.backend.coordination), "put", away)

    with pytest.raises(BackendUnavailable):
        jobs.cancel("points", "job")


def test_what_is_missing_is_told(jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs.backend.delete("points")
    with pytest.raises(QueueNotFound):
        jobs.cancel("points", "job")
    able = jobs.backend.capabilities
    without = replace(able, coordination=False, guarded_publish=False)
    monkeypatch.setattr(OtherBroker, "capabilities", property(lambda _: without))
    with pytest.raises(UnsupportedCapability, match=r"give RabbitMQ a coordination store by URL"):
        jobs.cancel("points", "job")


def test_a_store_is_asked_for_all_jobs_of_a_batch_at_once(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcomes = jobs.publish_batch("points", [Point(x=x) for x in range(8)])
    jobs.cancel("points", outcomes[0].id)
    store: CoordinationStore = jobs.backend.coordination
    asked: list[int] = []
    get = type(store).get

    def counted(self: CoordinationStore, keys: Sequence[str]) -> Any:
        asked.append(sum(key.startswith("cancel-requests/") for key in keys))
        return get(self, keys)

    monkeypatch.setattr(type(store), "get", counted)
    worker = Worker()
    worker.connect(jobs, prefetch=8)
    worker.consume_until_empty()
    worker.close()

    assert worker.ran == [*range(1, 8)]
    assert 8 in asked
