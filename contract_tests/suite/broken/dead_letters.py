"""Faults of dead letters."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from ...ports import Ack, Dead, DeadLetter, Delivery, Failure, Message, Retry, Settlement
from .fault_bases import DuplicatesJobs, RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("DLQ-1")
class ListingConsumes(PassThrough):
    """Dead letters are listed by taking them off their queue."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        letters = super().dead_letters(client, queue, limit, offset)
        client.inner.discard(queue, [letter.id for letter in letters])
        return letters


@breaks("DLQ-1")
class ListsNewestFirst(PassThrough):
    """Dead letters are listed newest first."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        newest_first = super().dead_letters(client, queue, 1000, 0)[::-1]
        return newest_first[offset : offset + limit]


@breaks("DLQ-1")
class KnowsNoOffset(PassThrough):
    """A listing always begins with the first dead letter."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        return super().dead_letters(client, queue, limit, 0)


@breaks("DLQ-2")
class RedriveKeepsBudgets(RecordsDeliveries):
    """A redriven job goes on where it died, and dies again at its first failure."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._spent: dict[str, int] = {}

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Dead) and settlement.receipt in self.delivered:
            delivery = self.delivered[settlement.receipt]
            self._spent[delivery.id] = delivery.attempt - 1
        return settlement

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        spent = [each._replace(attempt=each.attempt + self._spent.get(each.id, 0)) for each in deliveries]
        return super().incoming(consumer, spent)


@breaks("DLQ-2")
class RedriveKeepsTheCrashes(RecordsDeliveries):
    """A redriven job has its crashes still on record."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._crashes: dict[str, int] = {}

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        for letter in client.inner.dead_letters(queue, limit=1000):
            self._crashes[letter.id] = letter.crashes
        return super().redrive(client, queue, ids)

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [each._replace(crashes=each.crashes + self._crashes.get(each.id, 0)) for each in deliveries]


@breaks("SET-3")
class DiesInMilliseconds(PassThrough):
    """The time of death is taken for milliseconds: all died in January 1970."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        letters = super().dead_letters(client, queue, limit, offset)
        died = [datetime.fromtimestamp(letter.died_at.timestamp() / 1000, UTC) for letter in letters]
        return [replace(letter, died_at=moment) for letter, moment in zip(letters, died, strict=True)]


@breaks("SET-3")
class AUsedIdKeepsItsHistory(RecordsDeliveries):
    """Failures are kept by the id, and not removed with an ack: the next job of that id inherits them."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._failures: dict[str, list[Failure]] = {}
        self._inherited: dict[str, list[Failure]] = {}

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        delivery = self.delivered.get(settlement.receipt)
        if delivery and isinstance(settlement, Retry):
            self._failures.setdefault(delivery.id, []).append(Failure(delivery.attempt, settlement.error))
        elif delivery and isinstance(settlement, Ack):
            self._inherited[delivery.id] = self._failures.pop(delivery.id, [])
        return settlement

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        letters = super().dead_letters(client, queue, limit, offset)
        return [
            replace(letter, history=(*self._inherited.get(letter.id, ()), *letter.history))
            for letter in letters
        ]


@breaks("DLQ-2")
class RedriveCopies(DuplicatesJobs):
    """A redriven job is put back, and its dead letter stays."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        letters = client.inner.dead_letters(queue, limit=1000)
        chosen = [letter for letter in letters if ids is None or letter.id in ids]
        for letter in chosen:
            self.put_copy(client, queue, Message(letter.id, letter.body))
        return len(chosen)


@breaks("DLQ-2")
class RedrivesAll(PassThrough):
    """Redrive doesn't care which it was asked for."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        return super().redrive(client, queue, None)


@breaks("DLQ-3")
class DiscardsAll(PassThrough):
    """Discard doesn't care which it was asked for."""

    def discard(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        return super().discard(client, queue, None)


@breaks("DLQ-4")
class KeepsTheDeadInTheClient(RecordsDeliveries):
    """Dead letters live in the memory of the client that buried them, and go with it."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._buried: list[tuple[BrokenBackend, str, str]] = []

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Dead) and settlement.receipt in self.delivered:
            id_ = self.delivered[settlement.receipt].id
            self._buried.append((consumer.client, consumer.queue, id_))
        return settlement

    def close(self, client: BrokenBackend) -> None:
        for owner, queue, id_ in self._buried:
            if owner is client:
                client.inner.discard(queue, [id_])
        self._buried.clear()
        super().close(client)
