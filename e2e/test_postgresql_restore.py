"""Tables that are dumped, and restored into another cluster, whose transactions have lower ids."""

import subprocess

import pytest

from brokers.fixtures import StartPostgreSQL
from brokers.postgresql_server import PrivatePostgreSQL, installed_program
from conditions import LIMIT_S
from mindtrace.jobs import PostgreSQLClient, Queue, QueueCounts, Verdict
from mindtrace.jobs.ports import Ack, Message, SettleOutcome

QUEUES = {
    Queue("plain"): ["0", "1", "2", "new"],
    Queue("urgent", "priority"): ["2", "0", "1", "new"],
    Queue("last", "stack"): ["new", "2", "1", "0"],
}
"""In which order the jobs of each kind of queue come; of the second, the last one is the most urgent."""


@pytest.fixture
def restored(start_postgresql: StartPostgreSQL) -> PrivatePostgreSQL:
    """A fresh cluster with the tables of an older one: three ready jobs a queue, and one that is leased."""
    older, fresh = start_postgresql(fsync="off"), start_postgresql(fsync="off")
    with older.connect() as admin, older.client() as client:
        admin.execute("CREATE TABLE used (id int)")
        admin.execute(
            "DO $$ BEGIN FOR i IN 1..5000 LOOP INSERT INTO used VALUES (i); COMMIT; END LOOP; END $$"
        )
        for queue in QUEUES:
            client.declare(queue)
        client.declare(Queue("leased"))
        for id_ in ("0", "1", "2"):
            for queue in QUEUES:
                client.publish(queue.name, [Message(id_, b"{}", priority=int(id_ == "2"))])
        client.publish("leased", [Message("held", b"{}")])
        consumer = client.open_consumer("leased", lease_s=0.01)
        consumer.receive(1, LIMIT_S)
        copy(older, fresh)
    return fresh


def copy(older: PrivatePostgreSQL, fresh: PrivatePostgreSQL) -> None:
    programs = installed_program().parent
    dump = subprocess.run(
        [programs / "pg_dump", "-n", "mindtrace_jobs", older.url()],
        stdout=subprocess.PIPE,
        check=True,
        timeout=LIMIT_S,
    )
    restore = [programs / "psql", "-q", "-v", "ON_ERROR_STOP=1", fresh.url()]
    subprocess.run(restore, input=dump.stdout, stdout=subprocess.DEVNULL, check=True, timeout=LIMIT_S)


def ids_in_order(client: PostgreSQLClient, queue: str) -> list[str]:
    with client.open_consumer(queue) as consumer:
        jobs = []
        while found := consumer.receive(1, 0.0):
            jobs += found
        assert set(consumer.settle([Ack(job.receipt) for job in jobs]).outcomes) == {SettleOutcome.OK}
    return [job.id for job in jobs]


def found_by_the_doctor(client: PostgreSQLClient) -> dict[str, tuple[Verdict, str]]:
    return {found.subject: (found.verdict, found.what) for found in client.diagnose()}


def test_new_jobs_stand_behind_those_that_were_restored(restored: PrivatePostgreSQL) -> None:
    """Whoever declares a queue has that mended, before he publishes (ORD-1)."""
    with restored.client(retry_timeout_s=LIMIT_S) as client:
        for queue, order in QUEUES.items():
            client.declare(queue)
            client.publish(queue.name, [Message("new", b"{}")])
            assert ids_in_order(client, queue.name) == order


def test_a_job_that_was_leased_when_it_was_dumped_comes_first(restored: PrivatePostgreSQL) -> None:
    """Its lease is over, and it goes back to the front, charged with a crash."""
    with restored.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("leased"))
        client.publish("leased", [Message("new", b"{}")])
        assert client.counts("leased") == QueueCounts(2, 0, 0, 0)
        assert ids_in_order(client, "leased") == ["held", "new"]


def test_the_doctor_finds_restored_jobs_and_names_what_mends_them(restored: PrivatePostgreSQL) -> None:
    """For programs that were running, and that go on with the fresh cluster."""
    with restored.client(retry_timeout_s=LIMIT_S) as client, restored.connect() as admin:
        consumer = client.open_consumer("plain")
        client.publish("plain", [Message("new", b"{}")])
        (new,) = consumer.receive(1, 0.0)
        assert new.id == "new"
        verdict, what = found_by_the_doctor(client)["places"]
        assert (verdict, what.endswith(": last, leased, plain, urgent")) == (Verdict.WRONG, True)

        admin.execute('SELECT "mindtrace_jobs".mend_places(name) FROM "mindtrace_jobs".queue')

        client.publish("plain", [Message("newer", b"{}")])
        assert [job.id for job in consumer.receive(4, 0.0)] == ["0", "1", "2", "newer"]
        assert "places" not in found_by_the_doctor(client)
