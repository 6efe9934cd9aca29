"""What the suite can't stage: a worker that is killed, a fork, and a database that is away for longer."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

import pytest
from mindtrace_jobs_table import TableClient
from mindtrace_jobs_table.database import CommitUnknown, Database

from mindtrace.jobs import Queue, QueueCounts
from mindtrace.jobs.errors import Closed
from mindtrace.jobs.ports import Ack, Message, PublishStatus, SettleOutcome

from .test_contract import lose_next_reply

WORKER = """
import sys, time
from mindtrace_jobs_table import TableClient

consumer = TableClient(sys.argv[1]).open_consumer("jobs", lease_s=2.0)
print("took", *[delivery.id for delivery in consumer.receive(5, 60.0)], flush=True)
time.sleep(60)
"""


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TableClient]:
    with TableClient(str(tmp_path / "jobs.db")) as client:
        client.declare(Queue("jobs"))
        yield client


@contextmanager
def outage_at_the_next_commit(database: Database) -> Generator[None]:
    """The commit is made, its reply is lost, and then the database can't be reached."""
    lose_next_reply(database)
    connect = database._connected

    def connected() -> sqlite3.Connection:
        if database.connection is None:
            raise sqlite3.OperationalError("away")
        return connect()

    with mock.patch.object(database, "_connected", connected):
        yield


def test_the_jobs_of_a_worker_that_was_killed_come_back(client: TableClient) -> None:
    client.publish("jobs", [Message("a", b"1"), Message("b", b"2")])
    with subprocess.Popen(
        [sys.executable, "-c", WORKER, client.database.path], stdout=subprocess.PIPE, text=True
    ) as doomed:
        assert doomed.stdout
        assert doomed.stdout.readline().split() == ["took", "a", "b"]
        doomed.kill()
        consumer = client.open_consumer("jobs")
        came = [consumer.receive(1, 60.0)[0] for _ in range(2)]

    assert [(delivery.id, delivery.crashes) for delivery in came] == [("a", 1), ("b", 1)]


def test_what_a_settlement_did_is_known_after_an_outage(client: TableClient) -> None:
    client.publish("jobs", [Message("a", b"1"), Message("b", b"2")])
    consumer = client.open_consumer("jobs")
    (held,) = consumer.receive(1, 60.0)
    with outage_at_the_next_commit(client.database), pytest.raises(CommitUnknown):
        consumer.settle([Ack(held.receipt)], take=1)

    again = consumer.settle([Ack(held.receipt)], take=1)

    assert again.outcomes == [SettleOutcome.ALREADY]
    assert [(delivery.id, delivery.crashes) for delivery in again.deliveries] == [("b", 0)]
    assert client.counts("jobs") == QueueCounts(ready=0, delayed=0, in_flight=1, dead=0)


def test_a_publish_into_an_outage_is_unknown_and_makes_one_job(client: TableClient) -> None:
    with outage_at_the_next_commit(client.database):
        (outcome,) = client.publish("jobs", [Message("a", b"1")])
    (again,) = client.publish("jobs", [Message("a", b"1")])

    assert (outcome.status, again.status) == (PublishStatus.UNKNOWN, PublishStatus.DUPLICATE)
    assert client.counts("jobs").ready == 1


def test_a_child_has_a_connection_of_its_own_and_none_of_its_parents_jobs(client: TableClient) -> None:
    client.publish("jobs", [Message("a", b"1")])
    consumer = client.open_consumer("jobs")
    (held,) = consumer.receive(1, 60.0)
    with client.database.lock:  # as another thread might hold it
        child = os.fork()
        if child == 0:
            status = 1
            try:
                client.publish("jobs", [Message("b", b"2")])
                consumer.close()
                try:
                    consumer.receive(1, 0.0)
                except Closed:
                    client.close()
                    status = 0
            finally:
                os._exit(status)
    assert os.waitpid(child, 0)[1] == 0

    assert consumer.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.OK]
    assert client.counts("jobs").ready == 1
