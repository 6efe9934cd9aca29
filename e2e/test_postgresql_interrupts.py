"""Ctrl-C at any line of a consumer's call: no job is left leased to nobody, and no other lease is ended."""

import itertools
from collections.abc import Callable, Iterator, Sequence

import pytest

from brokers.fixtures import StartPostgreSQL
from interrupts import interrupt_at
from mindtrace.jobs import ConsumerBackend, PostgreSQLClient, QueueCounts
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.ports import Ack, Delivery, Message, SettleOutcome

LEASE_S = 600.0
"""A lease that doesn't end while a test runs."""
FILES = ["postgresql/consumer.py", "postgresql/requests.py", "shared/receipts.py"]
Call = Callable[[ConsumerBackend, Sequence[Delivery]], object]


@pytest.fixture
def client(start_postgresql: StartPostgreSQL) -> Iterator[PostgreSQLClient]:
    with start_postgresql().client() as client:
        client.declare(Queue("jobs"))
        yield client


def publish(client: PostgreSQLClient, *ids: str) -> None:
    client.publish("jobs", [Message(id_, b"{}") for id_ in ids])


def end_all_that_is_left(client: PostgreSQLClient) -> list[tuple[str, int]]:
    """Take what is ready, and end it; return ids and crashes."""
    with client.open_consumer("jobs") as consumer:
        deliveries = consumer.receive(10, 0.0)
        consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
    return [(delivery.id, delivery.crashes) for delivery in deliveries]


CALLS: dict[str, Call] = {
    "receive": lambda consumer, _: consumer.receive(2, 0.0),
    "settle": lambda consumer, held: consumer.settle([Ack(held[0].receipt)], take=2),
    "extend": lambda consumer, held: consumer.extend([delivery.receipt for delivery in held]),
}


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_an_interrupt_at_any_point_costs_no_lease(client: PostgreSQLClient, file: str, call: Call) -> None:
    """What was taken is given back, and what is held goes on being held, under a lease of several (SET-4)."""
    for point in itertools.count(1):
        with client.open_consumer("jobs", lease_s=LEASE_S) as consumer:
            publish(client, "1", "2", "3")
            held = consumer.receive(3, 0.0)
            publish(client, "4", "5")
            was_interrupted = interrupt_at(point, file, lambda: call(consumer, held))  # noqa: B023
            consumer.settle([Ack(held[0].receipt)])
            for each in held[1:]:  # each request may have the server forget what is over
                assert consumer.extend([each.receipt]) == [SettleOutcome.OK], point
            assert consumer.settle([Ack(held[1].receipt)]).outcomes == [SettleOutcome.OK], point
            assert consumer.settle([Ack(held[2].receipt)]).outcomes == [SettleOutcome.OK], point
        assert client.counts("jobs") == QueueCounts(2, 0, 0, 0), point
        assert end_all_that_is_left(client) == [("4", 0), ("5", 0)]
        if not was_interrupted:
            return
