"""The contract, on a real RabbitMQ."""

import re
import secrets
import shlex
import time
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import ClassVar

import pytest
from pika.exceptions import ChannelClosedByBroker
from redis import ResponseError

from brokers import redis_server
from brokers.fixtures import StartRabbitMQ
from brokers.proxy import Proxy
from brokers.rabbitmq_server import Address
from mindtrace.jobs import ConsumerBackend, OrchestratorBackend, RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.transport.errors import ConnectionBroken
from mindtrace.jobs.adapters.rabbitmq.transport.queue_requests import request_queue_state
from mindtrace.jobs.contract import Harness, contract_suite, run_contract
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import AccessDenied, QueueNotFound
from mindtrace.jobs.ports import Message

from .rabbitmq_disturbances import LIMIT_S, LostReply, LostRequest, cut, cut_off, full_queue

# The state machine waits for real delays and real brokers: a minute and a half on a machine that is idle.
pytestmark = pytest.mark.timeout(1800)


class RabbitMQHarness(Harness):
    secrets = None  # the tests' broker has the password of every new one; least privilege below proves SEC-3
    address: ClassVar[Address]

    def __init__(self) -> None:
        self.queues: dict[str, set[str]] = {}
        """The names of those that were declared, by namespace."""

    def client(self, namespace: str) -> RabbitMQClient:
        return self.address.client(namespace, retry_timeout_s=LIMIT_S)

    def make(self, namespace: str) -> OrchestratorBackend:
        return self.recorded(self.client(namespace), namespace)

    make_without_polling = make
    """Nobody polls: the broker pushes."""

    def recorded(self, client: RabbitMQClient, namespace: str) -> RabbitMQClient:
        """Have a client note the queues that it declares."""
        declare, declared = client.declare, self.queues.setdefault(namespace, set())

        def declare_and_note(queue: Queue) -> None:
            declared.add(queue.name)
            declare(queue)

        client.declare = declare_and_note
        return client

    def crash(self, consumer: ConsumerBackend) -> None:
        """Cut the consumer's connection, and wait until the broker has noticed: it does so late."""
        was_there = self.consumers(consumer) if consumer._channel.is_open else 0
        cut(consumer._channel)
        give_up = time.monotonic() + LIMIT_S
        while was_there and self.consumers(consumer) >= was_there and time.monotonic() < give_up:
            time.sleep(0.005)

    def consumers(self, consumer: ConsumerBackend) -> int:
        """How many consumers the broker sees beside this one, and this one; 0 if the queue is gone."""
        look = partial(request_queue_state, consumer._names.alive)
        try:
            return self.cleaner._open().admin._connection.request(look, LIMIT_S).consumers
        except ConnectionBroken:
            return 0

    def sever(self, backend: OrchestratorBackend) -> None:
        parts = backend._parts
        if parts is None:
            return
        for connection in (parts.admin._connection, parts.publisher._connection):
            cut(connection)
        for consumer in list(backend._consumers):
            cut(consumer._channel)

    def cut_reply(self, backend: OrchestratorBackend) -> bool:
        LostReply(backend)
        return True

    def cut_request(self, backend: OrchestratorBackend) -> bool:
        LostRequest(backend)
        return True

    def cut_off(self, backend: OrchestratorBackend) -> AbstractContextManager[None]:
        return cut_off(backend)

    def refuse(self, backend: OrchestratorBackend) -> AbstractContextManager[None]:
        return full_queue(self.address, backend)

    @cached_property
    def cleaner(self) -> RabbitMQClient:
        """Goes from one namespace to the next, as to connect takes as long as to delete a queue."""
        return self.client("cleaner")

    def destroy(self, namespace: str) -> None:
        self.cleaner._namespace = namespace
        for queue in self.queues.pop(namespace, set()):
            with suppress(QueueNotFound):
                self.cleaner.delete(queue)

    def close(self) -> None:
        self.cleaner.close()

    def redelivery_s(self, lease_s: float) -> float:
        return 0.1


@pytest.fixture(scope="module", autouse=True)
def find_rabbitmq(rabbitmq_address: Address) -> None:
    RabbitMQHarness.address = rabbitmq_address


globals().update(contract_suite(RabbitMQHarness))


# -- a broker that notices late that a connection ended ---------------------------------------------


@pytest.mark.long
def test_a_broker_that_notices_late_breaks_no_clause(rabbitmq_address: Address) -> None:
    """The network keeps the end of each connection to itself for a while, as one behind a firewall does."""
    with Proxy(rabbitmq_address.host, rabbitmq_address.port, late_s=0.3) as proxy:

        class LateHarness(RabbitMQHarness):
            address = replace(rabbitmq_address, host="127.0.0.1", port=proxy.port)

        with closing(LateHarness()) as harness:
            results = list(run_contract(harness, profile="quick", clauses={"CON-1", "LSE-1"}))
    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []


# -- with results in Redis ------------------------------------------------------------------------


class RabbitMQWithRedisResultsHarness(RabbitMQHarness):
    """All clients' stores share a namespace: it's the client that keeps its queues apart from others'."""

    redis: ClassVar[redis_server.Address]

    def __init__(self) -> None:
        super().__init__()
        self.admin = self.redis.admin()
        self.namespace = f"test-{secrets.token_hex(4)}"

    def client(self, namespace: str) -> RabbitMQClient:
        store = self.redis.results(self.namespace, sweep_s=0.5, retry_timeout_s=LIMIT_S)
        return self.address.client(namespace, results=store, retry_timeout_s=LIMIT_S)

    def sever(self, backend: OrchestratorBackend) -> None:
        super().sever(backend)
        for client in self.admin.client_list():
            if client["name"] == backend._results._store._client_name:
                with suppress(ResponseError):  # it is gone already
                    self.admin.client_kill_filter(_id=client["id"])


@pytest.mark.long
def test_results_are_kept_in_redis(redis_address: redis_server.Address) -> None:
    """What RabbitMQ can't keep, a store beside it does, and a deleted queue leaves no key there."""
    RabbitMQWithRedisResultsHarness.redis = redis_address
    harness = RabbitMQWithRedisResultsHarness()
    clauses = {"RES-1", "RES-2", "ADM-3", "DLQ-2", "CON-2", "SEC-3"}
    with closing(harness):
        results = list(run_contract(harness, profile="quick", clauses=clauses))
    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []
    proved = {clause for result in results if not result.refusal for clause in result.clauses}
    assert clauses <= proved
    assert list(harness.admin.scan_iter(f"mtj:{{{harness.namespace}/*", count=1000)) == []
    harness.admin.close()


# -- least privilege ------------------------------------------------------------------------------

GUIDE = Path(__file__).parents[1] / "docs" / "rabbitmq.md"
USER, PASSWORD = "mindtrace", "a-long-password"  # as in the guide
CLAUSES = {
    *("PUB-1", "PUB-3", "ORD-1", "LSE-1", "LSE-4", "SET-1", "SET-2", "SET-4", "DLY-2", "DLQ-1", "DLQ-2"),
    *("DLQ-3", "CNT-1", "ADM-1", "ADM-2", "ADM-3", "CON-1", "SEC-3"),
}
"""What takes every part of a queue through all that is done with it."""


@pytest.mark.long
def test_a_user_with_no_more_than_the_documented_permissions_is_enough(
    private_rabbitmq: StartRabbitMQ,
) -> None:
    _, _, section = GUIDE.read_text("utf-8").partition("\n## Privileges\n")
    lines = re.findall(r"^rabbitmqctl (.*)$", section, re.MULTILINE)
    add_user, permit = map(shlex.split, lines)
    server = private_rabbitmq()
    server.control(*add_user)
    server.control(*permit)

    class LeastPrivilegeHarness(RabbitMQHarness):
        address = replace(server.address, username=USER, password=PASSWORD)
        secrets = (PASSWORD,)

    with closing(LeastPrivilegeHarness()) as harness:
        results = list(run_contract(harness, profile="quick", clauses=CLAUSES))
    broken = [f"{result.check}: {result.error}" for result in results if result.broken]
    assert not broken

    # Without any one of them, not even the simplest use works: none is more than is needed.
    *words, configure, write, read = permit
    full = (configure, write, read)
    narrower = [("^$", write, read), (configure, "^mtj:", read), (configure, r"^amq\.default$", read)]
    for patterns in [*narrower, (configure, write, "^$")]:
        server.control(*words, *patterns)
        with (
            LeastPrivilegeHarness.address.client(f"t{secrets.token_hex(4)}") as client,
            pytest.raises(AccessDenied),
        ):
            _use_everything(client)
    server.control(*words, *full)
    with server.address.driver() as driver:
        driver.channel().queue_declare("somebody-elses")
    with LeastPrivilegeHarness.address.driver() as driver, pytest.raises(ChannelClosedByBroker):
        driver.channel().basic_get("somebody-elses")
    with LeastPrivilegeHarness.address.driver() as driver, pytest.raises(ChannelClosedByBroker):
        driver.channel().queue_delete("somebody-elses")


def _use_everything(client: RabbitMQClient) -> None:
    client.declare(Queue("jobs"))
    outcomes = client.publish("jobs", [Message("now", b"{}"), Message("later", b"{}", delay_s=0.1)])
    for outcome in outcomes:
        if outcome.error is not None:
            raise outcome.error
    with client.open_consumer("jobs") as consumer:
        consumer.receive(1, 1.0)
