"""A PostgreSQL with a standby: one that stalls, one that takes over, and servers that take no writes."""

from collections.abc import Callable
from pathlib import Path

import pytest

from background import Background
from brokers.fixtures import StartPostgreSQL
from brokers.postgresql_pair import PostgreSQLPair
from brokers.postgresql_server import PrivatePostgreSQL
from conditions import LIMIT_S, eventually
from job_audit import ExecutionRecord, Fault, JobAudit
from mindtrace.jobs import (
    Finding,
    Orchestrator,
    PublishStatus,
    QueueCounts,
    Verdict,
    job_from_schema,
)
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Ack, Message, SettleOutcome

from .postgresql_tries import connected, three_tries
from .recording_worker import SCHEMA, Numbered
from .worker_process import WorkerProcess

EMPTY = QueueCounts(0, 0, 0, 0)


def connections(server: PrivatePostgreSQL) -> int:
    """How many connections of ours a server has."""
    with server.connect() as admin:
        found = admin.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'mindtrace-jobs'"
        )
        return int(found.fetchall()[0][0])


def configure(server: PrivatePostgreSQL, name: str, value: str) -> None:
    """Change a setting of a running server."""
    with server.connect() as admin:
        before = admin.execute("SELECT current_setting(%s)", [name]).fetchall()
        admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")
        admin.execute("SELECT pg_reload_conf()")

    def is_changed() -> bool:
        with server.connect() as admin:
            return admin.execute("SELECT current_setting(%s)", [name]).fetchall() != before

    eventually(is_changed, f"{name} is {value}")


# -- a standby that stalls ------------------------------------------------------------------------


def test_a_standby_that_stalls_leaves_requests_open_within_the_retry_timeout_and_loses_none(
    postgresql_pair: PostgreSQLPair,
) -> None:
    """What was sent is UNKNOWN, and turns out to be there when the standby goes on (PUB-4, PUB-5, SET-1)."""
    with postgresql_pair.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("a", b"{}"), Message("b", b"{}")])
        consumer = client.open_consumer("jobs", lease_s=600.0)
        (held,) = consumer.receive(1, LIMIT_S)

        postgresql_pair.standby.pause()
        with connected(client, retry_timeout_s=1.0):
            (sent,) = client.publish("jobs", [Message("c", b"{}")])
        with connected(client, retry_timeout_s=1.0):
            (again,) = client.publish("jobs", [Message("c", b"{}")])
        with (
            connected(client, retry_timeout_s=1.0),
            pytest.raises(BackendUnavailable, match="standby"),
        ):
            consumer.settle([Ack(held.receipt)])
        postgresql_pair.standby.resume()

        assert (sent.status, again.status) == (PublishStatus.UNKNOWN, PublishStatus.UNKNOWN)
        assert isinstance(sent.error, BackendUnavailable)
        (settled,) = consumer.settle([Ack(held.receipt)]).outcomes
        assert settled in (SettleOutcome.OK, SettleOutcome.ALREADY)
        (found,) = client.publish("jobs", [Message("c", b"{}")])
        assert found.status is PublishStatus.DUPLICATE
        deliveries = consumer.receive(10, LIMIT_S)
        assert [(each.id, each.crashes) for each in deliveries] == [("b", 0), ("c", 0)]
        consumer.settle([Ack(each.receipt) for each in deliveries])
        assert client.counts("jobs") == EMPTY


def test_requests_that_were_given_up_leave_no_more_than_one_connection_open(
    postgresql_pair: PostgreSQLPair,
) -> None:
    """Else those who try again while a standby stalls would take all connections of the server."""
    with postgresql_pair.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("a", b"{}")])
        consumer = client.open_consumer("jobs", lease_s=600.0)
        (held,) = consumer.receive(1, LIMIT_S)

        postgresql_pair.standby.pause()
        client._session.retry_timeout_s = 0.2
        for _ in range(10):
            with pytest.raises(BackendUnavailable):
                consumer.settle([Ack(held.receipt)])
        eventually(lambda: connections(postgresql_pair.primary) <= 1, "only the first waits for the standby")
        postgresql_pair.standby.resume()
        client._session.retry_timeout_s = LIMIT_S

        (settled,) = consumer.settle([Ack(held.receipt)]).outcomes
        assert settled in (SettleOutcome.OK, SettleOutcome.ALREADY)
        assert client.counts("jobs") == EMPTY


# -- a standby that takes over --------------------------------------------------------------------


def test_a_standby_that_takes_over_has_every_job_and_workers_and_publishers_follow(
    postgresql_pair: PostgreSQLPair, tmp_path: Path
) -> None:
    started, finished, received = (ExecutionRecord(tmp_path / name) for name in ("s", "f", "r"))
    audit = JobAudit()
    with postgresql_pair.client(retry_timeout_s=LIMIT_S) as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(SCHEMA)

        def publish(count: int) -> None:
            left = [job_from_schema(SCHEMA, Numbered(number=number)) for number in range(count)]
            audit.confirmed |= {job.id for job in left}
            while left:
                outcomes = [handle.outcome for handle in orchestrator.publish_batch(SCHEMA.name, left)]
                unknown = {o.id for o in outcomes if o.status is PublishStatus.UNKNOWN}
                left = [job for job in left if job.id in unknown]

        publish(200)
        files = {"finished": finished.path, "received": received.path}
        worker = WorkerProcess(postgresql_pair.url(), started, prefetch=5, lease_s=6.0, job_s=0.01, **files)
        try:
            eventually(lambda: len(finished) >= 20, "the worker works")
            before = len(received)
            postgresql_pair.primary.kill()
            postgresql_pair.standby.promote()
            publish(50)
            audit.faults.append(Fault(frozenset([worker.pid]), before, len(received), in_flight=5))
            eventually(lambda: client.counts(SCHEMA.name) == EMPTY, "all is done")
            worker.end()
        finally:
            worker.kill()
        totals = audit.check(client, SCHEMA.name, started, finished, received)
    assert (totals.done, totals.lost) == (250, 0)


def test_who_listens_moves_to_the_new_primary_though_the_old_one_lives(
    postgresql_pair: PostgreSQLPair,
) -> None:
    """At the old one it would hear of no job, and idle workers learn of each only when they look (RCV-2)."""

    def listeners(server: PrivatePostgreSQL) -> int:
        with server.connect() as admin:
            found = admin.execute("SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'LISTEN %'")
            return int(found.fetchall()[0][0])

    with postgresql_pair.client(retry_timeout_s=LIMIT_S) as client, Background() as background:
        client.declare(Queue("jobs"))
        consumer = client.open_consumer("jobs", lease_s=600.0)
        received = background.submit(consumer.receive, 1, LIMIT_S)
        eventually(lambda: listeners(postgresql_pair.primary) == 1, "it listens")

        postgresql_pair.standby.promote()
        configure(postgresql_pair.primary, "default_transaction_read_only", "on")
        (outcome,) = client.publish("jobs", [Message("a", b"{}")])

        assert outcome.status is PublishStatus.ACCEPTED
        assert [each.id for each in received.result()] == ["a"]
        eventually(lambda: listeners(postgresql_pair.standby) == 1, "it listens at the new primary")
        eventually(lambda: listeners(postgresql_pair.primary) == 0, "it doesn't at the old one")


def test_the_doctor_tells_an_old_primary_that_was_not_stopped(postgresql_pair: PostgreSQLPair) -> None:
    """A program that starts may be confirmed jobs there, which nobody runs and which don't last."""

    def hosts() -> list[Finding]:
        with postgresql_pair.client(retry_timeout_s=LIMIT_S) as client:
            return [finding for finding in client.diagnose() if finding.subject == "hosts"]

    assert [finding.verdict for finding in hosts()] == [Verdict.GOOD]
    configure(postgresql_pair.primary, "synchronous_standby_names", "")
    postgresql_pair.standby.promote()
    (two,) = hosts()
    postgresql_pair.primary.kill()
    away, one = hosts()

    assert (two.verdict, "take jobs: what" in two.what) == (Verdict.WRONG, True)
    assert (away.verdict, "can't be looked at" in away.what) == (Verdict.DOUBTFUL, True)
    assert (one.verdict, str(postgresql_pair.standby.address.port) in one.what) == (Verdict.GOOD, True)


# -- servers that take no writes ------------------------------------------------------------------


def test_a_standby_says_so_and_names_the_remedy(postgresql_pair: PostgreSQLPair) -> None:
    with postgresql_pair.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("a", b"{}")])
    with postgresql_pair.standby.client(retry_timeout_s=LIMIT_S) as reader, three_tries():
        eventually(lambda: reader.queues(), "the standby has the tables")
        with pytest.raises(BackendUnavailable, match="target_session_attrs=read-write"):
            reader.publish("jobs", [Message("b", b"{}")])
        with pytest.raises(BackendUnavailable, match="target_session_attrs=read-write"):
            reader.open_consumer("jobs").receive(1, 0.0)


def test_a_server_that_was_made_read_only_says_so_and_goes_on_when_it_is_not(
    start_postgresql: StartPostgreSQL,
) -> None:
    server = start_postgresql(fsync="off")
    with server.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("a", b"{}")])
        consumer = client.open_consumer("jobs", lease_s=600.0)
        (held,) = consumer.receive(1, LIMIT_S)

        configure(server, "default_transaction_read_only", "on")
        calls: list[Callable[[], object]] = [
            lambda: client.publish("jobs", [Message("b", b"{}")]),
            lambda: consumer.settle([Ack(held.receipt)]),
            lambda: consumer.extend([held.receipt]),
        ]
        for call in calls:
            with three_tries(), pytest.raises(BackendUnavailable, match="default_transaction_read_only"):
                call()
        configure(server, "default_transaction_read_only", "off")

        assert consumer.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.OK]
        (outcome,) = client.publish("jobs", [Message("b", b"{}")])
        assert outcome.status is PublishStatus.ACCEPTED
        assert client.counts("jobs") == QueueCounts(1, 0, 0, 0)
