"""What type checkers take for a caller's connection to a database. Adapters say which ones they join."""

from collections.abc import Awaitable
from typing import Any, Protocol


class Transaction(Protocol):
    """A connection or session that blocks, such as psycopg's or SQLAlchemy's."""

    def commit(self) -> None:
        """End the transaction, and keep its changes."""

    def rollback(self) -> None:
        """End the transaction, and drop its changes."""


class AsyncTransaction(Protocol):
    """A connection or session of an event loop, likewise."""

    def commit(self) -> Awaitable[Any]:
        """End the transaction, and keep its changes."""

    def rollback(self) -> Awaitable[Any]:
        """End the transaction, and drop its changes."""
