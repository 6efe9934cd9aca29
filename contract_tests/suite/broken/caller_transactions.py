"""Faults of publishing in a transaction of the caller's."""

from collections.abc import Callable, Sequence
from typing import Any

from ...domain.errors import BackendUnavailable, InvalidInput, QueueNotFound
from ...ports import Capabilities, Message, PublishOutcome
from .fault_registry import breaks
from .pass_through import BrokenBackend, PassThrough
from .publishing import accepted
from .wakeups import WakesByEveryCause


def joins(capabilities: Capabilities) -> bool:
    """Only an adapter that joins transactions can do it wrong."""
    return capabilities.transactional_publish


@breaks("PUB-7", where=joins)
class PublishesBesideTheTransaction(PassThrough):
    """The connection is ignored: jobs are there before the commit, and stay after a rollback."""

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        return self.publish(client, queue, messages)


@breaks("PUB-7", where=joins)
class CommitsForTheCaller(PassThrough):
    """The jobs are committed at once, and with them what the caller hasn't finished."""

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        outcomes = super().publish_in(client, connection, queue, messages)
        connection.commit()
        return outcomes


@breaks("PUB-7", where=joins)
class AcceptsDuplicatesInATransaction(PassThrough):
    """Conflicts are passed over in silence: an id that is live is answered ACCEPTED."""

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        super().publish_in(client, connection, queue, messages)
        return accepted(messages)


@breaks("PUB-7", where=joins)
class LocksTheQueue(PassThrough):
    """A publish locks the queue's row until its transaction ends, and others run into a timeout."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._locked: set[str] = set()

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        self._locked.add(queue)
        return super().publish_in(client, connection, queue, messages)

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if queue in self._locked:
            raise BackendUnavailable("canceling statement due to lock timeout")
        return super().publish(client, queue, messages)


@breaks("PUB-7", where=joins)
class ARefusalEndsTheTransaction(PassThrough):
    """An undeclared queue is an error of the server's, which rolls back what was published before."""

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        try:
            return super().publish_in(client, connection, queue, messages)
        except QueueNotFound:
            connection.rollback()
            raise


@breaks("PUB-7", where=joins)
class PublishesWithoutATransaction(PassThrough):
    """What is no connection that it can join is passed over, and the jobs are published at once."""

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        try:
            return super().publish_in(client, connection, queue, messages)
        except InvalidInput:
            return self.publish(client, queue, messages)


@breaks("PUB-7", where=joins)
class ACommitWakesNobody(WakesByEveryCause):
    """Receivers are woken by the publish, when there is nothing for them yet, and not by the commit."""

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        outcomes = super().publish_in(client, connection, queue, messages)
        self.notify()
        return outcomes
