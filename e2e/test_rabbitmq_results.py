"""RabbitMQ with results in Redis: two servers, of which either may be away."""

import logging
import secrets
from collections.abc import Iterator
from urllib.parse import quote

import pytest

from brokers.fixtures import StartRedis
from brokers.rabbitmq_server import Address
from brokers.redis_server import PrivateRedis
from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    RabbitMQClient,
    RedisResultStore,
    Reject,
)
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendUnavailable, JobFailed, QueueNotFound, ResultNotReady
from mindtrace.jobs.ports import Ack, JobResult, Message, ResultStatus, SettleOutcome

STORE_PATIENCE_S = 2.0
"""How long a store that is away holds up each call."""


class Number(JobInput):
    number: int


class Square(JobOutput):
    square: int


class Squares(Consumer):
    def run(self, job: Job[Number]) -> Square:
        if job.payload.number < 0:
            raise Reject("negative")
        return Square(square=job.payload.number**2)


@pytest.fixture
def schema() -> JobSchema[Number, Square]:
    return JobSchema(f"squares-{secrets.token_hex(4)}", Number, Square)


@pytest.fixture
def clean(rabbitmq_address: Address, schema: JobSchema[Number, Square]) -> Iterator[Address]:
    """The RabbitMQ that all share, without the queue afterwards."""
    yield rabbitmq_address
    with rabbitmq_address.client() as client:
        client.delete(schema.name)


def store_in(redis: PrivateRedis) -> RedisResultStore:
    """A store that soon gives up a server that is away, and waits long for one that is there."""
    store = redis.address.results(retry_timeout_s=LIMIT_S)
    store._redis.retry_timeout_s = STORE_PATIENCE_S
    return store


def consume(orchestrator: Orchestrator, queue: str, count: int) -> None:
    consumer = Squares(queue)
    consumer.connect(orchestrator)
    consumer.consume(count)
    consumer.consumer_backend.close()


def test_a_store_that_is_away_costs_a_warning_and_never_a_job(
    clean: Address,
    private_redis: StartRedis,
    schema: JobSchema[Number, Square],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Publishing and consuming go on; what would be answered wrongly is refused; then all is as before."""
    redis = private_redis()
    queue = schema.name
    store = store_in(redis)
    with clean.client(results=store, retry_timeout_s=LIMIT_S) as backend:
        orchestrator = Orchestrator(backend)
        orchestrator.register(schema)
        before, dead = (orchestrator.publish(queue, Number(number=number)) for number in (3, -1))
        consume(orchestrator, queue, 2)
        assert orchestrator.result(queue, before) == Square(square=9)
        with pytest.raises(JobFailed, match="negative"):
            orchestrator.result(queue, dead)

        redis.stop()
        during = [orchestrator.publish(queue, Number(number=number)) for number in (4, -2)]
        consume(orchestrator, queue, 2)
        counts = orchestrator.counts(queue)
        assert (counts.ready, counts.dead) == (0, 2)
        told = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
        assert sum("Redis at" in line and "is out of reach" in line for line in told) == 1, told
        assert sum("the result store is away" in line for line in told) == 1, told
        with pytest.raises(BackendUnavailable, match="no Redis answers"):
            orchestrator.result(queue, during[0], timeout_s=10.0)
        with pytest.raises(BackendUnavailable, match="no Redis answers"):
            orchestrator.redrive(queue)
        # The broker puts back what the redrive had in hand once its connection has closed.
        eventually(lambda: orchestrator.counts(queue).dead == 2, "the dead letters are back")

        redis.start()
        with pytest.raises(ResultNotReady):
            orchestrator.result(queue, during[0])
        after = orchestrator.publish(queue, Number(number=5))
        consume(orchestrator, queue, 1)
        assert orchestrator.result(queue, after, timeout_s=LIMIT_S) == Square(square=25)
        assert orchestrator.redrive(queue) == 2


def test_a_queue_whose_results_could_not_be_forgotten_is_deleted_once_more(
    rabbitmq_address: Address, private_redis: StartRedis, schema: JobSchema[Number, Square]
) -> None:
    """A deletion that the store missed raises, and doing it again completes it (ADM-3)."""
    redis = private_redis(appendonly="yes", appendfsync="always")
    queue = schema.name
    store = store_in(redis)
    with rabbitmq_address.client(results=store, retry_timeout_s=LIMIT_S) as backend:
        backend.declare(Queue(queue))
        backend.publish(queue, [Message("job", b"{}")])
        with backend.open_consumer(queue) as consumer:
            (held,) = consumer.receive(1, LIMIT_S)
            assert consumer.settle([Ack(held.receipt, b"{}")]).outcomes == [SettleOutcome.OK]
        assert backend.result(queue, "job") == JobResult(ResultStatus.DONE, b"{}")

        redis.stop()
        with pytest.raises(BackendUnavailable, match="no Redis answers"):
            backend.delete(queue)
        redis.start()
        with pytest.raises(QueueNotFound):
            backend.delete(queue)
        with redis.admin() as admin:
            assert list(admin.scan_iter("mtj:*")) == []


def test_namespaces_of_one_store_never_meet(
    clean: Address, private_redis: StartRedis, schema: JobSchema[Number, Square]
) -> None:
    """Clients of two namespaces may keep their results in one place, and neither sees the other's (CON-2)."""
    redis = private_redis()
    queue = schema.name

    def client(namespace: str) -> RabbitMQClient:
        return clean.client(namespace, results=redis.address.results(), retry_timeout_s=LIMIT_S)

    with client("default") as one, client("other") as two:
        for backend in (one, two):
            backend.declare(Queue(queue))
        one.publish(queue, [Message("job", b"{}")])
        with one.open_consumer(queue) as consumer:
            (held,) = consumer.receive(1, LIMIT_S)
            consumer.settle([Ack(held.receipt, b"{}")])
        assert two.result(queue, "job") is None
        two.publish(queue, [Message("job", b"{}")])
        assert one.result(queue, "job") == JobResult(ResultStatus.DONE, b"{}")
        two.delete(queue)
        assert one.result(queue, "job") == JobResult(ResultStatus.DONE, b"{}")


def test_a_url_pairs_them(
    clean: Address, private_redis: StartRedis, schema: JobSchema[Number, Square]
) -> None:
    """As a command line gives it, with a password that has to be encoded."""
    redis = private_redis(requirepass="p@ss/word&more")
    url = f"{clean.url}?prefetch=5&results={quote(f'{redis.url}?namespace=results', safe='')}"
    with Orchestrator(url) as orchestrator:
        orchestrator.register(schema)
        job_id = orchestrator.publish(schema.name, Number(number=7))
        consume(orchestrator, schema.name, 1)
        assert orchestrator.result(schema.name, job_id) == Square(square=49)
    with redis.admin() as admin:
        keys = list(admin.scan_iter("mtj:*"))
    assert {key.partition(b"}")[0] for key in keys} == {f"mtj:{{results/default/{schema.name}".encode()}
