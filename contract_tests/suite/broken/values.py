"""Faults of values: what is cut, rounded, folded or mixed up on its way."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...domain import Queue
from ...ports import (
    Ack,
    Dead,
    DeadLetter,
    Delivery,
    JobResult,
    Message,
    PublishOutcome,
    PublishStatus,
    Retry,
    Settlement,
)
from .administration import keeps_results
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough
from .publishing import dedupes
from .settling import Listing


@breaks("SET-3")
class ChokesOnSurrogates(PassThrough):
    """An error text that UTF-8 can't encode fails the settlement, and the job comes back for ever."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Dead | Retry):
            settlement.error.encode()
        return settlement


@breaks("SET-3")
class CutsErrorsInTheMiddle(Listing):
    """The error of a dead letter is kept in 2,047 characters and a final NUL."""

    def show(self, letter: DeadLetter) -> DeadLetter:
        return replace(letter, error=letter.error[:2047]) if len(letter.error) == 2048 else letter


class ChangesResults(PassThrough):
    """Keeps results otherwise than they are."""

    def change(self, result: bytes) -> bytes:
        """What is kept of a result."""
        return result

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.result is not None:
            return settlement._replace(result=self.change(settlement.result))
        return settlement


@breaks("RES-1", where=keeps_results)
class CutsLongResults(ChangesResults):
    """Results are kept in a column of 64 KiB, and what is longer is cut off."""

    def change(self, result: bytes) -> bytes:
        return result[:65536]


@breaks("RES-1", where=keeps_results)
class ResultsEndAtANul(ChangesResults):
    """Results are kept as C strings: they end at the first NUL."""

    def change(self, result: bytes) -> bytes:
        return result.partition(b"\0")[0]


@breaks("RES-1", where=keeps_results)
class ResultsAreText(ChangesResults):
    """Results are kept as text: what is no UTF-8 comes back as something else."""

    def change(self, result: bytes) -> bytes:
        return result.decode(errors="replace").encode()


class FilesResults(RecordsDeliveries):
    """Files how jobs ended under a key of its own."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ids: dict[tuple[str, ...], tuple[str, str]] = {}

    def key(self, queue: str, id_: str) -> tuple[str, ...]:
        """Under which key the end of a job is filed."""
        return queue, id_

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.receipt in self.delivered:
            id_ = self.delivered[settlement.receipt].id
            self._ids[self.key(consumer.queue, id_)] = (consumer.queue, id_)
        return settlement

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        of_queue, id_ = self._ids.get(self.key(queue, job_id), (queue, job_id))
        return super().result(client, of_queue, id_, timeout_s)


@breaks("RES-1", where=keeps_results)
class FilesResultsCaseless(FilesResults):
    """The column of ids ignores case, as MySQL's do: two jobs share a result."""

    def key(self, queue: str, id_: str) -> tuple[str, ...]:
        return queue, id_.lower()


@breaks("RES-1", where=keeps_results)
class FilesResultsByTheFirst64(FilesResults):
    """Results are filed by the first 64 characters of an id, as a column of that width keeps them."""

    def key(self, queue: str, id_: str) -> tuple[str, ...]:
        return queue, id_[:64]


@breaks("RES-1", where=keeps_results)
class FilesResultsOfAllQueuesTogether(FilesResults):
    """Results are filed by the id alone, as in Celery's backends: one id in two queues has one result."""

    def key(self, queue: str, id_: str) -> tuple[str, ...]:
        return (id_,)


@breaks("PUB-5", where=dedupes)
class DedupesAcrossQueues(PassThrough):
    """An id is unique in the whole database, as pg-boss's key: another queue's job is a duplicate."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._queues: dict[str, set[str]] = {}

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        taken = {message.id for message in messages if self._queues.get(message.id, set()) - {queue}}
        fresh = [message for message in messages if message.id not in taken]
        answers = iter(super().publish(client, queue, fresh))
        for message in fresh:
            self._queues.setdefault(message.id, set()).add(queue)
        duplicate = PublishStatus.DUPLICATE
        return [
            PublishOutcome(message.id, duplicate) if message.id in taken else next(answers)
            for message in messages
        ]


@breaks("PUB-5", where=dedupes)
class PurgedIdsStayTaken(PassThrough):
    """The ids of purged delayed jobs stay in the set of the known, and can't be published again."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._delayed: set[str] = set()
        self._purged: set[str] = set()

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if message.delay_s:
            self._delayed.add(message.id)
        return message

    def purge(self, client: BrokenBackend, queue: str) -> int:
        self._purged |= self._delayed
        return super().purge(client, queue)

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        answers = super().publish(client, queue, [each for each in messages if each.id not in self._purged])
        found = iter(answers)
        duplicate = PublishStatus.DUPLICATE
        return [
            PublishOutcome(each.id, duplicate) if each.id in self._purged else next(found)
            for each in messages
        ]


@breaks("RES-1", where=keeps_results)
class TimesToKeepAreWholeSeconds(PassThrough):
    """The time to keep a result is cut to whole seconds, so that half a second is none."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.result_ttl_s < 1:
            return settlement._replace(result_ttl_s=0.0)
        return settlement


@breaks("RES-1", where=keeps_results)
class TimesToKeepAreRoundedUp(PassThrough):
    """The time to keep a result is rounded up to whole minutes."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.result_ttl_s < 1:
            return settlement._replace(result_ttl_s=60.0)
        return settlement


@breaks("RES-1", where=keeps_results)
class ResultsAgeFromTheDelivery(RecordsDeliveries):
    """The time to keep a result is counted from the delivery of its job, not from its ack."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._since: dict[str, float] = {}

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        self._since.update((delivery.receipt, self.now()) for delivery in deliveries)
        return super().incoming(consumer, deliveries)

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.receipt in self._since:
            age_s = self.now() - self._since[settlement.receipt]
            return settlement._replace(result_ttl_s=max(0.0, settlement.result_ttl_s - age_s))
        return settlement


def _as_int32(seconds: float) -> float:
    """What a delay becomes as signed 32-bit milliseconds."""
    wrapped = (round(seconds * 1000) + 2**31) % 2**32 - 2**31
    return max(0, wrapped) / 1000


@breaks("DLY-1")
class LongDelaysOverflow(PassThrough):
    """A delay is 32-bit milliseconds, as a timer of Node.js has: one of a month is over at once."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(delay_s=_as_int32(message.delay_s)) if message.delay_s else message


@breaks("SET-2")
class LongRetriesOverflow(PassThrough):
    """The delay of a retry is 32-bit milliseconds: one of a month is over at once."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Retry):
            return settlement._replace(delay_s=_as_int32(settlement.delay_s))
        return settlement


@breaks("DLY-1")
class CapsDelaysAtFifteenMinutes(PassThrough):
    """A delay is cut to 15 minutes, which is the most that SQS has."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(delay_s=min(900.0, message.delay_s))


@breaks("ADM-1")
class RedeclaringDropsTheDead(PassThrough):
    """Declaring a queue again makes its side queues anew: the dead letters are gone."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        client.inner.discard(queue.name)


class ForgetsEnds(RecordsDeliveries):
    """Forgets how the jobs of a queue ended, when a fault says so."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ended: dict[str, set[str]] = {}
        self._forgotten: dict[str, set[str]] = {}

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.receipt in self.delivered:
            id_ = self.delivered[settlement.receipt].id
            self._ended.setdefault(consumer.queue, set()).add(id_)
            self._forgotten.get(consumer.queue, set()).discard(id_)
        return settlement

    def forget_ends(self, queue: str) -> None:
        """Forget the results of a queue."""
        self._forgotten.setdefault(queue, set()).update(self._ended.pop(queue, set()))

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        if job_id in self._forgotten.get(queue, set()):
            return None
        return super().result(client, queue, job_id, timeout_s)


@breaks("ADM-1", where=keeps_results)
class RedeclaringForgetsResults(ForgetsEnds):
    """Declaring a queue again forgets the results of its jobs."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        self.forget_ends(queue.name)


@breaks("ADM-2", where=keeps_results)
class PurgingForgetsResults(ForgetsEnds):
    """Purge drops the results of jobs that are done as well."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        self.forget_ends(queue)
        return super().purge(client, queue)
