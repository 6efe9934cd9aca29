"""A caller's own connection: psycopg's, asyncpg's, or SQLAlchemy's whose driver is one of these.

Nothing of the connection is changed: psycopg runs statements on a cursor of their own, and doesn't prepare
them; asyncpg keeps them in its cache, as all statements. SQLAlchemy runs them itself, so that it knows of the
transaction. Neither SQLAlchemy nor asyncpg is ever imported here.
"""

import sys
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ...domain.errors import InvalidInput
from .caller_statement import CallerStatement, Parameters, as_texts

_SESSIONS = ("orm", ("Session", "scoped_session"))
_CONNECTIONS = ("engine", ("Connection",))
_ASYNC_SESSIONS = ("ext.asyncio", ("AsyncSession", "async_scoped_session"))
_ASYNC_CONNECTIONS = ("ext.asyncio", ("AsyncConnection",))
"""Classes of SQLAlchemy, by their module."""

_JOINED = "a psycopg.Connection, or a Connection or Session of SQLAlchemy"
_JOINED_ASYNC = (
    "a psycopg.AsyncConnection, an asyncpg.Connection, or an AsyncConnection or AsyncSession of SQLAlchemy"
)

_DRIVERS = "psycopg", "asyncpg"
"""What SQLAlchemy calls the drivers whose connections can be joined."""


class CallerConnection(NamedTuple):
    """A connection, and what runs a statement on it and returns the one value that it answers."""

    driver: Any
    """The connection of the driver, which can be referred to weakly."""
    execute: Callable[[CallerStatement, Parameters], Any]


class AsyncCallerConnection(NamedTuple):
    """The same on an event loop."""

    driver: Any
    execute: Callable[[CallerStatement, Parameters], Awaitable[Any]]


def caller_connection(connection: Any) -> CallerConnection:
    """Take a connection or session that blocks.

    Raises:
        InvalidInput: it is none, its driver is another one, or it commits each statement by itself.
    """
    if _is_of_sqlalchemy(connection, _SESSIONS):
        connection = connection.connection()
    if _is_of_sqlalchemy(connection, _CONNECTIONS):
        _refuse_other_drivers(connection)
        driver = _checked(connection.connection)

        def execute(statement: CallerStatement, parameters: Parameters) -> Any:
            return connection.exec_driver_sql(*_for_driver(driver, statement, parameters)).scalar_one()

    elif isinstance(connection, psycopg.Connection):
        driver = connection
        _refuse_autocommit(driver)

        def execute(statement: CallerStatement, parameters: Parameters) -> Any:
            with psycopg.Cursor(driver, row_factory=tuple_row) as cursor:
                row = cursor.execute(statement.named, parameters, prepare=False).fetchone()
            return row and row[0]

    else:
        raise _refusal(connection, _JOINED)
    return CallerConnection(driver, execute)


async def async_caller_connection(connection: Any) -> AsyncCallerConnection:
    """Take a connection or session of an event loop.

    Raises:
        InvalidInput: as of :func:`caller_connection`.
    """
    if _is_of_sqlalchemy(connection, _ASYNC_SESSIONS):
        connection = await connection.connection()
    if _is_of_sqlalchemy(connection, _ASYNC_CONNECTIONS):
        pooled = await connection.get_raw_connection()
        _refuse_other_drivers(connection)
        driver = _checked(pooled)

        async def execute(statement: CallerStatement, parameters: Parameters) -> Any:
            text = _for_driver(driver, statement, parameters)
            return (await connection.exec_driver_sql(*text)).scalar_one()

    elif isinstance(connection, psycopg.AsyncConnection):
        driver = connection
        _refuse_autocommit(driver)

        async def execute(statement: CallerStatement, parameters: Parameters) -> Any:
            async with psycopg.AsyncCursor(driver, row_factory=tuple_row) as cursor:
                row = await (await cursor.execute(statement.named, parameters, prepare=False)).fetchone()
            return row and row[0]

    elif _is_of_asyncpg(connection):
        if not connection.is_closed() and not connection.is_in_transaction():
            raise _commits_by_itself("async with connection.transaction():")
        driver = _behind_proxy(connection)

        async def execute(statement: CallerStatement, parameters: Parameters) -> Any:
            return await connection.fetchval(statement.numbered, *as_texts(parameters))

    else:
        raise _refusal(connection, _JOINED_ASYNC)
    return AsyncCallerConnection(driver, execute)


def _is_of_sqlalchemy(value: object, *kinds: tuple[str, tuple[str, ...]]) -> bool:
    for module, names in kinds:
        found = sys.modules.get(f"sqlalchemy.{module}")  # a caller with such an object imported it
        if found is not None and isinstance(value, tuple(getattr(found, name) for name in names)):
            return True
    return False


def _is_of_asyncpg(value: object) -> bool:
    found = sys.modules.get("asyncpg")  # likewise
    return found is not None and isinstance(value, found.Connection)


def _behind_proxy(connection: Any) -> Any:
    """Return the connection itself: a pool of asyncpg lends a proxy, which can't be referred to weakly."""
    return getattr(connection, "_con", connection)


def _refuse_other_drivers(connection: Any) -> None:
    dialect = connection.dialect
    if dialect.name != "postgresql" or dialect.driver not in _DRIVERS:
        raise InvalidInput(
            f"connection: its engine is of {dialect.name}+{dialect.driver}; make the engine with a URL that "
            "begins with postgresql+psycopg:// or, on an event loop, postgresql+asyncpg://"
        )


def _checked(pooled: Any) -> Any:
    """Return the driver's connection behind one of SQLAlchemy's, if it is in a transaction or begins one."""
    driver = pooled.driver_connection
    if not _is_of_asyncpg(driver):
        _refuse_autocommit(driver)
    elif pooled.dbapi_connection.autocommit and not driver.is_in_transaction():
        raise _commits_by_itself("async with engine.begin() as connection:")
    return driver


def _refuse_autocommit(driver: Any) -> None:
    if driver.autocommit and driver.info.transaction_status == TransactionStatus.IDLE:
        raise _commits_by_itself("with connection.transaction():")


def _commits_by_itself(remedy: str) -> InvalidInput:
    return InvalidInput(
        "connection: it is in no transaction, and commits each statement by itself (autocommit); publish "
        f"inside `{remedy}`, or without connection="
    )


def _for_driver(driver: Any, statement: CallerStatement, parameters: Parameters) -> tuple[str, Any]:
    """Return a statement and its parameters as SQLAlchemy passes them on."""
    if _is_of_asyncpg(driver):
        return statement.numbered, tuple(as_texts(parameters))
    return statement.named, parameters


def _refusal(connection: object, joined: str) -> InvalidInput:
    """Return the error for what is no connection, or is one for the other kind of orchestrator."""
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if (
        isinstance(connection, psycopg.AsyncConnection)
        or _is_of_asyncpg(connection)
        or _is_of_sqlalchemy(connection, _ASYNC_CONNECTIONS, _ASYNC_SESSIONS)
    ):
        return InvalidInput(
            f"connection: {kind} must be awaited; publish with an AsyncOrchestrator, or pass {joined}"
        )
    if isinstance(connection, psycopg.Connection) or _is_of_sqlalchemy(connection, _CONNECTIONS, _SESSIONS):
        return InvalidInput(
            f"connection: {kind} would block the event loop; publish with an Orchestrator, or pass {joined}"
        )
    return InvalidInput(f"connection: {kind} can't be joined; pass {joined}")
