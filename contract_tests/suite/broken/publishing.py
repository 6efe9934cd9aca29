"""Faults of publishing."""

from collections.abc import Callable, Sequence
from uuid import uuid4

from ...domain import Queue
from ...domain.errors import QueueNotFound
from ...ports import Capabilities, Delivery, Message, PublishOutcome, PublishStatus
from .fault_bases import DuplicatesJobs
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


def dedupes(capabilities: Capabilities) -> bool:
    """Only an adapter that dedupes can do it wrong."""
    return capabilities.dedupe


def accepted(messages: Sequence[Message]) -> list[PublishOutcome]:
    """The answer that all went well."""
    return [PublishOutcome(message.id, PublishStatus.ACCEPTED) for message in messages]


@breaks("PUB-1")
class AcceptsBeforeSending(PassThrough):
    """Publish answers from a buffer that goes out with the next call, as in celery#5410."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._buffer: list[Message] = []

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        due, self._buffer = self._buffer, list(messages)
        client.inner.publish(queue, due)
        return accepted(messages)


@breaks("PUB-1")
class MergesEqualBodies(PassThrough):
    """Jobs are members of a set: one whose body equals that of another vanishes, reported as accepted."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._bodies: set[tuple[str, bytes]] = set()

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        new = {message.body: message for message in messages if (queue, message.body) not in self._bodies}
        client.inner.publish(queue, list(new.values()))
        self._bodies.update((queue, body) for body in new)
        return accepted(messages)


@breaks("PUB-1")
class CutsLongBodies(PassThrough):
    """Bodies are kept in a column of 64 KiB, and what is longer is cut off."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(body=message.body[:65536])


@breaks("PUB-2")
class NamesJobsAnew(PassThrough):
    """The broker numbers jobs by itself, and nobody learns under which id a job is known there."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        client.inner.publish(queue, [message._replace(id=uuid4().hex) for message in messages])
        return accepted(messages)


@breaks("PUB-3")
class CreatesQueuesOnPublish(PassThrough):
    """Publishing to a queue that nobody declared creates it, so that a typing error swallows jobs."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        try:
            return super().publish(client, queue, messages)
        except QueueNotFound:
            client.inner.declare(Queue(queue))
            return super().publish(client, queue, messages)


@breaks("PUB-3")
class AcceptsWhatHasNoQueue(PassThrough):
    """Publishing to a queue that isn't there is answered well, and the job is lost, as in dramatiq#832."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        try:
            return super().publish(client, queue, messages)
        except QueueNotFound:
            return accepted(messages)


@breaks("PUB-4")
class DropsTheLastOfABatch(PassThrough):
    """The confirm of a batch's last message is never looked at, and it may be lost, as in dramatiq#545."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        client.inner.publish(queue, messages[:-1] if len(messages) > 1 else messages)
        return accepted(messages)


@breaks("PUB-4")
class SendsHalfALargeBatch(PassThrough):
    """A batch is sent in chunks, and all chunks but the first are forgotten."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        client.inner.publish(queue, messages[:1000])
        return accepted(messages)


@breaks("PUB-4")
class AnswersOutOfOrder(PassThrough):
    """Confirms are passed on in the order in which they arrive."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        return super().publish(client, queue, messages)[::-1]


@breaks("PUB-5", where=dedupes)
class ADuplicateEndsTheBatch(PassThrough):
    """A batch isn't atomic: the first duplicate aborts it, and what stands behind it is never sent."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes: list[PublishOutcome] = []
        for message in messages:
            outcomes += super().publish(client, queue, [message])
            if outcomes[-1].status is PublishStatus.DUPLICATE:
                break
        return outcomes + accepted(messages[len(outcomes) :])


@breaks("PUB-5", where=dedupes)
class ForgetsIdsInFlight(DuplicatesJobs):
    """Only what waits is looked through for duplicates: an id that is in flight is published again."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = super().publish(client, queue, messages)
        in_flight = {delivery.id for delivery in self.delivered.values()}
        for number, message in enumerate(messages):
            if outcomes[number].status is PublishStatus.DUPLICATE and message.id in in_flight:
                self.put_copy(client, queue, message)
                outcomes[number] = PublishOutcome(message.id, PublishStatus.ACCEPTED)
        return outcomes


@breaks("PUB-5", where=dedupes)
class ForgetsIdsOfTheDead(PassThrough):
    """An id is free again once its job is dead, and publishing it overwrites the dead letter."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        client.inner.discard(queue, [message.id for message in messages])
        return super().publish(client, queue, messages)


@breaks("PUB-5", where=dedupes)
class ADuplicateOverwritesTheBody(PassThrough):
    """The body is written before it is seen that the id is live, so that a duplicate replaces it."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._bodies: dict[str, bytes] = {}

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        self._bodies[message.id] = message.body
        return message

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [delivery._replace(body=self._bodies[delivery.id]) for delivery in deliveries]
