"""Ctrl-C at any line of a consumer's call: no job is left leased to nobody, and what it settled is known."""

import itertools
from collections.abc import Iterator

import pytest

from brokers.fixtures import StartRedis
from interrupts import interrupt_at
from mindtrace.jobs import ConsumerBackend, QueueCounts, RedisClient
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.ports import Ack, Delivery, Message

LEASE_S = 600.0
"""A lease that doesn't end while a test runs."""
FILES = ["redis/consumer.py", "redis/requests.py", "redis/settlements.py"]


@pytest.fixture
def client(private_redis: StartRedis) -> Iterator[RedisClient]:
    with private_redis().client() as client:
        client.declare(Queue("jobs"))
        yield client


def publish(client: RedisClient, *ids: str) -> None:
    client.publish("jobs", [Message(id_, b"{}") for id_ in ids])


def all_that_is_left(client: RedisClient) -> list[Delivery]:
    """Take what is ready, and end it."""
    with client.open_consumer("jobs") as consumer:
        deliveries = consumer.receive(10, 0.0)
        consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
    return deliveries


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("waits", [False, True])
def test_what_an_interrupted_receive_took_is_given_back(client: RedisClient, file: str, waits: bool) -> None:
    """By close, and without a crash: else it would stay leased until the lease ends (SET-4)."""

    def receive(consumer: ConsumerBackend) -> object:
        return consumer.receive(2, LEASE_S if waits else 0.0)

    for point in itertools.count(1):
        with client.open_consumer("jobs", lease_s=LEASE_S) as consumer:
            if waits:
                consumer.receive(2, 0.0)  # from then on it waits for a publish, which has come by then
            publish(client, "1", "2")
            was_interrupted = interrupt_at(point, file, lambda: receive(consumer))
        assert client.counts("jobs") == QueueCounts(2, 0, 0, 0), point
        assert [delivery.crashes for delivery in all_that_is_left(client)] == [0, 0]
        if not was_interrupted:
            return


@pytest.mark.parametrize("file", FILES)
def test_what_an_interrupted_settlement_settled_is_known(client: RedisClient, file: str) -> None:
    """No job is taken for done that runs again, and none is leased to nobody (SET-1)."""
    for point in itertools.count(1):
        with client.open_consumer("jobs", lease_s=LEASE_S) as consumer:
            publish(client, "1", "2")
            acks = [Ack(delivery.receipt) for delivery in consumer.receive(2, 0.0)]
            publish(client, "3")
            was_interrupted = interrupt_at(point, file, lambda: consumer.settle(acks, take=1))  # noqa: B023
            consumer.settle(acks)
        assert client.counts("jobs") == QueueCounts(1, 0, 0, 0), point
        assert [(left.id, left.crashes) for left in all_that_is_left(client)] == [("3", 0)]
        if not was_interrupted:
            return
