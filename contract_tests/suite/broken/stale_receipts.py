"""Faults of fencing: receipts that settle more than their own delivery."""

from collections.abc import Callable, Sequence

from ...ports import Delivery, Settled, Settlement, SettleOutcome
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .leases import timed
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough

_LOST, _ALREADY, _OK = SettleOutcome.LOST, SettleOutcome.ALREADY, SettleOutcome.OK


class SettlesByAnother(RecordsDeliveries):
    """Settles a receipt that is lost by another one, where a fault finds such."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.holders: dict[str, BrokenConsumer] = {}
        self.latest: dict[str, str] = {}
        """The receipt of the latest delivery of each job."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            self.holders[delivery.receipt] = consumer
            self.latest[delivery.id] = delivery.receipt
        return super().incoming(consumer, deliveries)

    def another(self, consumer: BrokenConsumer, receipt: str) -> str | None:
        """The receipt by which this one is settled, too."""
        return None

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = super().settle(consumer, settlements, take)
        for place, settlement in enumerate(settlements):
            other = None if outcomes[place] is _OK else self.another(consumer, settlement.receipt)
            if other is not None and other != settlement.receipt:
                again = settlement._replace(receipt=other)
                (outcomes[place],) = self.holders[other].inner.settle([again]).outcomes
        return Settled(outcomes, taken)


@breaks("LSE-4", where=timed)
class TheTokenIsTheWorkersName(SettlesByAnother):
    """A lease is fenced by its worker's name, which has the job again: a stale receipt settles it."""

    def another(self, consumer: BrokenConsumer, receipt: str) -> str | None:
        if receipt not in self.delivered:
            return None
        latest = self.latest[self.delivered[receipt].id]
        return latest if self.holders[latest] is consumer is self.holders[receipt] else None


@breaks("LSE-4", where=timed)
class TheTokenIsTheWorkersNameInExtend(SettlesByAnother):
    """A stale receipt extends the lease that the same worker has on the same job again."""

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        outcomes = super().extend(consumer, receipts)
        for place, receipt in enumerate(receipts):
            if outcomes[place] is _LOST and receipt in self.delivered:
                latest = self.latest[self.delivered[receipt].id]
                if self.holders[latest] is consumer is self.holders[receipt]:
                    outcomes[place] = consumer.inner.extend([latest])[0]
        return outcomes


@breaks("LSE-4")
class ASiblingsReceiptSettles(SettlesByAnother):
    """A receipt isn't bound to its consumer: a sibling that guesses it settles what the other holds."""

    def another(self, consumer: BrokenConsumer, receipt: str) -> str | None:
        return None

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = super().settle(consumer, settlements, take)
        for place, settlement in enumerate(settlements):
            holder = self.holders.get(settlement.receipt)
            if outcomes[place] is _LOST and holder is not None and holder is not consumer:
                outcomes[place] = holder.inner.settle([settlement]).outcomes[0]
        return Settled(outcomes, taken)


@breaks("LSE-4", where=timed)
class AStaleAckAfterTheHeirsIsAlready(SettlesByAnother):
    """A late ack finds the job done, and is told ALREADY, though another's run of it counted."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = super().settle(consumer, settlements, take)
        for place, settlement in enumerate(settlements):
            if outcomes[place] is _LOST and settlement.receipt in self.delivered:
                latest = self.latest[self.delivered[settlement.receipt].id]
                if latest in self._done:
                    outcomes[place] = _ALREADY
            elif outcomes[place] is _OK:
                self._done.add(settlement.receipt)
        return Settled(outcomes, taken)

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._done: set[str] = set()


@breaks("SET-1")
class ASettledReceiptSettlesTheHeirs(SettlesByAnother):
    """After a retry or a release, the receipt settles the job again, which another consumer has by then."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._settled: set[str] = set()

    def another(self, consumer: BrokenConsumer, receipt: str) -> str | None:
        if receipt not in self._settled or receipt not in self.delivered:
            return None
        latest = self.latest[self.delivered[receipt].id]
        return latest if self.holders[latest] is not consumer else None

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        self._settled.update(settlement.receipt for settlement in settlements)
        return answer


@breaks("LSE-4")
class AStaleReceiptLosesItsBatch(PassThrough):
    """A stale receipt breaks the channel, and all that is settled by the same call is answered LOST."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = super().settle(consumer, settlements, take)
        return Settled([_LOST] * len(outcomes) if _LOST in outcomes else outcomes, taken)


@breaks("ADM-3")
class ReceiptsStartOverWithTheQueue(SettlesByAnother):
    """Receipts are numbered within a queue: those of a deleted one settle the jobs of its successor."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._former: list[str] = []
        self._granted: list[str] = []

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._granted += [delivery.receipt for delivery in deliveries]
        return super().incoming(consumer, deliveries)

    def delete(self, client: BrokenBackend, queue: str) -> None:
        super().delete(client, queue)
        self._former, self._granted = self._granted, []

    def another(self, consumer: BrokenConsumer, receipt: str) -> str | None:
        if receipt not in self._former:
            return None
        place = self._former.index(receipt)
        return self._granted[place] if place < len(self._granted) else None


@breaks("LSE-4")
class ExtendsWhatIsSettled(RecordsDeliveries):
    """Extending a receipt that settled its job is answered well, and the heartbeat never ends."""

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        return [_OK if each is _ALREADY else each for each in super().extend(consumer, receipts)]


@breaks("LSE-4")
class ADeadHeirsReceiptWorksAgain(SettlesByAnother):
    """When the job comes back to its first consumer's queue, the first receipt is good again."""

    def another(self, consumer: BrokenConsumer, receipt: str) -> str | None:
        if receipt not in self.delivered or self.holders[receipt] is not consumer:
            return None
        latest = self.latest[self.delivered[receipt].id]
        return latest if self.delivered[latest].number - self.delivered[receipt].number > 1 else None
