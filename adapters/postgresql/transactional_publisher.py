"""Publishing in a caller's transaction (PUB-7)."""

from collections.abc import Generator, Sequence
from typing import Any
from weakref import WeakSet

from ...domain.errors import InvalidInput
from ...ports import Message, PublishOutcome, PublishStatus
from ..shared.chunks import in_chunks
from ..shared.error_messages import not_declared
from .caller_connection import async_caller_connection, caller_connection
from .caller_statement import CallerStatement, Parameters
from .publisher import CHUNK_BYTES, CHUNK_JOBS
from .statements import Statements

_Steps = Generator[tuple[CallerStatement, Parameters], Any, list[PublishOutcome]]
"""Yields statements to run one after the other, and is sent the answer to each."""


class TransactionalPublisher:
    """Publishes in transactions of callers, of any thread or event loop, and never ends one.

    Errors of the caller's driver concern the caller's transaction, so they are raised as they are.

    Args:
        statements: The statements for the schema.
        schema: Where the tables are.
    """

    def __init__(self, statements: Statements, schema: str) -> None:
        self._statements = statements
        self._schema = schema
        self._known: WeakSet[Any] = WeakSet()
        """The drivers' connections in whose database the tables were found."""

    def publish(self, connection: object, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish on a connection that blocks."""
        driver, execute = caller_connection(connection)
        steps = self._steps(driver, queue, messages)
        try:
            statement = next(steps)
            while True:
                statement = steps.send(execute(*statement))
        except StopIteration as end:
            outcomes: list[PublishOutcome] = end.value
            return outcomes

    async def publish_async(
        self, connection: object, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        """Publish on a connection of an event loop."""
        driver, execute = await async_caller_connection(connection)
        steps = self._steps(driver, queue, messages)
        try:
            statement = next(steps)
            while True:
                statement = steps.send(await execute(*statement))
        except StopIteration as end:
            outcomes: list[PublishOutcome] = end.value
            return outcomes

    def _steps(self, driver: Any, queue: str, messages: Sequence[Message]) -> _Steps:
        statements = self._statements
        if driver not in self._known:  # to call a function that isn't there would end the transaction
            if not (yield statements.has_publish_in_transaction, {"schemas": [self._schema]}):
                (place,) = yield statements.place_of_connection, {}
                raise self._not_found(place)
            self._known.add(driver)
        outcomes: list[PublishOutcome] = []
        chunks = in_chunks(messages, CHUNK_JOBS, max_bytes=CHUNK_BYTES, size_of=lambda each: len(each.body))
        for chunk in list(chunks) or [[]]:  # an empty publish, too, demands that the queue is declared
            parameters: Parameters = {
                "queues": [queue],
                "ids": [message.id for message in chunk],
                "bodies": [message.body for message in chunk],
                "priorities": [message.priority for message in chunk],
                "delays": [float(message.delay_s) for message in chunk],
            }
            found = yield statements.publish_in_transaction, parameters
            if found is None:
                raise not_declared(queue)
            duplicates = frozenset(found)
            outcomes += [
                PublishOutcome(
                    message.id,
                    PublishStatus.DUPLICATE if str(number) in duplicates else PublishStatus.ACCEPTED,
                )
                for number, message in enumerate(chunk, 1)
            ]
        return outcomes

    def _not_found(self, place: str) -> InvalidInput:
        return InvalidInput(
            f"connection: database {place} has no schema {self._schema!r} of this release; connect to the "
            "database of the jobs, or, if it is that, register a schema with this release first"
        )
