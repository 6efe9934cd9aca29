"""Pausing a queue: what consumers do that see it, and what callers can rely on."""

import asyncio
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from mindtrace.jobs import (
    AsyncOrchestrator,
    BatchConsumer,
    Capabilities,
    Consumer,
    Job,
    LocalClient,
    Orchestrator,
)
from mindtrace.jobs.adapters.local.coordination import LocalCoordinationStore
from mindtrace.jobs.application.gates.gated_consumer import GatedConsumer
from mindtrace.jobs.application.pausing import watch
from mindtrace.jobs.domain.errors import (
    BackendUnavailable,
    Closed,
    InvalidInput,
    QueueNotFound,
    UnsupportedCapability,
    UsageError,
)
from mindtrace.jobs.ports import CoordinationStore, Record

QUEUE = "points"
LONG_S = 60.0
JOBS = 12


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for pauses often, so that no test waits for it; and have no job start before the first look."""
    monkeypatch.setattr(watch, "LOOK_S", 0.005)
    monkeypatch.setattr(watch, "_FIRST_LOOK_S", LONG_S)


class Gate:
    """A handler whose jobs wait until they may end."""

    def __init__(self) -> None:
        self.opened = threading.Event()
        self.started: list[Job[Any]] = []

    def run(self, job: Job[Any]) -> None:
        self.started.append(job)
        assert self.opened.wait(LONG_S)

    async def run_async(self, job: Job[Any]) -> None:
        self.started.append(job)
        while not self.opened.is_set():
            await asyncio.sleep(0.001)


def sequential(gate: Gate) -> tuple[Consumer, dict[str, Any]]:
    class One(Consumer):
        def run(self, job: Job[Any]) -> None:
            gate.run(job)

    return One(QUEUE), {"prefetch": JOBS}


def threads(gate: Gate) -> tuple[Consumer, dict[str, Any]]:
    return sequential(gate)[0], {"prefetch": JOBS, "concurrency": 3}


def tasks(gate: Gate) -> tuple[Consumer, dict[str, Any]]:
    class Several(Consumer):
        async def run(self, job: Job[Any]) -> None:
            await gate.run_async(job)

    return Several(QUEUE), {"prefetch": JOBS, "concurrency": 3}


def batches(gate: Gate) -> tuple[Consumer, dict[str, Any]]:
    class Batch(BatchConsumer):
        batch_size, batch_wait_s = 4, 0.0

        def run_batch(self, jobs: Any) -> list[None]:
            for job in jobs:
                gate.run(job)
            return [None] * len(jobs)

    return Batch(QUEUE), {}


KINDS = {"one at a time": sequential, "threads": threads, "tasks": tasks, "batches": batches}


@pytest.fixture(params=KINDS.values(), ids=list(KINDS))
def gated(request: pytest.FixtureRequest, orchestrator: Orchestrator) -> Iterator[tuple[Gate, Consumer]]:
    """A connected consumer of each kind, whose jobs wait at a gate."""
    gate = Gate()
    consumer, settings = request.param(gate)
    with consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.05, **settings)
        yield gate, consumer


@pytest.fixture(autouse=True)
def looks_though_idle(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have consumers that wait for jobs look as often as others, so that no test waits for ten seconds."""
    monkeypatch.setattr(watch, "_IDLE_LOOK_S", watch.LOOK_S)


def paused_here(consumer: Consumer) -> bool:
    """Whether a consumer has seen a pause."""
    backend = consumer._connected().loop._backend
    assert isinstance(backend, GatedConsumer)
    return backend.is_paused


def test_a_pause_releases_what_was_not_started_and_spends_no_attempt(
    gated: tuple[Gate, Consumer], orchestrator: Orchestrator, background: Any, eventually: Any
) -> None:
    gate, consumer = gated
    orchestrator.publish_batch(QUEUE, [{"x": number} for number in range(JOBS)])
    consuming = background(consumer.consume)
    eventually(lambda: gate.started)
    orchestrator.pause(QUEUE, "maintenance")
    eventually(lambda: paused_here(consumer))
    before = len(gate.started)
    eventually(lambda: orchestrator.counts(QUEUE).ready >= JOBS - 4)
    gate.opened.set()  # those that run finish
    eventually(lambda: orchestrator.counts(QUEUE).in_flight == 0)
    ready = orchestrator.counts(QUEUE).ready
    eventually(lambda: consumer.stats.done == JOBS - ready)  # counted once the end is settled
    if consumer.concurrency == 1 and not isinstance(consumer, BatchConsumer):
        assert len(gate.started) == before
    orchestrator.resume(QUEUE)
    eventually(lambda: consumer.stats.done == JOBS)
    consumer.stop()
    consuming.result(LONG_S)
    assert sorted(job.payload.x for job in gate.started) == list(range(JOBS))
    assert {job.attempt for job in gate.started} == {1}


def test_a_refused_consume_leaves_the_consumer_that_runs_its_pauses(
    gated: tuple[Gate, Consumer], orchestrator: Orchestrator, background: Any, eventually: Any
) -> None:
    """It took the consumer out of the watch for pauses, for good."""
    gate, consumer = gated
    gate.opened.set()
    consuming = background(consumer.consume)
    orchestrator.publish(QUEUE, {})
    eventually(lambda: consumer.stats.done == 1)
    with pytest.raises(UsageError, match="consuming already"):
        consumer.consume(1)
    orchestrator.pause(QUEUE)
    eventually(lambda: paused_here(consumer))
    orchestrator.publish(QUEUE, {})
    orchestrator.resume(QUEUE)
    eventually(lambda: consumer.stats.done == 2)
    consumer.stop()
    consuming.result(LONG_S)


def test_a_consumer_that_begins_while_its_queue_is_paused_takes_nothing(
    gated: tuple[Gate, Consumer], orchestrator: Orchestrator, background: Any, eventually: Any
) -> None:
    gate, consumer = gated
    gate.opened.set()
    orchestrator.pause(QUEUE)
    orchestrator.publish(QUEUE, {"x": 1})
    consuming = background(consumer.consume)
    eventually(lambda: paused_here(consumer))
    assert orchestrator.counts(QUEUE).ready == 1
    orchestrator.resume(QUEUE)
    eventually(lambda: consumer.stats.done == 1)
    consumer.stop()
    consuming.result(LONG_S)


def test_a_consumer_that_waits_for_jobs_takes_none_that_come_during_a_pause(
    make_consumer: Any, orchestrator: Orchestrator, background: Any, eventually: Any, until_blocked: Any
) -> None:
    consumer = make_consumer(poll_timeout_s=LONG_S)
    consuming = background(consumer.consume)
    until_blocked()
    orchestrator.pause(QUEUE)
    until_blocked(0)
    orchestrator.publish(QUEUE, {})
    assert orchestrator.counts(QUEUE).ready == 1
    orchestrator.resume(QUEUE)
    eventually(lambda: consumer.stats.done == 1)
    consumer.stop()
    consuming.result(LONG_S)


def test_a_consumer_that_is_idle_looks_only_when_a_job_comes(
    make_consumer: Any,
    orchestrator: Orchestrator,
    background: Any,
    eventually: Any,
    until_blocked: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It costs the store nothing, and starts no job of a queue that was paused meanwhile."""
    monkeypatch.setattr(watch, "_IDLE_LOOK_S", LONG_S)
    consumer = make_consumer(poll_timeout_s=LONG_S)
    consuming = background(consumer.consume)
    until_blocked()
    ticks = count_ticks(monkeypatch)
    eventually(lambda: ticks() >= 2)  # the look that was under way as it began to wait is over
    looks: list[list[str]] = []
    get = LocalCoordinationStore.get
    monkeypatch.setattr(
        LocalCoordinationStore, "get", lambda store, keys: looks.append(keys) or get(store, keys)
    )
    seen = ticks()
    eventually(lambda: ticks() >= seen + 3)
    assert looks == []
    orchestrator.pause(QUEUE)
    orchestrator.publish(QUEUE, {})
    eventually(lambda: paused_here(consumer))
    eventually(lambda: orchestrator.counts(QUEUE).ready == 1)
    assert consumer.stats.done == 0
    orchestrator.resume(QUEUE)
    eventually(lambda: consumer.stats.done == 1)
    consumer.stop()
    consuming.result(LONG_S)


def test_a_fault_of_a_store_stops_no_consumer(
    make_consumer: Any, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(store: CoordinationStore, keys: list[str]) -> Any:
        raise ZeroDivisionError

    consumer = make_consumer()
    monkeypatch.setattr(LocalCoordinationStore, "get", broken)
    monkeypatch.setattr(watch, "LOOK_S", 0.0)
    monkeypatch.setattr(watch, "_FIRST_LOOK_S", 0.01)
    orchestrator.publish(QUEUE, {})
    assert consumer.consume(1) == 1


def count_ticks(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Return what tells how often the thread has asked whether to look."""
    ticks = []
    goes_on = watch.PauseWatch.goes_on
    monkeypatch.setattr(
        watch.PauseWatch, "goes_on", lambda self, thread: ticks.append(1) or goes_on(self, thread)
    )
    return lambda: len(ticks)


CALLS: dict[str, Callable[[Consumer], int]] = {
    "consume n": lambda consumer: consumer.consume(3),
    "consume what is ready": lambda consumer: consumer.consume(block=False),
    "consume until empty": lambda consumer: consumer.consume_until_empty(),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=list(CALLS))
def test_a_call_that_would_end_with_the_jobs_ends_at_once_and_warns(
    call: Any, make_consumer: Any, orchestrator: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    orchestrator.publish(QUEUE, {})
    orchestrator.pause(QUEUE, "the disk is full")
    consumer = make_consumer(poll_timeout_s=LONG_S)
    assert call(consumer) == 0
    (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert "the disk is full" in warning.getMessage()
    assert "resume('points')" in warning.getMessage()
    orchestrator.resume(QUEUE)
    assert make_consumer().consume(1) == 1


def test_a_call_that_waits_for_its_jobs_goes_on_after_the_pause(
    make_consumer: Any, orchestrator: Orchestrator, background: Any, eventually: Any
) -> None:
    orchestrator.publish(QUEUE, {})
    orchestrator.pause(QUEUE)
    consumer = make_consumer()
    consuming = background(lambda: consumer.consume(1, block=True))
    eventually(lambda: paused_here(consumer))
    orchestrator.resume(QUEUE)
    assert consuming.result(LONG_S) == 1


def test_a_paused_consumer_stops_and_closes_at_once(
    make_consumer: Any, orchestrator: Orchestrator, background: Any, eventually: Any
) -> None:
    orchestrator.pause(QUEUE)
    for end in (Consumer.stop, Consumer.close):
        consumer = make_consumer(poll_timeout_s=LONG_S)
        consuming = background(consumer.consume)
        eventually(lambda consumer=consumer: paused_here(consumer))
        end(consumer)
        if end is Consumer.stop:
            assert consuming.result(LONG_S) == 0
        else:
            assert isinstance(consuming.exception(LONG_S), Closed)


def test_other_queues_go_on(orchestrator: Orchestrator, schema: Any, make_consumer: Any) -> None:
    orchestrator.register(schema, queue="others")
    orchestrator.pause("others")
    orchestrator.publish(QUEUE, {})
    assert make_consumer().consume(1) == 1


def test_one_look_serves_all_consumers_of_an_orchestrator(
    make_consumer: Any,
    orchestrator: Orchestrator,
    background: Any,
    eventually: Any,
    until_blocked: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[list[str]] = []
    get = LocalCoordinationStore.get
    monkeypatch.setattr(
        LocalCoordinationStore, "get", lambda store, keys: looks.append(keys) or get(store, keys)
    )
    before = {*threading.enumerate()}
    consumers = [make_consumer(poll_timeout_s=LONG_S) for _ in range(5)]
    consuming = [background(consumer.consume) for consumer in consumers]
    until_blocked(5)
    watches = [each for each in {*threading.enumerate()} - before if each.name == "mindtrace-jobs-pauses"]
    assert len(watches) == 1
    orchestrator.pause(QUEUE)
    eventually(lambda: all(map(paused_here, consumers)))
    looks.remove(["pauses/points"])  # that of `pause`
    assert {tuple(keys) for keys in looks} == {("pauses/points", "cancels/points")}
    for consumer in consumers:
        consumer.stop()
    for each in consuming:
        each.result(LONG_S)
    watches[0].join(LONG_S)
    assert not watches[0].is_alive()


def test_while_the_store_is_away_the_last_state_stands(
    make_consumer: Any,
    orchestrator: Orchestrator,
    background: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    orchestrator.publish(QUEUE, {})
    orchestrator.pause(QUEUE)
    consumer = make_consumer()
    consuming = background(consumer.consume)
    eventually(lambda: paused_here(consumer))
    fails = threading.Event()
    looks = []

    def get(store: CoordinationStore, keys: list[str]) -> Any:
        looks.append(keys)
        if fails.is_set():
            raise BackendUnavailable("away")
        return own_get(store, keys)

    own_get = LocalCoordinationStore.get
    fails.set()
    monkeypatch.setattr(LocalCoordinationStore, "get", get)
    orchestrator.resume(QUEUE)
    seen = len(looks)
    eventually(lambda: len(looks) > seen + 3)
    assert paused_here(consumer)
    fails.clear()
    eventually(lambda: consumer.stats.done == 1)
    consumer.stop()
    consuming.result(LONG_S)


def test_a_consumer_that_never_reached_the_store_works(
    make_consumer: Any, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(store: CoordinationStore, keys: list[str]) -> Any:
        raise BackendUnavailable("away")

    monkeypatch.setattr(watch, "_FIRST_LOOK_S", 0.01)
    orchestrator.pause(QUEUE)
    orchestrator.publish(QUEUE, {})
    monkeypatch.setattr(LocalCoordinationStore, "get", away)
    assert make_consumer().consume(1) == 1


class WithoutStore(LocalClient):
    """A backend whose coordination store nobody may ask for."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, coordination=False, guarded_publish=False)

    @property
    def coordination(self) -> CoordinationStore:
        raise AssertionError("asked for a store that isn't there")


def test_without_a_store_nobody_looks_and_a_pause_is_refused(schema: Any, make_consumer: Any) -> None:
    with WithoutStore() as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(schema)
        orchestrator.publish(QUEUE, {})
        before, during = {*threading.enumerate()}, set[threading.Thread]()

        def note(job: Job[Any]) -> None:
            during.update(threading.enumerate())

        assert make_consumer(note, to=orchestrator).consume(1) == 1
        names = {thread.name for thread in during - before}
        assert "mindtrace-jobs-pauses" not in names
        for call in (orchestrator.pause, orchestrator.resume, orchestrator.paused):
            with pytest.raises(UnsupportedCapability, match="pauses need a coordination store"):
                call(QUEUE)
        orchestrator.delete_queue(QUEUE)


def test_a_pause_says_why_and_since_when(orchestrator: Orchestrator) -> None:
    assert orchestrator.paused(QUEUE) is None
    made = orchestrator.pause(QUEUE, "maintenance")
    assert orchestrator.paused(QUEUE) == made
    assert str(made).endswith(": maintenance")
    assert orchestrator.resume(QUEUE)
    assert not orchestrator.resume(QUEUE)
    assert orchestrator.paused(QUEUE) is None


def test_a_second_pause_changes_only_the_reason_and_only_if_it_has_one(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = orchestrator.pause(QUEUE, "maintenance")
    monkeypatch.setattr(socket, "gethostname", lambda: "another")
    assert orchestrator.pause(QUEUE) == orchestrator.paused(QUEUE) == first
    replaced = first._replace(reason="it takes longer")
    assert orchestrator.pause(QUEUE, "it takes longer") == orchestrator.paused(QUEUE) == replaced


def test_of_two_that_pause_a_queue_at_once_the_second_keeps_what_the_first_wrote(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    get, made = LocalCoordinationStore.get, []

    def get_before_the_first_writes(store: LocalCoordinationStore, keys: list[str]) -> dict[str, Record]:
        records = get(store, keys)
        monkeypatch.setattr(LocalCoordinationStore, "get", get)
        made.append(orchestrator.pause(QUEUE, "the first"))
        return records

    monkeypatch.setattr(LocalCoordinationStore, "get", get_before_the_first_writes)
    assert orchestrator.pause(QUEUE) == orchestrator.paused(QUEUE) == made[-1]


def test_a_reason_may_have_a_byte_of_the_command_line_that_is_no_text(orchestrator: Orchestrator) -> None:
    assert orchestrator.pause(QUEUE, os.fsdecode(b"on h\xf6ld")) == orchestrator.paused(QUEUE)


def test_what_cannot_be_paused_is_refused(orchestrator: Orchestrator) -> None:
    with pytest.raises(QueueNotFound):
        orchestrator.pause("nobodys")
    with pytest.raises(InvalidInput, match="reason"):
        orchestrator.pause(QUEUE, "x" * 1025)
    assert orchestrator.paused(QUEUE) is None


def test_a_queue_that_is_deleted_is_no_longer_paused(orchestrator: Orchestrator, schema: Any) -> None:
    orchestrator.pause(QUEUE)
    orchestrator.delete_queue(QUEUE)
    orchestrator.register(schema)
    assert orchestrator.paused(QUEUE) is None


def test_a_paused_queue_gives_no_job_to_who_takes_one_without_a_consumer(
    client: LocalClient, orchestrator: Orchestrator, schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At once where it is paused; elsewhere with the next look."""
    other = Orchestrator(client)
    other.register(schema)
    first, second = (orchestrator.publish(QUEUE, {}) for _ in range(2))
    monkeypatch.setattr(watch, "LOOK_S", LONG_S)
    job = orchestrator.receive_message(QUEUE)
    assert job is not None
    assert job.id == first

    orchestrator.pause(QUEUE)
    assert orchestrator.receive_message(QUEUE) is None
    assert other.receive_message(QUEUE) is None  # which has never looked
    other.resume(QUEUE)

    job = orchestrator.receive_message(QUEUE)
    assert job is not None
    assert job.id == second
    assert orchestrator.counts(QUEUE).ready == 0


def test_who_takes_a_job_without_a_consumer_looks_for_pauses_of_others_now_and_then(
    client: LocalClient, orchestrator: Orchestrator, schema: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, asked, get = [1000.0], list[list[str]](), LocalCoordinationStore.get
    other = Orchestrator(client)
    other.register(schema)
    orchestrator.publish_batch(QUEUE, [{}] * JOBS)
    monkeypatch.setattr(watch, "monotonic", lambda: now[0])
    monkeypatch.setattr(watch, "LOOK_S", 0.5)
    monkeypatch.setattr(
        LocalCoordinationStore, "get", lambda store, keys: (asked.append([*keys]), get(store, keys))[1]
    )
    for _ in range(3):
        assert orchestrator.receive_message(QUEUE) is not None
    assert len(asked) == 1

    other.pause(QUEUE)
    now[0] += 0.5
    assert orchestrator.receive_message(QUEUE) is None


def test_typed_queues_and_coroutines_pause_as_well(orchestrator: Orchestrator, schema: Any) -> None:
    queue = orchestrator.queue(schema)
    assert queue.pause("why") == queue.paused()
    assert queue.resume()

    async def main() -> None:
        async with AsyncOrchestrator(orchestrator) as jobs:
            queue = await jobs.queue(schema)
            assert await queue.pause("why") == await jobs.paused(QUEUE)
            assert await queue.paused() is not None
            assert await queue.resume()
            assert not await jobs.resume(schema)

    asyncio.run(main())


def test_an_interrupt_ends_the_wait_of_a_paused_consumer(
    client: LocalClient, orchestrator: Orchestrator
) -> None:
    backend = GatedConsumer(client.open_consumer(QUEUE), [], lambda: None)
    backend.interrupt()
    assert backend.receive(1, LONG_S) == []  # the next one, as none was blocked
    orchestrator.publish(QUEUE, {})
    backend.pause()
    assert backend.receive(1, 0.0) == []
    backend.interrupt()
    assert backend.receive(1, LONG_S) == []
    assert backend.settle([], take=1).deliveries == []
    backend.resume()
    assert len(backend.receive(1, LONG_S)) == 1
    backend.close()


def test_a_pause_that_is_seen_as_a_consumer_closes_has_nobody_wait(
    client: LocalClient, orchestrator: Orchestrator
) -> None:
    backend = GatedConsumer(client.open_consumer(QUEUE), [], lambda: None)
    backend.pause()
    backend.close()
    backend.pause()
    with pytest.raises(Closed):
        backend.receive(1, LONG_S)
