"""Faults of dead letters that are kept for a time."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...ports import (
    Capabilities,
    Dead,
    DeadLetter,
    Message,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    Settlement,
)
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


def removes_dead_letters(capabilities: Capabilities) -> bool:
    """Only an adapter that removes dead letters can do it wrong."""
    return capabilities.dead_ttl


def removes_them_exactly(capabilities: Capabilities) -> bool:
    """Likewise, if each goes at its own time."""
    return capabilities.exact_dead_ttl


def has_free_ids(capabilities: Capabilities) -> bool:
    """Likewise, if it refuses ids that are taken."""
    return capabilities.dead_ttl and capabilities.dedupe


@breaks("DLQ-5", where=removes_dead_letters)
class DeadLettersNeverExpire(PassThrough):
    """The time of a dead letter is ignored, and it stays for ever."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return settlement._replace(ttl_s=None) if isinstance(settlement, Dead) else settlement


@breaks("DLQ-5", where=removes_dead_letters)
class DeadLettersExpireAtOnce(PassThrough):
    """The seconds for which a dead letter is kept are taken for milliseconds."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Dead) and settlement.ttl_s is not None:
            return settlement._replace(ttl_s=settlement.ttl_s / 1000)
        return settlement


@breaks("DLQ-5", where=removes_dead_letters)
class EveryDeadLetterExpires(PassThrough):
    """A dead letter without a time is kept for as long as the one before it."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._last_s: float | None = None

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if not isinstance(settlement, Dead):
            return settlement
        self._last_s = self._last_s if settlement.ttl_s is None else settlement.ttl_s
        return settlement._replace(ttl_s=self._last_s)


class _KnowsTimes(RecordsDeliveries):
    """Knows which jobs died for a time, by their ids, and until when their letters are kept."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.until: dict[str, float] = {}
        self.ttls: dict[str, float] = {}

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Dead) and settlement.ttl_s is not None:
            id_ = self.delivered[settlement.receipt].id
            self.until[id_], self.ttls[id_] = self.now() + settlement.ttl_s, settlement.ttl_s
        return settlement


@breaks("DLQ-5", where=removes_dead_letters)
class ExpiredDeadLettersAreCounted(_KnowsTimes):
    """The count goes down only by redrives and discards."""

    def counts(self, client: BrokenBackend, queue: str) -> QueueCounts:
        counts = super().counts(client, queue)
        expired = sum(until <= self.now() for until in self.until.values())
        return replace(counts, dead=counts.dead + expired)


@breaks("DLQ-5", where=has_free_ids)
class ExpiredDeadLettersKeepTheirIds(_KnowsTimes):
    """A job can't be published again though its dead letter is gone."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = super().publish(client, queue, [each for each in messages if each.id not in self.until])
        found = iter(outcomes)
        return [
            PublishOutcome(each.id, PublishStatus.DUPLICATE) if each.id in self.until else next(found)
            for each in messages
        ]


@breaks("DLQ-5", where=removes_dead_letters)
class ASecondDeathHasTheTimeOfTheFirst(_KnowsTimes):
    """The time of a dead letter stays with its job when that is redriven."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Dead) and settlement.ttl_s is None:
            return settlement._replace(ttl_s=self.ttls.get(self.delivered[settlement.receipt].id))
        return super().settling(consumer, settlement)


@breaks("DLQ-5", where=removes_them_exactly)
class PagesCountWhatHasExpired(_KnowsTimes):
    """An offset counts letters whose time is over, so that a page leaves out others."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        expired = sum(until <= self.now() for until in self.until.values())
        return super().dead_letters(client, queue, limit, offset + expired if offset else 0)
