"""Delayed jobs in RabbitMQ: none is lost between two queues, none holds up another, none outlives a purge."""

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial

import pytest
from pika import BasicProperties
from pika.channel import Channel
from pika.exceptions import UnroutableError

from brokers.rabbitmq_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import ConsumerBackend, RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq import admin
from mindtrace.jobs.adapters.rabbitmq.delays import DelayLevels
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport import broker
from mindtrace.jobs.adapters.rabbitmq.transport.request import Reply
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Ack, Message, PublishStatus

from .rabbitmq_jobs import giving_up_locks

QUEUE = "delays"
MOVED_S = 5.0
"""Far more than the broker needs to move a handful of jobs that are due."""


@pytest.fixture
def namespace() -> str:
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def client(rabbitmq_address: Address, namespace: str) -> Iterator[RabbitMQClient]:
    with rabbitmq_address.client(namespace, retry_timeout_s=30.0) as made:
        yield made
        for name in (QUEUE, "ranks"):
            made.declare(Queue(name, QueueKind.PRIORITY if name == "ranks" else QueueKind.FIFO))
            made.delete(name)


def received(consumer: ConsumerBackend, wanted: int) -> list[str]:
    """Run ``wanted`` jobs, however long they take to come, and return their ids in order."""
    ids: list[str] = []
    give_up = time.monotonic() + LIMIT_S
    while len(ids) < wanted and time.monotonic() < give_up:
        for delivery in consumer.receive(1, 1.0):
            ids.append(delivery.id)
            consumer.settle([Ack(delivery.receipt)])
    return ids


def test_a_purge_reaches_jobs_that_the_broker_is_moving(client: RabbitMQClient) -> None:
    """Some have arrived, the rest is due and in no count: all are gone, and none comes later (ADM-2)."""
    client.declare(Queue(QUEUE))
    jobs = [Message(f"j{number}", b"x" * 100, delay_s=1.0) for number in range(5000)]
    assert {outcome.status for outcome in client.publish(QUEUE, jobs)} == {PublishStatus.ACCEPTED}
    eventually(lambda: client.counts(QUEUE).ready > 0, "the first are due")

    client.purge(QUEUE)

    with client.open_consumer(QUEUE) as consumer:
        assert consumer.receive(1, MOVED_S) == []
    counts = client.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.dead) == (0, 0, 0)


def test_delayed_jobs_arrive_while_another_client_purges_and_stops(
    client: RabbitMQClient, rabbitmq_address: Address, namespace: str
) -> None:
    """Two clients make and remove the same delay queues: what is published afterwards comes (DLY-1)."""
    client.declare(Queue(QUEUE))
    over = threading.Event()
    published = 0

    def purge() -> None:
        with rabbitmq_address.client(namespace, retry_timeout_s=30.0) as other:
            while not over.is_set():
                other.purge(QUEUE)

    purging = threading.Thread(target=purge)
    purging.start()
    try:
        for round_ in range(10):
            delays = (0.1, 0.5, 2.0, 7.0, 3600.0)
            outcomes = client.publish(
                QUEUE, [Message(f"{round_}-{delay}", b"{}", delay_s=delay) for delay in delays]
            )
            published += sum(outcome.status is PublishStatus.ACCEPTED for outcome in outcomes)
    finally:
        over.set()
        purging.join()
    assert published
    client.purge(QUEUE)

    began = time.monotonic()
    last = {f"last-{quarters}": quarters / 4 for quarters in range(1, 16)}
    outcomes = client.publish(QUEUE, [Message(id_, b"{}", delay_s=delay) for id_, delay in last.items()])
    assert {outcome.status for outcome in outcomes} == {PublishStatus.ACCEPTED}
    with client.open_consumer(QUEUE) as consumer:
        while last:
            (id_,) = received(consumer, 1)
            assert time.monotonic() - began >= last.pop(id_), "none is early"
    assert last == {}


def test_a_delay_queue_that_a_purge_left_out_of_reach_is_used_again(
    client: RabbitMQClient, rabbitmq_address: Address, namespace: str
) -> None:
    """The client that purged was killed before it deleted the queue."""
    client.declare(Queue(QUEUE))
    client.publish(QUEUE, [Message("first", b"{}", delay_s=0.1)])
    names = Names(namespace, QUEUE)
    levels = DelayLevels(names, high=False)

    def close(channel: Channel, reply: Reply) -> None:
        levels.close(0, channel)
        channel.queue_declare(levels.level(0), passive=True, callback=reply)

    client._open().admin._request(close)
    with rabbitmq_address.driver() as driver:
        channel = driver.channel()
        channel.confirm_delivery()
        with pytest.raises(UnroutableError):
            channel.basic_publish(names.delays, levels.level(0), b"{}", mandatory=True)

    (outcome,) = client.publish(QUEUE, [Message("second", b"{}", delay_s=0.1)])
    assert outcome.status is PublishStatus.ACCEPTED
    with client.open_consumer(QUEUE) as consumer:
        assert received(consumer, 2) == ["first", "second"]


def test_the_exchange_of_delayed_jobs_is_made_where_it_is_missing(
    client: RabbitMQClient, rabbitmq_address: Address, namespace: str
) -> None:
    """An older client made the delay queues, or somebody removed it: no job is lost or refused."""
    client.declare(Queue(QUEUE))
    client.publish(QUEUE, [Message("first", b"{}", delay_s=0.1)])
    with rabbitmq_address.driver() as driver:
        driver.channel().exchange_delete(f"mtj:{namespace}/:delays")

    with rabbitmq_address.client(namespace, retry_timeout_s=30.0) as other:
        (outcome,) = other.publish(QUEUE, [Message("second", b"{}", delay_s=0.1)])
    assert outcome.status is PublishStatus.ACCEPTED
    with client.open_consumer(QUEUE) as consumer:
        assert received(consumer, 2) == ["first", "second"]


def test_a_lock_that_is_never_released_is_told(
    client: RabbitMQClient, rabbitmq_address: Address, namespace: str
) -> None:
    """Whoever needs a new delay queue then is told so, and publishes nothing."""
    client.declare(Queue(QUEUE))
    connection = rabbitmq_address.driver()
    try:
        connection.channel().queue_declare(f"mtj:{namespace}/{QUEUE}:changing", exclusive=True)
        with giving_up_locks():
            (outcome,) = client.publish(QUEUE, [Message("a", b"{}", delay_s=60.0)])
    finally:
        connection.close()

    assert outcome.status is PublishStatus.REJECTED
    assert isinstance(outcome.error, BackendUnavailable)
    assert "delay queues" in str(outcome.error)


def test_a_job_of_high_priority_holds_up_no_other_that_is_due_before_it(client: RabbitMQClient) -> None:
    """RabbitMQ looks at high priorities first; so they wait in queues of their own (DLY-3)."""
    client.declare(Queue("ranks", QueueKind.PRIORITY))
    client.publish("ranks", [Message("low", b"{}", 0, 2.0)])
    client.publish("ranks", [Message("high", b"{}", 9, 3600.0)])

    with client.open_consumer("ranks") as consumer:
        assert received(consumer, 1) == ["low"]
    counts = client.counts("ranks")
    assert (counts.ready, counts.delayed) == (0, 1)
    assert client.purge("ranks") == 1


def test_a_strangers_message_in_a_delay_queue_becomes_a_dead_letter(
    client: RabbitMQClient, rabbitmq_address: Address, namespace: str
) -> None:
    """It says no way on, and would stay in the way of others for ever."""
    client.declare(Queue(QUEUE))
    client.publish(QUEUE, [Message("ours", b"{}", delay_s=0.1)])
    connection = rabbitmq_address.driver()
    connection.channel().basic_publish(
        "", f"mtj:{namespace}/{QUEUE}:delay.0", b"hello", BasicProperties(message_id="theirs")
    )
    connection.close()

    eventually(lambda: client.counts(QUEUE).dead == 1, "it is a dead letter")
    (letter,) = client.dead_letters(QUEUE)
    assert (letter.id, letter.body) == ("theirs", b"hello")
    with client.open_consumer(QUEUE) as consumer:
        assert received(consumer, 1) == ["ours"]
    assert client.discard(QUEUE) == 1


def test_delay_levels_are_made_only_by_who_still_has_the_lock(
    client: RabbitMQClient, rabbitmq_address: Address, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes with the connection, and another may be deleting them: a gap would strand jobs (I1, DLY-1)."""
    names = Names(client._namespace, QUEUE)
    client.declare(Queue(QUEUE))
    make, sleep, beside = admin._make_levels, broker.sleep, list[bool]()
    with ExitStack() as others_lock, rabbitmq_address.client(client._namespace) as other:
        is_locked = False

        def making(levels: DelayLevels, top: int, channel: Channel, reply: Reply) -> None:
            beside.append(is_locked)
            make(levels, top, channel, reply if len(beside) > 1 else partial(cut, channel))

        def cut(channel: Channel, _frame: object) -> None:
            nonlocal is_locked
            channel.connection.drop()
            others_lock.enter_context(other._open().admin._levels_locked(names))
            is_locked = True

        def unlocking(seconds: float) -> None:
            nonlocal is_locked
            if is_locked:
                others_lock.close()
                is_locked = False
            sleep(seconds)

        monkeypatch.setattr(admin, "_make_levels", making)
        monkeypatch.setattr(broker, "sleep", unlocking)
        (outcome,) = client.publish(QUEUE, [Message("job", b"{}", delay_s=1.0)])
    assert outcome.status is PublishStatus.ACCEPTED
    assert not any(beside)
