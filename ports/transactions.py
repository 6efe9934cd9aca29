"""What type checkers take for a caller's connection to a database. Adapters say which ones they join."""

from collections.abc import Awaitable
from typing import Any, Protocol, TypeAlias


class Transaction(Protocol):
    """A connection or session that blocks, such as psycopg's or SQLAlchemy's."""

    def commit(self) -> None:
        """End the transaction, and keep its changes."""

    def rollback(self) -> None:
        """End the transaction, and drop its changes."""


class AwaitedTransaction(Protocol):
    """A connection or session of an event loop, likewise."""

    def commit(self) -> Awaitable[Any]:
        """End the transaction, and keep its changes."""

    def rollback(self) -> Awaitable[Any]:
        """End the transaction, and drop its changes."""


class TransactionBlocks(Protocol):
    """A connection of an event loop whose transactions are blocks of ``async with``, such as asyncpg's."""

    def is_in_transaction(self) -> bool:
        """Return whether a transaction has begun, and not ended."""


class LentConnection(Protocol):
    """A connection that a pool lends as a proxy, which passes each call on, as asyncpg's does."""

    def __getattr__(self, attr: str, /) -> Any:
        """Return what the connection has by this name."""


AsyncTransaction: TypeAlias = AwaitedTransaction | TransactionBlocks | LentConnection
