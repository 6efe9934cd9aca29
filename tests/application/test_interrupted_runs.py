"""Ctrl-C at any line of a run: the next run has all jobs of which the consumer or the broker knows."""

import asyncio
import itertools
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import pytest

from conditions import eventually
from interrupts import interrupt_at
from mindtrace.jobs import (
    BatchConsumer,
    Consumer,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Orchestrator,
    QueueCounts,
)
from mindtrace.jobs.application.process.graceful_stop import SecondSignal
from mindtrace.jobs.ports import Delivery, Settled, Settlement

FILES = ["loop.py", "sequential_loop.py", "in_flight.py", "job_states.py", "job_permits.py"]


class Empty(JobInput):
    pass


class Notes(Consumer):
    schema = JobSchema("notes", Empty)

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []
        self.is_to_end = True

    def run(self, job: Job[Empty]) -> None:
        if self.is_to_end:
            raise SecondSignal
        self.ran.append(job.id)

    def consume_and_end(self) -> None:
        with suppress(SecondSignal):
            self.consume()


class Connected(LocalClient):
    """Ends no lease, and tells what it has given out, as where the connection is the lease."""

    def open_consumer(self, queue: str, **settings: Any) -> Any:  # type: ignore[override]
        consumer = super().open_consumer(queue, **settings | {"lease_s": 86_400.0})
        settle, receive = consumer.settle, consumer.receive
        given_out: dict[str, None] = {}

        def note(deliveries: Sequence[Delivery]) -> list[Delivery]:
            given_out.update(dict.fromkeys(each.receipt for each in deliveries))
            return list(deliveries)

        def noted_settle(settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
            answer = settle(settlements, take=take)
            for each in settlements:
                given_out.pop(each.receipt, None)
            return Settled(answer.outcomes, note(answer.deliveries))

        consumer.settle = noted_settle  # type: ignore[method-assign]
        consumer.receive = lambda most, timeout_s: note(receive(most, timeout_s))  # type: ignore[method-assign]
        consumer.given_out = lambda: list(given_out)  # type: ignore[method-assign]
        return consumer


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with Connected() as client, Orchestrator(client) as made:
        made.register(Notes.schema)
        yield made


@pytest.mark.parametrize("file", FILES)
def test_the_next_run_has_the_jobs_that_an_interrupted_one_left(
    orchestrator: Orchestrator, file: str
) -> None:
    """A run that a second signal ends releases them. If that is interrupted, the next begins with it."""
    for point in itertools.count(1):
        with Notes() as consumer:
            consumer.connect(orchestrator, prefetch=3)
            ids = {orchestrator.publish(Notes.schema, {}) for _ in range(3)}
            was_interrupted = interrupt_at(point, file, consumer.consume_and_end)
            consumer.is_to_end = False
            consumer.consume_until_empty()
            assert set(consumer.ran) == ids, point
            assert orchestrator.counts(Notes.schema) == QueueCounts(0, 0, 0, 0), point
        if not was_interrupted:
            return


class ManyAtOnce(Notes):
    concurrency = 2

    def __init__(self) -> None:
        super().__init__()
        self.is_to_end = False


class Tasks(ManyAtOnce):
    async def run(self, job: Job[Empty]) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        self.ran.append(job.id)


class Batches(BatchConsumer):
    schema = Notes.schema
    batch_size = 2
    batch_wait_s = 0.0

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[str] = []

    def run_batch(self, jobs: Sequence[Job[Empty]]) -> list[None]:
        self.ran += [job.id for job in jobs]
        return [None] * len(jobs)


AT_ONCE = [
    "concurrent_loop.py",
    "idle_settler.py",
    "in_flight.py",
    "job_states.py",
    "signal_safe_event.py",
    "thread_start.py",
    "threading.py",
]
KINDS = [
    *((ManyAtOnce, file) for file in [*AT_ONCE, "handler_threads.py"]),
    *((Tasks, file) for file in [*AT_ONCE, "handler_tasks.py"]),
    *((Batches, file) for file in ("batch_loop.py", "in_flight.py", "job_states.py")),
]


def threads_of_runs() -> set[threading.Thread]:
    """Return all threads but the one that looks for pauses, which ends by itself half a second later."""
    return {each for each in threading.enumerate() if each.name != "mindtrace-jobs-pauses"}


@pytest.mark.parametrize(("kind", "file"), KINDS, ids=lambda each: getattr(each, "__name__", each))
def test_a_consumer_of_any_kind_is_usable_after_an_interrupt(
    orchestrator: Orchestrator, kind: Any, file: str
) -> None:
    """It runs all jobs, in as many threads as before: none is locked out, and none is left behind."""
    with kind() as consumer:
        consumer.connect(orchestrator)
        consumer.consume_until_empty()
    before = threads_of_runs()
    for point in itertools.count(1):
        with kind() as consumer:
            consumer.connect(orchestrator)
            ids = {orchestrator.publish(Notes.schema, {}) for _ in range(3)}
            was_interrupted = interrupt_at(point, file, partial(consumer.consume, 3))
            consumer.consume_until_empty()
            assert set(consumer.ran) == ids, point
            assert orchestrator.counts(Notes.schema) == QueueCounts(0, 0, 0, 0), point
            eventually(lambda: not threads_of_runs() - before, "all threads end")
        if not was_interrupted:
            return
