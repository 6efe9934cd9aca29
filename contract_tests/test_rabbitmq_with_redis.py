"""What RabbitMQ borrows, on a real Redis: results, records, places and rates."""

import secrets
from contextlib import suppress
from typing import ClassVar

import pytest
from redis import ResponseError

from brokers import rabbitmq_server, redis_server
from mindtrace.jobs import OrchestratorBackend, RabbitMQClient
from mindtrace.jobs.contract import BORROWED, contract_suite

from .harnesses import NEVER_S
from .test_rabbitmq import LIMIT_S, RabbitMQHarness

pytestmark = pytest.mark.timeout(1800)


class RabbitMQWithRedisHarness(RabbitMQHarness):
    """All clients' stores share a namespace: it's the client that keeps its own apart from others'."""

    redis: ClassVar[redis_server.Address]

    def __init__(self) -> None:
        super().__init__()
        self.admin = self.redis.admin()
        self.namespace = f"test-{secrets.token_hex(4)}"
        self.names: dict[OrchestratorBackend, set[str]] = {}
        """What the connections of each client's stores are called."""

    def client(self, namespace: str, *, sweep_s: float = 0.5) -> RabbitMQClient:
        store = self.redis.coordination(self.namespace, retry_timeout_s=LIMIT_S)
        results = self.redis.results(self.namespace, sweep_s=sweep_s, retry_timeout_s=LIMIT_S)
        client = self.address.client(namespace, store=store, results=results, retry_timeout_s=LIMIT_S)
        client._stores.owns_coordination = True  # as by URL
        self.names[client] = {store._client_name, results._client_name}
        return client

    def make_without_polling(self, namespace: str) -> OrchestratorBackend:
        client = self.recorded(self.client(namespace, sweep_s=NEVER_S), namespace)
        client._look_s = NEVER_S
        return client

    def sever(self, backend: OrchestratorBackend) -> None:
        super().sever(backend)
        for client in self.admin.client_list():
            if client["name"] in self.names[backend]:
                with suppress(ResponseError):  # it is gone already
                    self.admin.client_kill_filter(_id=client["id"])

    def close(self) -> None:
        super().close()
        if keys := list(self.admin.scan_iter(f"mtj:{{{self.namespace}/*", count=1000)):
            self.admin.unlink(*keys)
        self.admin.close()


@pytest.fixture(scope="module", autouse=True)
def find_servers(rabbitmq_address: rabbitmq_server.Address, redis_address: redis_server.Address) -> None:
    RabbitMQWithRedisHarness.address = rabbitmq_address
    RabbitMQWithRedisHarness.redis = redis_address


globals().update(contract_suite(RabbitMQWithRedisHarness, needs=BORROWED))
