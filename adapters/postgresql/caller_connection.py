"""A caller's own connection: psycopg's, or SQLAlchemy's whose driver is psycopg.

Nothing of the connection is changed: statements run on a cursor of their own, and aren't prepared. SQLAlchemy
runs them itself, so that it knows of the transaction; it is never imported here.
"""

import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple

import psycopg
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from ...domain.errors import InvalidInput

Parameters = Mapping[str, Any]

_SESSIONS = ("orm", ("Session", "scoped_session"))
_CONNECTIONS = ("engine", ("Connection",))
_ASYNC_SESSIONS = ("ext.asyncio", ("AsyncSession", "async_scoped_session"))
_ASYNC_CONNECTIONS = ("ext.asyncio", ("AsyncConnection",))
"""Classes of SQLAlchemy, by their module."""

_JOINED = "a psycopg.Connection, or a Connection or Session of SQLAlchemy"
_JOINED_ASYNC = "a psycopg.AsyncConnection, or an AsyncConnection or AsyncSession of SQLAlchemy"


class CallerConnection(NamedTuple):
    """A connection, and what runs a statement on it and returns the one value that it answers."""

    driver: "psycopg.Connection[Any]"
    execute: Callable[[str, Parameters], Any]


class AsyncCallerConnection(NamedTuple):
    """The same on an event loop."""

    driver: "psycopg.AsyncConnection[Any]"
    execute: Callable[[str, Parameters], Awaitable[Any]]


def caller_connection(connection: Any) -> CallerConnection:
    """Take a connection or session that blocks.

    Raises:
        InvalidInput: it is none, its driver isn't psycopg, or it commits each statement by itself.
    """
    if _is_of_sqlalchemy(connection, _SESSIONS):
        connection = connection.connection()
    if _is_of_sqlalchemy(connection, _CONNECTIONS):
        _refuse_other_drivers(connection)
        driver = connection.connection.driver_connection

        def execute(sql: str, parameters: Parameters) -> Any:
            return connection.exec_driver_sql(sql, parameters).scalar_one()

    elif isinstance(connection, psycopg.Connection):
        driver = connection

        def execute(sql: str, parameters: Parameters) -> Any:
            with psycopg.Cursor(driver, row_factory=tuple_row) as cursor:
                row = cursor.execute(sql, parameters, prepare=False).fetchone()
            return row and row[0]

    else:
        raise _refusal(connection, _JOINED)
    _refuse_autocommit(driver)
    return CallerConnection(driver, execute)


async def async_caller_connection(connection: Any) -> AsyncCallerConnection:
    """Take a connection or session of an event loop.

    Raises:
        InvalidInput: as of :func:`caller_connection`.
    """
    if _is_of_sqlalchemy(connection, _ASYNC_SESSIONS):
        connection = await connection.connection()
    if _is_of_sqlalchemy(connection, _ASYNC_CONNECTIONS):
        driver = (await connection.get_raw_connection()).driver_connection
        _refuse_other_drivers(connection)

        async def execute(sql: str, parameters: Parameters) -> Any:
            return (await connection.exec_driver_sql(sql, parameters)).scalar_one()

    elif isinstance(connection, psycopg.AsyncConnection):
        driver = connection

        async def execute(sql: str, parameters: Parameters) -> Any:
            async with psycopg.AsyncCursor(driver, row_factory=tuple_row) as cursor:
                row = await (await cursor.execute(sql, parameters, prepare=False)).fetchone()
            return row and row[0]

    else:
        raise _refusal(connection, _JOINED_ASYNC)
    _refuse_autocommit(driver)
    return AsyncCallerConnection(driver, execute)


def _is_of_sqlalchemy(value: object, *kinds: tuple[str, tuple[str, ...]]) -> bool:
    for module, names in kinds:
        found = sys.modules.get(f"sqlalchemy.{module}")  # a caller with such an object imported it
        if found is not None and isinstance(value, tuple(getattr(found, name) for name in names)):
            return True
    return False


def _refuse_other_drivers(connection: Any) -> None:
    dialect = connection.dialect
    if (dialect.name, dialect.driver) != ("postgresql", "psycopg"):
        raise InvalidInput(
            f"connection: its engine is of {dialect.name}+{dialect.driver}; make the engine with a URL that "
            "begins with postgresql+psycopg://"
        )


def _refuse_autocommit(driver: Any) -> None:
    if driver.autocommit and driver.info.transaction_status == TransactionStatus.IDLE:
        raise InvalidInput(
            "connection: it is in no transaction, and commits each statement by itself (autocommit); publish "
            "inside `with connection.transaction():`, or without connection="
        )


def _refusal(connection: object, joined: str) -> InvalidInput:
    """Return the error for what is no connection, or is one for the other kind of orchestrator."""
    kind = f"{type(connection).__module__}.{type(connection).__qualname__}"
    if isinstance(connection, psycopg.AsyncConnection) or _is_of_sqlalchemy(
        connection, _ASYNC_CONNECTIONS, _ASYNC_SESSIONS
    ):
        return InvalidInput(
            f"connection: {kind} must be awaited; publish with an AsyncOrchestrator, or pass {joined}"
        )
    if isinstance(connection, psycopg.Connection) or _is_of_sqlalchemy(connection, _CONNECTIONS, _SESSIONS):
        return InvalidInput(
            f"connection: {kind} would block the event loop; publish with an Orchestrator, or pass {joined}"
        )
    return InvalidInput(f"connection: {kind} can't be joined; pass {joined}")
