"""What a crash of PostgreSQL takes back, as the disk hadn't seen it, though it was answered."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from brokers.fixtures import StartPostgreSQL
from brokers.postgresql_server import PrivatePostgreSQL
from conditions import LIMIT_S
from mindtrace.jobs import ConsumerBackend, PostgreSQLClient
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.ports import ABSENT, Message, SettleOutcome

from .test_postgresql_faults import ask, receive, settle


@pytest.fixture
def server(start_postgresql: StartPostgreSQL) -> PrivatePostgreSQL:
    """A server without autovacuum, whose commits would write to the disk what the crash is to lose."""
    return start_postgresql(fsync="off", autovacuum="off")


@pytest.fixture
def client(server: PrivatePostgreSQL) -> Iterator[PostgreSQLClient]:
    """A client with a queue and two jobs."""
    with server.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("a", b"{}"), Message("b", b"{}")])
        yield client


@contextmanager
def nothing_flushed(server: PrivatePostgreSQL) -> Iterator[None]:
    """Have only commits that wait for the disk get there, and what came before them."""
    kinds = ["walwriter", "background writer", "checkpointer"]
    found = ask(server, "SELECT pid FROM pg_stat_activity WHERE backend_type = ANY (%s)", kinds)
    writers = [pid for (pid,) in found]
    for pid in writers:
        os.kill(pid, signal.SIGSTOP)
    yield
    for pid in writers:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def extend_in_vain(server: PrivatePostgreSQL, consumer: ConsumerBackend, receipt: str) -> None:
    """Have the consumer told of an extension that a crash takes back."""
    with nothing_flushed(server):
        assert consumer.extend([receipt]) == [SettleOutcome.OK]
        server.kill()
    server.start()


def end_leases(server: PrivatePostgreSQL) -> None:
    ask(server, "UPDATE mindtrace_jobs.request SET ends = clock_timestamp() RETURNING token")


def test_a_lease_whose_extension_a_crash_took_back_ends(
    server: PrivatePostgreSQL, client: PostgreSQLClient
) -> None:
    """Also if its consumer, which was told of the extension, has the server forget it (LSE-2)."""
    consumer = client.open_consumer("jobs", lease_s=600.0)
    (first,) = receive(consumer, 1)
    client.publish("jobs", [Message("c", b"{}")])  # this waits for the disk, which then has the lease, too
    extend_in_vain(server, consumer, first.receipt)
    assert settle(consumer, first.receipt) == [SettleOutcome.LOST], "the crash has taken the extension back"
    for _ in range(2):
        (other,) = receive(consumer, 1)
        assert settle(consumer, other.receipt) == [SettleOutcome.OK]
    consumer.close()
    end_leases(server)
    (again,) = receive(client.open_consumer("jobs", lease_s=600.0), 1)
    assert (again.id, again.crashes) == (first.id, 1)


def test_a_lease_ends_though_a_job_of_it_was_settled_after_a_crash_took_an_extension_back(
    server: PrivatePostgreSQL, client: PostgreSQLClient
) -> None:
    """What the consumer knows of the lease is too little from then on (LSE-2)."""
    consumer = client.open_consumer("jobs", lease_s=600.0)
    first, second = receive(consumer, 2)
    client.publish("jobs", [Message("c", b"{}")])
    extend_in_vain(server, consumer, second.receipt)
    assert settle(consumer, first.receipt) == [SettleOutcome.OK], "by the lease before"
    assert settle(consumer, second.receipt) == [SettleOutcome.LOST]
    consumer.close()
    end_leases(server)
    other = client.open_consumer("jobs", lease_s=600.0)
    assert {receive(other, 1)[0].id for _ in range(2)} == {"b", "c"}


def test_a_lease_ends_though_an_interrupt_came_as_its_extension_was_read(
    server: PrivatePostgreSQL, client: PostgreSQLClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The consumer then knows of one job only that has it (LSE-2)."""
    consumer = client.open_consumer("jobs", lease_s=600.0)
    deliveries = receive(consumer, 2)
    with monkeypatch.context() as patched:
        replace = consumer._held.replace

        def interrupted(*one: Any) -> None:
            replace(*one)
            raise KeyboardInterrupt

        patched.setattr(consumer._held, "replace", interrupted)
        with pytest.raises(KeyboardInterrupt):
            consumer.extend([each.receipt for each in deliveries])
    consumer.close()
    end_leases(server)
    other = client.open_consumer("jobs", lease_s=600.0)
    assert {receive(other, 1)[0].id for _ in range(2)} == {"a", "b"}


@pytest.mark.parametrize("is_recreated", [False, True])
def test_a_version_that_a_crash_took_back_is_given_to_no_other_write(
    start_postgresql: StartPostgreSQL, *, is_recreated: bool
) -> None:
    """Else who read the lost record would overwrite what another wrote since (CRD-1, CRD-2)."""
    server = start_postgresql(fsync="off", synchronous_commit="off", autovacuum="off")
    with server.client(retry_timeout_s=LIMIT_S) as client:
        store = client.coordination
        kept = store.put("key", b"kept")
        with server.connect() as admin:
            admin.execute("CHECKPOINT")
        with nothing_flushed(server):
            lost = store.put("key", b"lost", expected=kept)
            server.kill()
        server.start()
        assert store.get(["key"])["key"].version == kept, "the crash has taken the write back"

        if is_recreated:
            assert store.delete("key", expected=kept)
        newer = store.put("key", b"newer", expected=ABSENT if is_recreated else kept)
        assert newer not in (None, lost)
        assert store.put("key", b"overwrites", expected=lost) is None
        assert store.get(["key"])["key"].value == b"newer"
