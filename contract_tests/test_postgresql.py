"""The contract, on a real PostgreSQL."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Any, ClassVar
from uuid import uuid4

import psycopg
import pytest

from brokers.postgresql_server import Address, make_schema
from brokers.private_server import free_port
from brokers.proxy import Disruption, Proxy
from conditions import eventually
from mindtrace.jobs import (
    ConsumerBackend,
    OrchestratorBackend,
    PostgreSQLClient,
    PublishStatus,
    Queue,
    Verdict,
)
from mindtrace.jobs.adapters.postgresql.session import Session
from mindtrace.jobs.adapters.postgresql.settings import ServerSettings
from mindtrace.jobs.adapters.postgresql.wakeups import READY
from mindtrace.jobs.contract import Harness, contract_suite, run_contract
from mindtrace.jobs.errors import AccessDenied, BackendUnavailable, InvalidInput, QueueNotFound
from mindtrace.jobs.ports import (
    Ack,
    Dead,
    EndedJobs,
    Message,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)

from .harnesses import NEVER_S

# The state machine waits for real leases: a minute on a machine that is idle.
pytestmark = pytest.mark.timeout(1800)

SECRET = "open-sesame-4711"
"""A password that shows nowhere; a server that trusts its users takes any."""

GIVE_UP_S = 0.3
"""For how long a client tries that is cut off."""
CHANGE = re.compile(
    rb"\.(publish|settle_and_take|settle_publish_and_take|extend|purge|redrive_or_discard"
    rb"|delete_queue)\("
)
"""The call of a function that changes jobs or queues."""


class PostgreSQLHarness(Harness):
    lease_s = 0.3
    secrets = (SECRET,)
    address: ClassVar[Address]
    pooled: ClassVar[bool] = False
    """Whether clients connect through a pooler."""

    def __init__(self, admin: Address | None = None) -> None:
        self.admin = (admin or self.address).connect()
        self.schemas = Schemas(self.admin, pooled=self.pooled)
        self.proxies: dict[tuple[str, int], Proxy] = {}
        """By the address that clients have of each."""

    def make(self, namespace: str) -> OrchestratorBackend:
        return self.client(namespace)

    def client(self, namespace: str, *, poll_s: float = 5.0) -> PostgreSQLClient:
        schema = self.schemas.of(namespace)
        return client_of(self.address, schema, poll_s=poll_s, application_name=schema)

    def make_without_polling(self, namespace: str) -> OrchestratorBackend | None:
        client, schema = self.client(namespace, poll_s=NEVER_S), self.schemas.of(namespace)
        without_polling(client, lambda queue: self.announce_for_ever(schema, queue))
        return client

    def announce_for_ever(self, schema: str, queue: str) -> None:
        """Say that somebody waits there, who then needn't say so again, and missed nothing before that."""
        announce = f"UPDATE \"{schema}\".queue SET receivers_wait_until = 'infinity'"
        self.admin.execute(f"{announce}, callers_wait_until = 'infinity' WHERE name = %s", [queue])

    def crash(self, consumer: ConsumerBackend) -> None:
        """Nothing to do: a consumer that is never heard of again is dead."""

    def sever(self, backend: OrchestratorBackend) -> None:
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        self.admin.execute(kill, [backend.url.partition("application_name=")[2]])

    def cut_reply(self, backend: OrchestratorBackend) -> bool:
        self.disrupt_next_change(backend, Disruption.CUT)
        return True

    def cut_request(self, backend: OrchestratorBackend) -> bool:
        self.disrupt_next_change(backend, Disruption.LOSE)
        return True

    def disrupt_next_change(self, backend: OrchestratorBackend, how: Disruption) -> None:
        """Do so in a proxy, through which all requests go from now on, with the text of their statements."""
        session = backend._session
        (server,) = session.settings.hosts
        if server not in self.proxies:
            proxy = Proxy(*server)
            server = ("127.0.0.1", proxy.port)
            self.proxies[server] = proxy
            libpq = {"sslmode": "disable"} | dict(session.settings.libpq)
            session.settings = replace(session.settings, hosts=(server,), libpq=libpq)
            session._prepares = False
            session._drop_idle()
        self.proxies[server].disrupt_next(CHANGE, how)

    @contextmanager
    def cut_off(self, backend: OrchestratorBackend) -> Iterator[None]:
        session = backend._session
        nobody = replace(session.settings, hosts=(("127.0.0.1", free_port()),))
        with self.other_settings(session, nobody):
            yield

    @contextmanager
    def refuse(self, backend: OrchestratorBackend) -> Iterator[None]:
        """Have the server take the client's transactions for those of a standby, which may write nothing."""
        session = backend._session
        libpq = dict(session.settings.libpq) | {"options": "-c default_transaction_read_only=on"}
        with self.other_settings(session, replace(session.settings, libpq=libpq)):
            yield

    @contextmanager
    def other_settings(self, session: Session, settings: ServerSettings) -> Iterator[None]:
        """Have a client connect in another way, and give up soon, for the duration of the block."""
        before = session.settings, session.retry_timeout_s
        session.settings, session.retry_timeout_s = settings, GIVE_UP_S
        session._drop_idle()
        try:
            yield
        finally:
            session.settings, session.retry_timeout_s = before
            session._drop_idle()

    def open_connection(self, backend: OrchestratorBackend) -> "psycopg.Connection[Any]":
        return self.address.connect(autocommit=False)

    def count_stored(self, backend: OrchestratorBackend) -> int:
        """Count the rows of all tables."""
        schema = backend.url.partition("application_name=")[2]
        look = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        tables = [name for (name,) in self.admin.execute(look, [schema])]
        counts = [
            self.admin.execute(f'SELECT count(*) FROM "{schema}"."{name}"').fetchone() for name in tables
        ]
        return sum(row[0] for row in counts if row is not None)

    def destroy(self, namespace: str) -> None:
        self.schemas.give_back(namespace)

    def close(self) -> None:
        for proxy in self.proxies.values():
            proxy.close()
        self.schemas.close()
        self.admin.close()


class Schemas:
    """The schemas of namespaces, whose clients name their connections after them.

    What one namespace leaves is emptied for the next, as to make a schema takes fifty times as long.

    Args:
        admin: A connection that may do all this.
        pooled: Whether a pooler keeps the connections of clients that are gone. One that is idle is nobody's
            then: all clients of a namespace are closed before it is given back.
    """

    def __init__(self, admin: "psycopg.Connection[Any]", *, pooled: bool = False) -> None:
        self._admin = admin
        self._look = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
        if pooled:
            self._look += " AND state <> 'idle'"
        self._schemas: dict[str, str] = {}
        """By namespace."""
        self._empty: list[str] = []

    def of(self, namespace: str) -> str:
        """Return the schema of a namespace."""
        if namespace not in self._schemas:
            self._schemas[namespace] = self._empty.pop() if self._empty else f"test-{uuid4().hex}"
        return self._schemas[namespace]

    def give_back(self, namespace: str) -> None:
        """Remove what is in a namespace, with its schema if a connection may still write there."""
        if (schema := self._schemas.pop(namespace, None)) is None:
            return
        if self._is_left(schema):
            self._delete_rows(schema)
            self._empty.append(schema)
        else:
            self._drop(schema)

    def close(self) -> None:
        """Drop all schemas."""
        for name in (*self._schemas.values(), *self._empty):
            self._drop(name)

    def _is_left(self, schema: str) -> bool:
        """Return whether all connections are gone: the server ends one soon after it was closed."""
        for _ in range(100):
            if self._admin.execute(self._look, [schema]).fetchone() is None:
                return True
            time.sleep(0.002)
        return False

    def _delete_rows(self, schema: str) -> None:
        look = "SELECT tablename FROM pg_tables WHERE schemaname = %s"
        tables = {name for (name,) in self._admin.execute(look, [schema])} - {"version", "coordination_sweep"}
        deletes = [f'DELETE FROM "{schema}"."{table}"' for table in sorted(tables)]
        self._admin.execute("; ".join(deletes))

    def _drop(self, schema: str) -> None:
        self._admin.execute(f'DROP SCHEMA IF EXISTS "{schema}" CASCADE')


def client_of(
    address: Address, namespace: str, *, timeout_s: float = 30.0, poll_s: float = 5.0, **libpq: str
) -> PostgreSQLClient:
    """A client of ours; it tries for long, as the machine may be busy."""
    return address.client(
        namespace,
        password=address.password or SECRET,
        poll_s=poll_s,
        retry_timeout_s=timeout_s,
        libpq=dict(address.parameters) | libpq,
    )


def without_polling(client: PostgreSQLClient, announce: Callable[[str], None]) -> None:
    """Take all looks from those who wait that nothing causes; let them listen before they wait.

    Args:
        client: Whose consumers, and callers that wait for results, these are.
        announce: Says for ever that somebody waits in a queue that was declared.
    """
    declare, open_consumer, ended_jobs = client.declare, client.open_consumer, client._results.ended_jobs

    def declare_and_announce(queue: Queue) -> None:
        declare(queue)
        announce(queue.name)

    def open_patient(queue: str, **options: Any) -> ConsumerBackend:
        consumer = open_consumer(queue, **options)
        consumer._scan.whole_in_s = lambda: inf
        return consumer

    def patient_ended_jobs(queue: str) -> EndedJobs:
        ended = ended_jobs(queue)
        ended._looks, ended._next_poll = [], inf
        return ended

    client.declare, client.open_consumer = declare_and_announce, open_patient
    client._results.ended_jobs, client._results._poll_s = patient_ended_jobs, inf
    client._wakeups.open_waiter(0, READY).close()
    eventually(lambda: client._wakeups._is_listening, "the client listens")


@pytest.fixture(scope="module", autouse=True)
def find_postgresql(postgresql_address: Address) -> None:
    PostgreSQLHarness.address = postgresql_address
    PostgreSQLHarness.secrets = (postgresql_address.password or SECRET,)


globals().update(contract_suite(PostgreSQLHarness))


@pytest.fixture
def namespace(postgresql_address: Address) -> Iterator[str]:
    """A schema of one's own."""
    yield from make_schema(postgresql_address)


# -- answers that are lost ------------------------------------------------------------------------


@pytest.fixture
def behind_a_proxy(postgresql_address: Address, namespace: str) -> Iterator[tuple[Proxy, PostgreSQLClient]]:
    """A client whose requests were all prepared, so that each names its statement."""
    with Proxy(postgresql_address.host, postgresql_address.port) as proxy:
        address = replace(postgresql_address, host="127.0.0.1", port=proxy.port)
        with client_of(address, namespace, sslmode="disable") as client:
            client.declare(Queue("jobs"))
            yield proxy, client


def test_a_publish_whose_answer_is_lost_is_carried_out_once(
    behind_a_proxy: tuple[Proxy, PostgreSQLClient],
) -> None:
    proxy, client = behind_a_proxy
    proxy.disrupt_next(b"marked body", Disruption.CUT)

    (outcome,) = client.publish("jobs", [Message("a", b"marked body")])

    assert outcome.status is PublishStatus.ACCEPTED
    assert proxy.disrupted == 1
    assert client.counts("jobs").ready == 1


def test_a_publish_that_was_answered_unknown_makes_no_second_job(
    behind_a_proxy: tuple[Proxy, PostgreSQLClient], postgresql_address: Address, namespace: str
) -> None:
    """Not even if the job is done by the time it is published again."""
    proxy, client = behind_a_proxy
    client._session.retry_timeout_s = 1.0
    proxy.disrupt_next(b"marked body", Disruption.SILENCE, times=20)
    (outcome,) = client.publish("jobs", [Message("a", b"marked body")])
    assert outcome.status is PublishStatus.UNKNOWN
    proxy.stop_disrupting()
    client._session.retry_timeout_s = 30.0
    with client_of(postgresql_address, namespace) as other, other.open_consumer("jobs") as consumer:
        (delivery,) = consumer.receive(1, 30.0)
        assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]

    (again,) = client.publish("jobs", [Message("a", b"marked body")])
    (later,) = client.publish("jobs", [Message("a", b"marked body")])

    assert again.status is PublishStatus.DUPLICATE
    assert later.status is PublishStatus.ACCEPTED


def test_that_a_request_was_not_carried_out_is_answered_as_often_as_it_is_asked(
    postgresql_address: Address, namespace: str
) -> None:
    """Or what was answered unknown, and then failed as it was repeated, would be a duplicate of no job."""
    with client_of(postgresql_address, namespace) as client:
        client.declare(Queue("jobs"))

        assert [client._publisher._was_carried_out(4711) for _ in range(3)] == [False] * 3


@pytest.mark.parametrize("end", [Ack, "retry", "dead", "later", Release], ids=str)
def test_a_settlement_whose_answer_is_lost_is_carried_out_once(
    behind_a_proxy: tuple[Proxy, PostgreSQLClient], end: object
) -> None:
    proxy, client = behind_a_proxy
    client.publish("jobs", [Message("a", b"1"), Message("b", b"2")])
    with client.open_consumer("jobs") as consumer:
        (held,) = consumer.receive(1, 30.0)
        settlement: Settlement
        match end:
            case "retry":
                settlement = Retry(held.receipt, 600.0, "marked error")
            case "dead":
                settlement = Dead(held.receipt, "rejected", "marked error")
            case "later":
                settlement = Release(held.receipt, 600.0)
            case _:
                settlement = Ack(held.receipt) if end is Ack else Release(held.receipt)
        (token,) = {job.token for job in consumer._held._jobs.values()}
        proxy.disrupt_next(token.to_bytes(8, "big"), Disruption.CUT)

        settled = consumer.settle([settlement], take=1)

        assert proxy.disrupted == 1
        assert settled.outcomes == [SettleOutcome.OK]
        assert len(settled.deliveries) == 1
        assert settled.deliveries[0].crashes == 0
        assert client.counts("jobs").in_flight == 1
        assert consumer.settle([settlement]).outcomes == [SettleOutcome.ALREADY]


def test_what_an_unanswered_request_did_is_found_out_and_what_it_took_is_given_back(
    behind_a_proxy: tuple[Proxy, PostgreSQLClient],
) -> None:
    proxy, client = behind_a_proxy
    client.publish("jobs", [Message("a", b"1"), Message("b", b"2")])
    with client.open_consumer("jobs") as consumer:
        (held,) = consumer.receive(1, 30.0)
        (token,) = {job.token for job in consumer._held._jobs.values()}
        client._session.retry_timeout_s = 1.0
        proxy.disrupt_next(token.to_bytes(8, "big"), Disruption.SILENCE, times=20)
        with pytest.raises(BackendUnavailable):
            consumer.settle([Ack(held.receipt)], take=1)
        proxy.stop_disrupting()
        client._session.retry_timeout_s = 30.0

        outcome = consumer.settle([Ack(held.receipt)]).outcomes

        assert outcome[0] in (SettleOutcome.OK, SettleOutcome.ALREADY)
        (other,) = consumer.receive(1, 30.0)
        assert (other.id, other.crashes) == ("b", 0)
        counts = client.counts("jobs")
        assert (counts.ready, counts.in_flight) == (0, 1)


def test_an_extension_whose_answer_is_lost_keeps_the_job(
    behind_a_proxy: tuple[Proxy, PostgreSQLClient],
) -> None:
    proxy, client = behind_a_proxy
    client.publish("jobs", [Message("a", b"1")])
    with client.open_consumer("jobs") as consumer:
        (held,) = consumer.receive(1, 30.0)
        (token,) = {job.token for job in consumer._held._jobs.values()}
        proxy.disrupt_next(token.to_bytes(8, "big"), Disruption.CUT)

        assert consumer.extend([held.receipt]) == [SettleOutcome.OK]

        assert proxy.disrupted == 1
        assert consumer.settle([Ack(held.receipt)]).outcomes == [SettleOutcome.OK]


# -- the schema -----------------------------------------------------------------------------------


def test_before_anything_is_declared_nothing_is_created(postgresql_address: Address, namespace: str) -> None:
    with client_of(postgresql_address, namespace) as client:
        assert client.queues() == []
        for call in (lambda: client.counts("jobs"), lambda: client.publish("jobs", [Message("a", b"{}")])):
            with pytest.raises(QueueNotFound):
                call()
        with postgresql_address.connect() as admin:
            found = admin.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [namespace]).fetchall()
    assert not found


def test_a_database_without_tables_refuses_transactions_of_callers_until_there_are_some(
    postgresql_address: Address, namespace: str
) -> None:
    with (
        client_of(postgresql_address, namespace) as client,
        postgresql_address.connect(autocommit=False) as connection,
    ):
        with pytest.raises(InvalidInput, match="register a schema with this release first"):
            client.publish_in(connection, "jobs", [Message("a", b"{}")])
        client.declare(Queue("jobs"))
        client.publish_in(connection, "jobs", [Message("a", b"{}")])
        connection.commit()
        assert client.counts("jobs").ready == 1


GUIDE = Path(__file__).parents[1] / "docs" / "postgresql.md"
CLAUSES = {
    *(
        "PUB-1",
        "PUB-3",
        "PUB-5",
        "PUB-7",
        "ORD-2",
        "ORD-3",
        "LSE-3",
        "LSE-4",
        "SET-1",
        "SET-2",
        "SET-4",
        "DLY-2",
    ),
    *("DLQ-1", "DLQ-2", "DLQ-3", "CNT-1", "ADM-1", "ADM-2", "ADM-3", "RES-1", "CON-2"),
    *("CRD-1", "CRD-2", "CRD-3", "CRD-4", "CRD-5", "CRD-6", "CRD-7", "CRD-8"),
}


@pytest.mark.long
def test_a_user_with_no_more_than_the_documented_privileges_is_enough(postgresql_address: Address) -> None:
    user = f"app_{uuid4().hex[:12]}"
    _, _, section = GUIDE.read_text("utf-8").partition("\n## Privileges\n")
    grants = re.findall(r"```sql\n(.*?)```", section, re.DOTALL)[1].splitlines()
    assert len(grants) == 6

    class LeastPrivilegeHarness(PostgreSQLHarness):
        address = replace(postgresql_address, user=user)

        def client(self, namespace: str, *, poll_s: float = 5.0) -> PostgreSQLClient:
            schema = self.schemas.of(namespace)
            with client_of(postgresql_address, schema) as owner:  # which makes the tables
                owner.declare(Queue("made-by-the-owner"))
                owner.delete("made-by-the-owner")
            for grant in grants:
                self.admin.execute(grant.replace("mindtrace_jobs", f'"{schema}"').replace("jobs_app", user))
            return super().client(namespace, poll_s=poll_s)

    with postgresql_address.connect() as admin:
        admin.execute(f"CREATE ROLE {user} LOGIN")
        harness = LeastPrivilegeHarness(admin=postgresql_address)
        try:
            results = list(run_contract(harness, profile="quick", clauses=CLAUSES))
            assert [f"{result.check}: {result.error}" for result in results if result.broken] == []
            with (
                client_of(LeastPrivilegeHarness.address, f"test-{user}") as client,
                pytest.raises(AccessDenied, match="Privileges"),
            ):
                client.declare(Queue("jobs"))
        finally:
            harness.close()
            with suppress(Exception):
                admin.execute(f"DROP OWNED BY {user}")
            admin.execute(f"DROP ROLE {user}")


def test_the_doctor_finds_nothing_wrong_with_what_a_client_made(
    postgresql_address: Address, namespace: str
) -> None:
    with client_of(postgresql_address, namespace) as client:
        client.declare(Queue("jobs"))
        found = {finding.subject: finding.verdict for finding in client.diagnose()}

    assert found["version"] is found["schema"] is found["permissions"] is Verdict.GOOD
