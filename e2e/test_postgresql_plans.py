"""Where PostgreSQL takes its tables for empty, each call still reads only its own rows (ADR 87)."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from background import Background
from brokers.postgresql_server import Address, make_schema
from conditions import LIMIT_S, eventually
from mindtrace.jobs import PostgreSQLClient, PostgreSQLResultStore, PublishStatus, Queue
from mindtrace.jobs.domain.job_progress import Progress
from mindtrace.jobs.ports import (
    Ack,
    Cancel,
    CancelOutcome,
    ConsumerBackend,
    Dead,
    Delivery,
    EndedJob,
    JobResult,
    JobStatus,
    Message,
    Place,
    Release,
    ResultStatus,
    Retry,
    SettleOutcome,
)

BACKLOG = 3000
"""How many jobs wait. To read them all once a call is what must not happen."""
CALLS = 100
MOST_READ = 30_000
"""Rows of tables and entries of indexes: as many as ten scans of the queue read."""
TABLES = ("job", "request", "result", "asked", "place")

Admin = "psycopg.Connection[tuple[int, ...]]"


@pytest.fixture
def namespace(postgresql_address: Address) -> Iterator[str]:
    """A schema of one's own."""
    yield from make_schema(postgresql_address)


@pytest.fixture
def admin(postgresql_address: Address, namespace: str) -> Iterator[Admin]:
    """A plain connection, to which the tables are known by their names."""
    with postgresql_address.connect() as admin:
        admin.execute(f'SET search_path = "{namespace}"')
        yield admin


@pytest.fixture
def client(postgresql_address: Address, namespace: str, admin: Admin) -> Iterator[PostgreSQLClient]:
    """A client of tables that hold rows, and that the server takes for empty."""
    with client_of(postgresql_address, namespace) as client:
        client.declare(Queue("jobs"))
    renew_indexes(admin)
    deceive(admin)
    with client_of(postgresql_address, namespace) as client:
        client.publish("jobs", [Message(f"job-{number}", b"{}") for number in range(BACKLOG)])
        yield client


def client_of(address: Address, namespace: str) -> PostgreSQLClient:
    parameters = dict(address.parameters) | {"application_name": namespace}
    return address.client(namespace, libpq=parameters, retry_timeout_s=LIMIT_S)


def url_of(address: Address, namespace: str) -> str:
    return replace(address, parameters=(*address.parameters, ("application_name", namespace))).url(namespace)


def renew_indexes(admin: Admin) -> None:
    """Make the unique indexes anew, as REINDEX CONCURRENTLY does: of equals, the server takes the last."""
    admin.execute("CREATE UNIQUE INDEX new_job_id ON job (queue, id)")
    admin.execute("ALTER TABLE job REPLICA IDENTITY USING INDEX new_job_id")
    admin.execute("DROP INDEX job_id")
    admin.execute("ALTER INDEX new_job_id RENAME TO job_id")
    for table, columns in ("result", "queue, id"), ("place", "key, holder"):
        admin.execute(f"ALTER TABLE {table} DROP CONSTRAINT {table}_pkey, ADD PRIMARY KEY ({columns})")


def stop_autovacuum(admin: Admin) -> None:
    """Have nobody else count the rows."""
    for table in TABLES:
        admin.execute(f"ALTER TABLE {table} SET (autovacuum_enabled = off, toast.autovacuum_enabled = off)")


def deceive(admin: Admin) -> None:
    """Have the server count the rows of the tables while all their pages are without any."""
    stop_autovacuum(admin)
    numbers = "FROM generate_series(1, 3000) n"
    admin.execute(f"INSERT INTO job (queue, place, seq, id, body) SELECT 0, n, n, n, '' {numbers}")
    admin.execute(f"INSERT INTO request (token, queue, ends) SELECT n, 0, '-infinity' {numbers}")
    admin.execute(f"INSERT INTO result (queue, id, expires, body) SELECT 0, n, now(), '' {numbers}")
    admin.execute(f"INSERT INTO asked (queue, seq, id, ttl) SELECT 0, n, n, 0 {numbers}")
    admin.execute(
        f"INSERT INTO place (key, holder, ticket, is_held, ends) SELECT 0, n, n, false, now() {numbers}"
    )
    for table in TABLES:
        admin.execute(f"DELETE FROM {table}")
        admin.execute(f"ANALYZE {table}")
    counted = (
        "SELECT count(*) FROM pg_class WHERE oid = ANY (%s::regclass[]) AND reltuples = 0 AND relpages > 0"
    )
    assert admin.execute(counted, [list(TABLES)]).fetchall() == [(len(TABLES),)]


@contextmanager
def few_rows_read(admin: Admin, namespace: str, client: PostgreSQLClient) -> Iterator[None]:
    """Check how much the client reads until it closes: a connection that ends has its reads counted."""
    yield
    client.close()
    open_connections = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
    eventually(
        lambda: not admin.execute(open_connections, [namespace]).fetchall(), "all connections are gone"
    )
    read = dict(
        admin.execute(
            "SELECT relname, seq_tup_read FROM pg_stat_user_tables WHERE schemaname = %s AND seq_tup_read > 0"
            " UNION ALL SELECT indexrelname, idx_tup_read FROM pg_stat_user_indexes WHERE schemaname = %s",
            [namespace, namespace],
        ).fetchall()
    )
    assert sum(read.values()) <= MOST_READ, read


def receive(consumer: ConsumerBackend, count: int) -> list[Delivery]:
    """Receive so many of the jobs, in one request each, so that there are as many leases."""
    return [job for _ in range(count) for job in consumer.receive(1, LIMIT_S)]


# -- jobs in flight -------------------------------------------------------------------------------


SETTLEMENTS: dict[str, Callable[[str], Ack | Retry | Dead | Release]] = {
    "ack": lambda receipt: Ack(receipt),
    "ack-with-result": lambda receipt: Ack(receipt, b"{}"),
    "retry": lambda receipt: Retry(receipt, 0.0, "error"),
    "dead": lambda receipt: Dead(receipt, "reason", "error"),
    "release": lambda receipt: Release(receipt, 3600.0),
}


@pytest.mark.parametrize("make", SETTLEMENTS.values(), ids=SETTLEMENTS)
def test_a_settlement_reads_the_jobs_that_it_settles(
    admin: Admin,
    namespace: str,
    client: PostgreSQLClient,
    make: Callable[[str], Ack | Retry | Dead | Release],
) -> None:
    with few_rows_read(admin, namespace, client), client.open_consumer("jobs") as consumer:
        for job in consumer.receive(CALLS, LIMIT_S):
            assert consumer.settle([make(job.receipt)]).outcomes == [SettleOutcome.OK]


def test_an_ack_reads_the_result_of_an_earlier_job_of_its_id_and_no_other(
    admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    with few_rows_read(admin, namespace, client), client.open_consumer("jobs") as consumer:
        acks = [Ack(job.receipt, b"{}") for job in consumer.receive(BACKLOG // 2, LIMIT_S)]
        consumer.settle(acks)
        for job in consumer.receive(CALLS, LIMIT_S):
            assert consumer.settle([Ack(job.receipt)]).outcomes == [SettleOutcome.OK]


def test_a_lease_is_extended_by_reading_its_job(
    admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    with few_rows_read(admin, namespace, client), client.open_consumer("jobs") as consumer:
        for job in consumer.receive(CALLS, LIMIT_S):
            assert consumer.extend([job.receipt]) == [SettleOutcome.OK]


def test_progress_is_reported_by_reading_its_job(
    admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    with few_rows_read(admin, namespace, client), client.open_consumer("jobs") as consumer:
        held = consumer.receive(CALLS, LIMIT_S)
        for job in held:
            consumer.report(job.receipt, Progress(1, 2))
        for _ in range(3):
            assert client.progress("jobs") == {job.id: Progress(1, 2) for job in held}


@pytest.mark.parametrize("asked", [False, True], ids=["", "that-are-to-be-cancelled"])
def test_what_a_dead_worker_held_is_taken_back_by_reading_its_jobs(
    admin: Admin, namespace: str, client: PostgreSQLClient, asked: bool
) -> None:
    with few_rows_read(admin, namespace, client), client.open_consumer("jobs") as dead:
        ids = [job.id for job in receive(dead, CALLS)]
        if asked:
            assert client.cancel("jobs", ids) == [CancelOutcome.REQUESTED] * CALLS
        admin.execute("UPDATE request SET ends = clock_timestamp()")
        with client.open_consumer("jobs") as other:
            (first,) = other.receive(1, LIMIT_S)
        assert first.id == (f"job-{CALLS}" if asked else "job-0")


# -- jobs by their ids ----------------------------------------------------------------------------


def test_a_duplicate_is_found_by_its_id(admin: Admin, namespace: str, client: PostgreSQLClient) -> None:
    with few_rows_read(admin, namespace, client):
        for number in range(CALLS):
            (outcome,) = client.publish("jobs", [Message(f"job-{number}", b"{}")])
            assert outcome.status is PublishStatus.DUPLICATE


def test_a_duplicate_within_a_transaction_is_found_by_its_id(
    postgresql_address: Address, admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    with (
        few_rows_read(admin, namespace, client),
        postgresql_address.connect(autocommit=False, application_name=namespace) as connection,
    ):
        for number in range(CALLS):
            (outcome,) = client.publish_in(connection, "jobs", [Message(f"job-{number}", b"{}")])
            assert outcome.status is PublishStatus.DUPLICATE


def test_a_job_is_asked_after_and_cancelled_by_its_id(
    admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    with few_rows_read(admin, namespace, client):
        for number in range(CALLS):
            job_id = f"job-{BACKLOG - 1 - number}"
            assert client.status("jobs", job_id) is JobStatus.WAITING
            assert client.results("jobs", [job_id]) == {}
            assert client.cancel("jobs", [job_id]) == [CancelOutcome.CANCELLED]
            assert client.results("jobs", [job_id])[job_id].status is ResultStatus.CANCELLED


def test_dead_jobs_are_redriven_and_discarded_by_their_ids(
    admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    with few_rows_read(admin, namespace, client):
        with client.open_consumer("jobs") as consumer:
            dead = consumer.receive(BACKLOG // 2, LIMIT_S)
            consumer.settle([Dead(job.receipt, "reason", "error") for job in dead])
        for job in dead[:CALLS]:
            assert client.redrive("jobs", [job.id]) == 1
        for job in dead[-CALLS:]:
            assert client.discard("jobs", [job.id]) == 1


# -- results and places ---------------------------------------------------------------------------


def test_a_store_finds_results_by_their_ids(
    postgresql_address: Address, admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    url = url_of(postgresql_address, namespace)
    done = JobResult(ResultStatus.DONE, b"{}")
    ids = [f"job-{number}" for number in range(BACKLOG)]
    with few_rows_read(admin, namespace, client), PostgreSQLResultStore.from_url(url) as store:
        store.put("jobs-elsewhere", [EndedJob(job_id, done, 3600.0) for job_id in ids])
        for job_id in ids[:CALLS]:
            assert store.get_many("jobs-elsewhere", [job_id]) == {job_id: done}
            store.forget("jobs-elsewhere", [job_id])
            assert store.get_many("jobs-elsewhere", [job_id]) == {}


def test_the_results_of_many_jobs_are_looked_up_by_reading_the_ended_ones_once(
    admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    """For each of 900 ids to read what 100 requests noted would be 80,000 rows and more (RES-1)."""
    with few_rows_read(admin, namespace, client):
        consumer = client.open_consumer("jobs")
        ended = receive(consumer, 100)
        for each in ended:
            consumer.settle([Ack(each.receipt)])
        unknown = [f"unknown-{number}" for number in range(800)]
        assert set(client.results("jobs", [*unknown, *(each.id for each in ended)])) == {
            each.id for each in ended
        }


@pytest.mark.parametrize("call", ["sweep(q, '-infinity')", "sweep_results(q.kind)"])
def test_a_sweep_reads_no_result_that_stays(
    postgresql_address: Address, admin: Admin, namespace: str, client: PostgreSQLClient, call: str
) -> None:
    kept = "SELECT q.key, n, clock_timestamp() + interval '1 h', '' FROM queue q, generate_series(1, 3000) n"
    admin.execute(f"INSERT INTO result (queue, id, expires, body) {kept}")
    with (
        few_rows_read(admin, namespace, client),
        postgresql_address.connect(application_name=namespace) as sweeper,
    ):
        sweeper.execute(f'SET search_path = "{namespace}"')
        for _ in range(CALLS):
            sweeper.execute(f"SELECT {call} FROM queue q")


def test_a_place_is_found_by_its_holder(admin: Admin, namespace: str, client: PostgreSQLClient) -> None:
    with few_rows_read(admin, namespace, client):
        line = [Place("key", 1, f"holder-{number}") for number in range(BACKLOG // 2)]
        client.coordination.take_places(line, ttl_s=3600.0)
        for place in line[:CALLS]:
            client.coordination.take_places([place], ttl_s=3600.0)
        for place in line[-CALLS:]:
            client.coordination.leave_places([place])


# -- plans that were made before --------------------------------------------------------------------


def test_a_call_that_was_made_while_the_tables_were_empty_reads_no_whole_queue_later(
    postgresql_address: Address, admin: Admin, namespace: str
) -> None:
    """After some calls, the server keeps the plan of a prepared statement."""
    done = JobResult(ResultStatus.DONE, b"{}")
    ids = [f"job-{number}" for number in range(BACKLOG)]
    with (
        client_of(postgresql_address, namespace) as client,
        PostgreSQLResultStore.from_url(url_of(postgresql_address, namespace)) as store,
    ):
        client.declare(Queue("jobs"))

        def look(job_id: str) -> None:
            client.status("jobs", job_id)
            client.results("jobs", [job_id, f"{job_id}-unknown"])
            client.progress("jobs")
            client.dead_letters("jobs", limit=5)
            store.get_many("elsewhere", [job_id])

        store.put("elsewhere", [EndedJob("job", done, 3600.0)])
        store.forget("elsewhere", ["job"])
        stop_autovacuum(admin)
        for table in TABLES:
            admin.execute(f"ANALYZE {table}")
        for _ in range(CALLS // 10):
            look("job")
        client.publish("jobs", [Message(job_id, b"{}") for job_id in ids])
        store.put("elsewhere", [EndedJob(job_id, done, 3600.0) for job_id in ids])
        with few_rows_read(admin, namespace, client), client.open_consumer("jobs") as consumer:
            consumer.settle([Dead(job.receipt, "reason", "error") for job in receive(consumer, CALLS)])
            held = receive(consumer, CALLS // 10)
            for job in held:
                consumer.report(job.receipt, Progress(1, 2))
            for job_id in ids[:CALLS]:
                look(job_id)
            store.close()


def test_a_page_of_dead_letters_reads_no_others(
    postgresql_address: Address, admin: Admin, namespace: str
) -> None:
    with client_of(postgresql_address, namespace) as client:
        client.declare(Queue("jobs"))
        stop_autovacuum(admin)
        admin.execute("ANALYZE job")
        client.publish("jobs", [Message(f"job-{number}", b"{}") for number in range(BACKLOG)])
        with few_rows_read(admin, namespace, client), client.open_consumer("jobs") as consumer:
            held = consumer.receive(BACKLOG // 2, LIMIT_S)
            consumer.settle([Dead(job.receipt, "reason", "error") for job in held])
            for _ in range(CALLS):
                client.dead_letters("jobs", limit=5)


# -- rows that move meanwhile ---------------------------------------------------------------------


MOVED: dict[str, Callable[[ConsumerBackend, str], list[SettleOutcome]]] = {
    "acked": lambda consumer, receipt: consumer.settle([Ack(receipt)]).outcomes,
    "acked-with-a-result": lambda consumer, receipt: consumer.settle([Ack(receipt, b"{}")]).outcomes,
    "extended": lambda consumer, receipt: consumer.extend([receipt]),
    "retried": lambda consumer, receipt: consumer.settle([Retry(receipt, 0.0, "error")]).outcomes,
    "dead": lambda consumer, receipt: consumer.settle([Dead(receipt, "reason", "error")]).outcomes,
    "released": lambda consumer, receipt: consumer.settle([Release(receipt)]).outcomes,
    "cancelled": lambda consumer, receipt: consumer.settle([Cancel(receipt, 3600.0)]).outcomes,
}


@pytest.mark.parametrize("call", MOVED.values(), ids=MOVED)
def test_a_job_whose_row_moves_meanwhile_is(
    postgresql_address: Address,
    admin: Admin,
    namespace: str,
    client: PostgreSQLClient,
    call: Callable[[ConsumerBackend, str], list[SettleOutcome]],
) -> None:
    """A report of progress, still on its way, makes a new version of the row, which is elsewhere."""
    with client.open_consumer("jobs") as consumer, Background() as executor:
        (job,) = consumer.receive(1, LIMIT_S)
        with postgresql_address.connect(autocommit=False) as reporter:
            reporter.execute(f"UPDATE \"{namespace}\".job SET progress = '[1, 2]' WHERE id = %s", [job.id])
            outcome = executor.submit(call, consumer, job.receipt)
            eventually(lambda: waits_for_a_lock(admin, namespace), "the call waits for the row")
            reporter.commit()
        assert outcome.result(LIMIT_S) == [SettleOutcome.OK]


def test_a_job_whose_row_moves_while_its_lease_ends_is_taken_back(
    postgresql_address: Address, admin: Admin, namespace: str, client: PostgreSQLClient
) -> None:
    with client.open_consumer("jobs") as dead, Background() as executor:
        (job,) = dead.receive(1, LIMIT_S)
        admin.execute("UPDATE request SET ends = clock_timestamp()")
        with postgresql_address.connect(autocommit=False) as reporter, client.open_consumer("jobs") as other:
            reporter.execute(f"UPDATE \"{namespace}\".job SET progress = '[1, 2]' WHERE id = %s", [job.id])
            received = executor.submit(other.receive, 1, LIMIT_S)
            eventually(lambda: waits_for_a_lock(admin, namespace), "the sweep waits for the row")
            reporter.commit()
            (again,) = received.result(LIMIT_S)
        assert (again.id, again.crashes) == (job.id, 1)


def waits_for_a_lock(admin: Admin, namespace: str) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    return bool(admin.execute(query, [namespace]).fetchall())
