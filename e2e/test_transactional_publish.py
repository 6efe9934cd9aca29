"""Publishing in transactions of callers on PostgreSQL (PUB-7): each kind of connection, several at once."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, NamedTuple
from uuid import uuid4

import psycopg
import pytest
import sqlalchemy
from psycopg import IsolationLevel
from psycopg.rows import dict_row
from sqlalchemy.ext.asyncio import AsyncSession, create_async_engine
from sqlalchemy.orm import Session, scoped_session, sessionmaker

from background import Background
from brokers.postgresql_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    AsyncOrchestrator,
    JobInput,
    JobSchema,
    Orchestrator,
    PostgreSQLClient,
    PublishStatus,
)
from mindtrace.jobs.errors import InvalidInput, QueueNotFound
from mindtrace.jobs.ports import Ack, Dead, Message

ACCEPTED, DUPLICATE = PublishStatus.ACCEPTED, PublishStatus.DUPLICATE


class Number(JobInput):
    n: int


SCHEMA = JobSchema("jobs", Number)


class World(NamedTuple):
    """A database with a queue."""

    address: Address
    client: PostgreSQLClient
    jobs: Orchestrator

    def connect(self, **options: Any) -> "psycopg.Connection[Any]":
        return self.address.connect(**{"autocommit": False} | options)

    def engine(self, **options: Any) -> sqlalchemy.Engine:
        return sqlalchemy.create_engine(self.sqlalchemy_url, **options)

    @property
    def sqlalchemy_url(self) -> sqlalchemy.URL:
        return sqlalchemy.make_url(self.address.url()).set(drivername="postgresql+psycopg")

    def publish(self, connection: object, *ids: str) -> list[PublishStatus]:
        messages = [Message(id_, b"{}") for id_ in ids]
        return [outcome.status for outcome in self.client.publish_in(connection, "jobs", messages)]

    def ready(self) -> int:
        return self.client.counts("jobs").ready


@pytest.fixture
def world(postgresql_address: Address) -> Iterator[World]:
    name = f"test-{uuid4().hex}"
    with PostgreSQLClient.from_url(postgresql_address.url(name)) as client:
        jobs = Orchestrator(client)
        jobs.register(SCHEMA)
        yield World(postgresql_address, client, jobs)
    with postgresql_address.connect() as admin:
        admin.execute(f'DROP SCHEMA "{name}" CASCADE')


@pytest.fixture
def background() -> Iterator[Callable[..., "Future[Any]"]]:
    with Background() as threads:
        yield threads.submit


def waits_for_a_lock(world: World, connection: "psycopg.Connection[Any]") -> bool:
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s"
    with world.address.connect() as admin:
        row = admin.execute(query, [connection.info.backend_pid]).fetchone()
    return bool(row and row[0])


# -- kinds of connections -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"row_factory": dict_row},
        {"cursor_factory": psycopg.ClientCursor},
        {"cursor_factory": psycopg.RawCursor},
        {"client_encoding": "latin1"},
        {"prepare_threshold": 0},
    ],
    ids=["defaults", "dict rows", "client cursor", "raw cursor", "encoding", "prepared at once"],
)
def test_a_connection_is_joined_and_stays_as_it_was(world: World, options: dict[str, Any]) -> None:
    look = (
        "SELECT current_setting('search_path'), current_setting('enable_seqscan'),"
        " current_setting('plan_cache_mode'), (SELECT count(*) FROM pg_prepared_statements)"
    )
    with world.connect(**options) as connection:
        connection.prepare_threshold = None if "prepare_threshold" not in options else 0
        with psycopg.Cursor(connection) as cursor:
            cursor.execute("SET search_path = pg_catalog")
            before = cursor.execute(look, prepare=False).fetchall()
            factories = connection.row_factory, connection.cursor_factory, connection.autocommit
            for number in range(10):
                assert world.publish(connection, f"a{number}", f"b{number}") == [ACCEPTED, ACCEPTED]
            assert cursor.execute(look, prepare=False).fetchall() == before
        assert factories == (connection.row_factory, connection.cursor_factory, connection.autocommit)
        assert world.ready() == 0
        connection.commit()
        assert world.ready() == 20


def test_a_connection_in_autocommit_is_joined_in_a_transaction_and_refused_outside(world: World) -> None:
    with world.connect(autocommit=True) as connection:
        with pytest.raises(InvalidInput, match="autocommit"):
            world.publish(connection, "outside")
        with connection.transaction():
            world.publish(connection, "inside")
            with connection.transaction(force_rollback=True):
                world.publish(connection, "undone")
        assert world.ready() == 1
        with connection.pipeline(), connection.transaction():
            connection.execute("SELECT 1")
            assert world.publish(connection, "undone", "inside") == [ACCEPTED, DUPLICATE]
        assert world.ready() == 2


def test_the_publish_may_be_the_first_statement_on_an_engine(world: World) -> None:
    """SQLAlchemy begins a transaction by it, which its own commit ends."""
    engine = world.engine()
    with engine.connect() as connection:
        world.jobs.publish(SCHEMA, Number(n=1), connection=connection)
        connection.rollback()
        world.jobs.publish(SCHEMA, Number(n=2), connection=connection)
        connection.commit()
        world.jobs.publish(SCHEMA, Number(n=3), connection=connection)
    with engine.begin() as connection:
        world.jobs.publish(SCHEMA, Number(n=4), connection=connection)
    assert [world.jobs.receive_message(SCHEMA).payload.n for _ in range(2)] == [2, 4]
    assert world.ready() == 0
    engine.dispose()


def test_sessions_are_joined(world: World) -> None:
    engine = world.engine()
    queue = world.jobs.queue(SCHEMA)
    with Session(engine) as session, session.begin():
        queue.publish(Number(n=1), connection=session)
        with session.begin_nested() as nested:
            queue.publish(Number(n=2), connection=session)
            nested.rollback()
    scoped = scoped_session(sessionmaker(engine))
    handles = queue.publish_batch([Number(n=3), {"n": "x"}, Number(n=4)], connection=scoped)
    assert [handle.outcome.status for handle in handles] == [ACCEPTED, PublishStatus.REJECTED, ACCEPTED]
    assert world.ready() == 1
    scoped.commit()
    scoped.remove()
    assert [queue.receive().payload.n for _ in range(3)] == [1, 3, 4]
    with (
        engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(InvalidInput, match="autocommit"),
    ):
        queue.publish(Number(n=5), connection=connection)
    assert world.ready() == 0
    engine.dispose()


def test_connections_of_an_event_loop_are_joined(world: World) -> None:
    async def main() -> None:
        engine = create_async_engine(world.sqlalchemy_url)
        async with AsyncOrchestrator(world.jobs) as jobs:
            queue = await jobs.queue(SCHEMA)
            async with await psycopg.AsyncConnection.connect(world.address.url()) as connection:
                await queue.publish(Number(n=0), connection=connection)
                await connection.rollback()
                await queue.publish(Number(n=1), connection=connection)
            async with engine.connect() as connection:
                await jobs.publish(SCHEMA, Number(n=2), connection=connection)
                await connection.commit()
                await jobs.publish(SCHEMA, Number(n=0), connection=connection)
            async with AsyncSession(engine) as session:
                handles = await queue.publish_batch([Number(n=3), {"n": "x"}], connection=session)
                assert [each.outcome.status for each in handles] == [ACCEPTED, PublishStatus.REJECTED]
                await session.run_sync(lambda sync: world.jobs.publish(SCHEMA, Number(n=4), connection=sync))
                assert world.ready() == 2
                await session.commit()
        await engine.dispose()

    asyncio.run(main())
    assert [world.jobs.receive_message(SCHEMA).payload.n for _ in range(4)] == [1, 2, 3, 4]
    assert world.ready() == 0


def test_an_unknown_queue_and_another_database_leave_the_transaction_open(world: World) -> None:
    with world.connect() as connection:
        world.publish(connection, "a")
        with pytest.raises(QueueNotFound):
            world.client.publish_in(connection, "nowhere", [Message("b", b"{}")])
        connection.commit()
    assert world.ready() == 1
    other = PostgreSQLClient.from_url(world.address.url(f"no-{uuid4().hex}"))
    with world.connect() as connection:
        with pytest.raises(InvalidInput, match="connect to the database of the jobs"):
            other.publish_in(connection, "jobs", [Message("b", b"{}")])
        assert world.publish(connection, "c") == [ACCEPTED]
        connection.commit()
    assert world.ready() == 2


def test_the_id_of_a_dead_letter_that_is_removed_while_a_publish_waits_is_free(
    world: World, background: Callable[..., "Future[Any]"]
) -> None:
    """The publish meets the letter, waits for another id, and finds the letter removed by a consumer."""
    with world.client.open_consumer("jobs", lease_s=LIMIT_S) as consumer:
        world.client.publish("jobs", [Message("dead", b"{}")])
        (job,) = consumer.receive(1, LIMIT_S)
        consumer.settle([Dead(job.receipt, "rejected", "no", ttl_s=0.2)])
        with world.connect() as first, world.connect() as second:
            world.publish(first, "other")
            answer = background(world.publish, second, "dead", "other")
            eventually(lambda: waits_for_a_lock(world, second), "a publish that waits")

            def is_removed() -> bool:
                consumer.receive(1, 0.0)
                with world.address.connect() as admin:
                    count = f"SELECT count(*) FROM \"{world.client._namespace}\".job WHERE id = 'dead'"
                    return admin.execute(count).fetchone() == (0,)

            eventually(is_removed, "the end of the letter")
            first.commit()
            assert answer.result(LIMIT_S) == [ACCEPTED, DUPLICATE]


def test_a_large_batch_and_an_empty_one(world: World) -> None:
    ids = [f"id-{n}" for n in range(4500)]
    with world.connect() as connection:
        assert world.publish(connection, *ids) == [ACCEPTED] * 4500
        assert world.publish(connection) == []
        with pytest.raises(QueueNotFound):
            world.client.publish_in(connection, "nowhere", [])
        connection.commit()
    with world.client.open_consumer("jobs") as consumer:
        received = [delivery.id for _ in range(9) for delivery in consumer.receive(500, LIMIT_S)]
    assert received == ids


# -- transactions beside each other ---------------------------------------------------------------


@pytest.mark.parametrize("is_plain", [False, True], ids=["in a transaction", "without"])
@pytest.mark.parametrize(("end", "expected"), [("commit", DUPLICATE), ("rollback", ACCEPTED)])
def test_an_id_of_an_open_transaction_is_decided_by_its_end(
    world: World, background: Callable[..., "Future[Any]"], end: str, expected: PublishStatus, is_plain: bool
) -> None:
    with world.connect() as first, world.connect() as second:
        second.execute("SELECT 1")
        world.publish(first, "a")
        if is_plain:
            answer = background(world.client.publish, "jobs", [Message("a", b"{}")])
            with pytest.raises(TimeoutError):
                answer.result(0.2)
        else:
            answer = background(world.publish, second, "a")
            eventually(lambda: waits_for_a_lock(world, second), "the second waits for a lock")
        assert world.publish(first, "b") == [ACCEPTED]
        getattr(first, end)()
        found = answer.result(LIMIT_S)
        assert (found[0].status if is_plain else found[0]) is expected
        second.commit()


def test_batches_of_the_same_ids_in_any_order_make_no_deadlock(
    world: World, background: Callable[..., "Future[Any]"]
) -> None:
    ids = [f"id-{n:03}" for n in range(200)]
    gate = threading.Barrier(2)

    def publish_all(order: list[str]) -> int:
        accepted = 0
        for round_ in range(20):
            with world.connect() as connection:
                gate.wait(LIMIT_S)
                accepted += world.publish(connection, *(f"{id_}-{round_}" for id_ in order)).count(ACCEPTED)
                connection.commit()
        return accepted

    answers = [background(publish_all, order) for order in (ids, ids[::-1])]
    assert sum(answer.result(LIMIT_S) for answer in answers) == world.ready() == 20 * len(ids)


def test_two_transactions_that_publish_each_others_ids_deadlock_as_with_any_rows(
    world: World, background: Callable[..., "Future[Any]"]
) -> None:
    """The server ends one of them, whose caller gets the driver's error; the other goes on."""
    with world.connect() as first, world.connect() as second:
        world.publish(first, "a")
        world.publish(second, "b")
        answer = background(world.publish, first, "b")
        eventually(lambda: waits_for_a_lock(world, first), "the first waits for a lock")
        deadlocks = 0
        for connection, publish in (
            (second, lambda: world.publish(second, "a")),
            (first, lambda: answer.result(LIMIT_S)),
        ):
            try:
                publish()
            except psycopg.errors.DeadlockDetected:
                deadlocks += 1
            connection.rollback()
        assert deadlocks == 1
    assert world.ready() == 0


@pytest.mark.parametrize("level", [IsolationLevel.REPEATABLE_READ, IsolationLevel.SERIALIZABLE])
def test_stricter_isolation_leaves_a_conflict_of_ids_to_the_caller(
    world: World, level: IsolationLevel
) -> None:
    with world.connect() as connection:
        connection.isolation_level = level
        connection.execute("SELECT 1")  # takes the snapshot
        world.client.publish("jobs", [Message("a", b"{}")])
        assert world.publish(connection, "b") == [ACCEPTED]
        with pytest.raises(psycopg.errors.SerializationFailure):
            world.publish(connection, "a")
        connection.rollback()
        assert world.publish(connection, "a", "b") == [DUPLICATE, ACCEPTED]
        connection.commit()
    assert world.ready() == 2


def test_serializable_transactions_that_publish_to_one_queue_are_no_conflict(world: World) -> None:
    with world.connect() as first, world.connect() as second:
        for connection in (first, second):
            connection.isolation_level = IsolationLevel.SERIALIZABLE
            connection.execute("SELECT 1")
        assert world.publish(first, "a") == world.publish(second, "b") == [ACCEPTED]
        first.commit()
        second.commit()
    assert world.ready() == 2


def test_a_job_stands_where_its_transaction_began_to_write_and_its_delay_began_with_the_publish(
    world: World,
) -> None:
    now, is_due = "SELECT clock_timestamp()", "SELECT clock_timestamp() > %s + interval '0.05 s'"
    with world.connect() as early:
        world.client.publish_in(early, "jobs", [Message("early", b"{}"), Message("due", b"{}", delay_s=0.05)])
        published = early.execute(now).fetchall()[0]
        world.client.publish("jobs", [Message("late", b"{}")])
        eventually(lambda: early.execute(is_due, published).fetchall()[0][0], "it is due")
        early.commit()
    with world.client.open_consumer("jobs") as consumer:
        received = [delivery.id for delivery in consumer.receive(3, LIMIT_S)]
    assert received == ["early", "late", "due"]


def test_a_queue_is_purged_and_deleted_beside_an_open_transaction(world: World) -> None:
    with world.connect() as connection:
        world.publish(connection, "a")
        assert world.client.purge("jobs") == 0
        world.client.delete("jobs")
        with pytest.raises(QueueNotFound):
            world.publish(connection, "b")
        connection.commit()
    world.jobs.register(SCHEMA)
    assert world.ready() == 0


def test_what_the_connection_raises_is_its_drivers(world: World) -> None:
    connection = world.connect()
    connection.close()
    with pytest.raises(psycopg.OperationalError):
        world.publish(connection, "a")
    engine = world.engine()
    with engine.connect() as reading:
        reading.exec_driver_sql("SET TRANSACTION READ ONLY")
        with pytest.raises(sqlalchemy.exc.InternalError):
            world.publish(reading, "a")
    engine.dispose()


def test_a_commit_wakes_a_consumer_that_came_after_the_publish(world: World) -> None:
    """And nothing else does: its poll is a minute away."""
    woken: list[str] = []
    with (
        PostgreSQLClient.from_url(world.client.url) as slow,
        slow.open_consumer("jobs") as consumer,
        world.connect() as connection,
    ):
        consumer._poll_s = 600.0
        world.publish(connection, "a")

        def wait() -> None:
            for delivery in consumer.receive(1, 300.0):
                woken.append(delivery.id)
                consumer.settle([Ack(delivery.receipt)])

        thread = threading.Thread(target=wait)
        thread.start()
        time.sleep(2.0)  # past the looks that follow the first announcement
        assert woken == []
        connection.commit()
        thread.join(LIMIT_S)
    assert woken == ["a"]
