"""What isn't a connection that can be joined is refused in words, before anything is sent (PUB-7)."""

import asyncio
import sqlite3
from collections.abc import Iterator
from typing import Any

import asyncpg
import psycopg
import pytest
import sqlalchemy
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession, create_async_engine
from sqlalchemy.ext.asyncio.exc import AsyncContextNotStarted
from sqlalchemy.orm import Session

from mindtrace.jobs import LocalClient, PostgreSQLClient
from mindtrace.jobs.errors import InvalidInput, UnsupportedCapability
from mindtrace.jobs.ports import Message, OrchestratorBackend

JOB = [Message("a", b"{}")]
SYNC = "pass a psycopg.Connection, or a Connection or Session of SQLAlchemy"
ASYNC = (
    "pass a psycopg.AsyncConnection, an asyncpg.Connection, or an AsyncConnection or AsyncSession of "
    "SQLAlchemy"
)
ENGINE = sqlalchemy.create_engine("sqlite://")


@pytest.fixture
def client() -> Iterator[PostgreSQLClient]:
    """A client of a server that isn't there: what is refused needs none."""
    with PostgreSQLClient("localhost", 1) as client:
        yield client


def unopened(kind: type[Any]) -> Any:
    """An object of a driver's class, which no connection is behind."""
    return object.__new__(kind)


SYNC_REFUSALS: dict[str, tuple[Any, str]] = {
    "a URL": ("postgresql://server/app", f"connection: builtins.str can't be joined; {SYNC}"),
    "an engine": (ENGINE, f"connection: sqlalchemy.engine.base.Engine can't be joined; {SYNC}"),
    "another driver's": (
        sqlite3.connect(":memory:"),
        f"connection: sqlite3.Connection can't be joined; {SYNC}",
    ),
    "psycopg's, to be awaited": (
        unopened(psycopg.AsyncConnection),
        f"connection: psycopg.AsyncConnection must be awaited; publish with an AsyncOrchestrator, or {SYNC}",
    ),
    "asyncpg's": (
        unopened(asyncpg.Connection),
        f"asyncpg.connection.Connection must be awaited; publish with an AsyncOrchestrator, or {SYNC}",
    ),
    "SQLAlchemy's, to be awaited": (
        unopened(AsyncConnection),
        f"must be awaited; publish with an AsyncOrchestrator, or {SYNC}",
    ),
    "a session to be awaited": (
        AsyncSession(),
        f"must be awaited; publish with an AsyncOrchestrator, or {SYNC}",
    ),
    "an engine of another driver": (
        ENGINE.connect(),
        "connection: its engine is of sqlite+pysqlite; make the engine with a URL that begins with "
        "postgresql+psycopg:// or, on an event loop, postgresql+asyncpg://",
    ),
    "a session of another driver": (Session(ENGINE), "connection: its engine is of sqlite+pysqlite; make"),
}

ASYNC_REFUSALS: dict[str, tuple[Any, str]] = {
    "a URL": ("postgresql://server/app", f"connection: builtins.str can't be joined; {ASYNC}"),
    "psycopg's, which blocks": (
        unopened(psycopg.Connection),
        f"psycopg.Connection would block the event loop; publish with an Orchestrator, or {ASYNC}",
    ),
    "SQLAlchemy's, which blocks": (
        ENGINE.connect(),
        f"connection: sqlalchemy.engine.base.Connection would block the event loop; publish with an "
        f"Orchestrator, or {ASYNC}",
    ),
    "a session that blocks": (
        Session(ENGINE),
        f"connection: sqlalchemy.orm.session.Session would block the event loop; publish with an "
        f"Orchestrator, or {ASYNC}",
    ),
}


@pytest.mark.parametrize(("connection", "words"), SYNC_REFUSALS.values(), ids=SYNC_REFUSALS.keys())
def test_a_call_that_blocks_refuses(client: PostgreSQLClient, connection: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        client.publish_in(connection, "jobs", JOB)

    assert words in str(refused.value)


@pytest.mark.parametrize(("connection", "words"), ASYNC_REFUSALS.values(), ids=ASYNC_REFUSALS.keys())
def test_a_call_of_an_event_loop_refuses(client: PostgreSQLClient, connection: Any, words: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        asyncio.run(client.publish_in_async(connection, "jobs", JOB))

    assert words in str(refused.value)


def test_a_connection_that_was_not_awaited_is_sqlalchemys_to_refuse(client: PostgreSQLClient) -> None:
    async def main() -> None:
        engine = create_async_engine("postgresql+psycopg://localhost:1/nowhere")
        with pytest.raises(AsyncContextNotStarted):
            await client.publish_in_async(engine.connect(), "jobs", JOB)

    asyncio.run(main())


def test_a_backend_without_such_transactions_says_what_to_do(backend_without: OrchestratorBackend) -> None:
    with pytest.raises(UnsupportedCapability) as refused:
        backend_without.publish_in(object(), "jobs", JOB)

    assert str(refused.value) == (
        "this backend can't publish in your transaction, as PostgreSQL can: publish after the commit, "
        "without connection="
    )


@pytest.fixture
def backend_without() -> Iterator[OrchestratorBackend]:
    with LocalClient() as client:
        yield client
