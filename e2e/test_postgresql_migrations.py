"""Releases that change the tables: migrated once, while workers of the release before go on."""

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from background import Background
from brokers.postgresql_server import Address, make_schema
from conditions import LIMIT_S, eventually
from mindtrace.jobs import PostgreSQLClient, PublishStatus, Queue, Verdict
from mindtrace.jobs.adapters.postgresql import schema as tables
from mindtrace.jobs.cli.main import run
from mindtrace.jobs.errors import AccessDenied, BrokerUnsuitable, MigrationNeeded, QueueNotFound
from mindtrace.jobs.ports import (
    Ack,
    Dead,
    Guard,
    JobResult,
    Message,
    Place,
    ResultStatus,
    SettleOutcome,
)

from .postgresql_releases import RECORDED, SHIPPED, catalog, make_release

THIS = tables.files().version
"""The version of this release."""
FIRST = Path(__file__).with_name("postgresql_version_1")
"""The files of version 1, once there is a migration."""
NEXT = """
ALTER TABLE queue ADD COLUMN tenant text;
ALTER TABLE job ADD COLUMN tenant text;
CREATE TABLE tenant (name text PRIMARY KEY);
CREATE SEQUENCE visit;
"""
"""How a next release may change the tables, on which this one works as well."""
LOCKING = "LOCK TABLE job, result, place, coordination_sweep IN ACCESS EXCLUSIVE MODE;"
"""Has all calls wait."""

MIGRATE = """
import sys
from pathlib import Path
from mindtrace.jobs import PostgreSQLClient
from mindtrace.jobs.adapters.postgresql import schema

schema.FOLDER = Path(sys.argv[2])
with PostgreSQLClient.from_url(sys.argv[1]) as client:
    print(*(each.version for each in client.migrate()))
"""
THIS_RELEASE = """
import sys
from mindtrace.jobs import *
from mindtrace.jobs.ports import *

client = PostgreSQLClient.from_url(sys.argv[1])

def open_consumer():
    global consumer
    consumer = client.open_consumer("jobs")

def receive():
    global held
    (held,) = consumer.receive(1, 60.0)
    return held.id

def declare_with_another():
    with PostgreSQLClient.from_url(sys.argv[1]) as other:
        other.declare(Queue("more"))

for line in sys.stdin:
    print(repr(eval(line)), flush=True)
client.close()
"""


@pytest.fixture
def namespace(postgresql_address: Address) -> Iterator[str]:
    """A schema of one's own."""
    yield from make_schema(postgresql_address)


@pytest.fixture
def releases(tmp_path: Path) -> list[Path]:
    """The files of the next release, and of the one after it, with which this one can't work."""
    wake = (SHIPPED / "functions" / "wake.sql").read_text("utf-8")
    changed = {"wake": f"-- As before.\n{wake}", "wake_v2": wake.replace("wake(", "wake_v2(")}
    one = make_release(tmp_path / "next", SHIPPED, tables_sql=NEXT, functions=changed)
    dropped = ("settle_and_take", "wake_v2")
    return [one, make_release(tmp_path / "after", one, dropped=dropped, oldest_release=THIS + 2)]


def client_of(address: Address, namespace: str) -> PostgreSQLClient:
    return address.client(namespace, retry_timeout_s=LIMIT_S)


def versions(address: Address, namespace: str) -> list[int]:
    with address.connect() as admin:
        rows = admin.execute(f'SELECT number FROM "{namespace}".version ORDER BY number').fetchall()
    return [number for (number,) in rows]


@contextmanager
def worker_of_this_release(url: str) -> Iterator[Callable[[str], str]]:
    """A process that evaluates what it is told to, with a client of this release."""
    process = subprocess.Popen(
        [sys.executable, "-c", THIS_RELEASE, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None

    def told(expression: str) -> str:
        process.stdin.write(f"{expression}\n")
        process.stdin.flush()
        return process.stdout.readline().strip()

    try:
        yield told
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


FUNCTIONS = """
SELECT proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid)
FROM pg_proc p JOIN pg_namespace n ON n.oid = pronamespace WHERE nspname = %s
"""

# -- applying -------------------------------------------------------------------------------------


def test_each_file_records_its_version() -> None:
    found = RECORDED.search((SHIPPED / "tables.sql").read_text("utf-8"))
    assert found is not None
    assert int(found[1]) == THIS
    for version, file in enumerate(sorted((SHIPPED / "migrations").glob("*.sql")), 2):
        found = RECORDED.search(file.read_text("utf-8"))
        assert found is not None
        assert (int(found[1]), file.name[:4]) == (version, f"{version:04}")


def test_each_function_stands_in_a_file_of_its_name() -> None:
    for file in sorted((SHIPPED / "functions").glob("*.sql")):
        assert re.findall(r"^CREATE FUNCTION (\w+)\(", file.read_text("utf-8"), re.MULTILINE) == [file.stem]


@pytest.mark.parametrize("release", [None, 0, 1], ids=["this", "next", "the-one-after"])
def test_a_migrated_schema_is_equal_to_a_new_one(
    postgresql_address: Address,
    namespace: str,
    releases: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    release: int | None,
) -> None:
    """All that its catalog says, but for the order of columns."""
    assert FIRST.exists() or THIS == 1, "copy the files of version 1, see sql/migrations/README.md"
    found = []
    for files in (FIRST if FIRST.exists() else SHIPPED, None):
        with postgresql_address.connect() as admin, client_of(postgresql_address, namespace) as client:
            admin.execute(f'DROP SCHEMA IF EXISTS "{namespace}" CASCADE')
            if files is not None:
                monkeypatch.setattr(tables, "FOLDER", files)
                client.migrate()
        monkeypatch.setattr(tables, "FOLDER", SHIPPED if release is None else releases[release])
        with postgresql_address.connect() as admin, client_of(postgresql_address, namespace) as client:
            client.migrate()
            assert client.pending_migrations() == []
            found.append(catalog(admin, namespace))
    migrated, new = found
    assert len(new) > 150
    assert migrated ^ new == set()


def test_no_migration_takes_a_function_from_the_releases_before(
    postgresql_address: Address, namespace: str, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each keeps its name, arguments and columns in all later versions (ADR 53)."""
    monkeypatch.setattr(tables, "FOLDER", FIRST if FIRST.exists() else SHIPPED)
    first = tables.script(namespace, 0, creates_schema=True)
    monkeypatch.setattr(tables, "FOLDER", releases[0])
    later = [tables.script(namespace, found, creates_schema=False) for found in range(1, THIS + 1)]
    known = set[tuple[str, str, str]]()
    with postgresql_address.connect() as admin:
        for version, made in enumerate((first, *later), 1):
            admin.execute(made)
            found = set(admin.execute(FUNCTIONS, [namespace]).fetchall())
            assert known <= found, f"version {version} changed {known - found}"
            known = found
    assert len(known) > 30


def test_functions_look_for_temporary_tables_last(postgresql_address: Address, namespace: str) -> None:
    """Such a table might else stand in for one of ours."""
    with client_of(postgresql_address, namespace) as client, postgresql_address.connect() as admin:
        client.migrate()
        settings = admin.execute(
            "SELECT proname, proconfig::text FROM pg_proc"
            " WHERE pronamespace = (SELECT oid FROM pg_namespace WHERE nspname = %s)"
            " AND proconfig IS NOT NULL",
            [namespace],
        ).fetchall()
    assert len(settings) > 30
    assert [name for name, of_it in settings if ", pg_temp" not in of_it] == []


@pytest.mark.parametrize("is_new", [True, False], ids=["new", "of-this-release"])
def test_processes_that_migrate_at_once_apply_each_migration_once(
    postgresql_address: Address, namespace: str, releases: list[Path], is_new: bool
) -> None:
    """Both wait for the lock at first, and then each takes turns."""
    if not is_new:
        with client_of(postgresql_address, namespace) as client:
            client.migrate()
    command = [sys.executable, "-c", MIGRATE, postgresql_address.url(namespace), str(releases[1])]
    lock = re.search(r"pg_advisory_xact_lock\((-?\d+), (-?\d+)\)", tables._begin(namespace))
    assert lock is not None
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND classid = %s"
    with ExitStack() as stack:
        admin = stack.enter_context(postgresql_address.connect())
        admin.execute("SELECT pg_advisory_lock(%s, %s)", [int(lock[1]), int(lock[2])])
        processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
        for process in processes:
            stack.callback(process.wait)
            stack.callback(process.kill)
        eventually(
            lambda: admin.execute(waiting, [int(lock[1])]).fetchall() == [(2,)], "two wait for the lock"
        )
        admin.execute("SELECT pg_advisory_unlock_all()")
        answers = [process.communicate(timeout=LIMIT_S)[0].split() for process in processes]

    assert [process.returncode for process in processes] == [0, 0]
    wanted = [THIS + 2] if is_new else [THIS + 1, THIS + 2]
    assert sorted(int(version) for answer in answers for version in answer) == wanted
    assert versions(postgresql_address, namespace)[-len(wanted) :] == wanted


def test_who_waited_for_a_migration_sees_it(
    postgresql_address: Address, namespace: str, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the server's cache of names, in a transaction that has begun, still knows no such table."""
    first = tables.script(namespace, 0, creates_schema=True).removesuffix("COMMIT;\n")
    monkeypatch.setattr(tables, "FOLDER", releases[0])
    with client_of(postgresql_address, namespace) as client, postgresql_address.connect() as admin:
        waiting = client._session.connect()
        for _ in range(2):  # the first time it also looks for the types of its parameters, which refreshes
            assert tables._find_version_in_transaction(waiting, namespace) == 0
        admin.execute(first)
        with Background() as executor:
            made = executor.submit(tables.migrate, waiting, namespace)
            waits = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted AND pid = %s"
            eventually(
                lambda: admin.execute(waits, [waiting.reported_pid]).fetchone() == (1,),
                "it waits for the lock",
            )
            admin.execute("COMMIT")
            assert made.result(LIMIT_S) == [THIS + 1]
        waiting.close()


def test_calls_that_wait_for_a_migration_go_on_after_it(
    postgresql_address: Address, namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have entered the functions that it replaces, and go on with the tables that it leaves."""
    replaced = {file.stem: file.read_text("utf-8") for file in sorted((SHIPPED / "functions").glob("*.sql"))}
    locking = make_release(tmp_path / "locking", SHIPPED, tables_sql=LOCKING, functions=replaced)
    with monkeypatch.context() as patch:
        patch.setattr(tables, "FOLDER", locking)
        migration = tables.script(namespace, THIS, creates_schema=False).removesuffix("COMMIT;\n")
    named = replace(postgresql_address, parameters=(("application_name", namespace),))
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s AND wait_event_type = 'Lock'"
    with ExitStack() as stack:
        client = stack.enter_context(client_of(named, namespace))
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("held", b"{}")])
        consumer = stack.enter_context(client.open_consumer("jobs"))
        (held,) = consumer.receive(1, LIMIT_S)
        caller = stack.enter_context(named.connect(autocommit=False))
        watch = stack.enter_context(postgresql_address.connect())
        threads = stack.enter_context(Background())
        admin = stack.enter_context(postgresql_address.connect())
        admin.execute(migration)
        answers = [
            threads.submit(client.publish, "jobs", [Message("a", b"{}")]),
            threads.submit(client.publish_in, caller, "jobs", [Message("b", b"{}")]),
            threads.submit(client.coordination.take_places, [Place("key", 1, "holder")], ttl_s=LIMIT_S),
            threads.submit(lambda: consumer.settle([Ack(held.receipt)]).outcomes),
        ]
        eventually(
            lambda: watch.execute(waiting, [namespace]).fetchall() == [(len(answers),)], "all calls wait"
        )
        admin.execute("COMMIT")
        published, joined, placed, settled = (answer.result(LIMIT_S) for answer in answers)
        caller.commit()

        assert [outcome.status for outcome in (*published, *joined)] == [PublishStatus.ACCEPTED] * 2
        assert (placed, settled) == ([True], [SettleOutcome.OK])
        assert client.counts("jobs").ready == 2


def test_a_publication_of_all_tables_lets_rows_be_changed(
    postgresql_address: Address, namespace: str
) -> None:
    """PostgreSQL refuses that for a table that has neither a primary key nor a replica identity."""
    with client_of(postgresql_address, namespace) as client, postgresql_address.connect() as admin:
        client.declare(Queue("jobs"))
        names = admin.execute("SELECT tablename FROM pg_tables WHERE schemaname = %s", [namespace]).fetchall()
        all_tables = ", ".join(f'"{namespace}".{name}' for (name,) in names)
        admin.execute(f'CREATE PUBLICATION "{namespace}" FOR TABLE {all_tables}')
        try:
            client.publish("jobs", [Message(job_id, b"{}") for job_id in "ab"])
            with client.open_consumer("jobs") as consumer:
                first, second = consumer.receive(2, LIMIT_S)
                assert consumer.extend([first.receipt]) == [SettleOutcome.OK]
                outcomes = consumer.settle([Ack(first.receipt), Dead(second.receipt, "reason", "")]).outcomes
            assert outcomes == [SettleOutcome.OK] * 2
            assert client.redrive("jobs") == client.purge("jobs") == 1
            place = Place("key", 1, "holder")
            assert client.coordination.take_places([place], ttl_s=LIMIT_S) == [True]
            client.coordination.leave_places([place])
            admin.execute(f'SET search_path = "{namespace}"')
            admin.execute("SELECT sweep_coordination()")
        finally:
            admin.execute(f'DROP PUBLICATION "{namespace}"')


def test_a_migration_that_fails_leaves_the_version_before_it(
    postgresql_address: Address, namespace: str, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole: each is one transaction. Once it is corrected, it goes on from there."""
    last = releases[1] / "migrations" / f"{THIS + 2:04}_sample.sql"
    right = last.read_text("utf-8")
    last.write_text("CREATE TABLE half (); SELECT 1 / 0;", "utf-8")
    with client_of(postgresql_address, namespace) as client:
        client.migrate()
        monkeypatch.setattr(tables, "FOLDER", releases[1])
        with pytest.raises(Exception, match="division by zero"):
            client.migrate()
        assert versions(postgresql_address, namespace) == [THIS, THIS + 1]
        with postgresql_address.connect() as admin:
            half = admin.execute("SELECT to_regclass(%s)", [f'"{namespace}".half']).fetchall()
        assert half == [(None,)]
        last.write_text(right, "utf-8")
        tables._read.cache_clear()
        assert [each.version for each in client.migrate()] == [THIS + 2]
        assert client.pending_migrations() == []


def test_a_client_migrates_by_itself_where_it_may(
    postgresql_address: Address, namespace: str, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On its first call that isn't a mere look: those, as the doctor's, change nothing."""
    with client_of(postgresql_address, namespace) as this:
        this.declare(Queue("jobs"))
    monkeypatch.setattr(tables, "FOLDER", releases[0])
    with client_of(postgresql_address, namespace) as newer:
        assert newer.queues() == [Queue("jobs")]
        assert newer.counts("jobs").ready == 0
        (finding,) = (finding for finding in newer.diagnose() if finding.subject == "schema")
        assert finding.verdict is Verdict.GOOD
        assert f"has version {THIS}; the first worker or publisher brings it to version" in finding.what
        assert versions(postgresql_address, namespace) == [THIS]

        (outcome,) = newer.publish("jobs", [Message("a", b"{}")])

        assert outcome.status is PublishStatus.ACCEPTED
        assert versions(postgresql_address, namespace) == [THIS, THIS + 1]


def test_where_nothing_was_declared_only_a_declaration_makes_tables(
    postgresql_address: Address, namespace: str
) -> None:
    """Also in a schema that is there and empty, as a DBA may have made it."""
    with postgresql_address.connect() as admin:
        admin.execute(f'CREATE SCHEMA "{namespace}"')
    with client_of(postgresql_address, namespace) as client:
        for call in (
            lambda: client.publish("jobs", [Message("a", b"{}")]),
            lambda: client.counts("jobs"),
            lambda: client.open_consumer("jobs"),
            lambda: client.result("jobs", "a"),
        ):
            with pytest.raises(QueueNotFound):
                call()
        assert client.queues() == []
        assert [each.version for each in client.pending_migrations()] == [THIS]
        client.declare(Queue("jobs"))
        assert client.pending_migrations() == []


# -- several releases at once ---------------------------------------------------------------------


def test_workers_of_two_releases_share_the_queues_during_a_deploy(
    postgresql_address: Address, namespace: str, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The tables change under a worker that has a job; it settles, takes and publishes as before."""
    with worker_of_this_release(postgresql_address.url(namespace)) as told:
        assert told("client.declare(Queue('jobs'))") == "None"
        assert "ACCEPTED" in told("client.publish('jobs', [Message('a', b'1'), Message('b', b'2')])")
        assert told("open_consumer()") == "None"
        assert told("receive()") == "'a'"

        monkeypatch.setattr(tables, "FOLDER", releases[0])
        with client_of(postgresql_address, namespace) as newer, newer.open_consumer("jobs") as beside:
            assert versions(postgresql_address, namespace)[-1] == THIS + 1
            assert [each.id for each in beside.receive(1, LIMIT_S)] == ["b"]
            settled = "consumer.settle([Ack(held.receipt, b'done')]).outcomes"
            assert "SettleOutcome.OK" in told(settled)
            assert newer.result("jobs", "a") == JobResult(ResultStatus.DONE, b"done")

            newer.publish("jobs", [Message("c", b"3")])
            assert told("receive()") == "'c'"
            assert "OK" in told("consumer.settle([Dead(held.receipt, 'rejected', 'no')]).outcomes")
            assert "ACCEPTED" in told("client.publish('jobs', [Message('d', b'4')])")
            assert [each.id for each in beside.receive(1, LIMIT_S)] == ["d"]
            assert [letter.id for letter in newer.dead_letters("jobs")] == ["c"]
        assert told("declare_with_another()") == "None"
        assert told("consumer.close()") == "None"


def test_a_release_that_can_not_work_on_the_tables_says_so(
    postgresql_address: Address, namespace: str, releases: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also a worker that has been working: with a sentence, and not with a queue that isn't there."""
    newer_release = f"version is {THIS + 2}, and this release knows {THIS}; upgrade mindtrace-jobs"
    with client_of(postgresql_address, namespace) as this, client_of(postgresql_address, namespace) as late:
        this.declare(Queue("jobs"))
        with this.open_consumer("jobs") as consumer:
            assert consumer.receive(1, 0.0) == []
            monkeypatch.setattr(tables, "FOLDER", releases[1])
            with client_of(postgresql_address, namespace) as newer:
                assert [each.version for each in newer.migrate()] == [THIS + 1, THIS + 2]
            monkeypatch.setattr(tables, "FOLDER", SHIPPED)

            with pytest.raises(BrokerUnsuitable, match=r"a newer release has migrated it; start .* again"):
                consumer.receive(1, 0.0)
        for call in (
            lambda: late.publish("jobs", [Message("a", b"{}")]),
            lambda: late.counts("jobs"),
            lambda: late.declare(Queue("jobs")),
            lambda: late.pending_migrations(),
        ):
            with pytest.raises(BrokerUnsuitable, match=newer_release):
                call()
        (finding,) = late.diagnose()
        assert (finding.verdict, newer_release in finding.what) == (Verdict.WRONG, True)


# -- least privilege ------------------------------------------------------------------------------

GUIDE = Path(__file__).parents[1] / "docs" / "postgresql.md"


@pytest.fixture
def roles(postgresql_address: Address, namespace: str) -> Iterator[tuple[Address, Address, list[str]]]:
    """The owner and the application's user of the guide, with names of their own; and the grants to make."""
    suffix = uuid4().hex[:12]
    names = {
        "jobs_owner": f"owner_{suffix}",
        "jobs_app": f"app_{suffix}",
        "app_db": f'"{postgresql_address.database}"',
        "mindtrace_jobs": f'"{namespace}"',
    }

    def own(sql: str) -> list[str]:
        for name, ours in names.items():
            sql = re.sub(rf"\b{name}\b", ours, sql)
        return [each for each in re.sub("--.*", "", sql).split(";") if each.strip()]

    _, _, section = GUIDE.read_text("utf-8").partition("\n## Privileges\n")
    as_superuser, as_owner = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)[:2]
    with postgresql_address.connect() as admin:
        try:
            for statement in own(as_superuser):
                admin.execute(statement)
            owner, app = (
                replace(postgresql_address, user=names[name]) for name in ("jobs_owner", "jobs_app")
            )
            yield owner, app, own(as_owner)
        finally:
            admin.execute(f'DROP SCHEMA IF EXISTS "{namespace}" CASCADE')
            for name in (names["jobs_app"], names["jobs_owner"]):
                admin.execute(f"DROP OWNED BY {name}")
                admin.execute(f"DROP ROLE {name}")


def test_a_user_with_the_documented_grants_works_and_is_refused_a_migration(
    roles: tuple[Address, Address, list[str]],
    namespace: str,
    releases: list[Path],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """From the first migration by the owner to that of the next release; each refusal names the command."""
    owner, app, grants = roles
    command = r"run `mindtrace-jobs migrate` as its owner \(docs/postgresql\.md, Privileges\)"

    def cli(address: Address, *options: str) -> tuple[int, str, str]:
        code = run(["migrate", "-b", address.url(namespace), *options])
        return (code, *capfd.readouterr())

    with client_of(app, namespace) as client, pytest.raises(MigrationNeeded, match=f"no tables.*{command}"):
        client.declare(Queue("jobs"))
    assert cli(app, "--check")[0] == 1
    assert cli(owner)[:2] == (
        0,
        f"{name_of(owner, namespace)}: migrated to version {THIS}\n",
    )
    with owner.connect() as connection:
        for grant in grants:
            connection.execute(grant)

    assert cli(app, "--check")[0] == cli(app)[0] == 0
    use_all_of_it(app, namespace)
    with app.connect() as connection:
        for statement in (
            f'ALTER TABLE "{namespace}".job ADD COLUMN mine int',
            f'DROP TABLE "{namespace}".job',
            f'TRUNCATE "{namespace}".job',
            f'UPDATE "{namespace}".version SET number = 99',
            f'CREATE TABLE "{namespace}".mine ()',
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)

    monkeypatch.setattr(tables, "FOLDER", releases[0])
    with client_of(app, namespace) as client:
        with pytest.raises(AccessDenied, match=f"has version {THIS}, .* version {THIS + 1}, .*{command}"):
            client.publish("jobs", [Message("a", b"{}")])
        found = {finding.subject: finding for finding in client.diagnose()}
        assert found["schema"].verdict is Verdict.WRONG
        assert "mindtrace-jobs migrate" in found["schema"].remedy
    code, _, error = cli(app)
    assert (code, "run `mindtrace-jobs migrate` as its owner" in error) == (3, True)
    code, _, error = cli(app, "--check")
    assert (code, "lacks 1 migration: run mindtrace-jobs migrate" in error) == (1, True)

    code, sql, _ = cli(app, "--sql")
    assert code == 0
    with owner.connect() as connection:  # as a DBA does
        connection.execute(sql.encode())
    place = f"{app.host}:{app.port}/{app.database}?namespace={namespace}"
    assert cli(app) == (0, f"postgresql://***@{place} is up to date\n", "")
    use_all_of_it(app, namespace)
    with app.connect() as connection:
        connection.execute(f'INSERT INTO "{namespace}".tenant VALUES (%s)', ["one"])
        connection.execute("SELECT nextval(%s)", [f'"{namespace}".visit'])


def name_of(address: Address, namespace: str) -> str:
    return f"schema '{namespace}' of {address.host}:{address.port}/{address.database}"


def use_all_of_it(address: Address, namespace: str) -> None:
    """Publish, run, fail, redrive, wait for a result, and delete the queue."""
    with client_of(address, namespace) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("a", b"1"), Message("b", b"2", delay_s=0.01)])
        with client.open_consumer("jobs") as consumer:
            (held,) = consumer.receive(1, LIMIT_S)
            assert consumer.settle([Ack(held.receipt, b"done")]).outcomes == [SettleOutcome.OK]
            (held,) = consumer.receive(1, LIMIT_S)
            assert consumer.extend([held.receipt]) == [SettleOutcome.OK]
            assert consumer.settle([Dead(held.receipt, "rejected", "no")]).outcomes == [SettleOutcome.OK]
        assert client.result("jobs", "a", timeout_s=LIMIT_S) == JobResult(ResultStatus.DONE, b"done")
        assert [letter.id for letter in client.dead_letters("jobs")] == ["b"]
        assert client.redrive("jobs") == 1
        assert client.purge("jobs") == 1
        use_the_store(client)
        client.delete("jobs")
        client.declare(Queue("jobs"))


def use_the_store(client: PostgreSQLClient) -> None:
    """Write, sweep and delete records, take a place and a turn, and publish with a record."""
    store, place = client.coordination, Place("key", 1, "holder")
    written = [store.put("record", b"", ttl_s=600.0) for _ in range(32)]  # one of them sweeps
    assert store.get(["record"])["record"].version == written[-1]
    assert store.take_places([place], ttl_s=600.0) == [True]
    store.leave_places([place])
    assert store.reserve("rate", 1, interval_s=0.001, max_wait_s=LIMIT_S).retry_s == 0.0
    outcome = client.publish_guarded("jobs", Message("a", b"1"), Guard("record", written[-1] or 0, b"1"))
    assert outcome is not None
    assert outcome.status is PublishStatus.ACCEPTED
    assert store.delete("record")


# -- the command ----------------------------------------------------------------------------------


def test_the_command_prints_what_is_missing_as_sql_and_as_json(
    postgresql_address: Address, namespace: str, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["migrate", "-b", postgresql_address.url(namespace)]
    name = name_of(postgresql_address, namespace)
    assert run([*words, "--sql"]) == 0
    sql = capfd.readouterr().out
    assert run([*words, "--sql", "--json"]) == 0
    missing = json.loads(capfd.readouterr().out)
    assert [each["version"] for each in missing] == [THIS]
    assert all(each["target"] == name and each["sql"] in sql for each in missing)
    assert run([*words, "--check"]) == run([*words, "--check", "--json"]) == 1
    out, error = capfd.readouterr()
    assert json.loads(out) == missing
    assert error.startswith(f"error: {name} lacks 1 migration")

    with postgresql_address.connect() as admin:
        assert not admin.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [namespace]).fetchall()
        admin.execute(sql.encode())
        with pytest.raises(psycopg.errors.DuplicateSchema):  # a second time changes nothing
            admin.execute(sql.encode())
    assert run([*words, "--json"]) == 0
    assert json.loads(capfd.readouterr().out) == []
    assert versions(postgresql_address, namespace) == [THIS]
