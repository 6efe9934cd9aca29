"""The contract, on a real RabbitMQ."""

import socket
from contextlib import suppress
from typing import ClassVar

import pytest

from brokers.rabbitmq_server import Address
from mindtrace.jobs import ConsumerBackend, OrchestratorBackend, RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.wire import Line
from mindtrace.jobs.contract import Harness, contract_suite
from mindtrace.jobs.domain.errors import QueueNotFound


# The state machine waits for real delays and real brokers: a minute and a half on a machine that is idle.
pytestmark = pytest.mark.timeout(300)


class RabbitMQHarness(Harness):
    address: ClassVar[Address]

    def __init__(self) -> None:
        self.clients: dict[str, list[RabbitMQClient]] = {}

    def make(self, namespace: str) -> OrchestratorBackend:
        client = self.address.client(namespace)
        self.clients.setdefault(namespace, []).append(client)
        return client

    def crash(self, consumer: ConsumerBackend) -> None:
        _cut(consumer._intake)

    def sever(self, backend: OrchestratorBackend) -> None:
        lines = backend._lines
        if lines is None:
            return
        for line in (lines.admin._line, lines.outbox._publisher):
            _cut(line)
        for consumer in list(backend._consumers):
            _cut(consumer._intake)

    def destroy(self, namespace: str) -> None:
        queues = {queue for client in self.clients.pop(namespace, []) for queue in client._kinds}
        with self.address.client(namespace) as client:
            for queue in queues:
                with suppress(QueueNotFound):
                    client.delete(queue)

    def redelivery_s(self, lease_s: float) -> float:
        return 0.1


def _cut(line: Line) -> None:
    """Break a connection as a network does: neither end is told more than that."""
    with suppress(AttributeError, OSError):  # there is none
        line._connection._transport._sock.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module", autouse=True)
def find_rabbitmq(rabbitmq_address: Address) -> None:
    RabbitMQHarness.address = rabbitmq_address


globals().update(contract_suite(RabbitMQHarness))
