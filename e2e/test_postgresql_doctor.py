"""The doctor finds what is wrong with a real PostgreSQL: planted in a role, a schema or a server."""

import time
from collections.abc import Iterator
from dataclasses import replace
from uuid import uuid4

import pytest

from brokers.fixtures import StartPgBouncer, StartPostgreSQL
from brokers.postgresql_server import Address, make_schema
from conditions import LIMIT_S
from mindtrace.jobs import Finding, PostgreSQLClient, Queue, Verdict
from mindtrace.jobs.adapters.postgresql import diagnosis

GOOD, DOUBTFUL, WRONG = Verdict.GOOD, Verdict.DOUBTFUL, Verdict.WRONG

Planted = tuple[str, str, Verdict, str]


def diagnosed(address: Address, namespace: str) -> dict[str, Finding]:
    """What the doctor finds; the worst of each subject."""
    with address.client(namespace, retry_timeout_s=LIMIT_S) as client:
        findings = client.diagnose()
    order = [GOOD, DOUBTFUL, WRONG]
    return {found.subject: found for found in sorted(findings, key=lambda found: order.index(found.verdict))}


def declare(address: Address, namespace: str) -> None:
    with PostgreSQLClient.from_url(address.url(namespace)) as client:
        client.declare(Queue("jobs"))


@pytest.fixture
def namespace(postgresql_address: Address) -> Iterator[str]:
    yield from make_schema(postgresql_address)


@pytest.fixture
def role(postgresql_address: Address, namespace: str) -> Iterator[Address]:
    """A user that may do all that is needed with the tables, which are there."""
    declare(postgresql_address, namespace)
    user, schema = f"app_{uuid4().hex[:12]}", f'"{namespace}"'
    with postgresql_address.connect() as admin:
        admin.execute(f"CREATE ROLE {user} LOGIN")
        try:
            admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {user}")
            admin.execute(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {user}")
            admin.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {schema} TO {user}")
            yield replace(postgresql_address, user=user)
        finally:
            admin.execute(f"DROP OWNED BY {user}")
            admin.execute(f"DROP ROLE {user}")


PLANTED: dict[str, Planted] = {
    "no sync at a commit": (
        "ALTER ROLE {user} SET synchronous_commit = off",
        "durability",
        WRONG,
        "synchronous_commit is off, which is durability 'every second'; the client declares 'fsync'",
    ),
    "another isolation": (
        "ALTER ROLE {user} SET default_transaction_isolation = 'serializable'",
        "isolation",
        WRONG,
        "the default is serializable",
    ),
    "statements cancelled soon": (
        "ALTER ROLE {user} SET statement_timeout = '3s'",
        "timeout",
        DOUBTFUL,
        "statement_timeout cancels statements after 3000 ms",
    ),
    "locks waited for too short a time": (
        "ALTER ROLE {user} SET lock_timeout = '1s'",
        "timeout",
        DOUBTFUL,
        "lock_timeout cancels statements after 1000 ms",
    ),
    "transactions that may not write": (
        "ALTER ROLE {user} SET default_transaction_read_only = on",
        "role",
        WRONG,
        "this user's transactions are read-only",
    ),
    "few connections for the user": (
        "ALTER ROLE {user} CONNECTION LIMIT 1",
        "connections",
        WRONG,
        "1 of 1 connections of this user are taken",
    ),
    "no right to a table": (
        "REVOKE UPDATE ON {schema}.job FROM {user}",
        "permissions",
        WRONG,
        "the user lacks UPDATE on job",
    ),
    "no right to a sequence": (
        "REVOKE USAGE ON SEQUENCE {schema}.block FROM {user}",
        "permissions",
        WRONG,
        "the user lacks USAGE on block",
    ),
    "no right to a table of the coordination store": (
        "REVOKE DELETE ON {schema}.place FROM {user}",
        "permissions",
        WRONG,
        "the user lacks DELETE on place",
    ),
    "no right to a table of a later version": (
        "REVOKE INSERT ON {schema}.asked FROM {user}",
        "permissions",
        WRONG,
        "the user lacks INSERT on asked",
    ),
    "no right to a function": (
        "REVOKE EXECUTE ON FUNCTION {schema}.purge FROM PUBLIC",
        "permissions",
        WRONG,
        "the user lacks EXECUTE on purge",
    ),
    "no right to see the version": (
        "REVOKE ALL ON {schema}.version FROM {user}",
        "access",
        WRONG,
        "permission denied for table version",
    ),
    "a clock that was set back": (
        "INSERT INTO {schema}.request (token, queue, began, ends, places, seqs)"
        " VALUES (1, 1, now() + interval '1 d', now() + interval '1 d 30 s', ARRAY[1], ARRAY[1])",
        "clock",
        WRONG,
        "1 lease can't have begun yet",
    ),
    "a table without autovacuum": (
        "ALTER TABLE {schema}.job SET (autovacuum_enabled = false)",
        "autovacuum",
        WRONG,
        "autovacuum is off for the table of jobs",
    ),
}


def test_a_server_a_user_and_tables_that_are_well_have_nothing_to_mend(
    start_postgresql: StartPostgreSQL,
) -> None:
    server = start_postgresql()
    with server.connect() as admin:
        admin.execute("CREATE ROLE app LOGIN")
        admin.execute("GRANT CREATE ON DATABASE postgres TO app")
    user = replace(server.address, user="app")
    before = diagnosed(user, "queues")
    with server.connect() as admin:
        made = admin.execute("SELECT 1 FROM pg_namespace WHERE nspname = 'queues'").fetchall()
    declare(user, "queues")
    after = diagnosed(user, "queues")

    assert made == []
    assert {finding.verdict for found in (before, after) for finding in found.values()} == {GOOD}
    assert after.keys() >= {"version", "durability", "autovacuum", "connections", "schema", "permissions"}


@pytest.mark.parametrize(("sql", "subject", "verdict", "what"), PLANTED.values(), ids=PLANTED)
def test_what_is_wrong_with_a_user_or_a_table_is_found(
    postgresql_address: Address,
    role: Address,
    namespace: str,
    sql: str,
    subject: str,
    verdict: Verdict,
    what: str,
) -> None:
    """With how to fix it."""
    with postgresql_address.connect() as admin:
        admin.execute(sql.format(user=role.user, schema=f'"{namespace}"'))
    found = diagnosed(role, namespace)[subject]

    assert (found.verdict, what in found.what, bool(found.remedy)) == (verdict, True, True), found


def test_a_transaction_that_is_open_for_long_is_found(
    postgresql_address: Address, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "_LONG_S", -1)
    with postgresql_address.connect(autocommit=False) as open_for_long:
        open_for_long.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        open_for_long.execute("SELECT count(*) FROM pg_class")
        found = diagnosed(postgresql_address, namespace)["snapshots"]

    assert (found.verdict, "a transaction is open for" in found.what) == (DOUBTFUL, True)


def test_what_is_wrong_with_a_server_is_found(start_postgresql: StartPostgreSQL) -> None:
    """Its settings, a prepared transaction, few connections; and a standby."""
    server = start_postgresql(
        fsync="off",
        autovacuum="off",
        max_prepared_transactions=1,
        max_connections=6,
        superuser_reserved_connections=3,
    )
    declare(server.address, "queues")
    with server.connect() as one, server.connect() as other:
        one.execute("SELECT 1")
        other.execute("BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'forgotten'")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(diagnosis, "_LONG_S", -1)
            found = diagnosed(server.address, "queues")
        other.execute("ROLLBACK PREPARED 'forgotten'")

    assert (found["fsync"].verdict, found["autovacuum"].verdict) == (WRONG, WRONG)
    assert (found["connections"].verdict, "of 3 connections" in found["connections"].what) == (WRONG, True)
    assert "a prepared transaction waits" in found["snapshots"].what

    server.stop()
    signal = server.data / "standby.signal"
    signal.touch()
    server.give(signal)
    server.start()
    found = diagnosed(server.address, "queues")
    assert (found["role"].verdict, "standby" in found["role"].what) == (WRONG, True)


def test_a_server_whose_clock_is_another_is_found(
    role: Address, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "time", lambda: time.time() + 3600)
    found = diagnosed(role, namespace)["clock"]
    assert (found.verdict, "differ by 3," in found.what) == (DOUBTFUL, True), found


def test_a_database_that_can_not_keep_all_characters_is_found(start_postgresql: StartPostgreSQL) -> None:
    server = start_postgresql(fsync="off")
    with server.connect() as admin:
        admin.execute("CREATE DATABASE old ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    found = diagnosed(replace(server.address, database="old"), "queues")["encoding"]
    assert (found.verdict, "LATIN1" in found.what) == (DOUBTFUL, True)


@pytest.mark.parametrize(
    ("mode", "verdict", "what"),
    [("transaction", DOUBTFUL, "transaction mode is in between"), ("session", GOOD, "session mode")],
)
def test_a_pooler_is_found_with_its_mode(
    postgresql_address: Address,
    namespace: str,
    start_pgbouncer: StartPgBouncer,
    mode: str,
    verdict: Verdict,
    what: str,
) -> None:
    pooler = start_pgbouncer(postgresql_address, pool_mode=mode)

    assert "pooler" not in diagnosed(postgresql_address, namespace)
    found = diagnosed(pooler.address, namespace)["pooler"]
    assert (found.verdict, what in found.what) == (verdict, True)
