"""Publishing in transactions of callers with connections of asyncpg on PostgreSQL (PUB-7)."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple
from uuid import uuid4

import asyncpg
import pytest
from sqlalchemy import make_url
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from brokers.fixtures import StartPgBouncer, StartPostgreSQL
from brokers.postgresql_server import Address
from conditions import LIMIT_S
from mindtrace.jobs import (
    AsyncOrchestrator,
    JobInput,
    JobSchema,
    Orchestrator,
    PostgreSQLClient,
    PublishStatus,
    Queue,
)
from mindtrace.jobs.errors import InvalidInput, QueueNotFound
from mindtrace.jobs.ports import Ack, Message

ACCEPTED, DUPLICATE = PublishStatus.ACCEPTED, PublishStatus.DUPLICATE


class Number(JobInput):
    n: int


SCHEMA = JobSchema("jobs", Number)


class World(NamedTuple):
    """A database with a queue."""

    address: Address
    client: PostgreSQLClient
    jobs: Orchestrator

    @asynccontextmanager
    async def connect(self, **options: Any) -> AsyncIterator[Any]:
        connection = await asyncpg.connect(self.address.url(), **options)
        try:
            yield connection
        finally:
            await connection.close()

    @asynccontextmanager
    async def engine(self, **options: Any) -> AsyncIterator[AsyncEngine]:
        url = make_url(self.address.url()).set(drivername="postgresql+asyncpg")
        engine = create_async_engine(url, **options)
        try:
            yield engine
        finally:
            await engine.dispose()

    async def publish(self, connection: object, *ids: str) -> list[PublishStatus]:
        messages = [Message(id_, b"{}") for id_ in ids]
        return [
            outcome.status for outcome in await self.client.publish_in_async(connection, "jobs", messages)
        ]

    def ready(self) -> int:
        return self.client.counts("jobs").ready

    def received(self, count: int) -> list[int]:
        return [self.jobs.receive_message(SCHEMA).payload.n for _ in range(count)]


@pytest.fixture
def world(postgresql_address: Address) -> Iterator[World]:
    name = f"test-{uuid4().hex}"
    with PostgreSQLClient.from_url(postgresql_address.url(name)) as client:
        jobs = Orchestrator(client)
        jobs.register(SCHEMA)
        yield World(postgresql_address, client, jobs)
    with postgresql_address.connect() as admin:
        admin.execute(f'DROP SCHEMA "{name}" CASCADE')


def run(main: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(main(), LIMIT_S))


def test_a_job_is_there_if_and_only_if_its_transaction_commits(world: World) -> None:
    async def main() -> None:
        async with AsyncOrchestrator(world.jobs) as jobs, world.connect() as connection:
            queue = await jobs.queue(SCHEMA)
            transaction = connection.transaction()
            await transaction.start()
            await jobs.publish(SCHEMA, Number(n=0), connection=connection)
            await transaction.rollback()
            async with connection.transaction():
                await jobs.publish(SCHEMA, Number(n=1), connection=connection)
                undone = connection.transaction()
                await undone.start()
                await queue.publish(Number(n=0), connection=connection)
                await undone.rollback()
                handles = await queue.publish_batch([Number(n=2), {"n": "x"}], connection=connection)
                assert [each.outcome.status for each in handles] == [ACCEPTED, PublishStatus.REJECTED]
                assert world.ready() == 0
            await connection.execute("BEGIN")
            await queue.publish(Number(n=3), connection=connection)
            await connection.execute("COMMIT")
            with suppress(ZeroDivisionError):
                async with connection.transaction():
                    await queue.publish(Number(n=0), connection=connection)
                    raise ZeroDivisionError

    run(main)
    assert world.received(3) == [1, 2, 3]
    assert world.ready() == 0


def test_a_connection_that_is_lost_leaves_no_job(world: World) -> None:
    async def main() -> None:
        async with world.connect() as connection:
            await connection.transaction().start()
            assert await world.publish(connection, "a") == [ACCEPTED]
            connection.terminate()
        async with world.connect() as connection, connection.transaction():
            assert await world.publish(connection, "a") == [ACCEPTED]

    run(main)
    assert world.ready() == 1


def test_a_connection_of_a_pool_is_joined(world: World) -> None:
    async def main() -> None:
        async with asyncpg.create_pool(world.address.url(), min_size=1, max_size=1) as pool:
            for number in range(2):
                async with pool.acquire() as connection, connection.transaction():
                    assert await world.publish(connection, f"a{number}") == [ACCEPTED]
            with pytest.raises(asyncpg.InterfaceError, match="released back to the pool"):
                await world.publish(connection, "b")
            with pytest.raises(
                InvalidInput, match=r"pool\.Pool can't be joined; pass .* asyncpg\.Connection"
            ):
                await world.publish(pool, "b")

    run(main)
    assert world.ready() == 2


def test_an_engine_of_asyncpg_is_joined(world: World) -> None:
    async def main() -> None:
        async with AsyncOrchestrator(world.jobs) as jobs, world.engine() as engine:
            async with engine.connect() as connection:
                await jobs.publish(SCHEMA, Number(n=0), connection=connection)
                await connection.rollback()
                await jobs.publish(SCHEMA, Number(n=1), connection=connection)
                await connection.commit()
            async with AsyncSession(engine) as session:
                handles = await jobs.publish_batch(SCHEMA, [Number(n=2), {"n": "x"}], connection=session)
                assert [each.outcome.status for each in handles] == [ACCEPTED, PublishStatus.REJECTED]
                await session.run_sync(lambda sync: world.jobs.publish(SCHEMA, Number(n=3), connection=sync))
                assert world.ready() == 1
                await session.commit()
            async with engine.connect() as connection:
                plain = await connection.execution_options(isolation_level="AUTOCOMMIT")
                with pytest.raises(InvalidInput, match="autocommit"):
                    await jobs.publish(SCHEMA, Number(n=0), connection=plain)
            async with engine.connect() as connection:
                await connection.exec_driver_sql("SET TRANSACTION READ ONLY")
                with pytest.raises(DBAPIError, match="read-only"):
                    await jobs.publish(SCHEMA, Number(n=0), connection=connection)

    run(main)
    assert world.received(3) == [1, 2, 3]
    assert world.ready() == 0


def test_a_connection_outside_of_a_transaction_is_refused(world: World) -> None:
    async def main() -> None:
        async with world.connect() as connection:
            with pytest.raises(InvalidInput, match=r"autocommit.*async with connection\.transaction\(\):"):
                await world.publish(connection, "a")
            async with connection.transaction():
                pass
            with pytest.raises(InvalidInput, match="autocommit"):
                await world.publish(connection, "a")

    run(main)
    assert world.ready() == 0


def test_what_the_connection_raises_is_its_drivers(world: World) -> None:
    async def main() -> None:
        async with world.connect() as connection:
            await connection.close()
            with pytest.raises(asyncpg.InterfaceError, match="connection is closed"):
                await world.publish(connection, "a")
        async with world.connect() as connection:
            with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
                async with connection.transaction(readonly=True):
                    await world.publish(connection, "a")
            await connection.transaction().start()
            with pytest.raises(asyncpg.UndefinedTableError):
                await connection.execute("SELECT FROM nowhere")
            with pytest.raises(asyncpg.InFailedSQLTransactionError):
                await world.publish(connection, "a")

    run(main)
    assert world.ready() == 0


def test_an_unknown_queue_and_another_database_leave_the_transaction_open(world: World) -> None:
    async def main() -> None:
        async with world.connect() as connection, connection.transaction():
            await world.publish(connection, "a")
            with pytest.raises(QueueNotFound):
                await world.client.publish_in_async(connection, "nowhere", [Message("b", b"{}")])
            with (
                PostgreSQLClient.from_url(world.address.url(f"no-{uuid4().hex}")) as other,
                pytest.raises(
                    InvalidInput, match=r"database 'test' at .* connect to the database of the jobs"
                ),
            ):
                await other.publish_in_async(connection, "jobs", [Message("b", b"{}")])
            assert await world.publish(connection, "c") == [ACCEPTED]

    run(main)
    assert world.ready() == 2


async def wait_for_a_lock(world: World, pid: int) -> None:
    query = "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $1"
    async with world.connect() as admin:
        while not await admin.fetchval(query, pid):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize(("end", "expected"), [("commit", DUPLICATE), ("rollback", ACCEPTED)])
def test_an_id_of_an_open_transaction_is_decided_by_its_end(
    world: World, end: str, expected: PublishStatus
) -> None:
    async def main() -> None:
        async with world.connect() as first, world.connect() as second:
            earlier, later = first.transaction(), second.transaction()
            await earlier.start()
            await later.start()
            await world.publish(first, "a")
            answer = asyncio.ensure_future(world.publish(second, "a"))
            await wait_for_a_lock(world, second.get_server_pid())
            await getattr(earlier, end)()
            assert await answer == [expected]
            await later.commit()

    run(main)
    assert world.ready() == 1


def test_stricter_isolation_leaves_a_conflict_of_ids_to_the_caller(world: World) -> None:
    async def main() -> None:
        async with world.connect() as connection:
            transaction = connection.transaction(isolation="serializable")
            await transaction.start()
            await connection.execute("SELECT 1")  # takes the snapshot
            await asyncio.to_thread(world.client.publish, "jobs", [Message("a", b"{}")])
            with pytest.raises(asyncpg.SerializationError):
                await world.publish(connection, "a")
            await transaction.rollback()
            async with connection.transaction(isolation="serializable"):
                assert await world.publish(connection, "a", "b", "b") == [DUPLICATE, ACCEPTED, DUPLICATE]

    run(main)
    assert world.ready() == 2


def test_a_publish_that_is_cancelled_leaves_its_transaction_to_the_caller(world: World) -> None:
    async def main() -> None:
        async with world.connect() as first, world.connect() as second:
            await first.transaction().start()
            await world.publish(first, "a")
            transaction = second.transaction()
            await transaction.start()
            answer = asyncio.ensure_future(world.publish(second, "a"))
            await wait_for_a_lock(world, second.get_server_pid())
            answer.cancel()
            with pytest.raises(asyncio.CancelledError):
                await answer
            await transaction.rollback()
            async with second.transaction():
                assert await world.publish(second, "b") == [ACCEPTED]

    run(main)
    assert world.ready() == 1


def test_a_large_batch_and_any_bytes(world: World) -> None:
    ids = [f"id-{n}" for n in range(4500)]

    async def main() -> None:
        async with world.connect() as connection, connection.transaction():
            assert await world.publish(connection, *ids) == [ACCEPTED] * 4500
            assert await world.publish(connection) == []
            odd = Message("odd \\' é", bytes(range(256)), delay_s=0)
            await world.client.publish_in_async(connection, "jobs", [odd])

    run(main)
    with world.client.open_consumer("jobs") as consumer:
        received = [each for _ in range(10) for each in consumer.receive(500, LIMIT_S)]
    assert [each.id for each in received] == [*ids, "odd \\' é"]
    assert received[-1].body == bytes(range(256))


SESSIONS = {
    "search_path": "SET search_path = pg_temp",
    "strings": "SET standard_conforming_strings = off",
    "bytes": "SET bytea_output = escape",
    "arrays": "SET array_nulls = off",
    "plans": "SET enable_indexscan = off; SET enable_seqscan = off; SET plan_cache_mode = force_custom_plan",
    "variables": "SET plpgsql.variable_conflict = use_variable; SET plpgsql.extra_errors = 'all'",
    "timeouts": "SET statement_timeout = '30s'; SET lock_timeout = '5s'",
    "tables": "".join(
        f'CREATE TEMPORARY TABLE "{name}" (other int);'
        for name in ("queue", "job", "request", "ended", "text", "int4", "pg_proc", "pg_namespace", "pg_type")
    ),
}


@pytest.mark.parametrize("statements", SESSIONS.values(), ids=SESSIONS.keys())
@pytest.mark.parametrize("options", [{}, {"statement_cache_size": 0}], ids=["prepared", "not prepared"])
def test_what_is_set_for_a_session_changes_nothing_and_stays(
    world: World, statements: str, options: dict[str, Any]
) -> None:
    look = "SELECT name, setting FROM pg_catalog.pg_settings ORDER BY name"

    async def main() -> None:
        async with world.connect(**options) as connection:
            await connection.execute("DO 'BEGIN END'")  # loads the language, which brings settings
            await connection.execute(statements)
            before = await connection.fetch(look)
            for number in range(7):  # a statement's plan may change with the sixth time
                async with connection.transaction():
                    assert await world.publish(connection, f"\\'{number}", "\\x00") == [
                        ACCEPTED,
                        DUPLICATE if number else ACCEPTED,
                    ]
            assert await connection.fetch(look) == before

    run(main)
    assert world.ready() == 8


def test_codecs_that_the_caller_set_change_nothing(world: World) -> None:
    """His own way to write and read the types of which we send values."""

    def refuse(value: object) -> Any:
        raise AssertionError(f"{value!r} is converted by the caller's codec")

    async def main() -> None:
        async with world.connect() as connection:
            for name in ("text", "bytea", "int4", "int8", "float8", "bool", "name"):
                await connection.set_type_codec(name, encoder=refuse, decoder=refuse, schema="pg_catalog")
            async with connection.transaction():
                assert await world.publish(connection, "a", "a") == [ACCEPTED, DUPLICATE]
                with pytest.raises(QueueNotFound):
                    await world.client.publish_in_async(connection, "nowhere", [Message("b", b"{}")])
                with (
                    PostgreSQLClient.from_url(world.address.url(f"no-{uuid4().hex}")) as other,
                    pytest.raises(InvalidInput, match="connect to the database of the jobs"),
                ):
                    await other.publish_in_async(connection, "jobs", [Message("b", b"{}")])

    run(main)
    assert world.ready() == 1


def test_a_commit_wakes_a_consumer(world: World) -> None:
    """And nothing else does: its poll is minutes away."""

    async def main() -> None:
        with (
            PostgreSQLClient.from_url(world.client.url) as slow,
            slow.open_consumer("jobs") as consumer,
        ):
            consumer._poll_s = 600.0
            async with world.connect() as connection, connection.transaction():
                await world.publish(connection, "a")
                waiting = asyncio.ensure_future(asyncio.to_thread(consumer.receive, 1, 300.0))
                await asyncio.sleep(2.0)  # past the looks that follow the first announcement
                assert not waiting.done()
            (job,) = await waiting
            consumer.settle([Ack(job.receipt)])

    run(main)


def test_a_connection_through_a_pooler_is_joined(
    start_postgresql: StartPostgreSQL, start_pgbouncer: StartPgBouncer
) -> None:
    """Of PgBouncer in transaction mode, where asyncpg's users turn its cache of statements off."""
    server = start_postgresql(fsync="off")
    pooler = start_pgbouncer(server.address, default_pool_size=1)
    with server.client() as client:
        client.declare(Queue("jobs"))

        async def main() -> None:
            for number in range(3):
                connection = await asyncpg.connect(pooler.url(), statement_cache_size=0)
                async with connection.transaction():
                    await client.publish_in_async(connection, "jobs", [Message(f"a{number}", b"{}")])
                await connection.close()

        run(main)
        assert client.counts("jobs").ready == 3


def test_asyncpg_is_imported_by_nobody_else(world: World) -> None:
    program = (
        "import asyncio, psycopg, sys\n"
        "from mindtrace.jobs import PostgreSQLClient\n"
        "from mindtrace.jobs.ports import Message\n"
        f"with PostgreSQLClient.from_url({world.client.url!r}) as client,"
        f" psycopg.connect({world.address.url()!r}) as connection:\n"
        "    client.publish_in(connection, 'jobs', [Message('a', b'{}')])\n"
        "    try:\n"
        "        asyncio.run(client.publish_in_async(object(), 'jobs', []))\n"
        "    except ValueError:\n"
        "        pass\n"
        "assert 'asyncpg' not in sys.modules and 'sqlalchemy' not in sys.modules\n"
    )

    subprocess.run([sys.executable, "-c", program], check=True, timeout=LIMIT_S)
    assert world.ready() == 1
