"""The contract, on a real RabbitMQ."""

import secrets
import socket
from contextlib import suppress
from typing import ClassVar

import pytest
from redis import ResponseError

from brokers import redis_server
from brokers.rabbitmq_server import Address
from mindtrace.jobs import ConsumerBackend, OrchestratorBackend, RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.wire import Line
from mindtrace.jobs.contract import Harness, contract_suite, run_contract
from mindtrace.jobs.domain.errors import QueueNotFound


class RabbitMQHarness(Harness):
    address: ClassVar[Address]

    def __init__(self) -> None:
        self.clients: dict[str, list[RabbitMQClient]] = {}

    def client(self, namespace: str) -> RabbitMQClient:
        return self.address.client(namespace)

    def make(self, namespace: str) -> OrchestratorBackend:
        client = self.client(namespace)
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
        with self.client(namespace) as client:
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


# -- with results in Redis ------------------------------------------------------------------------


class RabbitMQWithRedisResultsHarness(RabbitMQHarness):
    """All clients' stores share a namespace: it's the client that keeps its queues apart from others'."""

    redis: ClassVar[redis_server.Address]

    def __init__(self) -> None:
        super().__init__()
        self.admin = self.redis.admin()
        self.namespace = f"test-{secrets.token_hex(4)}"

    def client(self, namespace: str) -> RabbitMQClient:
        store = self.redis.results(self.namespace, sweep_s=0.5, patience_s=5.0)
        return self.address.client(namespace, results=store)

    def sever(self, backend: OrchestratorBackend) -> None:
        super().sever(backend)
        for client in self.admin.client_list():
            if client["name"] == backend._results._client_name:
                with suppress(ResponseError):  # it is gone already
                    self.admin.client_kill_filter(_id=client["id"])


def test_results_are_kept_in_redis(redis_address: redis_server.Address) -> None:
    """What RabbitMQ can't keep, a store beside it does, and a deleted queue leaves no key there."""
    RabbitMQWithRedisResultsHarness.redis = redis_address
    harness = RabbitMQWithRedisResultsHarness()
    clauses = {"RES-1", "RES-2", "ADM-3", "DLQ-2", "CON-2", "SEC-3"}
    results = list(run_contract(harness, profile="quick", clauses=clauses))
    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []
    proved = {clause for result in results if not result.refusal for clause in result.clauses}
    assert clauses <= proved
    assert list(harness.admin.scan_iter(f"mtj:{{{harness.namespace}/*", count=1000)) == []
    harness.admin.close()
