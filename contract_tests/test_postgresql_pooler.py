"""The contract on PostgreSQL behind a pooler that gives each transaction another connection."""

from collections.abc import Iterator
from itertools import groupby

import pytest

from brokers.fixtures import StartPgBouncer
from brokers.postgresql_server import Address, make_schema
from mindtrace.jobs import OrchestratorBackend, Queue
from mindtrace.jobs.contract import CLAUSES, run_contract
from mindtrace.jobs.ports import Message

from .test_postgresql import SECRET, PostgreSQLHarness, client_of

pytestmark = pytest.mark.timeout(1800)


FAMILIES = {
    name: tuple(clauses) for name, clauses in groupby(CLAUSES, lambda clause: clause.rstrip("-0123456789"))
}
"""The clauses by the beginnings of their names: PUB-1, PUB-2 … are those of PUB."""


@pytest.fixture(scope="module", autouse=True)
def find_postgresql(postgresql_address: Address) -> None:
    PostgreSQLHarness.address = postgresql_address
    PostgreSQLHarness.secrets = (postgresql_address.password or SECRET,)


@pytest.fixture
def namespace(postgresql_address: Address) -> Iterator[str]:
    """A schema of one's own."""
    yield from make_schema(postgresql_address)


@pytest.fixture
def other_namespace(postgresql_address: Address) -> Iterator[str]:
    """Another."""
    yield from make_schema(postgresql_address)


@pytest.mark.long
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("max_prepared_statements", [0, 100])
def test_the_contract_holds_behind_a_pooler_that_gives_each_transaction_another_connection(
    postgresql_address: Address, start_pgbouncer: StartPgBouncer, max_prepared_statements: int, family: str
) -> None:
    """Whether or not it lets statements be prepared; no notification comes, so that consumers must look."""
    pooler = start_pgbouncer(postgresql_address, max_prepared_statements=max_prepared_statements)

    class PgBouncerHarness(PostgreSQLHarness):
        pooled = True

        def make(self, namespace: str) -> OrchestratorBackend:
            schema = self.schemas.of(namespace)
            return client_of(pooler.address, schema, poll_s=0.1, application_name=schema)

        def make_without_polling(self, namespace: str) -> None:
            return None  # without a poll nobody would be woken

    harness = PgBouncerHarness()
    clauses = [clause for clause in FAMILIES[family] if clause != "CRD-7"]  # it tells by notifications
    results = list(run_contract(harness, profile="quick", clauses=clauses))
    harness.close()

    assert results
    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []


def test_behind_a_pooler_no_client_runs_the_statement_of_another(
    postgresql_address: Address, start_pgbouncer: StartPgBouncer, namespace: str, other_namespace: str
) -> None:
    """Two clients have prepared theirs on two connections to the server; then one comes to the other's."""
    pooler = start_pgbouncer(postgresql_address, max_prepared_statements=0, default_pool_size=2)
    for each, ids in ((namespace, "a"), (other_namespace, "")):
        with client_of(postgresql_address, each) as direct:
            direct.declare(Queue("jobs"))
            direct.publish("jobs", [Message(id_, b"{}") for id_ in ids])
    with (
        client_of(pooler.address, namespace) as ours,
        client_of(pooler.address, other_namespace) as others,
        pooler.connect(autocommit=False) as first,
        pooler.connect(autocommit=False) as second,
    ):
        for holder in (first, second):  # each transaction keeps a connection to itself
            holder.execute("SELECT 1")
        first.rollback()
        assert ours.counts("jobs").ready == 1
        first.execute("SELECT 1")
        second.rollback()
        assert others.counts("jobs").ready == 0

        assert ours.counts("jobs").ready == 1
