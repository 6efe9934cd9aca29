"""The port for results that a broker can't keep, on a real PostgreSQL; and RabbitMQ with it."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from math import inf
from typing import ClassVar
from urllib.parse import quote

import psycopg
import pytest

from background import Background
from brokers import rabbitmq_server
from brokers.postgresql_server import Address, make_schema
from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    Orchestrator,
    OrchestratorBackend,
    PostgreSQLClient,
    PostgreSQLResultStore,
    RabbitMQClient,
)
from mindtrace.jobs.contract import run_contract
from mindtrace.jobs.errors import BackendUnavailable, Closed
from mindtrace.jobs.ports import EndedJob, JobResult, ResultStatus

from .test_rabbitmq import LIMIT_S as ANSWER_S
from .test_rabbitmq import RabbitMQHarness

QUEUE = "default/squares"
DONE = JobResult(ResultStatus.DONE, b'{"square":4}')

Admin = psycopg.Connection[tuple[object, ...]]


@pytest.fixture
def admin(postgresql_address: Address) -> Iterator[Admin]:
    with postgresql_address.connect() as admin:
        yield admin


@pytest.fixture
def namespace(postgresql_address: Address) -> Iterator[str]:
    """A schema of one's own."""
    yield from make_schema(postgresql_address)


def store_of(
    address: Address, namespace: str, *, poll_s: float = 0.5, timeout_s: float = 30.0
) -> PostgreSQLResultStore:
    return PostgreSQLResultStore(
        address.host,
        address.port,
        address.database,
        username=address.user,
        password=address.password,
        namespace=namespace,
        poll_s=poll_s,
        retry_timeout_s=timeout_s,
        libpq=dict(address.parameters) | {"application_name": namespace},
    )


@pytest.fixture
def store(postgresql_address: Address, namespace: str) -> Iterator[PostgreSQLResultStore]:
    with store_of(postgresql_address, namespace) as store:
        yield store


def kept(admin: Admin, namespace: str) -> int:
    """How many results are in the tables."""
    return int(str(admin.execute(f'SELECT count(*) FROM "{namespace}".result').fetchall()[0][0]))


def until_waiting(store: PostgreSQLResultStore, count: int = 1) -> None:
    """Wait until so many calls of ``store`` wait, and what wakes them listens."""
    waiters = store._wakeups._waiters
    eventually(
        lambda: store._wakeups._is_listening and sum(map(len, list(waiters.values()))) == count,
        f"{count} calls wait",
    )


@pytest.mark.parametrize(
    "result",
    [
        DONE,
        JobResult(ResultStatus.DONE),
        JobResult(ResultStatus.DONE, b""),
        JobResult(ResultStatus.DONE, bytes(range(256))),
        JobResult(ResultStatus.FAILED, error="no good: é … 👍"),
        JobResult(ResultStatus.FAILED, error=""),
    ],
    ids=str,
)
def test_what_is_put_is_got(store: PostgreSQLResultStore, result: JobResult) -> None:
    """To the byte, any number of times, and by its own id in its own queue only (RES-1)."""
    store.put(QUEUE, [EndedJob("job", result, 60.0)])

    assert [store.get(QUEUE, "job") for _ in range(3)] == [result] * 3
    assert store.get(QUEUE, "another") is None
    assert store.get("other/squares", "job") is None


def test_the_last_end_of_a_job_counts(store: PostgreSQLResultStore) -> None:
    """A job that ran twice answers with what it gave back last, also within one call."""
    failed = JobResult(ResultStatus.FAILED, error="no good")
    store.put(QUEUE, [EndedJob("job", failed, 60.0), EndedJob("twice", failed, 60.0)])
    store.put(QUEUE, [EndedJob("job", DONE, 60.0)])
    store.put("other", [EndedJob("twice", failed, 60.0), EndedJob("twice", DONE, 60.0)])

    assert store.get(QUEUE, "job") == store.get("other", "twice") == DONE


def test_a_result_is_kept_for_its_time_and_then_removed(
    store: PostgreSQLResultStore, admin: Admin, namespace: str
) -> None:
    """By the server's clock; those of other queues, too, 500 at a time."""
    ids = [f"job-{number}" for number in range(1200)]
    store.put("other/squares", [EndedJob(id_, DONE, 600.0) for id_ in ids])
    store.put(QUEUE, [EndedJob("none", DONE, 0.0), EndedJob("long", DONE, 600.0)])
    assert store.get(QUEUE, "none") is None
    admin.execute(f"UPDATE \"{namespace}\".result SET expires = now() WHERE id LIKE 'job-%'")
    assert store.get_many("other/squares", ids) == {}
    sizes = []
    for _ in range(4):
        store._next_sweep = 0.0
        store.put(QUEUE, [EndedJob("long", DONE, 600.0)])
        sizes.append(kept(admin, namespace))

    assert sizes == [702, 202, 1, 1]
    assert store.get(QUEUE, "long") == DONE


def test_many_are_kept_got_and_forgotten(store: PostgreSQLResultStore, admin: Admin, namespace: str) -> None:
    """However many requests it takes, by number or by size."""
    large = JobResult(ResultStatus.DONE, b"x" * 1_000_000)
    failed = JobResult(ResultStatus.FAILED, error="no good")
    results = {f"job-{n}": (DONE, failed, JobResult(ResultStatus.DONE))[n % 3] for n in range(1200)}
    results |= {f"large-{n}": large for n in range(9)}
    store.put(QUEUE, [EndedJob(id_, result, 60.0) for id_, result in results.items()])
    assert store.get_many(QUEUE, [*results, "never"]) == results
    assert store.get_many("other/squares", list(results)) == {}

    store.forget(QUEUE, [*(f"job-{n}" for n in range(1200)), "never"])
    assert kept(admin, namespace) == 9
    store.forget(QUEUE, [])
    assert kept(admin, namespace) == 9
    store.forget(QUEUE)
    store.forget("never/known")
    assert kept(admin, namespace) == 0
    named = admin.execute(f'SELECT 1 FROM "{namespace}".queue WHERE name IS NOT NULL').fetchall()
    assert named == []


def test_waiters_are_woken(store: PostgreSQLResultStore, postgresql_address: Address, namespace: str) -> None:
    """Any process may put the result that wakes them."""
    with (
        store_of(postgresql_address, namespace, poll_s=3600.0) as waiting,
        Background() as pool,
    ):
        answers = [pool.submit(waiting.get, QUEUE, id_, timeout_s=3600.0) for id_ in ("a", "b", "a")]
        until_waiting(waiting, 3)
        store.put(QUEUE, [EndedJob("a", DONE, 60.0)])
        assert answers[0].result(LIMIT_S) == DONE
        store.put(QUEUE, [EndedJob("b", JobResult(ResultStatus.DONE), 60.0)])
        assert answers[1].result(LIMIT_S) == JobResult(ResultStatus.DONE)
        assert answers[2].result(LIMIT_S) == DONE


def test_it_tells_which_jobs_ended_also_after_all_were_forgotten(store: PostgreSQLResultStore) -> None:
    """By name where it can, and else that it doesn't know."""
    with store.ended_jobs(QUEUE) as ended:
        until_waiting(store)
        while ended.wait(0.01) is None:  # at first it doesn't know what it may have missed
            pass
        ended._next_poll = inf  # a look that is due hides what it is told
        store.put(QUEUE, [EndedJob("a", DONE, 60.0), EndedJob("b", DONE, 60.0)])
        assert until_told(ended.wait) == ["a", "b"]
        ended._next_poll = 0.0  # by which it finds what came after all was forgotten
        store.forget(QUEUE)
        store.put(QUEUE, [EndedJob("c", DONE, 60.0)])
        eventually(lambda: store.get(QUEUE, "c") == DONE, "the result is there")
        while ended.wait(0.01) is None or ended._key != store.announce(QUEUE):
            pass
        ended._next_poll = inf
        store.put(QUEUE, [EndedJob("d", DONE, 60.0)])
        assert until_told(ended.wait) == ["d"]
        store.put(QUEUE, [EndedJob(f"job-{'x' * 100}-{n}", DONE, 60.0) for n in range(100)])
        eventually(lambda: ended.wait(1.0) is None, "it waits no more")


def until_told(wait: Callable[[float], object]) -> object:
    give_up = time.monotonic() + LIMIT_S
    while time.monotonic() < give_up:
        if told := wait(1.0):
            return told
    raise AssertionError("nothing was told")


def test_a_wait_ends(store: PostgreSQLResultStore) -> None:
    """At its timeout, and not before, over several polls."""
    began = time.monotonic()
    assert store.get(QUEUE, "never", timeout_s=1.2) is None
    assert time.monotonic() - began >= 1.2


def test_a_cut_wait_goes_on(store: PostgreSQLResultStore, admin: Admin, namespace: str) -> None:
    """A call that waits while the connections break is answered all the same (CON-1)."""
    with Background() as pool:
        answer = pool.submit(store.get, QUEUE, "job", timeout_s=3600.0)
        until_waiting(store)
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        admin.execute(kill, [namespace])
        store.put(QUEUE, [EndedJob("job", DONE, 60.0)])
        assert answer.result(LIMIT_S) == DONE


def test_closing_ends_waits_and_is_final(store: PostgreSQLResultStore) -> None:
    """Calls that wait, and later ones, raise Closed; closing again does nothing (CON-2). No thread stays."""
    with Background() as pool:
        answer = pool.submit(store.get, QUEUE, "job", timeout_s=3600.0)
        until_waiting(store)
        store.close()
        store.close()
        with pytest.raises(Closed, match="this PostgreSQLResultStore is closed"):
            answer.result(LIMIT_S)
    for call in (
        lambda: store.get(QUEUE, "job"),
        lambda: store.put(QUEUE, [EndedJob("job", DONE, 60.0)]),
        lambda: store.forget(QUEUE),
    ):
        with pytest.raises(Closed):
            call()
    assert "mindtrace-jobs-wakeups" not in {thread.name for thread in threading.enumerate()}


def test_a_forked_process_has_connections_of_its_own(store: PostgreSQLResultStore) -> None:
    """It puts, gets and closes, and its parent goes on as before."""
    store.put(QUEUE, [EndedJob("parent", DONE, 60.0)])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            store.put(QUEUE, [EndedJob("child", DONE, 60.0)])
            status = 0 if store.get(QUEUE, "parent") == DONE else 2
            store.close()
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (store.get(QUEUE, "child"), store.get(QUEUE, "parent")) == (DONE, DONE)


def test_a_server_that_is_away_is_told_in_time() -> None:
    """Typed, with the address."""
    with PostgreSQLResultStore("127.0.0.1", 1, retry_timeout_s=0.5) as store:
        for call in (
            lambda: store.get(QUEUE, "job", timeout_s=3600.0),
            lambda: store.put(QUEUE, [EndedJob("job", DONE, 60.0)]),
            lambda: store.forget(QUEUE, ["job"]),
        ):
            with pytest.raises(BackendUnavailable, match=r"no PostgreSQL answers at 127\.0\.0\.1:1"):
                call()


def test_a_client_of_the_same_namespace_does_not_see_its_queues(
    store: PostgreSQLResultStore, postgresql_address: Address, namespace: str
) -> None:
    store.put(QUEUE, [EndedJob("job", DONE, 60.0)])
    with PostgreSQLClient.from_url(postgresql_address.url(namespace)) as client:
        assert client.queues() == []
    assert store.pending_migrations() == store.migrate() == []


# -- beside RabbitMQ ------------------------------------------------------------------------------


class RabbitMQWithPostgreSQLResultsHarness(RabbitMQHarness):
    """All clients' stores share a namespace: it's the client that keeps its queues apart from others'."""

    postgresql: ClassVar[Address]
    namespace: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.admin = self.postgresql.connect()

    def client(self, namespace: str) -> RabbitMQClient:
        store = store_of(self.postgresql, self.namespace, timeout_s=ANSWER_S)
        return self.address.client(namespace, results=store, retry_timeout_s=ANSWER_S)

    def sever(self, backend: OrchestratorBackend) -> None:
        super().sever(backend)
        kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s"
        self.admin.execute(kill, [self.namespace])


@pytest.mark.long
@pytest.mark.timeout(1800)  # as with the contract on PostgreSQL: only a busy machine takes long
def test_results_of_rabbitmq_are_kept_in_postgresql(
    rabbitmq_address: rabbitmq_server.Address, postgresql_address: Address, namespace: str, admin: Admin
) -> None:
    """What RabbitMQ can't keep, a store beside it does, and a deleted queue leaves nothing there."""
    RabbitMQWithPostgreSQLResultsHarness.address = rabbitmq_address
    RabbitMQWithPostgreSQLResultsHarness.postgresql = postgresql_address
    RabbitMQWithPostgreSQLResultsHarness.namespace = namespace
    clauses = {"RES-1", "RES-2", "ADM-3", "DLQ-2", "CON-2", "SEC-3"}
    with closing(RabbitMQWithPostgreSQLResultsHarness()) as harness:
        results = list(run_contract(harness, profile="quick", clauses=clauses))
    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []
    proved = {clause for result in results if not result.refusal for clause in result.clauses}
    assert clauses <= proved
    assert kept(admin, namespace) == 0
    harness.admin.close()


def test_a_url_pairs_them(
    rabbitmq_address: rabbitmq_server.Address, postgresql_address: Address, namespace: str
) -> None:
    """And brings its tables up to date by the same URL."""
    results = quote(postgresql_address.url(namespace), safe="")
    with Orchestrator(f"{rabbitmq_address.url}?results={results}") as orchestrator:
        assert isinstance(orchestrator.backend._results._store, PostgreSQLResultStore)
        pending = orchestrator.backend.pending_migrations()
        assert [each.version for each in orchestrator.backend.migrate()] == [each.version for each in pending]
        assert orchestrator.backend.pending_migrations() == []
    with rabbitmq_address.client() as alone:
        assert alone.pending_migrations() is None
        assert alone.migrate() == ()
