"""Consumers of many jobs at once on RabbitMQ, whose connections break and whose queues go."""

import asyncio
import secrets
import threading
import time
from collections import Counter
from collections.abc import Iterator
from math import inf
from random import Random

import pytest

from background import Background
from brokers.rabbitmq_server import PrivateRabbitMQ
from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    RabbitMQClient,
    RabbitMQConsumerBackend,
)
from mindtrace.jobs.adapters.rabbitmq.consumer import credit
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.errors import QueueNotFound
from mindtrace.jobs.ports import Ack, Delivery, Message, SettleOutcome

from .rabbitmq_jobs import receive

QUEUE = "squares"
JOBS = 2_000
CONCURRENCY = 100


class Number(JobInput):
    x: int


class Nothing(JobOutput):
    pass


SCHEMA = JobSchema(name=QUEUE, input=Number, output=Nothing)


class Ran:
    """Which jobs ran, how often, and how many at once at most.

    Args:
        at_once: No job ends before so many have run at once, however slowly they come.
        before_go_on: Hardly more jobs than so many end before :attr:`go_on` is set.
    """

    def __init__(self, at_once: int = 1, before_go_on: float = inf) -> None:
        self._at_once = at_once
        self._before_go_on = before_go_on
        self.go_on = threading.Event()
        self.times: Counter[int] = Counter()
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    def begin(self) -> None:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)

    @property
    def may_end(self) -> bool:
        if len(self.times) >= self._before_go_on and not self.go_on.is_set():
            return False
        return self.most_at_once >= self._at_once

    def end(self, x: int) -> None:
        with self._lock:
            self._now -= 1
            self.times[x] += 1


class Tasks(Consumer[Number, Nothing]):
    """Its handlers are tasks of one event loop."""

    schema = SCHEMA
    concurrency = CONCURRENCY

    def __init__(self, ran: Ran) -> None:
        super().__init__()
        self.ran = ran

    async def run(self, job: Job[Number]) -> None:
        self.ran.begin()
        await asyncio.sleep(0.002)
        while not self.ran.may_end:
            await asyncio.sleep(0.002)
        self.ran.end(job.payload.x)


class Threads(Consumer[Number, Nothing]):
    """Its handlers run on threads."""

    schema = SCHEMA
    concurrency = CONCURRENCY

    def __init__(self, ran: Ran) -> None:
        super().__init__()
        self.ran = ran

    def run(self, job: Job[Number]) -> None:
        self.ran.begin()
        time.sleep(0.002)
        while not self.ran.may_end:
            time.sleep(0.002)
        self.ran.end(job.payload.x)


@pytest.fixture
def server(rabbitmq_node: PrivateRabbitMQ) -> PrivateRabbitMQ:
    return rabbitmq_node


def orchestrator(server: PrivateRabbitMQ, kind: QueueKind = QueueKind.FIFO) -> Orchestrator:
    made = Orchestrator(server.client(f"t{secrets.token_hex(6)}", retry_timeout_s=LIMIT_S))
    made.register(SCHEMA, kind)
    return made


def backend_of(consumer: Consumer[Number, Nothing]) -> RabbitMQConsumerBackend:
    assert consumer._connection is not None
    backend = consumer._connection.backend
    assert isinstance(backend, RabbitMQConsumerBackend)
    return backend


@pytest.mark.long
@pytest.mark.parametrize("kind", [QueueKind.FIFO, QueueKind.PRIORITY])
@pytest.mark.parametrize("handlers", [Tasks, Threads])
def test_a_connection_that_breaks_with_a_hundred_jobs_in_flight_loses_none(
    server: PrivateRabbitMQ, handlers: type[Tasks | Threads], kind: QueueKind
) -> None:
    """Every job runs, and again only what was in flight or had just been acked (LSE-1, I1).

    A quorum queue that lags behind has RabbitMQ keep acks in the process of the channel, which ends with the
    connection: such a job is done, and runs again.
    """
    ran = Ran(at_once=CONCURRENCY // 2, before_go_on=JOBS // 2)
    with orchestrator(server, kind) as jobs, handlers(ran) as consumer, Background() as threads:
        jobs.publish_batch(QUEUE, [Number(x=x) for x in range(JOBS)])
        consumer.queue_type = kind  # type: ignore[misc]
        consumer.connect(jobs)
        consuming = threads.submit(consumer.consume_until_empty)
        eventually(lambda: len(ran.times) > JOBS // 3, "some ran")
        backend_of(consumer)._channel.drop()
        ran.go_on.set()
        attempted = consuming.result(LIMIT_S)
        stats, counts = consumer.stats, jobs.counts(QUEUE)

    assert set(ran.times) == set(range(JOBS))
    assert ran.times.total() == attempted == stats.attempted == stats.done + stats.lost
    assert stats.lost > 0
    assert max(ran.times.values()) <= 2
    assert CONCURRENCY // 2 <= ran.most_at_once <= CONCURRENCY
    assert (counts.ready, counts.dead) == (0, 0)


@pytest.mark.parametrize("handlers", [Tasks, Threads])
def test_as_many_jobs_as_were_asked_for_run_and_the_others_stay(
    server: PrivateRabbitMQ, handlers: type[Tasks | Threads]
) -> None:
    """What RabbitMQ sent ahead is released, and nothing is counted against it (SET-4, RTY-3)."""
    ran = Ran()
    with orchestrator(server) as jobs, handlers(ran) as consumer:
        jobs.publish_batch(QUEUE, [Number(x=x) for x in range(JOBS)])
        consumer.connect(jobs)
        assert consumer.consume(JOBS // 2) == JOBS // 2
        assert jobs.counts(QUEUE).ready == JOBS - JOBS // 2
        assert consumer.consume_until_empty() == JOBS - JOBS // 2
        assert consumer.stats.done == JOBS
    assert ran.times == dict.fromkeys(range(JOBS), 1)


def test_a_queue_that_is_deleted_ends_its_consumer_and_the_next_one_is_served(
    server: PrivateRabbitMQ,
) -> None:
    """What runs may end, and none of the jobs reaches the successor (ADM-3)."""
    ran = Ran()
    with orchestrator(server) as jobs, Tasks(ran) as consumer, Background() as threads:
        jobs.publish_batch(QUEUE, [Number(x=x) for x in range(10 * JOBS)])
        consumer.connect(jobs)
        consuming = threads.submit(consumer.consume)
        eventually(lambda: len(ran.times) > CONCURRENCY, "some ran")
        jobs.delete_queue(QUEUE)
        with pytest.raises(QueueNotFound):
            consuming.result(LIMIT_S)
        ran.times.clear()
        jobs.register(SCHEMA)
        jobs.publish_batch(QUEUE, [Number(x=x) for x in range(CONCURRENCY)])
        assert consumer.consume_until_empty() == CONCURRENCY
    assert ran.times == dict.fromkeys(range(CONCURRENCY), 1)


# -- the consumer backend by itself ---------------------------------------------------------------


@pytest.fixture
def client(server: PrivateRabbitMQ, monkeypatch: pytest.MonkeyPatch) -> Iterator[RabbitMQClient]:
    """A client whose consumers wait for what is under way, however long a busy machine takes."""
    for name in ("_GRACE_S", "_LULL_S"):
        monkeypatch.setattr(credit, name, LIMIT_S)
    with server.client(f"t{secrets.token_hex(6)}", retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made


def filled(client: RabbitMQClient, count: int) -> list[str]:
    ids = [f"job-{number:04}" for number in range(count)]
    client.publish(QUEUE, [Message(id_, b"{}") for id_ in ids])
    return ids


def test_what_was_sent_ahead_is_released_while_the_consumer_waits_for_more(client: RabbitMQClient) -> None:
    """And a job that is published then wakes it all the same (RCV-2, SET-4)."""
    ids = filled(client, 30)
    with (
        client.open_consumer(QUEUE) as busy,
        client.open_consumer(QUEUE) as other,
        Background() as threads,
    ):
        busy.allow_ahead(20)
        held = receive(busy, 5)
        eventually(lambda: client.counts(QUEUE).ready == 10, "the others are sent ahead")
        busy.release_ahead()
        assert client.counts(QUEUE).ready == 25
        rest = receive(other, 25)
        assert sorted(one.id for one in [*held, *rest]) == ids
        assert {one.crashes for one in rest} == {0}

        busy.allow_ahead(20)
        waiting = threads.submit(busy.receive, 10, LIMIT_S)
        eventually(lambda: busy._channel.credit == 15, "it waits for more")
        busy.release_ahead()
        client.publish(QUEUE, [Message("late", b"{}")])
        assert [one.id for one in waiting.result(LIMIT_S)] == ["late"]


def test_the_connection_may_break_while_another_thread_settles(client: RabbitMQClient) -> None:
    """The receiver goes on over the next one, and what was in flight comes again (CON-1, LSE-1)."""
    ids = filled(client, 20)
    with client.open_consumer(QUEUE) as consumer, Background() as threads:
        consumer.allow_ahead(50)
        held = receive(consumer, 20)
        waiting = threads.submit(consumer.receive, 30, LIMIT_S)
        eventually(lambda: consumer._channel.loop._leader, "it waits for more")
        assert consumer.settle([Ack(one.receipt) for one in held[:10]]).outcomes == [SettleOutcome.OK] * 10
        consumer._channel.drop()
        again = waiting.result(LIMIT_S)
        again += receive(consumer, 10 - len(again))
        assert consumer.settle([Ack(held[10].receipt)]).outcomes == [SettleOutcome.LOST]
        assert sorted(one.id for one in again) == ids[10:]
        assert {one.crashes for one in again} == {1}


@pytest.mark.parametrize("seed", range(6))
def test_whatever_limit_is_set_next_the_account_adds_up(client: RabbitMQClient, seed: int) -> None:
    """Higher, lower, none at all, some jobs settled and some not: every job once, and no crash counted."""
    random = Random(seed)
    ids = filled(client, 1_200)
    held: list[Delivery] = []
    done: list[str] = []
    highest = 0
    with client.open_consumer(QUEUE) as consumer:
        while len(done) < len(ids):
            limit = len(held) + random.choice([1, 20, 100, 200, 300])
            take = random.randrange(1, limit - len(held) + 1)
            match random.choice(["settle", "settle", "settle alone", "receive", "allow", "release ahead"]):
                case "allow":
                    consumer.allow_ahead(limit)
                    highest = max(highest, limit)
                    continue
                case "release ahead":
                    consumer.release_ahead()
                    assert len(ids) - len(done) - client.counts(QUEUE).ready == len(held)
                    highest = 0
                    continue
                case "receive":
                    came = consumer.receive(take, 0.05)
                case step:
                    keep = random.randrange(len(held) + 1)
                    acked, held = held[keep:], held[:keep]
                    more = take if step == "settle" else 0
                    settled = consumer.settle([Ack(one.receipt) for one in acked], take=more)
                    assert settled.outcomes == [SettleOutcome.OK] * len(acked)
                    done += [one.id for one in acked]
                    came = settled.deliveries
                    assert len(came) <= more
            assert {one.crashes for one in came} <= {0}
            held += came
            highest = max(highest, len(held))
        assert sorted(done) == ids
