"""RabbitMQ with a store that its URL names: records and results in Redis or PostgreSQL, which may be away."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import psycopg
import pytest

from brokers import postgresql_server
from brokers.fixtures import StartRedis
from brokers.rabbitmq_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    PublishOutcome,
    PublishStatus,
    Verdict,
)
from mindtrace.jobs.application.broker.guarded_publish import claim_of, publish_guarded
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendUnavailable, Closed
from mindtrace.jobs.ports import ABSENT, Guard, Message

GUARD = Guard("schedules/nightly", ABSENT, b"published")


class Number(JobInput):
    number: int


class Square(JobOutput):
    square: int


class Squares(Consumer):
    def run(self, job: Job[Number]) -> Square:
        return Square(square=job.payload.number**2)


@pytest.fixture
def schema() -> JobSchema[Number, Square]:
    return JobSchema(f"squares-{secrets.token_hex(4)}", Number, Square)


@pytest.fixture
def clean(rabbitmq_address: Address, schema: JobSchema[Number, Square]) -> Iterator[Address]:
    """The RabbitMQ that all share, without the queue afterwards."""
    yield rabbitmq_address
    with rabbitmq_address.client() as client:
        client.declare(Queue(schema.name))
        client.delete(schema.name)


def run_one(orchestrator: Orchestrator, schema: JobSchema[Number, Square]) -> None:
    """Publish a job, run it, and read its result."""
    job_id = orchestrator.publish(schema, Number(number=7))
    consumer = Squares(schema.name)
    consumer.connect(orchestrator)
    consumer.consume(1)
    consumer.consumer_backend.close()
    assert orchestrator.result(schema, job_id, timeout_s=LIMIT_S) == Square(square=7**2)


def publish_once(orchestrator: Orchestrator, queue: str) -> PublishOutcome | None:
    return publish_guarded(orchestrator.backend, queue, Message("guarded", b"{}"), GUARD)


def test_a_url_names_a_redis_for_records_and_results(
    clean: Address, private_redis: StartRedis, schema: JobSchema[Number, Square]
) -> None:
    """With a password that has to be encoded. Another process gets both by the client's own URL."""
    redis = private_redis(requirepass="p@ss/word&more")
    url = f"{clean.url}?prefetch=5&store={quote(f'{redis.url}?namespace=stores', safe='')}"
    with Orchestrator(url) as orchestrator:
        orchestrator.register(schema)
        run_one(orchestrator, schema)
        assert publish_once(orchestrator, schema.name) == PublishOutcome("guarded", PublishStatus.ACCEPTED)
        with Orchestrator(orchestrator.backend.make_url(with_passwords=True)) as other:
            assert publish_once(other, schema.name) is None
            records = other.backend.coordination.scan("")
            assert {key: record.value for key, record in records.items()} == {GUARD.key: GUARD.value}
        assert "p%40ss" not in orchestrator.backend.url
        store = orchestrator.backend.coordination
    with pytest.raises(Closed):
        store.now()
    with redis.admin() as admin:
        keys = list(admin.scan_iter("*"))
        assert {key.partition(b"stores/")[0] for key in keys} == {b"mtj:{"}
        eventually(lambda: len(admin.client_list()) == 1, "no connection is left")


def test_a_url_names_a_postgresql_for_records_and_results(
    clean: Address, postgresql_address: postgresql_server.Address, schema: JobSchema[Number, Square]
) -> None:
    """And brings the tables of both up to date, each migration once."""
    namespace = f"test-{uuid4().hex}"
    url = f"{clean.url}?store={quote(postgresql_address.url(namespace), safe='')}"
    try:
        with Orchestrator(url) as orchestrator:
            pending = orchestrator.backend.pending_migrations()
            assert pending
            assert [each.version for each in pending] == sorted({each.version for each in pending})
            assert orchestrator.backend.migrate() == tuple(pending)
            assert orchestrator.backend.pending_migrations() == []
            orchestrator.register(schema)
            run_one(orchestrator, schema)
            outcomes = [publish_once(orchestrator, schema.name) for _ in range(2)]
            assert outcomes == [PublishOutcome("guarded", PublishStatus.ACCEPTED), None]
            assert _subjects(orchestrator)["store"] is Verdict.GOOD
    finally:
        with psycopg.connect(postgresql_address.url(), autocommit=True) as admin:
            admin.execute(f'DROP SCHEMA IF EXISTS "{namespace}" CASCADE')


def test_results_may_be_elsewhere(
    clean: Address, private_redis: StartRedis, schema: JobSchema[Number, Square]
) -> None:
    """Where ``results`` says so."""
    records, results = private_redis(), private_redis()
    with Orchestrator(f"{clean.url}?store={records.url}&results={results.url}") as orchestrator:
        orchestrator.register(schema)
        run_one(orchestrator, schema)
        orchestrator.backend.coordination.put("k", b"v")
        assert "results=" in orchestrator.backend.url
    with records.admin() as there, results.admin() as elsewhere:
        kept = f"mtj:{{default/default/{schema.name}}}:kept".encode()
        assert kept not in list(there.scan_iter("*"))
        assert kept in list(elsewhere.scan_iter("*"))


@pytest.mark.long
def test_a_store_that_is_away_holds_up_no_job(
    clean: Address, private_redis: StartRedis, schema: JobSchema[Number, Square]
) -> None:
    """What needs the store raises, and the doctor says why; once it is back, all is as before."""
    redis = private_redis(appendonly="yes", appendfsync="always")
    queue = schema.name
    with (
        redis.address.coordination(retry_timeout_s=LIMIT_S) as store,
        clean.client(store=store, retry_timeout_s=LIMIT_S) as backend,
    ):
        store._redis.retry_timeout_s = 2.0  # of an outage; for an answer it waits for long
        orchestrator = Orchestrator(backend)
        orchestrator.register(schema)
        backend.coordination.put("k", b"v")

        redis.stop()
        with pytest.raises(BackendUnavailable, match="no Redis answers"):
            backend.coordination.get(["k"])
        with pytest.raises(BackendUnavailable, match="no Redis answers"):
            publish_once(orchestrator, queue)
        assert orchestrator.publish(schema, Number(number=7))
        consumer = Squares(queue)
        consumer.connect(orchestrator)
        consumer.consume(1)
        consumer.consumer_backend.close()
        assert _subjects(orchestrator)["store"] is Verdict.WRONG
        assert _subjects(orchestrator)["reachable"] is Verdict.GOOD

        redis.start()
        assert _subjects(orchestrator)["store"] is Verdict.GOOD
        assert backend.coordination.get(["k"])["k"].value == b"v"
        assert publish_once(orchestrator, queue) == PublishOutcome("guarded", PublishStatus.ACCEPTED)
        assert orchestrator.counts(queue).ready == 1


DIES_IN_BETWEEN = """
import os, sys
from mindtrace.jobs import Orchestrator
from mindtrace.jobs.application.broker.guarded_publish import publish_guarded
from mindtrace.jobs.ports import ABSENT, Guard, Message

url, queue, key = sys.argv[1:]
backend = Orchestrator(url).backend
put = backend.coordination.put
backend.coordination.put = lambda name, *how, **more: os._exit(9) if name == key else put(name, *how, **more)
publish_guarded(backend, queue, Message("guarded", b"{}"), Guard(key, ABSENT, b"published"))
"""


def test_a_job_whose_publisher_was_killed_before_the_record_is_published_again(
    clean: Address, private_redis: StartRedis, schema: JobSchema[Number, Square]
) -> None:
    """Once its claim has ended: at least one job, here two, and one record (CRD-4)."""
    url = f"{clean.url}?store={private_redis().url}"
    with Orchestrator(url) as orchestrator:
        orchestrator.register(schema)
        killed = subprocess.run(
            [sys.executable, "-c", DIES_IN_BETWEEN, url, schema.name, GUARD.key], timeout=LIMIT_S, check=False
        )
        assert killed.returncode == 9
        assert orchestrator.counts(schema).ready == 1
        store = orchestrator.backend.coordination
        assert store.scan("").keys() == {claim_of(GUARD.key)}
        assert publish_once(orchestrator, schema.name) is None

        store.delete(claim_of(GUARD.key))  # as its time does
        assert publish_once(orchestrator, schema.name) == PublishOutcome("guarded", PublishStatus.ACCEPTED)
        assert orchestrator.counts(schema).ready == 2
        assert store.scan("").keys() == {GUARD.key}


def _subjects(orchestrator: Orchestrator) -> dict[str, Any]:
    """What the doctor thinks of each thing that it looks at."""
    return {finding.subject: finding.verdict for finding in orchestrator.backend.diagnose()}
