"""A queue in RabbitMQ that is deleted while a consumer has jobs of it: its successor gets none of them."""

import time
from collections.abc import Iterator
from functools import partial

import pytest

from brokers.rabbitmq_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import RabbitMQClient, RabbitMQConsumerBackend
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.ports import Ack, Dead, Message, Release, Retry, SettleOutcome

from .rabbitmq_jobs import QUEUE, receive


@pytest.fixture
def client(rabbitmq_address: Address) -> Iterator[RabbitMQClient]:
    with rabbitmq_address.client(f"t{time.monotonic_ns()}", retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made
        made.delete(QUEUE)


def test_what_is_settled_when_its_queue_was_deleted_never_reaches_the_successor(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the channel of the deleted queue is slow to close, as over a network (ADM-3)."""
    client.publish(QUEUE, [Message(id_, b"{}") for id_ in ("dead", "again", "back")])
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        dead, again, back = (one.receipt for one in receive(consumer, 3))
        generation = consumer._channel.generation
        monkeypatch.setattr(consumer._channel._channel, "close", lambda: None)
        client.delete(QUEUE)
        client.declare(Queue(QUEUE))
        eventually(
            lambda: consumer.extend([]) or consumer._channel.generation != generation,
            "it is told of the deletion",
        )
        settlements = [Dead(dead, "rejected", "no"), Retry(again, 0.0, "no"), Release(back)]
        assert consumer.settle(settlements).outcomes == [SettleOutcome.LOST] * 3
    counts = client.counts(QUEUE)
    assert (counts.waiting, counts.dead) == (0, 0)


def test_a_settlement_takes_jobs_of_the_successor(client: RabbitMQClient) -> None:
    """They don't stay with it, uncounted, because an earlier queue of that name was deleted (SET-1)."""
    client.publish(QUEUE, [Message("before", b"{}")])
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        (lost,) = receive(consumer, 1)
        generation = consumer._channel.generation
        client.delete(QUEUE)
        client.declare(Queue(QUEUE))
        eventually(
            lambda: consumer.extend([]) or consumer._channel.generation != generation,
            "it is told of the deletion",
        )
        client.publish(QUEUE, [Message("after", b"{}")])
        taken = consumer.settle([Ack(lost.receipt)], take=1)
        assert taken.outcomes == [SettleOutcome.LOST]
        assert [job.id for job in taken.deliveries] == ["after"]
        consumer.settle([Ack(job.receipt) for job in taken.deliveries])


def test_what_a_deleted_queue_still_sends_is_nobodys(client: RabbitMQClient) -> None:
    """What was under way when its end was told isn't taken for the successor's (ADM-3)."""
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        channel = consumer._channel
        channel.request(partial(channel.set_credit, 5), LIMIT_S)
        assert channel.credit
        client.publish(QUEUE, [Message("late", b"{}")])
        generation = channel.generation
        channel.loop.call(lambda: channel._on_deleted(channel._channel))
        eventually(lambda: channel.generation != generation, "it was told so")
        give_up = time.monotonic() + LIMIT_S
        while channel.is_open:
            assert time.monotonic() < give_up
            channel.loop.poll()
            assert not channel.arrivals
        (job,) = receive(consumer, 1)  # the queue is still there, as the deletion is made up
        consumer.settle([Ack(job.receipt)])
