"""What PostgreSQL, its administrators and its other users can do to jobs, and how the account stands then.

What several backends can suffer alike is tried in ``faults/``; here is what is PostgreSQL's own.
"""

import logging
import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from background import Background
from brokers import watchdog
from brokers.fixtures import StartPostgreSQL
from brokers.postgresql_server import PrivatePostgreSQL
from conditions import LIMIT_S, eventually
from mindtrace.jobs import ConsumerBackend, PostgreSQLClient, PublishStatus, QueueCounts
from mindtrace.jobs.adapters.postgresql.errors import DiskFull, NoAnswer, ServerUnreachable
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendError, BackendUnavailable, QueueNotFound
from mindtrace.jobs.ports import Ack, Delivery, Message, SettleOutcome

from .faults.experiment import Experiment
from .faults.server_targets import PostgreSQLTarget
from .postgresql_tries import connected, three_tries

EMPTY = QueueCounts(0, 0, 0, 0)
TABLE = "mindtrace_jobs.job"
OURS = "application_name = 'mindtrace-jobs'"
SERVES = "database system is ready to accept connections"
"""What the server logs at its start, and when it has recovered."""

Connect = Callable[..., PostgreSQLClient]


@pytest.fixture
def server(start_postgresql: StartPostgreSQL) -> PrivatePostgreSQL:
    return start_postgresql(fsync="off")


@pytest.fixture
def client(server: PrivatePostgreSQL) -> Iterator[PostgreSQLClient]:
    """A client with a queue and two jobs; what is set for its user troubles nobody else."""
    with server.connect() as admin:
        admin.execute("CREATE ROLE worker SUPERUSER LOGIN")
    with server.client(username="worker", retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("a", b"{}"), Message("b", b"{}")])
        yield client


def receive(consumer: ConsumerBackend, count: int) -> list[Delivery]:
    deliveries = consumer.receive(count, LIMIT_S)
    assert len(deliveries) == count
    return deliveries


def settle(consumer: ConsumerBackend, *receipts: str) -> list[SettleOutcome]:
    return consumer.settle([Ack(receipt) for receipt in receipts]).outcomes


def ask(server: PrivatePostgreSQL, query: str, *parameters: object) -> list[tuple[Any, ...]]:
    with server.connect() as admin:
        return admin.execute(query, parameters).fetchall()


# -- administrators and the kernel ----------------------------------------------------------------


@pytest.fixture
def experiment(tmp_path: Path) -> Iterator[Experiment]:
    with ExitStack() as stack:
        target = PostgreSQLTarget(tmp_path)
        stack.callback(target.close)
        yield Experiment(target, tmp_path, stack)


def backends_of_ours(server: PrivatePostgreSQL) -> list[int]:
    """The processes of the server that serve our clients."""
    return [pid for (pid,) in ask(server, f"SELECT pid FROM pg_stat_activity WHERE {OURS}")]


def test_backends_that_an_administrator_ends_at_random_cost_nothing(experiment: Experiment) -> None:
    """Every request is found again by its token, so nothing runs twice (PUB-4, SET-1, CON-1)."""
    server = experiment.target.server
    experiment.publish(20)
    for _ in range(2):
        experiment.start_worker(prefetch=5, publish_when_empty=True)
    chance = random.Random(7)
    with experiment.producing():
        for _ in range(40):
            experiment.wait_until_run(5)
            ask(server, "SELECT pg_terminate_backend(%s)", chance.choice(backends_of_ours(server)))
    experiment.wait_until_drained()
    assert experiment.check().ran_again == 0


def test_a_backend_that_the_kernel_kills_takes_all_connections_along_and_no_job(
    experiment: Experiment,
) -> None:
    """The server recovers as after a crash; leases of the last moment may be lost (LSE-4)."""
    server = experiment.target.server
    experiment.publish(20)
    worker = experiment.start_worker(prefetch=5, lease_s=6.0)
    with experiment.producing():
        for _ in range(3):
            experiment.wait_until_run(50)
            with experiment.fault_on(worker, in_flight=5):
                recoveries = server.log().count(SERVES)
                os.kill(random.choice(backends_of_ours(server)), signal.SIGKILL)
                eventually(lambda: server.log().count(SERVES) > recoveries, "it recovers")  # noqa: B023
                experiment.wait_until_run(1)
    experiment.wait_until_drained()
    experiment.check()
    assert server.log().count("was terminated by signal 9") == 3


def set_for_worker(server: PrivatePostgreSQL, name: str, value: str) -> None:
    """Change a setting for the client's user, and end its connections, which have the old one."""
    with server.connect() as admin:
        admin.execute(f"ALTER ROLE worker SET {name} = '{value}'")
        admin.execute(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {OURS}")


def test_idle_killers_end_connections_and_nobody_is_alarmed(
    server: PrivatePostgreSQL, client: PostgreSQLClient, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing of ours is idle in a transaction; a connection that was idle for long is made anew (CON-1)."""
    consumer = client.open_consumer("jobs", lease_s=600.0)
    set_for_worker(server, "idle_in_transaction_session_timeout", "1ms")
    set_for_worker(server, "idle_session_timeout", "2s")
    with caplog.at_level(logging.INFO):
        for _ in range(2):
            (held,) = receive(consumer, 1)
            eventually(lambda: not backends_of_ours(server), "all connections are closed")
            assert settle(consumer, held.receipt) == [SettleOutcome.OK]
            eventually(lambda: not backends_of_ours(server), "all connections are closed")
    assert client.counts("jobs") == EMPTY
    assert [record.getMessage() for record in caplog.records] == []


def is_told_to_raise_it(client: PostgreSQLClient) -> bool:
    """Whether a publish that is cancelled each time says how to help; cut short at its last try, it can't."""
    try:
        (outcome,) = client.publish("jobs", [Message("c", b"{}")])
    except BackendUnavailable as error:
        return "raise statement_timeout" in str(error)
    assert outcome.status is PublishStatus.UNKNOWN
    return False


def test_a_statement_timeout_that_is_too_short_is_told_with_the_remedy(
    server: PrivatePostgreSQL, client: PostgreSQLClient
) -> None:
    """What was cancelled wasn't done (PUB-4)."""
    consumer = client.open_consumer("jobs", lease_s=600.0)
    (held,) = receive(consumer, 1)
    set_for_worker(server, "statement_timeout", "50ms")
    with server.connect(autocommit=False) as other, three_tries():
        other.execute(f"LOCK TABLE {TABLE} IN ACCESS EXCLUSIVE MODE")
        for _ in range(2):  # the first finds out that its connection is gone
            with pytest.raises(BackendUnavailable, match="raise statement_timeout"):
                settle(consumer, held.receipt)
        eventually(lambda: is_told_to_raise_it(client), "a publisher is told the remedy")

    assert settle(consumer, held.receipt)[0] in (SettleOutcome.OK, SettleOutcome.ALREADY)
    (outcome,) = client.publish("jobs", [Message("c", b"{}")])
    assert outcome.status is PublishStatus.ACCEPTED
    assert [each.id for each in receive(consumer, 2)] == ["b", "c"]


# -- other users of the tables --------------------------------------------------------------------


def test_a_deadlock_with_a_foreign_session_is_tried_again(
    server: PrivatePostgreSQL, client: PostgreSQLClient
) -> None:
    """The server ends one of the two, here ours: it did nothing, and does it all at a later try (SET-1).

    The next try may get the lock of "a" before the other session wakes up, and is then ended, too.
    """
    client.publish("jobs", [Message("c", b"{}")])
    consumer = client.open_consumer("jobs", lease_s=600.0)
    held = receive(consumer, 3)
    with (
        server.connect(autocommit=False) as gate,
        server.connect(autocommit=False, options="-c deadlock_timeout=1h") as foreign,
        Background() as threads,
    ):
        lock = f"SELECT 1 FROM {TABLE} WHERE id = %s FOR UPDATE"
        gate.execute(lock, ["b"])
        foreign.execute(lock, ["c"])
        settled = threads.submit(settle, consumer, *(each.receipt for each in held))
        wait_for_blocked(server, OURS)  # behind the gate, with the lock of "a"
        crossing = threads.submit(foreign.execute, lock, ["a"])
        wait_for_blocked(server, f"pid = {foreign.info.backend_pid}")
        gate.rollback()  # now ours goes on to "c", which closes the circle
        crossing.result(LIMIT_S)
        foreign.rollback()
        assert settled.result(LIMIT_S) == [SettleOutcome.OK] * 3
    assert "deadlock detected" in server.log()
    assert client.counts("jobs") == EMPTY


def wait_for_blocked(server: PrivatePostgreSQL, which: str) -> None:
    """Wait until a session waits for another's lock."""
    query = f"SELECT count(*) FROM pg_stat_activity WHERE {which} AND cardinality(pg_blocking_pids(pid)) > 0"
    eventually(lambda: ask(server, query) == [(1,)], f"{which} waits for a lock")


def test_requests_that_wait_for_a_foreign_lock_end_within_the_retry_timeout_and_take_no_connections(
    server: PrivatePostgreSQL, client: PostgreSQLClient
) -> None:
    """Whoever gives up leaves nothing behind that would still wait at the server (CON-1)."""
    consumer = client.open_consumer("jobs", lease_s=600.0)
    (held,) = receive(consumer, 1)
    with server.connect(autocommit=False) as other:
        other.execute(f"SELECT 1 FROM {TABLE} FOR UPDATE")
        for _ in range(10):
            with (
                connected(client, retry_timeout_s=0.2),
                pytest.raises(BackendUnavailable, match="pg_stat_activity"),
            ):
                settle(consumer, held.receipt)
        eventually(lambda: len(backends_of_ours(server)) == 0, "none waits any more")
    assert settle(consumer, held.receipt)[0] in (SettleOutcome.OK, SettleOutcome.ALREADY)


def test_a_consumer_takes_nothing_of_a_queue_that_has_the_number_of_its_own(
    server: PrivatePostgreSQL, client: PostgreSQLClient
) -> None:
    """Numbers come again after a crash or a failover, from a backup, and where all tables are made anew."""
    consumer = client.open_consumer("jobs")
    with server.connect() as admin:
        admin.execute("DROP SCHEMA mindtrace_jobs CASCADE")
    with server.client() as other:
        other.declare(Queue("bills"))
        other.publish("bills", [Message("bill", b"{}")])
        with pytest.raises(QueueNotFound):
            consumer.receive(1, 0.0)
        assert other.counts("bills") == QueueCounts(1, 0, 0, 0)


# -- a disk without room --------------------------------------------------------------------------


def limit_files(server: PrivatePostgreSQL, size: int | None) -> None:
    """Let no file of the server grow beyond a size, as a full disk does; None lifts that."""
    limit = "--fsize=unlimited" if size is None else f"--fsize={size}:"
    first = server._pid()
    assert first is not None
    for pid in (first, *watchdog.children_of(first)):
        words = ["prlimit", "--pid", str(pid), limit]
        subprocess.run(words, check=False, capture_output=True, timeout=LIMIT_S, **server.process_options())


def fill(client: PostgreSQLClient, accepted: list[str], *, most: int) -> BackendError | None:
    """Publish jobs until one is refused; return why."""
    for _ in range(most):
        messages = [
            Message(f"j{len(accepted) + n}", os.urandom(1000).hex().encode()[:1800]) for n in range(100)
        ]
        try:
            outcomes = client.publish("jobs", messages)
        except BackendError as error:
            return error
        if error := next((each.error for each in outcomes if each.error is not None), None):
            return error
        accepted += [each.id for each in messages]
    return None


def drain(client: PostgreSQLClient) -> list[str]:
    """Take and settle all jobs, and return which these were."""
    consumer, done = client.open_consumer("jobs", lease_s=600.0), list[str]()
    while deliveries := consumer.receive(500, 0.0):
        outcomes = settle(consumer, *(each.receipt for each in deliveries))
        assert set(outcomes) == {SettleOutcome.OK}
        done += [each.id for each in deliveries]
    return done


LIMIT_BYTES = 24 * 1024 * 1024
"""More than a segment of the log, which has 16 MiB."""


def test_a_table_that_can_not_grow_takes_no_more_jobs_and_those_in_it_are_done(
    server: PrivatePostgreSQL, client: PostgreSQLClient
) -> None:
    """Workers need no room there, and make some (PUB-4, I1)."""
    accepted = ["a", "b"]
    # The limit is within a page. A server before 16 takes a page that is written in part for a full disk. A
    # newer one tries to write the rest, and reports a file that is too large.
    limit_files(server, LIMIT_BYTES + 4096)
    error = fill(client, accepted, most=200)
    with server.connect() as admin:
        is_full = admin.info.server_version < 160_000
    assert type(error) is (DiskFull if is_full else BackendError), error
    assert ("free some space" if is_full else "File too large") in str(error)
    assert client.counts("jobs").ready == len(accepted)

    assert drain(client) == accepted
    with server.connect() as admin:
        admin.execute(f"VACUUM {TABLE}")
    (outcome,) = client.publish("jobs", [Message("c", b"{}")])
    assert outcome.status is PublishStatus.ACCEPTED


def test_a_log_that_can_not_grow_ends_the_server_and_loses_nothing(start_postgresql: StartPostgreSQL) -> None:
    """As when the disk of pg_wal is full: the server dies, and comes back when there is room (PUB-1)."""
    server = start_postgresql()
    with server.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        accepted: list[str] = []
        assert fill(client, accepted, most=1) is None
        limit_files(server, 4 * 1024 * 1024)
        with connected(client, retry_timeout_s=1.0):
            error = fill(client, accepted, most=200)
        assert isinstance(error, BackendUnavailable), error
        server.kill()
        server.start()
        (published,) = client.publish("jobs", [Message("last", b"{}")])
        assert published.status is PublishStatus.ACCEPTED
        done = drain(client)
    assert set(done) >= {*accepted, "last"}
    assert len(done) == len(set(done))


# -- answers that are lost ------------------------------------------------------------------------


def test_a_consumer_whose_take_was_never_answered_leaves_nothing_at_the_server(
    server: PrivatePostgreSQL, client: PostgreSQLClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It releases what was taken for nobody, and has the server forget that request, too."""
    consumer = client.open_consumer("jobs", lease_s=600.0)
    with monkeypatch.context() as patched:
        run = client._session.run

        def lose_answer(*parameters: Any, **options: Any) -> None:
            run(*parameters, **options)
            raise ServerUnreachable(NoAnswer("no answer came in time"), may_have_run=True)

        patched.setattr(client._session, "run", lose_answer)
        with pytest.raises(BackendUnavailable):
            consumer.receive(1, 0.0)
    (held,) = receive(consumer, 1)
    assert (held.id, held.crashes) == ("a", 0)
    assert settle(consumer, held.receipt) == [SettleOutcome.OK]
    client.close()
    assert ask(server, "SELECT * FROM mindtrace_jobs.request") == []
