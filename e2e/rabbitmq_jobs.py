"""Break the connections of a RabbitMQ client, and receive jobs: what several test modules do."""

import time
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from unittest import mock

from conditions import LIMIT_S
from mindtrace.jobs import ConsumerBackend, RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.transport import broker
from mindtrace.jobs.adapters.rabbitmq.transport.connection import Connection
from mindtrace.jobs.ports import Ack, Delivery, SettleOutcome

QUEUE = "squares"


def cut(connection: Connection) -> None:
    """Break a connection as a network does, and let it be noticed."""
    broken = connection._driver
    if broken is not None:
        broken.drop()
    give_up = time.monotonic() + LIMIT_S
    while broken is not None and connection._driver is broken:
        assert time.monotonic() < give_up, "it doesn't notice that it broke"
        connection.loop.poll()
        time.sleep(0.001)


@contextmanager
def giving_up_locks() -> Iterator[None]:
    """Have who waits for a lock give up after a few attempts, and let all else take its time.

    A client with a short retry timeout takes a healthy broker on a busy machine to be away.
    """
    waited_s = 0.0

    def monotonic() -> float:
        return time.monotonic() + waited_s

    def sleep(_seconds: float) -> None:
        nonlocal waited_s
        waited_s += LIMIT_S

    with mock.patch.object(broker, "monotonic", monotonic), mock.patch.object(broker, "sleep", sleep):
        yield


def receive(consumer: ConsumerBackend, count: int) -> list[Delivery]:
    """Receive so many jobs."""
    came: list[Delivery] = []
    while len(came) < count:
        some = consumer.receive(count - len(came), LIMIT_S)
        assert some, f"{len(came)} came, of {count}"
        came += some
    return came


def drained(client: RabbitMQClient, expected: Collection[str], queue: str = QUEUE) -> list[str]:
    """Run what is left, and return its ids: wait until each of ``expected`` came, and look for more."""
    ids: list[str] = []
    with client.open_consumer(queue) as consumer:
        while came := consumer.receive(10, 0.3 if set(expected) <= set(ids) else LIMIT_S):
            ids += [delivery.id for delivery in came]
            assert set(consumer.settle([Ack(one.receipt) for one in came]).outcomes) == {SettleOutcome.OK}
    assert set(expected) <= set(ids), f"{ids} came, and no more"
    return ids
