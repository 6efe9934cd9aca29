"""Faults of the positions that jobs lose or keep as they wait, come back or are taken with a settlement."""

from collections.abc import Callable, Sequence

from ...ports import Ack, Delivery, Message, Release, Retry, Settled, Settlement
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .order import Reordering, prioritizes
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("ORD-3", where=prioritizes)
class ADelayLosesThePriority(PassThrough):
    """A delayed job has lost its priority when it is due, as with BullMQ's delayed jobs."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(priority=0) if message.delay_s else message


@breaks("ORD-1")
class TakesTheNewest(PassThrough):
    """What is taken with a settlement comes from the other end of the queue."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes = super().settle(consumer, settlements, 0).outcomes
        if not take:
            return Settled(outcomes, [])
        ready = super().receive(consumer, 10_000, 0.0)
        kept, back = ready[-take:], ready[:-take]
        consumer.inner.settle([Release(delivery.receipt) for delivery in back])
        return Settled(outcomes, kept)


class ServesFirst(Reordering):
    """Serves some jobs before all others."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._first: set[str] = set()
        self._ids: dict[str, str] = {}

    def first(self, id_: str) -> None:
        """Serve this job before all others."""
        self._first.add(id_)

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._ids.update((delivery.receipt, delivery.id) for delivery in deliveries)
        return deliveries

    def position(self, delivery: Delivery) -> int:
        return 0 if delivery.id in self._first else 1


@breaks("SET-2")
class ARetryIsServedFirst(ServesFirst):
    """A retried job is pushed to the head of the queue, and those that wait starve behind it."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Retry) and settlement.receipt in self._ids:
            self.first(self._ids[settlement.receipt])
        return settlement


@breaks("DLQ-2")
class ARedriveIsServedFirst(ServesFirst):
    """Redriven jobs are pushed to the head of the queue, before those that were published before."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        for letter in client.inner.dead_letters(queue, limit=10_000):
            if ids is None or letter.id in ids:
                self.first(letter.id)
        return super().redrive(client, queue, ids)


@breaks("DLY-2")
class WhatIsDueIsServedFirst(ServesFirst):
    """A job that is due is pushed to the head of the queue, before those that were published before."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if message.delay_s:
            self.first(message.id)
        return message


@breaks("ORD-4")
class WhatWasDelayedKeepsItsFirstPosition(ServesFirst):
    """Released, a job that was delayed stands where it was published, not where it became due."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._delayed: set[str] = set()

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if message.delay_s:
            self._delayed.add(message.id)
        return message

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        id_ = self._ids.get(settlement.receipt)
        if isinstance(settlement, Release) and id_ in self._delayed:
            self.first(id_)
        return settlement


@breaks("ORD-3", where=prioritizes)
class ARetryLosesThePriority(RecordsDeliveries):
    """The priority is kept in the message only: what is retried is served behind all that has any."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._retried: set[str] = set()

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Retry) and settlement.receipt in self.delivered:
            self._retried.add(self.delivered[settlement.receipt].id)
        return settlement

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        ready = super().receive(consumer, 1000, timeout_s)
        ordered = sorted(ready, key=lambda delivery: delivery.id in self._retried)
        consumer.inner.settle([Release(delivery.receipt) for delivery in ordered[max_jobs:]])
        return ordered[:max_jobs]


@breaks("ORD-4")
class ReleasesOfABatchTurnRound(RecordsDeliveries):
    """Jobs that are released together go to the end of the queue, as a requeue of many does."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        released = [each.receipt for each in settlements if isinstance(each, Release)]
        if len(released) < 2:
            return super().settle(consumer, settlements, take)
        sent = [Ack(each.receipt) if isinstance(each, Release) else each for each in settlements]
        answer = super().settle(consumer, sent, take)
        back = [self.delivered[receipt] for receipt in released if receipt in self.delivered]
        consumer.client.inner.publish(consumer.queue, [Message(each.id, each.body) for each in back])
        return answer
