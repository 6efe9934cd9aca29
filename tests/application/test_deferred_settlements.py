"""Settlements that a broker defers, as it takes no messages: their jobs are held, and the others go on."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    BatchConsumer,
    Consumer,
    Job,
    JobInput,
    JobSchema,
    Limit,
    LocalClient,
    Orchestrator,
    Reject,
    RetryPolicy,
)
from mindtrace.jobs import Dead as DeadOutcome
from mindtrace.jobs.application.consuming import job_states, loop
from mindtrace.jobs.application.consuming.job_permits import JobPermits
from mindtrace.jobs.application.consuming.permit_order import StrictOrder
from mindtrace.jobs.application.pausing import watch
from mindtrace.jobs.ports import Ack, Dead, Delivery, Place, Release, Settled, Settlement, SettleOutcome

DEFERRED = SettleOutcome.DEFERRED


class Numbered(JobInput):
    number: int


SCHEMA = JobSchema("numbers", Numbered, retry=RetryPolicy(max_attempts=2, base_delay_s=0.0, max_delay_s=0.0))


class Full(LocalClient):
    """Carries out what :meth:`defers` doesn't name, acks alone here, until there is room."""

    def __init__(self) -> None:
        super().__init__()
        self.has_room = threading.Event()
        self.deferrals = 0
        self.suspects: tuple[str, ...] = ()
        """The ids of jobs that were with consumers which died."""
        self.set_aside: list[Release] = []
        """What was released with a delay."""

    def open_consumer(self, queue: str, **settings: Any) -> Any:  # type: ignore[override]
        consumer = super().open_consumer(queue, **settings)
        settle, receive = consumer.settle, consumer.receive

        def with_crashes(deliveries: Sequence[Delivery]) -> list[Delivery]:
            return [each._replace(crashes=3) if each.id in self.suspects else each for each in deliveries]

        def settle_some(settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
            is_deferred = [not self.has_room.is_set() and self.defers(each) for each in settlements]
            carried_out = [each for each, waits in zip(settlements, is_deferred, strict=True) if not waits]
            self.set_aside += [each for each in carried_out if isinstance(each, Release) and each.delay_s]
            answer = settle(carried_out, take=take)
            self.deferrals += len(settlements) - len(carried_out)
            outcomes = iter(answer.outcomes)
            return Settled(
                [DEFERRED if waits else next(outcomes) for waits in is_deferred],
                with_crashes(answer.deliveries),
            )

        consumer.settle = settle_some  # type: ignore[method-assign]
        consumer.receive = lambda most, timeout_s: with_crashes(receive(most, timeout_s))  # type: ignore[method-assign]
        return consumer

    def defers(self, settlement: Settlement) -> bool:
        """Whether to defer this while there is no room."""
        return not isinstance(settlement, Ack)


class FullOfDeadLetters(Full):
    """Has room for everything but dead letters."""

    def defers(self, settlement: Settlement) -> bool:
        return isinstance(settlement, Dead)


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (job_states, loop):
        monkeypatch.setattr(module, "AGAIN_S", 0.01)


@pytest.fixture
def client() -> Iterator[Full]:
    with Full() as client:
        yield client
        client.has_room.set()


@pytest.fixture
def orchestrator(client: Full) -> Iterator[Orchestrator]:
    with Orchestrator(client) as orchestrator:
        orchestrator.register(SCHEMA)
        yield orchestrator


class Fails(Consumer):
    """Fails with odd numbers at the first attempt."""

    schema = SCHEMA

    def run(self, job: Job[Numbered]) -> None:
        if job.payload.number % 2 and job.attempt == 1:
            raise ValueError("odd")


class FailsInBatches(BatchConsumer):
    schema = SCHEMA
    batch_size = 4
    batch_wait_s = 0.0

    def run_batch(self, jobs: Sequence[Job[Numbered]]) -> list[Any]:
        return [ValueError("odd") if job.payload.number % 2 and job.attempt == 1 else None for job in jobs]


class FailsManyAtOnce(Fails):
    concurrency = 4


@pytest.mark.parametrize("kind", [Fails, FailsManyAtOnce, FailsInBatches])
def test_the_others_run_and_what_is_deferred_is_settled_once_there_is_room(
    client: Full, orchestrator: Orchestrator, kind: type[Fails], background: Any
) -> None:
    """The queue isn't empty before: these jobs run again."""
    orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(20)])
    with kind() as consumer:
        consumer.connect(orchestrator, prefetch=4)
        consuming = background(consumer.consume_until_empty)
        eventually(lambda: consumer.stats.attempted == 20, "each has run")
        eventually(lambda: consumer.stats.done == 10 and client.deferrals > 20, "the others are done")
        assert (consumer.stats.retried, consumer.stats.attempted) == (0, 20)
        assert not consuming.done()

        client.has_room.set()
        consuming.result(LIMIT_S)
        assert (consumer.stats.done, consumer.stats.retried, consumer.stats.lost) == (20, 10, 0)


@pytest.mark.parametrize("kind", [Fails, FailsManyAtOnce, FailsInBatches])
def test_a_consumer_takes_no_more_jobs_while_it_holds_too_many(
    client: Full,
    orchestrator: Orchestrator,
    kind: type[Fails],
    monkeypatch: pytest.MonkeyPatch,
    background: Any,
) -> None:
    monkeypatch.setattr(job_states, "MOST_DEFERRED", 4)
    orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(1, 81, 2)])
    with kind() as consumer:
        consumer.connect(orchestrator, prefetch=4)
        consuming = background(consumer.consume_until_empty)
        eventually(lambda: client.deferrals > 30, "it tries several times")
        assert consumer.stats.attempted <= 12
        client.has_room.set()
        consuming.result(LIMIT_S)
        assert (consumer.stats.done, consumer.stats.retried) == (40, 40)


@pytest.mark.parametrize("kind", [Fails, FailsManyAtOnce, FailsInBatches])
def test_a_consumer_that_holds_too_many_leaves_the_permits_to_others(
    client: Full,
    orchestrator: Orchestrator,
    kind: type[Fails],
    monkeypatch: pytest.MonkeyPatch,
    background: Any,
) -> None:
    """Only the other makes room for what is deferred, and it has work once the first can't go on."""
    monkeypatch.setattr(job_states, "MOST_DEFERRED", 4)
    monkeypatch.setattr(job_states, "_ONE_MORE_S", 3600.0)
    permits = JobPermits(1, StrictOrder())

    class Drains(Consumer):
        schema = JobSchema("others", Numbered)

        def run(self, job: Job[Numbered]) -> None:
            client.has_room.set()

    orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(1, 81, 2)])
    with kind() as first, Drains() as second:
        for consumer in (first, second):
            consumer.share_permits(permits.share())
            consumer.connect(orchestrator)
        both = [background(first.consume_until_empty)]
        eventually(lambda: client.deferrals > 30, "the first tries several times")
        orchestrator.publish("others", Numbered(number=0))
        both.append(background(second.consume, 1))
        eventually(client.has_room.is_set, "the second gets the permit")
        for consuming in both:
            consuming.result(LIMIT_S)
        assert (first.stats.done, second.stats.done) == (40, 1)


class Crowded(LocalClient):
    """A full queue: each job that is taken makes room for a settlement, but others fill the first places."""

    def __init__(self, filled: int) -> None:
        super().__init__()
        self._room = -filled

    def open_consumer(self, queue: str, **settings: Any) -> Any:  # type: ignore[override]
        consumer = super().open_consumer(queue, **settings)
        settle, receive = consumer.settle, consumer.receive

        def settle_what_fits(settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
            fits = [isinstance(each, Ack) or self._takes_one() for each in settlements]
            carried_out = [each for each, is_fit in zip(settlements, fits, strict=True) if is_fit]
            answer = settle(carried_out, take=take)
            self._room += len(answer.deliveries)
            outcomes = iter(answer.outcomes)
            return Settled([next(outcomes) if is_fit else DEFERRED for is_fit in fits], answer.deliveries)

        def receive_and_make_room(most: int, timeout_s: float) -> list[Delivery]:
            deliveries = receive(most, timeout_s)
            self._room += len(deliveries)
            return deliveries

        consumer.settle = settle_what_fits  # type: ignore[method-assign]
        consumer.receive = receive_and_make_room  # type: ignore[method-assign]
        return consumer

    def _takes_one(self) -> bool:
        if self._room <= 0:
            return False
        self._room -= 1
        return True


@pytest.mark.parametrize("kind", [Fails, FailsManyAtOnce, FailsInBatches])
def test_a_full_queue_has_room_again_though_all_its_consumers_hold_too_many(
    kind: type[Fails], monkeypatch: pytest.MonkeyPatch, background: Any
) -> None:
    """Only who takes a job makes room for what is deferred."""
    monkeypatch.setattr(job_states, "MOST_DEFERRED", 4)
    monkeypatch.setattr(job_states, "_ONE_MORE_S", 0.01)
    with Orchestrator(Crowded(filled=8)) as orchestrator:
        orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(1, 81, 2)])
        with kind() as consumer:
            consumer.connect(orchestrator, prefetch=4)
            background(consumer.consume_until_empty).result(LIMIT_S)
            assert consumer.stats.done == 40


def test_what_is_deferred_when_a_consumer_ends_is_settled_by_its_next_run(
    client: Full, orchestrator: Orchestrator
) -> None:
    orchestrator.publish(SCHEMA, Numbered(number=1))
    with Fails() as consumer:
        consumer.connect(orchestrator)
        assert consumer.consume(1) == 1
        assert client.counts("numbers").in_flight == 1
        client.has_room.set()
        assert consumer.consume(1) == 1
        assert (consumer.stats.done, consumer.stats.retried) == (1, 1)


class Stops(Consumer):
    """Stops itself with each job."""

    schema = SCHEMA

    def __init__(self, client: Full) -> None:
        super().__init__()
        self.client = client

    def run(self, job: Job[Numbered]) -> None:
        self.stop()


class StopsWithManyAtOnce(Stops):
    """Its first two jobs go on until the others were to go back."""

    concurrency = 2

    def run(self, job: Job[Numbered]) -> None:
        super().run(job)
        eventually(lambda: self.client.deferrals, "others were to go back")


@pytest.mark.parametrize("kind", [Stops, StopsWithManyAtOnce])
def test_jobs_that_a_stopped_consumer_cannot_release_are_those_of_its_next_run(
    client: Full, orchestrator: Orchestrator, kind: type[Stops], background: Any
) -> None:
    """It takes others once it has run these, so that it holds no more than before."""
    orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(20)])
    with kind(client) as consumer:
        consumer.connect(orchestrator, prefetch=4)
        while consumer.stats.done < 20:
            background(consumer.consume).result(LIMIT_S)
            assert client.counts("numbers").in_flight <= 8
        assert client.deferrals
        assert (consumer.stats.attempted, consumer.stats.lost) == (20, 0)


class Waits(Consumer):
    """Its jobs take until they may end."""

    schema = SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self.may_end = threading.Event()

    def run(self, job: Job[Numbered]) -> None:
        assert self.may_end.wait(LIMIT_S)


class WaitsWithManyAtOnce(Waits):
    concurrency = 2


LIMITED = replace(SCHEMA, name="limited", concurrency_limit=Limit(2))


@pytest.mark.parametrize("schema", [SCHEMA, LIMITED], ids=["no limit", "limit"])
@pytest.mark.parametrize("kind", [Waits, WaitsWithManyAtOnce])
def test_jobs_that_cannot_be_released_in_a_pause_run_after_it(
    client: Full,
    orchestrator: Orchestrator,
    kind: type[Waits],
    schema: JobSchema[Any, Any],
    background: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They wait for no room at the broker, and for their limit as before."""
    monkeypatch.setattr(watch, "LOOK_S", 0.005)
    orchestrator.register(schema)
    orchestrator.publish_batch(schema, [Numbered(number=number) for number in range(6)])
    made: type[Waits] = type("Made", (kind,), {"schema": schema})
    with made() as consumer:
        consumer.connect(orchestrator, prefetch=6)
        consuming = background(consumer.consume)
        eventually(lambda: consumer.stats.attempted, "one has begun")
        orchestrator.pause(schema)
        eventually(lambda: client.deferrals, "the others were to go back")
        orchestrator.resume(schema)
        consumer.may_end.set()
        eventually(lambda: consumer.stats.done == 6, "all have run")
        consumer.stop()
        consuming.result(LIMIT_S)
        assert (consumer.stats.attempted, consumer.stats.lost) == (6, 0)


class Collects(BatchConsumer):
    """Waits for six jobs."""

    schema = SCHEMA
    batch_size = 6
    batch_wait_s = LIMIT_S

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[set[int]] = []

    def run_batch(self, jobs: Sequence[Job[Numbered]]) -> list[Any]:
        self.batches.append({job.payload.number for job in jobs})
        return [None for _ in jobs]


def test_jobs_that_cannot_be_released_in_a_pause_are_of_the_batch_after_it(
    client: Full, orchestrator: Orchestrator, background: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "LOOK_S", 0.005)
    orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(4)])
    with Collects() as consumer:
        consumer.connect(orchestrator)
        consuming = background(consumer.consume)
        eventually(lambda: client.counts("numbers").in_flight == 4, "the first are collected")
        orchestrator.pause(SCHEMA)
        eventually(lambda: client.deferrals, "they were to go back")
        orchestrator.resume(SCHEMA)
        orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in (4, 5)])
        eventually(lambda: consumer.stats.done == 6, "all have run")
        consumer.stop()
        consuming.result(LIMIT_S)
        assert consumer.batches == [set(range(6))]
        assert (consumer.stats.attempted, consumer.stats.lost) == (6, 0)


def test_a_job_that_must_run_alone_waits_while_others_cannot_be_released(
    client: Full, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch, background: Any
) -> None:
    """If it killed its consumer, each of these would be charged with a crash (RTY-3)."""
    monkeypatch.setattr(loop, "_ASIDE_S", 0.01)
    orchestrator.publish(SCHEMA, Numbered(number=1))
    client.suspects = (orchestrator.publish(SCHEMA, Numbered(number=2)),)
    ran: list[int] = []

    class Watches(Fails):
        def run(self, job: Job[Numbered]) -> None:
            ran.append(job.payload.number)
            super().run(job)

    with Watches() as consumer:
        consumer.connect(orchestrator, prefetch=2)
        consuming = background(consumer.consume)
        eventually(lambda: client.deferrals > 4, "it tries again and again")
        assert ran == [1]
        client.has_room.set()
        eventually(lambda: consumer.stats.done == 2, "both are done")
        consumer.stop()
        consuming.result(LIMIT_S)


def test_a_job_that_must_run_alone_waits_while_one_that_waits_for_a_limit_cannot_be_released(
    client: Full, monkeypatch: pytest.MonkeyPatch, background: Any
) -> None:
    monkeypatch.setattr(loop, "_ASIDE_S", 0.01)
    schema = JobSchema("limited", Numbered, concurrency_limit=Limit(1, by="number"))
    place, ran = Place("limits/limited/number/[1]", 1, "another"), list[int]()

    class Watches(Consumer):
        def run(self, job: Job[Numbered]) -> None:
            ran.append(job.payload.number)

    Watches.schema = schema
    with Orchestrator(client) as orchestrator, Watches() as consumer:
        orchestrator.register(schema)
        client.coordination.take_places([place], ttl_s=3600.0)
        orchestrator.publish(schema, Numbered(number=1))
        client.suspects = (orchestrator.publish(schema, Numbered(number=2)),)
        consumer.connect(orchestrator, prefetch=2)
        consuming = background(consumer.consume)
        eventually(lambda: client.deferrals > 4, "it tries again and again")
        assert ran == []
        client.has_room.set()
        eventually(lambda: ran == [2], "it runs alone")
        client.coordination.leave_places([place])
        eventually(lambda: ran == [2, 1], "and then the other")
        consumer.stop()
        consuming.result(LIMIT_S)


class Rejects(Consumer):
    """Rejects the first job."""

    schema = SCHEMA

    def run(self, job: Job[Numbered]) -> None:
        if job.payload.number == 1:
            raise Reject("no")


class RejectsManyAtOnce(Rejects):
    concurrency = 4


class RejectsInBatches(BatchConsumer):
    schema = SCHEMA
    batch_size = 4
    batch_wait_s = 0.0

    def run_batch(self, jobs: Sequence[Job[Numbered]]) -> list[Any]:
        return [DeadOutcome("no") if job.payload.number == 1 else None for job in jobs]


@pytest.mark.parametrize("kind", [Rejects, RejectsManyAtOnce, RejectsInBatches])
def test_others_run_while_a_job_that_must_run_alone_waits_for_a_deferred_death(
    kind: type[Rejects], monkeypatch: pytest.MonkeyPatch, background: Any
) -> None:
    """It goes back once, with a delay. Without one, it would come again thousands of times a second."""
    monkeypatch.setattr(loop, "_ASIDE_S", 3600.0)
    with FullOfDeadLetters() as client, Orchestrator(client) as orchestrator, kind() as consumer:
        orchestrator.register(SCHEMA)
        orchestrator.publish(SCHEMA, Numbered(number=1))
        client.suspects = (orchestrator.publish(SCHEMA, Numbered(number=2)),)
        orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(3, 9)])
        consumer.connect(orchestrator)
        consuming = background(consumer.consume)
        eventually(lambda: consumer.stats.done == 6, "the others are done")
        eventually(lambda: len(client.set_aside) == 1, "the job went back")
        consumer.stop()
        consuming.result(LIMIT_S)
        assert orchestrator.counts(SCHEMA).delayed == 1
        client.has_room.set()


def test_what_is_deferred_is_tried_once_more_at_the_close(
    client: Full, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However short ago the last try was: else a failed attempt would be made again."""
    monkeypatch.setattr(job_states, "AGAIN_S", 3600.0)
    orchestrator.publish(SCHEMA, Numbered(number=1))
    with Fails() as consumer:
        consumer.connect(orchestrator)
        assert consumer.consume(1) == 1
        client.has_room.set()
    with Fails() as consumer:
        consumer.connect(orchestrator)
        assert consumer.consume(1) == 1
        assert consumer.stats.done == 1
