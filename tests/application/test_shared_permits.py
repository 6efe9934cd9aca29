"""Several consumers, and a limit for the handlers that they run together."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from conditions import eventually as wait_until
from mindtrace.jobs import (
    BatchConsumer,
    Consumer,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Observer,
    Orchestrator,
    RetryPolicy,
)
from mindtrace.jobs.application.consuming.job_permits import JobPermits, PermitShare
from mindtrace.jobs.application.consuming.permit_order import StrictOrder, WeightedOrder
from mindtrace.jobs.domain.errors import Closed

QUEUES = ("high", "middle", "low")
POLL_S = 0.05
LONG_S = 3600.0


class Number(JobInput):
    n: int = 0


class Handlers:
    """What all handlers of a test do, and how many of them do so at once."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.running = self.most = 0
        self.ran: list[str] = []
        self.work_s = 0.0
        self.may_end: Callable[[], object] = lambda: True
        """What each waits for, besides."""

    def begin(self, queue: str) -> None:
        with self.lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.ran.append(queue)

    def end(self) -> None:
        with self.lock:
            self.running -= 1

    def work(self, queue: str) -> None:
        self.begin(queue)
        time.sleep(self.work_s)
        self._wait_until_it_may_end()
        self.end()

    async def work_async(self, queue: str) -> None:
        self.begin(queue)
        await asyncio.sleep(self.work_s)
        if not self.may_end():
            await asyncio.to_thread(self._wait_until_it_may_end)
        self.end()

    def _wait_until_it_may_end(self) -> None:
        wait_until(self.may_end, "the handler may end")


@pytest.fixture
def handlers() -> Handlers:
    return Handlers()


Make = Callable[..., Consumer]


def plain(schema_: JobSchema[Any, Any], handlers: Handlers) -> Consumer:
    class Plain(Consumer):
        schema = schema_

        def run(self, job: Job[Any]) -> None:
            handlers.work(schema_.name)

    return Plain()


def coroutine(schema_: JobSchema[Any, Any], handlers: Handlers) -> Consumer:
    class Async(Consumer):
        schema = schema_

        async def run(self, job: Job[Any]) -> None:
            await handlers.work_async(schema_.name)

    return Async()


def batch(schema_: JobSchema[Any, Any], handlers: Handlers) -> Consumer:
    class Batches(BatchConsumer):
        schema = schema_
        batch_size = 4
        batch_wait_s = 0.0

        def run_batch(self, jobs: Any) -> list[None]:
            handlers.work(schema_.name)
            return [None] * len(jobs)

    return Batches()


KINDS: dict[str, tuple[Make, int | None]] = {
    "plain": (plain, 1),
    "threads": (plain, 4),
    "async": (coroutine, 1),
    "tasks": (coroutine, 4),
    "batches": (batch, None),
}


@pytest.fixture
def connected(orchestrator: Orchestrator, handlers: Handlers, background: Any) -> Iterator[Any]:
    """Connect a consumer for each queue, and return them."""
    with ExitStack() as stack:

        def make(
            permits: JobPermits,
            kinds: Any = ("plain",) * 3,
            *,
            weights: tuple[int, ...] = (1, 1, 1),
            to: Orchestrator = orchestrator,
            **connect: Any,
        ) -> list[Consumer]:
            consumers = []
            for queue, kind, weight in zip(QUEUES, kinds, weights, strict=True):
                make_one, concurrency = KINDS[kind]
                schema = JobSchema(queue, Number, retry=RetryPolicy(base_delay_s=0.0))
                consumer = stack.enter_context(make_one(schema, handlers))
                consumer.share_permits(permits.share(weight))
                consumer.connect(to, concurrency=concurrency, **({"poll_timeout_s": POLL_S} | connect))
                consumers.append(consumer)
            return consumers

        yield make


def backlog(orchestrator: Orchestrator, jobs: int, *queues: str) -> None:
    for queue in queues or QUEUES:
        orchestrator.publish_batch(queue, [{"n": n} for n in range(jobs)])


def run_all(consumers: list[Consumer], background: Any) -> None:
    for future in [background(each.consume_until_empty) for each in consumers]:
        future.result()


def all_have_begun(permits: JobPermits, handlers: Handlers) -> bool:
    """Whether each consumer has run a job or waits for the permit: none that starts late misses its turns."""
    shares = zip(QUEUES, permits.shares, strict=True)
    return all(queue in handlers.ran or share.is_candidate for queue, share in shares)


MIXED = [(kind,) * 3 for kind in KINDS] + [("plain", "tasks", "batches"), ("threads", "async", "tasks")]


@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
@pytest.mark.parametrize("count", [1, 2])
def test_no_more_handlers_run_at_once_than_there_are_permits(
    orchestrator: Orchestrator, connected: Any, handlers: Handlers, background: Any, kinds: Any, count: int
) -> None:
    """And so many do."""
    permits = JobPermits(count, WeightedOrder())
    consumers = connected(permits, kinds)
    handlers.work_s = 0.002
    handlers.may_end = lambda: handlers.most >= count
    backlog(orchestrator, 30)

    run_all(consumers, background)
    assert [orchestrator.counts(queue).waiting for queue in QUEUES] == [0, 0, 0]
    assert sum(each.stats.done for each in consumers) == 90
    assert handlers.most == count
    assert permits.free == count


@pytest.mark.parametrize("kind", KINDS)
def test_a_permit_is_not_counted_twice_when_consumers_go_on(
    orchestrator: Orchestrator, connected: Any, handlers: Handlers, background: Any, kind: str
) -> None:
    """Ten runs of the same loops, some of which end in the midst of the jobs."""
    permits = JobPermits(2, WeightedOrder())
    consumers = connected(permits, (kind,) * 3)
    handlers.work_s = 0.001
    handlers.may_end = lambda: handlers.most >= 2
    for _ in range(10):
        backlog(orchestrator, 20)
        for future in [background(each.consume, 7) for each in consumers]:
            future.result()
        assert permits.free == 2
    run_all(consumers, background)

    assert handlers.most == 2
    assert permits.free == 2
    assert sum(each.stats.done for each in consumers) == 600


@pytest.mark.parametrize("kind", ["plain", "threads", "tasks"])
def test_a_strict_order_runs_the_backlog_of_the_first(
    orchestrator: Orchestrator, connected: Any, handlers: Handlers, background: Any, kind: str
) -> None:
    """No job of another starts meanwhile, but for one that was the first to ask."""
    permits = JobPermits(1, StrictOrder())
    consumers = connected(permits, (kind,) * 3, poll_timeout_s=LONG_S)
    handlers.work_s = 0.001
    handlers.may_end = lambda: all_have_begun(permits, handlers)
    backlog(orchestrator, 100)

    run_all(consumers, background)
    rest = handlers.ran[next(n for n, queue in enumerate(handlers.ran) if queue == "high") :]
    place = [QUEUES.index(queue) for queue in rest]
    assert place == sorted(place)
    assert len(handlers.ran) - len(rest) <= 20, "what another had taken before the first began"


def test_weights_share_the_jobs_of_a_backlog(
    orchestrator: Orchestrator, connected: Any, handlers: Handlers, background: Any
) -> None:
    permits = JobPermits(1, WeightedOrder())
    consumers = connected(permits, weights=(6, 3, 1), prefetch=1, poll_timeout_s=LONG_S)
    handlers.work_s = 0.001
    handlers.may_end = lambda: all_have_begun(permits, handlers)
    backlog(orchestrator, 300)

    run_all(consumers, background)
    ran = handlers.ran[20:400]
    assert [ran.count(queue) / len(ran) for queue in QUEUES] == pytest.approx([0.6, 0.3, 0.1], abs=0.05)


class Polls(Observer):
    def __init__(self) -> None:
        self.of: dict[str, int] = dict.fromkeys(QUEUES, 0)

    def polled(self, queue: str, received: int) -> None:
        self.of[queue] += 1


@pytest.mark.parametrize("kind", KINDS)
def test_no_job_is_leased_while_its_consumer_waits_for_a_permit(
    client: LocalClient, connected: Any, handlers: Handlers, background: Any, eventually: Any, kind: str
) -> None:
    """It counts as alive all the same: its health doesn't depend on how long another's job takes."""
    polls, go_on = Polls(), threading.Event()
    watched = Orchestrator(client, observers=[polls])
    high, _, low = connected(JobPermits(1, StrictOrder()), ("plain", "plain", kind), to=watched)
    handlers.work = lambda queue: go_on.wait()  # type: ignore[method-assign, assignment, return-value]
    backlog(watched, 1, "high")
    consuming = [background(high.consume)]
    eventually(lambda: high.stats.attempted == 1)
    backlog(watched, 5, "low")
    consuming.append(background(low.consume))

    eventually(lambda: polls.of["low"] >= 3)
    counts = watched.counts("low")
    assert (counts.ready, counts.in_flight) == (5, 0)

    handlers.work = lambda queue: None  # type: ignore[method-assign]
    go_on.set()
    eventually(lambda: low.stats.done == 5)
    for consumer in (high, low):
        consumer.stop()
    for future in consuming:
        future.result()


def test_a_job_that_came_while_another_took_the_permit_goes_back_unharmed(
    orchestrator: Orchestrator,
    connected: Any,
    handlers: Handlers,
    background: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The race of two consumers that both waited for jobs: no attempt is spent, and it runs at once after."""
    refused: list[int] = []
    take_for = PermitShare.take_for

    def lose_once(share: PermitShare, count: int) -> int:
        if refused:
            return take_for(share, count)
        refused.append(count)
        share.stop_listening()
        return 0

    monkeypatch.setattr(PermitShare, "take_for", lose_once)
    permits = JobPermits(1, StrictOrder())
    (high, *_) = connected(permits, poll_timeout_s=60.0)
    consuming = background(high.consume)
    eventually(lambda: permits.shares[0].is_listening)
    orchestrator.publish("high", {"n": 1})
    eventually(lambda: high.stats.done == 1)
    high.stop()
    consuming.result()

    assert refused == [1]
    assert (high.stats.released, high.stats.attempted, high.stats.retried) == (1, 1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_consumer_that_waits_for_a_permit_can_be_stopped_and_closed(
    orchestrator: Orchestrator, connected: Any, background: Any, eventually: Any, kind: str
) -> None:
    permits = JobPermits(1, StrictOrder())
    holder = permits.share()
    holder.begin(1, in_batches=False, interrupt=lambda: None, wake=lambda: None)
    assert holder.request(1) == 1
    consumer, *_ = connected(permits, (kind,) * 3, poll_timeout_s=3600.0)

    consuming = background(consumer.consume)
    consumer.stop()
    assert consuming.result() == 0
    consuming = background(consumer.consume)
    eventually(lambda: permits.shares[1].is_candidate)
    consumer.close()
    with pytest.raises(Closed):
        consuming.result()


def test_an_outage_keeps_no_permit(
    far: Orchestrator, line: Any, connected: Any, handlers: Handlers, background: Any
) -> None:
    permits = JobPermits(1, WeightedOrder())
    consumers = connected(permits, to=far)
    backlog(far, 10)
    line.breaks["receive"] = 3
    line.breaks["settle"] = 2

    run_all(consumers, background)
    assert sum(each.stats.done for each in consumers) == 30
    assert (handlers.most, permits.free) == (1, 1)
