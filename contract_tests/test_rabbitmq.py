"""The contract, on a real RabbitMQ."""

import re
import secrets
import shlex
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import pytest
from pika.exceptions import ChannelClosedByBroker
from redis import ResponseError

from brokers import redis_server
from brokers.fixtures import StartRabbitMQ
from brokers.rabbitmq_server import Address
from mindtrace.jobs import ConsumerBackend, OrchestratorBackend, RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.consumer.channel import Arrival, ConsumerChannel
from mindtrace.jobs.adapters.rabbitmq.transport.connection import Connection
from mindtrace.jobs.adapters.rabbitmq.transport.errors import ConnectionBroken
from mindtrace.jobs.adapters.rabbitmq.transport.publishing import Outgoing, SendState
from mindtrace.jobs.contract import Harness, contract_suite, run_contract
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import AccessDenied, QueueNotFound
from mindtrace.jobs.ports import Message

# The state machine waits for real delays and real brokers: a minute and a half on a machine that is idle.
pytestmark = pytest.mark.timeout(1800)

LIMIT_S = 30.0
"""How long a broker may take to answer: on a busy machine longer than a client waits by default."""


class RabbitMQHarness(Harness):
    secrets = None  # the tests' broker has the password of every new one; least privilege below proves SEC-3
    address: ClassVar[Address]

    def __init__(self) -> None:
        self.queues: dict[str, set[str]] = {}
        """The names of those that were declared, by namespace."""

    def client(self, namespace: str) -> RabbitMQClient:
        return self.address.client(namespace, retry_timeout_s=LIMIT_S)

    def make(self, namespace: str) -> OrchestratorBackend:
        client = self.client(namespace)
        declare, declared = client.declare, self.queues.setdefault(namespace, set())

        def recorded(queue: Queue) -> None:
            declared.add(queue.name)
            declare(queue)

        client.declare = recorded
        return client

    def crash(self, consumer: ConsumerBackend) -> None:
        _cut(consumer._channel)

    def sever(self, backend: OrchestratorBackend) -> None:
        parts = backend._parts
        if parts is None:
            return
        for connection in (parts.admin._connection, parts.publisher._connection):
            _cut(connection)
        for consumer in list(backend._consumers):
            _cut(consumer._channel)

    def cut_reply(self, backend: OrchestratorBackend) -> bool:
        LostReply(backend)
        return True

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


class LostReply:
    """Lets the broker do, and confirm, the next change that a client asks for, and then cuts the connection.

    The confirm is forgotten: what was published is unknown, and a request fails as over a broken network.
    """

    def __init__(self, backend: RabbitMQClient) -> None:
        parts = backend._open()
        self._hooks: list[tuple[object, str]] = []
        """What has to be taken off; once that is done, a call that is under way isn't disturbed either."""
        self._hook(parts.publisher._connection, "send", self._losing_confirms)
        self._hook(parts.admin._connection, "request", self._losing_the_reply)
        self._hook(parts.dead_letters, "_reading", self._losing_drops)
        for consumer in list(backend._consumers):
            self._hook(consumer._channel, "settle", self._losing_settlements)

    def _hook(self, owner: Any, name: str, losing: Callable[[Any, Callable[..., Any]], object]) -> None:
        setattr(owner, name, losing(owner, getattr(owner, name)))
        self._hooks.append((owner, name))

    def _cut(self, connection: Connection) -> bool:
        """Cut the connection, the first time."""
        is_first = bool(self._hooks)
        while self._hooks:
            delattr(*self._hooks.pop())
        if is_first:
            _cut(connection)
        return is_first

    def _losing_confirms(self, connection: Connection, send: Callable[..., None]) -> Callable[..., None]:
        def send_and_lose(messages: Sequence[Outgoing], timeout_s: float) -> None:
            send(messages, timeout_s)
            if self._cut(connection):
                for message in messages:
                    if message.state is SendState.CONFIRMED:
                        message.state = SendState.UNKNOWN

        return send_and_lose

    def _losing_the_reply(self, connection: Connection, request: Callable[..., Any]) -> Callable[..., Any]:
        def request_and_lose(action: Any, timeout_s: float) -> Any:
            answer = request(action, timeout_s)
            if getattr(action, "func", action).__qualname__ in CHANGES and self._cut(connection):
                raise reply_lost()
            return answer

        return request_and_lose

    def _losing_settlements(self, channel: ConsumerChannel, settle: Callable[..., bool]) -> object:
        def settle_and_lose(
            acks: Sequence[Arrival], returns: Sequence[Arrival], *rest: Any, **more: Any
        ) -> bool:
            answer = settle(acks, returns, *rest, **more)
            if acks or returns:
                channel.request(channel.count, LIMIT_S)  # the broker has done all that it was told before
                if self._cut(channel):
                    raise reply_lost()
            return answer

        return settle_and_lose

    def _losing_drops(self, _: object, reading: Callable[..., AbstractContextManager[Any]]) -> object:
        @contextmanager
        def reading_and_losing(*words: Any, **more: Any) -> Iterator[Any]:
            with reading(*words, **more) as found:
                drop = found.drop

                def drop_and_lose(messages: Sequence[object]) -> None:
                    drop(messages)
                    if self._cut(found._connection):
                        raise reply_lost()

                found.drop = drop_and_lose
                yield found

        return reading_and_losing


def reply_lost() -> ConnectionBroken:
    return ConnectionBroken(ConnectionResetError("the reply was lost"))


CHANGES = {
    "_purge",
    "_delete_level",
    "_make_levels",
    "Admin.declare.<locals>.act",
    "Admin.delete.<locals>.act",
}
"""What the administration of a queue asks for that changes it."""


def _cut(connection: Connection) -> None:
    """Break a connection as a network does: neither end is told more than that."""
    if (driver := connection._driver) is not None:
        driver.drop()


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


# -- with a store in Redis ------------------------------------------------------------------------


class RabbitMQWithRedisStoreHarness(RabbitMQHarness):
    """All clients' stores share a namespace: it's the client that keeps its records apart from others'."""

    redis: ClassVar[redis_server.Address]

    def __init__(self) -> None:
        super().__init__()
        self.admin = self.redis.admin()
        self.namespace = f"test-{secrets.token_hex(4)}"
        self.names: dict[OrchestratorBackend, str] = {}
        """What the connections of each client's store are called."""

    def client(self, namespace: str) -> RabbitMQClient:
        store = self.redis.coordination(self.namespace, retry_timeout_s=LIMIT_S)
        client = self.address.client(namespace, store=store, retry_timeout_s=LIMIT_S)
        client._stores.owns_coordination = True  # as by URL
        self.names[client] = store._client_name
        return client

    def sever(self, backend: OrchestratorBackend) -> None:
        super().sever(backend)
        for client in self.admin.client_list():
            if client["name"] == self.names[backend]:
                with suppress(ResponseError):  # it is gone already
                    self.admin.client_kill_filter(_id=client["id"])


@pytest.mark.long
def test_records_are_kept_in_redis(redis_address: redis_server.Address) -> None:
    """What RabbitMQ hasn't, it borrows; jobs that are published with a record are published under a claim."""
    RabbitMQWithRedisStoreHarness.redis = redis_address
    harness = RabbitMQWithRedisStoreHarness()
    clauses = {"CRD-1", "CRD-2", "CRD-3", "CRD-4", "CRD-5", "CRD-6", "CON-2"}
    try:
        with closing(harness):
            results = list(run_contract(harness, profile="quick", clauses=clauses))
    finally:
        keys = list(harness.admin.scan_iter(f"mtj:{{{harness.namespace}/*", count=1000))
        if keys:
            harness.admin.delete(*keys)
        harness.admin.close()
    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []
    proved = {clause for result in results if not result.refusal for clause in result.clauses}
    assert clauses <= proved


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
