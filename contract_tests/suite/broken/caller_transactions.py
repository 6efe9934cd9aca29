"""Faults of publishing in a transaction of the caller's."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from ...domain.errors import BackendUnavailable, InvalidInput, QueueNotFound
from ...ports import Ack, Capabilities, Delivery, Message, PublishOutcome, PublishStatus
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough
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


@breaks("PUB-7", where=joins)
class PassesOverWhatCommitsLate(PassThrough):
    """A consumer reads on from the highest number that it saw: a lower one that commits later is lost."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._served = 0
        self._began: dict[str, int] = {}
        """How many jobs had been delivered when one was published in a transaction, by its id."""

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        self._began |= {message.id: self._served for message in messages}
        return super().publish_in(client, connection, queue, messages)

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        late = [each for each in deliveries if self._served - self._began.get(each.id, self._served) > 1]
        consumer.inner.settle([Ack(delivery.receipt) for delivery in late])
        self._served += sum(delivery.id not in self._began for delivery in deliveries)
        return [delivery for delivery in deliveries if delivery not in late]


@breaks("PUB-7", where=joins)
class OppositeOrdersDeadlock(PassThrough):
    """Rows are locked in the order of the batch, so that two batches with the same ids deadlock."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._under_way: dict[str, str] = {}
        """The last id of each batch that is being published, by its first."""

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        first, last = messages[0].id, messages[-1].id
        self._under_way[first] = last
        try:
            time.sleep(0.05 if len(messages) > 1 else 0.0)
            if first != last and self._under_way.get(last) == first:
                raise BackendUnavailable("deadlock detected")
            return super().publish_in(client, connection, queue, messages)
        finally:
            self._under_way.pop(first, None)


@breaks("PUB-7", where=joins)
class KnowsIdsThatWereDone(PassThrough):
    """A transaction takes any id for live that a consumer ever had, also of a job that is done."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._seen: set[str] = set()

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._seen |= {delivery.id for delivery in deliveries}
        return deliveries

    def publish_in(
        self, client: BrokenBackend, connection: Any, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        fresh = [message for message in messages if message.id not in self._seen]
        answers = iter(super().publish_in(client, connection, queue, fresh))
        known = PublishStatus.DUPLICATE
        return [
            PublishOutcome(each.id, known) if each.id in self._seen else next(answers) for each in messages
        ]
