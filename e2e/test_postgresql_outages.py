"""An outage of PostgreSQL costs no settlement of a finished job, and charges no healthy job with a crash.

The server restarts, is killed or is cut off. That its leases run out meanwhile is written into its table: to
wait for it they would have to be short, and a busy machine may take longer to bring two consumers back.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

import pytest

from brokers.fixtures import StartPostgreSQL
from brokers.postgresql_server import PrivatePostgreSQL
from brokers.proxy import Disruption, Proxy
from conditions import eventually
from mindtrace.jobs import ConsumerBackend, PostgreSQLClient, PublishStatus, QueueCounts
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Ack, Delivery, Message, SettleOutcome

HELD_S = 600.0
"""A lease that stands until it is ended by hand."""
LEASE_S = 10.0
"""One for whose end, or for a part of it, a test waits: long enough to bring two consumers back within it."""
THIRD_S = LEASE_S / 3 + 0.5
"""A client that couldn't reach the server for so long takes it for an outage."""
EMPTY = QueueCounts(0, 0, 0, 0)

Connect = Callable[..., PostgreSQLClient]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def server(start_postgresql: StartPostgreSQL) -> PrivatePostgreSQL:
    return start_postgresql()


@pytest.fixture
def connect(server: PrivatePostgreSQL, stack: ExitStack) -> Connect:
    """Connect a client that has declared the queue."""

    def connect(**options: Any) -> PostgreSQLClient:
        client = stack.enter_context(server.client(**({"retry_timeout_s": 30.0, "poll_s": 0.5} | options)))
        client.declare(Queue("jobs"))
        return client

    return connect


def publish(client: PostgreSQLClient, *ids: str) -> list[PublishStatus]:
    return [outcome.status for outcome in client.publish("jobs", [Message(id_, b"{}") for id_ in ids])]


def receive(consumer: ConsumerBackend, count: int) -> list[Delivery]:
    deliveries = consumer.receive(count, 60.0)
    assert len(deliveries) == count
    return deliveries


def settle(consumer: ConsumerBackend, *receipts: str) -> list[SettleOutcome]:
    return consumer.settle([Ack(receipt) for receipt in receipts]).outcomes


def end_leases(server: PrivatePostgreSQL) -> None:
    """Make all leases begin and end so much earlier that they are over."""
    with server.connect() as admin:
        admin.execute(
            "UPDATE mindtrace_jobs.request SET began = clock_timestamp() - (ends - began),"
            " ends = clock_timestamp() WHERE places <> '{}'"
        )


@contextmanager
def patience(client: PostgreSQLClient, seconds: float) -> Iterator[None]:
    """Have a client give up sooner for the duration of the block."""
    before, client._session.retry_timeout_s = client._session.retry_timeout_s, seconds
    try:
        yield
    finally:
        client._session.retry_timeout_s = before


stopped = pytest.mark.parametrize(
    "end", [PrivatePostgreSQL.stop, PrivatePostgreSQL.kill], ids=["stopped", "killed"]
)


@stopped
def test_leases_that_ran_out_while_the_server_was_away_stand_until_their_workers_can_be_back(
    server: PrivatePostgreSQL, connect: Connect, end: Callable[[PrivatePostgreSQL], None]
) -> None:
    """Whoever is back first takes nobody's job, and counts it as in flight (LSE-3, RTY-3)."""
    holder, first = (connect().open_consumer("jobs", lease_s=HELD_S) for _ in range(2))
    client = connect()
    publish(client, "finished", "running")
    finished, running = receive(holder, 2)
    publish(client, "synced")  # and with it the leases before it

    end_leases(server)
    end(server)
    server.start()

    (synced,) = first.receive(3, 0.0)
    assert synced.id == "synced"
    assert client.counts("jobs") == QueueCounts(0, 0, 3, 0)
    assert settle(holder, finished.receipt) == [SettleOutcome.OK]
    assert holder.extend([running.receipt]) == [SettleOutcome.OK]
    assert settle(holder, running.receipt) == [SettleOutcome.OK]
    assert settle(first, synced.receipt) == [SettleOutcome.OK]
    assert client.counts("jobs") == EMPTY


def test_a_worker_that_is_new_after_an_outage_takes_nobodys_job(
    server: PrivatePostgreSQL, connect: Connect
) -> None:
    """It saw no outage; that the server has just started tells it (RTY-3)."""
    holder = connect().open_consumer("jobs", lease_s=HELD_S)
    publish(connect(), "job")
    (held,) = receive(holder, 1)
    end_leases(server)
    server.stop()
    server.start()

    assert connect().open_consumer("jobs", lease_s=HELD_S).receive(1, 0.0) == []
    assert settle(holder, held.receipt) == [SettleOutcome.OK]


@stopped
def test_a_worker_that_died_with_the_server_is_found_dead_a_lease_after_that_is_back(
    server: PrivatePostgreSQL, connect: Connect, end: Callable[[PrivatePostgreSQL], None]
) -> None:
    """Its job is charged with the crash: it may have taken both along (LSE-1, RTY-3)."""
    heir = connect().open_consumer("jobs", lease_s=LEASE_S)
    dead = connect().open_consumer("jobs", lease_s=LEASE_S)
    publish(connect(), "job")
    receive(dead, 1)
    publish(connect(), "synced")

    end(server)
    server.start()

    assert [(each.id, each.crashes) for each in receive(heir, 1)] == [("synced", 0)]
    assert [(each.id, each.crashes) for each in receive(heir, 1)] == [("job", 1)]


def test_a_job_that_kills_its_worker_ends_dead_though_the_server_restarts_each_time(
    server: PrivatePostgreSQL, connect: Connect
) -> None:
    """A restart puts off when the crash is counted, and takes none back (RTY-3)."""
    client = connect()
    publish(client, "job")
    for crashes in range(3):
        doomed = connect().open_consumer("jobs", lease_s=0.2)
        (delivery,) = receive(doomed, 1)
        assert delivery.crashes == crashes
        server.restart()

    (delivery,) = receive(client.open_consumer("jobs", lease_s=0.2), 1)
    assert delivery.crashes == 3


def test_a_lease_that_runs_out_while_the_server_serves_is_a_crash_at_once(connect: Connect) -> None:
    """Without an outage nothing is put off, also by a consumer with a longer lease (LSE-1)."""
    client = connect()
    publish(client, "job")
    receive(connect().open_consumer("jobs", lease_s=0.2), 1)
    time.sleep(0.3)

    (delivery,) = connect().open_consumer("jobs", lease_s=0.2).receive(1, 20.0)
    assert delivery.crashes == 1


def test_a_lease_that_began_after_the_server_had_started_is_a_crash_at_once(connect: Connect) -> None:
    """Though a worker that comes then has a lease of which a part lies before the start (LSE-1)."""
    client = connect()
    publish(client, "job")
    receive(connect().open_consumer("jobs", lease_s=0.2), 1)
    time.sleep(0.3)

    (delivery,) = connect().open_consumer("jobs", lease_s=1e6).receive(1, 20.0)
    assert delivery.crashes == 1


def test_a_lease_from_before_the_server_started_stands_for_as_long_as_it_was(
    server: PrivatePostgreSQL, connect: Connect
) -> None:
    """Not for as long as the lease of a worker that comes then (LSE-1)."""
    publish(connect(), "job")
    receive(connect().open_consumer("jobs", lease_s=1.0), 1)
    server.restart()

    (delivery,) = connect().open_consumer("jobs", lease_s=1e6).receive(1, 20.0)
    assert delivery.crashes == 1


def test_a_network_that_cuts_all_workers_off_charges_no_job_with_a_crash(
    server: PrivatePostgreSQL, connect: Connect, stack: ExitStack
) -> None:
    """The server saw no outage: the first worker that is back tells it (RTY-3)."""
    proxy = stack.enter_context(Proxy(server.address.host, server.address.port))
    holder, first = (
        stack.enter_context(
            server.client(port=proxy.port, retry_timeout_s=30.0, libpq={"sslmode": "disable"})
        )
        for _ in range(2)
    )
    publish(connect(), "job")
    consumer, other = (client.open_consumer("jobs", lease_s=LEASE_S) for client in (holder, first))
    (held,) = receive(consumer, 1)

    proxy.disrupt_next(b"", Disruption.SILENCE, times=10_000)
    for client in (holder, first):  # only now: until here, all must succeed
        client._session.retry_timeout_s = 0.5
    for cut_off in (consumer, other):
        with pytest.raises(BackendUnavailable):
            cut_off.receive(1, 0.0)
    time.sleep(THIRD_S)
    end_leases(server)
    proxy.stop_disrupting()
    for client in (holder, first):
        client._session.retry_timeout_s = 30.0

    assert other.receive(1, 0.0) == []
    assert settle(consumer, held.receipt) == [SettleOutcome.OK]


def test_a_worker_that_alone_is_cut_off_is_taken_for_dead(connect: Connect) -> None:
    """It can't be told from one that died: its job runs elsewhere, charged with a crash (LSE-1, LSE-4)."""
    publish(connect(), "job")
    cut_off = connect().open_consumer("jobs", lease_s=0.3)
    other = connect().open_consumer("jobs", lease_s=HELD_S)
    (held,) = receive(cut_off, 1)

    (again,) = receive(other, 1)
    assert again.crashes == 1
    assert settle(cut_off, held.receipt) == [SettleOutcome.LOST]
    assert settle(other, again.receipt) == [SettleOutcome.OK]


def test_a_clock_that_was_set_back_keeps_no_job_of_a_dead_worker(
    server: PrivatePostgreSQL, connect: Connect
) -> None:
    """A worker that comes then finds that the lease begins in the future, and ends it in its time (LSE-1)."""
    publish(connect(), "of the dead", "of the living")
    dead, alive = (connect().open_consumer("jobs", lease_s=seconds) for seconds in (1.0, HELD_S))
    receive(dead, 1)
    (held,) = receive(alive, 1)
    with server.connect() as admin:
        admin.execute(
            "UPDATE mindtrace_jobs.request SET began = began + interval '1 d', ends = ends + interval '1 d'"
        )

    (again,) = receive(connect().open_consumer("jobs", lease_s=HELD_S), 1)
    assert (again.id, again.crashes) == ("of the dead", 1)
    assert settle(alive, held.receipt) == [SettleOutcome.OK]


REFUSALS = {
    "53100": "could not extend file: No space left on device",
    "XX000": "could not extend file: Disk quota exceeded",
    "42501": "could not open file: Read-only file system",
    "58030": "could not read block",
    "53200": "out of memory",
    "53000": "out of file descriptors",
    "55P03": "canceling statement due to lock timeout",
    "57014": "canceling statement due to statement timeout",
    "40001": "could not serialize access",
    "25006": "cannot execute UPDATE in a read-only transaction",
    "25P03": "terminating connection due to idle-in-transaction timeout",
    "57P01": "terminating connection due to administrator command",
}
"""What a server that answers all the time may refuse an extension with, by its code."""


def test_leases_that_ran_out_while_the_server_refused_stand_until_their_workers_can_be_back(
    server: PrivatePostgreSQL, stack: ExitStack
) -> None:
    """Whatever it refuses extensions with is the same outage: each job runs once (LSE-3, RTY-3)."""
    admin = stack.enter_context(server.connect())
    held = {}
    for code, text in REFUSALS.items():
        clients = [
            stack.enter_context(server.client(f"of_{code.lower()}", poll_s=0.5, retry_timeout_s=0.5))
            for _ in range(2)
        ]
        for client in clients:
            client.declare(Queue("jobs"))
        publish(clients[0], "job")
        holder, idle = (client.open_consumer("jobs", lease_s=HELD_S) for client in clients)
        held[code] = holder, idle, receive(holder, 1)[0]
        assert idle.receive(1, 0.0) == []
        refuse_to_extend(admin, f"of_{code.lower()}", code, text)

    for code, (holder, idle, job) in held.items():
        with pytest.raises(BackendUnavailable):
            holder.extend([job.receipt])
        with pytest.raises(BackendUnavailable):  # it finds that the lease is over
            idle.receive(1, 0.0)
        admin.execute(f"DROP TRIGGER refuse ON of_{code.lower()}.request")

    for code, (holder, idle, job) in held.items():
        assert idle.receive(1, 0.0) == [], code
        assert holder.extend([job.receipt]) == [SettleOutcome.OK], code
        assert settle(holder, job.receipt) == [SettleOutcome.OK], code


def test_jobs_of_dead_workers_come_back_while_one_request_is_refused_again_and_again(
    server: PrivatePostgreSQL, connect: Connect
) -> None:
    """A row that somebody has locked is no outage for all: others' leases are put off once (LSE-3)."""
    client = connect(libpq={"options": "-c lock_timeout=10ms"})
    client.declare(Queue("others"))
    dead, heir = (each.open_consumer("jobs", lease_s=HELD_S) for each in (connect(), client))
    busy = client.open_consumer("others", lease_s=HELD_S)
    publish(client, "of the dead")
    client.publish("others", [Message("locked", b"{}")])
    receive(dead, 1)
    (locked,) = receive(busy, 1)

    def is_refused() -> bool:
        with suppress(BackendUnavailable), patience(client, 0.1):
            busy.extend([locked.receipt])
        return client._session._refused_by is not None

    with server.connect(autocommit=False) as locker, server.connect() as admin:
        locker.execute("SELECT FROM mindtrace_jobs.job WHERE id = 'locked' FOR UPDATE")
        eventually(is_refused, "an extension is refused")
        end_leases(server)
        assert heir.receive(1, 0.0) == []
        eventually(is_refused, "an extension is refused again")
        # A connection that is opened later asks for how long the client was away, as it was if the machine
        # stood still: no answer came in time. The lease that is made short below would be too short for that.
        client.counts("jobs")
        # Those that began before the server did would be taken for cut short by its start.
        admin.execute(
            "UPDATE mindtrace_jobs.request SET began = pg_postmaster_start_time() + interval '1 us',"
            " ends = clock_timestamp() WHERE places <> '{}'"
        )
        (again,) = heir.receive(1, 0.0)
        of_locked = admin.execute(
            "SELECT began > pg_postmaster_start_time() + interval '1 us' FROM mindtrace_jobs.request"
            " JOIN mindtrace_jobs.job USING (token) WHERE id = 'locked'"
        ).fetchall()

    assert (again.id, again.crashes) == ("of the dead", 1)
    assert of_locked == [(True,)], "it can't be extended, so it is put off again"


def refuse_to_extend(admin: Any, schema: str, code: str, text: str) -> None:
    """End all leases of a schema, and have the server refuse to change any."""
    admin.execute(
        f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN RAISE '{text}' USING ERRCODE = '{code}'; END $$"
    )
    admin.execute(
        f"UPDATE {schema}.request SET began = clock_timestamp() - (ends - began), ends = clock_timestamp()"
    )
    admin.execute(
        f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON {schema}.request"
        f" FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
    )
