"""What a session of PostgreSQL has of its own, and what is set for a role, changes no call's meaning."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from brokers.fixtures import StartPgBouncer, StartPostgreSQL, fail_without_server
from brokers.postgresql_server import Address, PrivatePostgreSQL, make_schema
from conditions import LIMIT_S
from mindtrace.jobs import PostgreSQLClient, PostgreSQLResultStore, PublishStatus, Queue, QueueCounts
from mindtrace.jobs.domain.job_progress import Progress
from mindtrace.jobs.ports import (
    Ack,
    CancelOutcome,
    Dead,
    Delivery,
    EndedJob,
    Guard,
    JobResult,
    JobStatus,
    Message,
    Next,
    Place,
    Release,
    ResultStatus,
    Retry,
    SettleOutcome,
)

EMPTY = QueueCounts(0, 0, 0, 0)
QUEUES = Queue("plain"), Queue("urgent", "priority"), Queue("last", "stack")
TABLES = (
    *("version", "queue", "job", "request", "result", "ended", "asked"),
    *("shared_record", "place_key", "place", "rate", "coordination_sweep"),
)
OTHERS = "text", "float8", "bytea", "int8", "pg_class", "pg_namespace", "pg_proc", "pg_settings"
"""A temporary table is a type, too."""


def use_all(client: PostgreSQLClient) -> None:
    """Make each call, and look at its answer."""
    for queue in QUEUES:
        client.declare(queue)
        use_queue(client, queue.name)
    assert set(client.queues()) == set(QUEUES)
    use_coordination(client)
    assert client.pending_migrations() == []
    for queue in QUEUES:
        client.delete(queue.name)
    assert client.queues() == []


def use_queue(client: PostgreSQLClient, name: str) -> None:
    ids = ["acked", "failed", "dead", "released", "cancelled", "chained"]
    assert publish(client, name, *ids) == [PublishStatus.ACCEPTED] * 6
    assert publish(client, name, "acked") == [PublishStatus.DUPLICATE]
    client.publish(name, [Message("later", b"{}", delay_s=99.0), Message("soon", b"{}", delay_s=0.01)])
    consumer = client.open_consumer(name, lease_s=LIMIT_S)
    jobs: dict[str, Delivery] = {}
    while len(jobs) < 7:
        jobs |= {job.id: job for job in consumer.receive(10, LIMIT_S)}
    receipts = {id_: job.receipt for id_, job in jobs.items()}

    consumer.report(receipts["acked"], Progress(1, 2))
    assert client.progress(name) == {"acked": Progress(1, 2)}
    assert client.status(name, "acked") is JobStatus.RUNNING
    assert client.cancel(name, ["cancelled", "later"]) == [CancelOutcome.REQUESTED, CancelOutcome.CANCELLED]
    assert consumer.extend([receipts["cancelled"]]) == [SettleOutcome.CANCELLED]
    assert consumer.extend([receipts["acked"]]) == [SettleOutcome.OK]
    settled = consumer.settle(
        [
            Ack(receipts["acked"], b"\\'\0", 60.0),
            Ack(receipts["chained"], then=(Next(name, Message("next", b"{}")),)),
            Ack(receipts["soon"]),
            Retry(receipts["failed"], 0.0, error="\\x00 '\u00e9'"),
            Dead(receipts["dead"], "\\", "\\x00 '\u00e9'"),
            Release(receipts["released"]),
            Retry(receipts["cancelled"], 0.0, ""),
        ]
    )
    assert settled.outcomes == [SettleOutcome.OK] * 6 + [SettleOutcome.CANCELLED]
    assert client.results(name, ["acked", "cancelled", "soon", "dead"]) == {
        "acked": JobResult(ResultStatus.DONE, b"\\'\0"),
        "cancelled": JobResult(ResultStatus.CANCELLED),
        "soon": JobResult(ResultStatus.DONE),
        "dead": JobResult(ResultStatus.FAILED, error="\\x00 '\u00e9'"),
    }
    assert [(each.id, each.reason) for each in client.dead_letters(name)] == [("dead", "\\")]
    assert client.cancel(name, ["dead", "cancelled", "soon"]) == [
        CancelOutcome.TOO_LATE,
        CancelOutcome.CANCELLED,
        CancelOutcome.TOO_LATE,
    ]
    assert client.counts(name) == QueueCounts(3, 0, 0, 1)
    assert client.redrive(name) == 1
    again = consumer.receive(2, LIMIT_S)
    consumer.settle([Dead(each.receipt, "again", "") for each in again])
    consumer.close()
    assert client.discard(name) == 2
    assert client.purge(name) == 2
    assert client.counts(name) == EMPTY


def use_coordination(client: PostgreSQLClient) -> None:
    store = client.coordination
    version = store.put("a\\'", b"1", expected=0, ttl_s=99.0)
    assert version is not None
    assert store.put("a\\'", b"2", expected=0) is None
    assert store.put("a\\'", b"3", expected=version) is not None
    assert {key: record.value for key, record in store.scan("a").items()} == {"a\\'": b"3"}
    assert store.delete("a\\'")
    assert store.get(["a\\'"]) == {}
    places = [Place("key", 1, "first"), Place("key", 1, "second")]
    assert store.take_places(places, ttl_s=99.0) == [True, False]
    store.leave_places(places)
    assert len(store.reserve("rate", 3, interval_s=0.01, max_wait_s=9.0).waits_s) == 3
    outcome = client.publish_guarded(
        "plain", Message("guarded", b"{}"), Guard("slot", expected=0, value=b"1")
    )
    assert outcome is not None
    assert outcome.status is PublishStatus.ACCEPTED


def use_results(store: PostgreSQLResultStore) -> None:
    result = JobResult(ResultStatus.DONE, b"\\'\0")
    store.put("others/jobs", [EndedJob("a", result, 99.0)])
    assert store.get("others/jobs", "a") == result
    store.forget("others/jobs", ["a"])
    assert store.get("others/jobs", "a") is None


def publish(client: PostgreSQLClient, queue: str, *ids: str) -> list[PublishStatus]:
    return [outcome.status for outcome in client.publish(queue, [Message(id_, b"{}") for id_ in ids])]


# -- temporary tables -----------------------------------------------------------------------------


@pytest.fixture
def namespace(postgresql_address: Address) -> Iterator[str]:
    yield from make_schema(postgresql_address)


@pytest.mark.parametrize("is_alike", [False, True], ids=["of other columns", "of the same columns"])
def test_temporary_tables_of_a_caller_do_nothing_to_a_publish_in_his_transaction(
    postgresql_address: Address, namespace: str, is_alike: bool
) -> None:
    """His table of the name of one of ours swallows no job, and ends no transaction (PUB-7)."""
    with postgresql_address.client(namespace) as client:
        client.declare(Queue("plain"))
        with psycopg.connect(postgresql_address.url()) as connection:
            make_temporary_tables(connection, namespace if is_alike else None)
            (outcome,) = client.publish_in(connection, "plain", [Message("a", b"{}")])
        assert outcome.status is PublishStatus.ACCEPTED
        assert client.counts("plain") == QueueCounts(1, 0, 0, 0)


def make_temporary_tables(connection: Any, schema: str | None) -> None:
    """Make one for each name: like the table of a schema, or with another column."""
    for name in TABLES if schema else (*TABLES, *OTHERS):
        columns = f'LIKE "{schema}".{name} INCLUDING ALL' if schema else "other int"
        connection.execute(f'CREATE TEMPORARY TABLE "{name}" ({columns})')


@pytest.mark.parametrize("is_alike", [False, True], ids=["of other columns", "of the same columns"])
def test_temporary_tables_that_another_left_behind_a_pooler_do_nothing(
    start_postgresql: StartPostgreSQL, start_pgbouncer: StartPgBouncer, is_alike: bool
) -> None:
    """They stay on the server's connection, which a pooler gives to us next."""
    server = start_postgresql(fsync="off")
    pooler = start_pgbouncer(server.address, default_pool_size=1)
    with server.client() as client:
        if is_alike:
            client.migrate()
    with pooler.connect() as other:
        make_temporary_tables(other, "mindtrace_jobs" if is_alike else None)
    with pooler.address.client(poll_s=0.1, retry_timeout_s=LIMIT_S) as client:
        use_all(client)
        assert "access" not in {found.subject for found in client.diagnose()}
    with PostgreSQLResultStore.from_url(pooler.url("mindtrace_jobs")) as store:
        use_results(store)
    with pooler.connect() as other:
        assert [other.execute(f'SELECT count(*) FROM pg_temp."{name}"').fetchone() for name in TABLES] == [
            (0,)
        ] * len(TABLES)


# -- settings of a role ---------------------------------------------------------------------------

SETTINGS = {
    "standard_conforming_strings": "off",
    "backslash_quote": "on",
    "search_path": "''",
    "datestyle": "'SQL, DMY'",
    "intervalstyle": "sql_standard",
    "bytea_output": "escape",
    "extra_float_digits": "-15",
    "timezone": "'Asia/Kathmandu'",
    "client_encoding": "latin1",
    "lc_messages": "'C'",
    "default_transaction_isolation": "serializable",
    "default_transaction_deferrable": "on",
    "row_security": "off",
    "check_function_bodies": "off",
    "plpgsql.variable_conflict": "use_variable",
    "plpgsql.extra_errors": "'all'",
    "synchronous_commit": "off",
    "session_replication_role": "replica",
    "quote_all_identifiers": "on",
    "array_nulls": "off",
    "transform_null_equals": "on",
    "xmloption": "document",
    "lock_timeout": "'5s'",
    "statement_timeout": "'30s'",
    "idle_in_transaction_session_timeout": "'5s'",
    "idle_session_timeout": "'2s'",
    "default_tablespace": "pg_default",
    "default_toast_compression": "pglz",
    "plan_cache_mode": "force_custom_plan",
    "enable_indexscan": "off",
    "enable_seqscan": "off",
    "enable_material": "off",
    "enable_tidscan": "off",
    "enable_nestloop": "off",
    "from_collapse_limit": "1",
    "join_collapse_limit": "1",
    "work_mem": "'64kB'",
    "jit_above_cost": "0",
    "client_min_messages": "debug5",
    "log_statement": "'all'",
    "escape_string_warning": "on",
    "debug_parallel_query": "on",
    "force_parallel_mode": "on",
    "transaction_timeout": "'30s'",
}
"""What may be set for a role or a database, each to what is rarely chosen."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivatePostgreSQL]:
    with fail_without_server():
        server = PrivatePostgreSQL(tmp_path_factory.mktemp("server"), fsync="off")
    try:
        yield server.start()
    finally:
        server.close()


@pytest.mark.parametrize("name", SETTINGS)
def test_a_setting_of_a_role_changes_nothing(server: PrivatePostgreSQL, name: str) -> None:
    """Tables are made, each call answers the same, and the doctor can look."""
    user = f"user_{name.replace('.', '_')}"
    with server.connect() as admin:
        if (
            "." not in name
            and not admin.execute("SELECT FROM pg_settings WHERE lower(name) = %s", [name]).fetchall()
        ):
            return  # of another release
        admin.execute(f"CREATE ROLE {user} LOGIN SUPERUSER")
        admin.execute(f"ALTER ROLE {user} SET {name} = {SETTINGS[name]}")
    with server.client(user, username=user, poll_s=0.1, retry_timeout_s=LIMIT_S) as client:
        use_all(client)
        assert "access" not in {found.subject for found in client.diagnose()}
    settings = {"host": server.address.host, "port": server.address.port, "username": user}
    with PostgreSQLResultStore(**settings, namespace=user, retry_timeout_s=LIMIT_S) as store:
        use_results(store)
