"""Faults that show with many jobs only: limits of one request that nobody goes beyond."""

from collections import OrderedDict
from collections.abc import Callable, Sequence

from ...ports import (
    Ack,
    Dead,
    DeadLetter,
    Delivery,
    JobResult,
    Message,
    PublishOutcome,
    Settled,
    Settlement,
    SettleOutcome,
)
from .administration import keeps_results
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .leases import timed
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("LSE-3", where=timed)
class ExtendsTheFirstTen(PassThrough):
    """One request extends ten leases, as a batch of SQS does, and the others are answered well."""

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        rest = [SettleOutcome.OK] * len(receipts[10:])
        return super().extend(consumer, receipts[:10]) + rest


@breaks("SET-1")
class SettlesTheFirstHundred(PassThrough):
    """Of a batch of settlements the first hundred are sent, and all are answered well."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = super().settle(consumer, settlements[:100], take)
        return Settled(outcomes + [SettleOutcome.OK] * len(settlements[100:]), taken)


@breaks("RCV-1")
class TakesForEachThousand(PassThrough):
    """A batch of settlements goes out by the thousand, and each request takes as many jobs as all should."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = list[SettleOutcome](), list[Delivery]()
        for at in range(0, max(1, len(settlements)), 1000):
            answer = super().settle(consumer, settlements[at : at + 1000], take)
            outcomes += answer.outcomes
            taken += answer.deliveries
        return Settled(outcomes, taken)


@breaks("ADM-2")
class PurgesOneThousand(PassThrough):
    """Purge drops a thousand jobs at once and doesn't look whether more wait, as a cleaner with a limit."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        if client.inner.counts(queue).waiting <= 1000:
            return super().purge(client, queue)
        with client.inner.open_consumer(queue) as consumer:
            purged = consumer.receive(1000, 0.0)
            consumer.settle([Ack(delivery.receipt) for delivery in purged])
        return len(purged)


@breaks("DLQ-1")
class ListsAtMostAHundred(PassThrough):
    """A page of dead letters has a hundred at most, whatever limit was asked for."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        return super().dead_letters(client, queue, min(limit, 100), offset)


@breaks("DLQ-1")
class EndsPagesAtAThousand(PassThrough):
    """A listing ends at a thousand letters, where no limit or a higher one was given."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        return super().dead_letters(client, queue, min(limit, 1000), offset)


@breaks("DLQ-1")
class CountsOffsetsModuloAPage(PassThrough):
    """An offset beyond a thousand starts over at the first page."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        return super().dead_letters(client, queue, limit, offset % 1000)


@breaks("DLQ-2")
class RedrivesOnePage(PassThrough):
    """Redriving all takes the first page of letters, and says how many those were, as in a web interface."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        if ids is None:
            ids = [letter.id for letter in client.inner.dead_letters(queue, limit=100)]
        return super().redrive(client, queue, ids)


@breaks("DLQ-2")
class RedrivesTheFirstThousandNamed(PassThrough):
    """Of the ids that redrive was given, those beyond a thousand parameters are dropped."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        return super().redrive(client, queue, ids if ids is None else ids[:1000])


@breaks("DLQ-3")
class DiscardsOnePage(PassThrough):
    """Discarding all takes the first page of letters."""

    def discard(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        if ids is None:
            ids = [letter.id for letter in client.inner.dead_letters(queue, limit=100)]
        return super().discard(client, queue, ids)


@breaks("SET-1")
class RemembersFewReceipts(PassThrough):
    """Only the last hundred receipts of a consumer are known as settled: those before are answered LOST."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._known: dict[BrokenConsumer, OrderedDict[str, None]] = {}

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = super().settle(consumer, settlements, take)
        known = self._known.setdefault(consumer, OrderedDict())
        for place, settlement in enumerate(settlements):
            if outcomes[place] is SettleOutcome.ALREADY and settlement.receipt not in known:
                outcomes[place] = SettleOutcome.LOST
            known[settlement.receipt] = None
        while len(known) > 100:
            known.popitem(last=False)
        return Settled(outcomes, taken)


@breaks("RES-1", where=keeps_results)
class KeepsTheLastHundredResults(RecordsDeliveries):
    """Results are kept of the last hundred jobs, as with BullMQ's removeOnComplete, whatever their time."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ended: list[str] = []

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.receipt in self.delivered:
            self._ended.append(self.delivered[settlement.receipt].id)
        return settlement

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        found = super().result(client, queue, job_id, timeout_s)
        return None if job_id in self._ended[:-100] else found


@breaks("SET-3")
class KeepsTheLastThousandDead(PassThrough):
    """The oldest dead letters are dropped where there are more than a thousand, as in a capped set."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        if any(isinstance(settlement, Dead) for settlement in settlements):
            client, queue = consumer.client.inner, consumer.queue
            letters = client.dead_letters(queue, limit=client.counts(queue).dead)
            client.discard(queue, [letter.id for letter in letters[:-1000]])
        return answer


@breaks("RCV-1")
class HoldsSixtyFourAtMost(PassThrough):
    """A consumer with 64 jobs in flight gets no more, whatever it asks for, as with a forgotten prefetch."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._held: dict[BrokenConsumer, set[str]] = {}

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._held.setdefault(consumer, set()).update(delivery.receipt for delivery in deliveries)
        return deliveries

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        room = 64 - len(self._held.get(consumer, ()))
        return super().receive(consumer, min(max_jobs, room), timeout_s) if room > 0 else []

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        held = self._held.setdefault(consumer, set())
        held.difference_update(settlement.receipt for settlement in settlements)
        return super().settle(consumer, settlements, max(0, min(take, 64 - len(held))))


@breaks("PUB-4")
class SendsTheLastChunkFirst(PassThrough):
    """A batch is sent in chunks of a thousand on several connections, and the last arrives first."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        chunks = [messages[at : at + 1000] for at in range(0, max(1, len(messages)), 1000)]
        answers = [super(SendsTheLastChunkFirst, self).publish(client, queue, each) for each in chunks[::-1]]
        return [outcome for answer in answers[::-1] for outcome in answer]


@breaks("SET-4")
class ClosingReleasesTheFirstHundred(RecordsDeliveries):
    """A consumer that closes gives back a hundred jobs, and the rest waits for its leases to end."""

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        held = [receipt for receipt in self.delivered if consumer in self.holders(receipt)]
        if len(held) <= 100:
            super().close_consumer(consumer)

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._holders: dict[str, BrokenConsumer] = {}

    def holders(self, receipt: str) -> list[BrokenConsumer]:
        """The consumer that holds a receipt, if any does."""
        return [self._holders[receipt]] if receipt in self._holders else []

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._holders.update((delivery.receipt, consumer) for delivery in deliveries)
        return super().incoming(consumer, deliveries)

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        self._holders.pop(settlement.receipt, None)
        return settlement
