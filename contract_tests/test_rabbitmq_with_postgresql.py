"""What RabbitMQ borrows, on a real PostgreSQL: results, records, places and rates."""

import secrets
from math import inf
from typing import Any, ClassVar

import pytest

from brokers import postgresql_server, rabbitmq_server
from mindtrace.jobs import (
    OrchestratorBackend,
    PostgreSQLCoordinationStore,
    PostgreSQLResultStore,
    RabbitMQClient,
)
from mindtrace.jobs.contract import BORROWED, contract_suite
from mindtrace.jobs.ports import EndedJobs

from .harnesses import NEVER_S
from .test_rabbitmq import LIMIT_S, RabbitMQHarness

pytestmark = pytest.mark.timeout(1800)


class RabbitMQWithPostgreSQLHarness(RabbitMQHarness):
    """All clients' stores share a schema: it's the client that keeps what is its own apart from others'."""

    postgresql: ClassVar[postgresql_server.Address]

    def __init__(self) -> None:
        super().__init__()
        self.admin = self.postgresql.connect()
        self.schema = f"test-{secrets.token_hex(8)}"

    def client(self, namespace: str) -> RabbitMQClient:
        settings = self.settings(f"{self.schema}/{namespace}")
        store, results = PostgreSQLCoordinationStore(**settings), PostgreSQLResultStore(**settings)
        client = self.address.client(namespace, store=store, results=results, retry_timeout_s=LIMIT_S)
        client._stores.owns_coordination = True  # as by URL
        return client

    def settings(self, name: str) -> dict[str, Any]:
        """Of a store whose connections have this name."""
        server = self.postgresql
        return {
            "host": server.host,
            "port": server.port,
            "database": server.database,
            "username": server.user,
            "password": server.password,
            "namespace": self.schema,
            "retry_timeout_s": LIMIT_S,
            "libpq": dict(server.parameters) | {"application_name": name[:63]},
        }

    def make_without_polling(self, namespace: str) -> OrchestratorBackend:
        client = self.recorded(self.client(namespace), namespace)
        client._look_s = NEVER_S
        results = client._results._store
        ended_jobs, announce = results.ended_jobs, results.announce

        def announce_for_ever(queue: str) -> int:
            key: int = announce(queue)
            awaited = f"UPDATE \"{self.schema}\".queue SET callers_wait_until = 'infinity' WHERE key = %s"
            self.admin.execute(awaited, [key])
            return key

        def patient_ended_jobs(queue: str) -> EndedJobs:
            ended = ended_jobs(queue)
            ended._looks, ended._next_poll = [], inf
            return ended

        results.ended_jobs, results.announce, results._poll_s = patient_ended_jobs, announce_for_ever, inf
        return client

    def sever(self, backend: OrchestratorBackend) -> None:
        super().sever(backend)
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        self.admin.execute(kill, [f"{self.schema}/{backend._namespace}"[:63]])

    def close(self) -> None:
        super().close()
        self.admin.execute(f'DROP SCHEMA IF EXISTS "{self.schema}" CASCADE')
        self.admin.close()


@pytest.fixture(scope="module", autouse=True)
def find_servers(
    rabbitmq_address: rabbitmq_server.Address, postgresql_address: postgresql_server.Address
) -> None:
    RabbitMQWithPostgreSQLHarness.address = rabbitmq_address
    RabbitMQWithPostgreSQLHarness.postgresql = postgresql_address


globals().update(contract_suite(RabbitMQWithPostgreSQLHarness, needs=BORROWED))
