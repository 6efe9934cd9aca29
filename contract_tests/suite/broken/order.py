"""Faults of order."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from ...domain import Queue, QueueKind
from ...domain.errors import UnsupportedCapability
from ...ports import (
    Ack,
    Capabilities,
    Delivery,
    Message,
    PublishOutcome,
    Release,
    Settled,
    Settlement,
)
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


def stacks(capabilities: Capabilities) -> bool:
    """Only an adapter that has stacks can get them wrong."""
    return capabilities.stack


def prioritizes(capabilities: Capabilities) -> bool:
    """Only an adapter that has priorities can get them wrong."""
    return capabilities.priority


@breaks("ORD-1")
class TurnsBatchesRound(PassThrough):
    """The messages of a batch are pushed at the wrong end, and come last first."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        return super().publish(client, queue, messages[::-1])[::-1]


@breaks("ORD-2", where=stacks)
class AStackIsAFifo(PassThrough):
    """A stack serves the oldest first."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, replace(queue, kind=QueueKind.FIFO) if queue.kind == "stack" else queue)


@breaks("ORD-2", where=stacks)
class HasNoStackThatItDeclares(PassThrough):
    """Stacks are declared as a capability, and refused when asked for."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        if queue.kind is QueueKind.STACK:
            raise UnsupportedCapability("no stacks here")
        super().declare(client, queue)


@breaks("ORD-2", where=stacks)
class HasAStackThatItDeniesToHave(PassThrough):
    """Stacks are declared as unsupported, and served all the same."""

    def capabilities(self, client: BrokenBackend) -> Capabilities:
        return replace(super().capabilities(client), stack=False)


@breaks("ORD-3", where=prioritizes)
class TurnsPriorityRound(PassThrough):
    """The lowest number is served first, as in celery#4028."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(priority=10 - message.priority) if message.priority else message


@breaks("ORD-3", where=prioritizes)
class RoundsPriority(PassThrough):
    """Ten priorities are mapped to the four that the broker has, as in celery#10238."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(priority=message.priority // 3 * 3)


class Reordering(PassThrough):
    """Takes all that is ready, serves it in an order of its own, and gives back what is left."""

    def position(self, delivery: Delivery) -> Any:
        """What to sort by."""
        return 0

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        ready = sorted(super().receive(consumer, 1000, timeout_s), key=self.position)
        consumer.inner.settle([Release(delivery.receipt) for delivery in ready[max_jobs:]])
        return ready[:max_jobs]

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes = super().settle(consumer, settlements, 0).outcomes
        return Settled(outcomes, self.receive(consumer, take, 0.0) if take else [])


@breaks("ORD-3", where=prioritizes)
class ServesTiesNewestFirst(Reordering):
    """Of jobs of one priority the newest comes first."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._positions: dict[str, tuple[int, int]] = {}

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        self._positions[message.id] = (-message.priority, -len(self._positions))
        return message

    def position(self, delivery: Delivery) -> tuple[int, int]:
        return self._positions[delivery.id]


@breaks("ORD-4")
class ReleasesToTheEnd(RecordsDeliveries):
    """A released job is published anew, behind all others."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        released = [settlement.receipt for settlement in settlements if isinstance(settlement, Release)]
        sent = [Ack(each.receipt) if isinstance(each, Release) else each for each in settlements]
        answer = super().settle(consumer, sent, take)
        for delivery in map(self.delivered.__getitem__, released):
            consumer.client.inner.publish(consumer.queue, [Message(delivery.id, delivery.body)])
        return answer


@breaks("ORD-4", where=stacks)
class ReleasesToTheTopOfAStack(ReleasesToTheEnd):
    """A released job is pushed onto its stack again, before those that were published meanwhile."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._stacks: set[str] = set()

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        if queue.kind is QueueKind.STACK:
            self._stacks.add(queue.name)

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        settle = super().settle if consumer.queue in self._stacks else super(ReleasesToTheEnd, self).settle
        return settle(consumer, settlements, take)


@breaks("ORD-4")
class ReturnsToTheEndAfterACrash(PassThrough):
    """The jobs of a consumer that died are published anew, behind all others."""

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        while True:
            came = super().receive(consumer, max_jobs, timeout_s)
            fresh = [delivery for delivery in came if not delivery.crashes]
            for delivery in set(came).difference(fresh):
                consumer.inner.settle([Ack(delivery.receipt)])
                consumer.client.inner.publish(consumer.queue, [Message(delivery.id, delivery.body)])
            if fresh or not came:
                return fresh
