"""Jobs that are released for later in RabbitMQ: they wait as retried ones do, and spend nothing."""

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import pytest

from brokers.rabbitmq_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.consumer.backend import RabbitMQConsumerBackend
from mindtrace.jobs.adapters.rabbitmq.consumer.settler import MessagePublisher
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport.publishing import Outgoing, PublishConnection, SendState
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.ports import Ack, Cancel, Message, Release, Retry, SettleOutcome

from .rabbitmq_jobs import giving_up_locks

QUEUE = "releases"
LATER_S = 3600.0
"""So late that no test sees it."""


@pytest.fixture
def namespace() -> str:
    return f"t{secrets.token_hex(6)}"


@pytest.fixture
def client(rabbitmq_address: Address, namespace: str) -> Iterator[RabbitMQClient]:
    with rabbitmq_address.client(namespace, retry_timeout_s=30.0) as made:
        made.declare(Queue(QUEUE))
        yield made
        made.declare(Queue(QUEUE))
        made.delete(QUEUE)


def release(client: RabbitMQClient, delay_s: float, queue: str = QUEUE) -> SettleOutcome:
    """Receive a job, and give it back."""
    with client.open_consumer(queue) as consumer:
        (delivery,) = consumer.receive(1, LIMIT_S)
        (outcome,) = consumer.settle([Release(delivery.receipt, delay_s)]).outcomes
    return outcome


def test_it_comes_again_behind_the_others_with_nothing_spent(client: RabbitMQClient) -> None:
    """A second later the attempt is the same, and no failure or crash is known of it (SET-4)."""
    client.publish(QUEUE, [Message("later", b"body"), Message("other", b"{}")])

    assert release(client, 1.0) is SettleOutcome.OK

    with client.open_consumer(QUEUE) as consumer:
        (first,) = consumer.receive(1, LIMIT_S)
        consumer.settle([Ack(first.receipt)])
        (second,) = consumer.receive(1, LIMIT_S)
        assert (first.id, second.id) == ("other", "later")
        assert (second.body, second.attempt, second.number, second.crashes) == (b"body", 1, 2, 0)
        consumer.settle([Retry(second.receipt, 0.0, "the first failure")])
        (third,) = consumer.receive(1, LIMIT_S)
        assert (third.attempt, third.number) == (2, 3)
        consumer.settle([Ack(third.receipt)])


def test_it_keeps_its_priority(client: RabbitMQClient) -> None:
    """When it is due, it goes before those of a lower one (ORD-3)."""
    client.declare(Queue("ranks", QueueKind.PRIORITY))
    try:
        client.publish("ranks", [Message("high", b"{}", priority=9)])
        assert release(client, 0.5, "ranks") is SettleOutcome.OK
        client.publish("ranks", [Message("low", b"{}", priority=1)])
        eventually(lambda: client.counts("ranks").ready == 2, "it is due")
        with client.open_consumer("ranks", prefetch=1) as consumer:
            (first,) = consumer.receive(1, LIMIT_S)
            assert first.id == "high"
    finally:
        client.delete("ranks")


def test_counts_purge_and_delete_know_it_as_delayed(client: RabbitMQClient) -> None:
    """Nothing of it comes back (CNT-1, ADM-2, ADM-3)."""
    client.publish(QUEUE, [Message("a", b"{}")])
    release(client, LATER_S)
    counts = client.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.dead) == (0, 1, 0)
    assert client.purge(QUEUE) == 1
    assert client.counts(QUEUE).delayed == 0

    client.publish(QUEUE, [Message("b", b"{}")])
    release(client, LATER_S)
    client.delete(QUEUE)
    client.declare(Queue(QUEUE))
    counts = client.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.dead) == (0, 0, 0)


@pytest.mark.parametrize("give_back", [Release, Retry])
def test_what_cannot_be_put_off_yet_is_held_and_put_off_later(
    client: RabbitMQClient, rabbitmq_address: Address, namespace: str, give_back: type
) -> None:
    """A release for later as a retry: here another client changes the delay queues, and takes its time."""
    client.publish(QUEUE, [Message("a", b"{}")])
    connection = rabbitmq_address.driver()
    try:
        connection.channel().queue_declare(f"mtj:{namespace}/{QUEUE}:changing", exclusive=True)
        with (
            rabbitmq_address.client(namespace, retry_timeout_s=30.0) as other,
            other.open_consumer(QUEUE) as consumer,
        ):
            (delivery,) = consumer.receive(1, LIMIT_S)
            more = ("no",) if give_back is Retry else ()
            settlement = give_back(delivery.receipt, LATER_S, *more)
            with giving_up_locks():
                assert consumer.settle([settlement]).outcomes == [SettleOutcome.DEFERRED]
            assert consumer.receive(1, 0.0) == []
            connection.close()
            assert consumer.settle([settlement]).outcomes == [SettleOutcome.OK]
    finally:
        if connection.is_open:
            connection.close()
    counts = client.counts(QUEUE)
    assert (counts.ready, counts.delayed, counts.dead) == (0, 1, 0)


class Alarm:
    """Stands in for a consumer's publisher while an alarm is on that the broker told of a moment too late.

    Args:
        publisher: Publishes what is under way, once the alarm is over.
        state: What is known of messages meanwhile.
    """

    is_blocked = True

    def __init__(self, publisher: MessagePublisher, state: SendState) -> None:
        self._publisher = publisher
        self._state = state
        self._offered: list[tuple[Names, list[Outgoing]]] = []

    def offer(self, names: Names, messages: Sequence[Outgoing]) -> None:
        for message in messages:
            message.state = self._state
        self._offered.append((names, list(messages)))

    def end(self) -> MessagePublisher:
        """Have what is under way arrive; return the publisher."""
        for names, messages in self._offered if self._state is SendState.UNDER_WAY else ():
            self._publisher.offer(names, messages)
        return self._publisher


@pytest.fixture
def consumer(client: RabbitMQClient) -> Iterator[RabbitMQConsumerBackend]:
    with client.open_consumer(QUEUE) as consumer:
        yield consumer


def retry_under_alarm(
    client: RabbitMQClient, consumer: RabbitMQConsumerBackend, state: SendState
) -> tuple[Cancel, Alarm]:
    """Have the retry of a job deferred; return what cancels the job, and the alarm."""
    client.publish(QUEUE, [Message("a", b"{}")])
    (delivery,) = consumer.receive(1, LIMIT_S)
    alarm = Alarm(consumer._settler._publisher, state)
    consumer._settler._publisher = alarm
    assert consumer.settle([Retry(delivery.receipt, 0.0, "no")]).outcomes == [SettleOutcome.DEFERRED]
    return Cancel(delivery.receipt), alarm


def has_no_job(client: RabbitMQClient) -> bool:
    counts = client.counts(QUEUE)
    return (counts.ready, counts.delayed, counts.dead) == (0, 0, 0)


def test_a_cancel_does_not_count_besides_a_retry_that_is_under_way(
    client: RabbitMQClient, consumer: RabbitMQConsumerBackend
) -> None:
    """The first counts: else the job would be cancelled, and run again (SET-1)."""
    cancel, alarm = retry_under_alarm(client, consumer, SendState.UNDER_WAY)
    assert consumer.settle([cancel]).outcomes == [SettleOutcome.DEFERRED]

    consumer._settler._publisher = alarm.end()
    assert consumer.settle([cancel]).outcomes == [SettleOutcome.ALREADY]
    (again,) = consumer.receive(1, LIMIT_S)
    assert (again.id, again.attempt) == ("a", 2)
    assert consumer.settle([Ack(again.receipt)]).outcomes == [SettleOutcome.OK]
    consumer.close()
    assert has_no_job(client)


def test_a_cancel_counts_in_place_of_a_retry_that_never_left(
    client: RabbitMQClient, consumer: RabbitMQConsumerBackend
) -> None:
    cancel, alarm = retry_under_alarm(client, consumer, SendState.UNSENT)
    assert consumer.settle([cancel]).outcomes == [SettleOutcome.OK]
    consumer._settler._publisher = alarm.end()
    consumer.close()
    assert has_no_job(client)


def test_a_retry_that_is_not_confirmed_in_time_is_published_once(
    rabbitmq_address: Address, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader without its majority has it and says nothing: each further try would be a copy (SET-2)."""
    on_confirm, late = PublishConnection._on_confirm, list[Callable[[], None]]()
    is_silent = threading.Event()

    def hold_back(connection: PublishConnection, *said: Any) -> None:
        if is_silent.is_set():
            late.append(partial(connection.loop.call, partial(on_confirm, connection, *said)))
        else:
            on_confirm(connection, *said)

    monkeypatch.setattr(PublishConnection, "_on_confirm", hold_back)
    with rabbitmq_address.client(namespace, retry_timeout_s=1.0) as client:
        client.declare(Queue(QUEUE))
        client.publish(QUEUE, [Message("a", b"{}")])
        with client.open_consumer(QUEUE) as consumer:
            (delivery,) = consumer.receive(1, LIMIT_S)
            retry = Retry(delivery.receipt, 0.0, "no")
            is_silent.set()
            for _ in range(3):
                assert consumer.settle([retry]).outcomes == [SettleOutcome.DEFERRED]
            is_silent.clear()
            for tell in late:
                tell()
            assert consumer.settle([retry]).outcomes == [SettleOutcome.OK]
            (again,) = consumer.receive(1, LIMIT_S)
            assert (again.id, again.attempt) == ("a", 2)
            assert consumer.settle([Ack(again.receipt)]).outcomes == [SettleOutcome.OK]
        assert has_no_job(client)
        client.delete(QUEUE)
