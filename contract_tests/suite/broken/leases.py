"""Faults of leases."""

import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from ...ports import (
    Ack,
    Capabilities,
    ConsumerBackend,
    Delivery,
    Lease,
    Message,
    Settled,
    Settlement,
    SettleOutcome,
)
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


def timed(capabilities: Capabilities) -> bool:
    """Only a lease that has an end can end wrongly."""
    return capabilities.lease is Lease.TIMED


@breaks("LSE-1", "I1")
class PassesOverWhatCameBack(PassThrough):
    """What comes with a job that a dead consumer had is dropped on the way, since its id was seen before."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [] if any(delivery.crashes for delivery in deliveries) else deliveries


@breaks("LSE-1")
class AcksEarly(PassThrough):
    """A job is done as soon as it is delivered, and lost with its consumer, as in celery#1628."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        consumer.inner.settle([Ack(delivery.receipt) for delivery in deliveries])
        return deliveries

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        taken = self.receive(consumer, take, 0.0) if take else []
        return Settled([SettleOutcome.OK] * len(settlements), taken)


@breaks("LSE-1")
class LosesOnCrash(PassThrough):
    """A job whose consumer died is taken for abandoned, and given up, as in saq#127."""

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        while True:
            came = super().receive(consumer, max_jobs, timeout_s)
            consumer.inner.settle([Ack(delivery.receipt) for delivery in came if delivery.crashes])
            kept = [delivery for delivery in came if not delivery.crashes]
            if kept or not came:
                return kept


@breaks("LSE-2", where=timed)
class NeverExpires(PassThrough):
    """A lease has no end: what a dead consumer held stays with it, as in arq#343."""

    def open_consumer(
        self, client: BrokenBackend, queue: str, lease_s: float, prefetch: int | None
    ) -> ConsumerBackend:
        return super().open_consumer(client, queue, 1e6, prefetch)


@breaks("LSE-2", where=timed)
class SaysThatTheLeaseIsOver(PassThrough):
    """A delivery says that nothing is left of its lease, as its end was taken for a time of the worker's."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [delivery._replace(deadline_s=0.0) for delivery in deliveries]


@breaks("RTY-3", where=timed)
class ClosesBeforeItLooks(PassThrough):
    """A close gives back all that the consumer had, also what its lease had lost: no crash is counted."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ends: dict[BrokenConsumer, dict[str, float]] = {}
        self._hidden: set[str] = set()

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        ends = self._ends.setdefault(consumer, {})
        ends.update((each.id, self.now() + (each.deadline_s or 0.0)) for each in deliveries)
        hidden = self._hidden & {each.id for each in deliveries}
        self._hidden -= hidden
        return [each._replace(crashes=each.crashes - (each.id in hidden)) for each in deliveries]

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        ends = self._ends.pop(consumer, {})
        self._hidden |= {id_ for id_, end in ends.items() if end <= self.now()}
        super().close_consumer(consumer)


@breaks("LSE-3", where=timed)
class ExtendsNothing(PassThrough):
    """An extension is answered well, and the lease runs out under a long job, as in kombu#337."""

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        return [SettleOutcome.OK] * len(receipts)


@breaks("LSE-4")
class ExtendsWhatIsLost(PassThrough):
    """Extending a lease that was lost is answered well, and its handler works on."""

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        super().extend(consumer, receipts)
        return [SettleOutcome.OK] * len(receipts)


@breaks("LSE-4", where=timed)
class ExtendsUpToWhatIsLost(PassThrough):
    """Of several leases, those behind one that was lost aren't looked at, and are answered well."""

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        outcomes: list[SettleOutcome] = []
        while len(outcomes) < len(receipts) and SettleOutcome.LOST not in outcomes:
            outcomes += super().extend(consumer, receipts[len(outcomes) : len(outcomes) + 1])
        return outcomes + [SettleOutcome.OK] * (len(receipts) - len(outcomes))


@breaks("LSE-4", where=timed)
class AnswersPlainAcksFirst(PassThrough):
    """Acks without a result are sent first, and the answers given in the order in which they were sent."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        plain = [each for each in settlements if isinstance(each, Ack) and each.result is None]
        return super().settle(consumer, [*plain, *(each for each in settlements if each not in plain)], take)


@breaks("LSE-4")
class SettlesById(PassThrough):
    """A settlement isn't fenced: one that comes too late settles the delivery of another consumer."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ids: dict[str, str] = {}
        self._holders: dict[str, tuple[BrokenConsumer, str]] = {}

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            self._ids[delivery.receipt] = delivery.id
            self._holders[delivery.id] = (consumer, delivery.receipt)
        return deliveries

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes = []
        for settlement in settlements:
            id_ = self._ids.get(settlement.receipt, "")
            holder, receipt = self._holders.get(id_, (consumer, settlement.receipt))
            outcomes += holder.inner.settle([settlement._replace(receipt=receipt)]).outcomes
        return Settled(outcomes, super().settle(consumer, [], take).deliveries)


def skew_s() -> float:
    """How far the worker's clock is off, where a check has set it wrong."""
    return time.time() - datetime.now(UTC).timestamp()


@breaks("LSE-5")
class DelaysByTheWorkersClock(PassThrough):
    """When a delayed job is due is computed from the publisher's calendar."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(delay_s=max(0.0, message.delay_s + skew_s())) if message.delay_s else message


@breaks("LSE-5", where=timed)
class LeasesByTheWorkersClock(PassThrough):
    """When a lease runs out is computed from the consumer's calendar."""

    def open_consumer(
        self, client: BrokenBackend, queue: str, lease_s: float, prefetch: int | None
    ) -> ConsumerBackend:
        return super().open_consumer(client, queue, max(0.1, lease_s + skew_s()), prefetch)
