"""Faults that show when two callers do the same at once: each looks first, and acts on what it saw."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

from ...domain import Queue
from ...domain.errors import BackendError, QueueConflict, QueueNotFound
from ...ports import (
    Ack,
    Delivery,
    JobStatus,
    Message,
    PublishOutcome,
    PublishStatus,
    Release,
    Settled,
    Settlement,
    SettleOutcome,
)
from .fault_bases import DuplicatesJobs
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough
from .publishing import dedupes

_GAP_S = 0.002
"""How long what was seen is believed before it is acted on."""


class CountsCallers(DuplicatesJobs):
    """Knows how many callers are in a call at once."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._counter = threading.Lock()
        self._inside = 0

    @contextmanager
    def inside(self) -> Iterator[int]:
        """Be in a call; yields how many others were when it began."""
        with self._counter:
            others = self._inside
            self._inside += 1
        try:
            time.sleep(_GAP_S)
            yield others
        finally:
            with self._counter:
                self._inside -= 1


@breaks("PUB-5", where=dedupes)
class TwoPublishersOfOneId(DuplicatesJobs):
    """Whether an id is live is looked up before it is written, so that two publishers both write it."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        unknown = {
            message.id
            for message in messages
            if client.inner.status(queue, message.id) in (JobStatus.UNKNOWN, JobStatus.DONE)
        }
        time.sleep(_GAP_S)
        outcomes = super().publish(client, queue, messages)
        seen: set[str] = set()
        for place, message in enumerate(messages):
            is_duplicate = outcomes[place].status is PublishStatus.DUPLICATE
            if is_duplicate and message.id in unknown and message.id not in seen:
                self.put_copy(client, queue, message)
                outcomes[place] = PublishOutcome(message.id, PublishStatus.ACCEPTED)
            seen.add(message.id)
        return outcomes


@breaks("SET-1")
class TwoThreadsSettleOneReceipt(PassThrough):
    """Whether a receipt is held is looked up before it is settled: two threads are both told OK."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._settled: set[str] = set()

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        receipts = [settlement.receipt for settlement in settlements]
        fresh = {each for each in receipts if each not in self._settled and receipts.count(each) == 1}
        time.sleep(_GAP_S if settlements and not take else 0.0)
        outcomes, taken = super().settle(consumer, settlements, take)
        for place, receipt in enumerate(receipts):
            if outcomes[place] is SettleOutcome.ALREADY and receipt in fresh:
                outcomes[place] = SettleOutcome.OK
        self._settled.update(receipts)
        return Settled(outcomes, taken)


def _dead_ids(client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> list[str]:
    """The ids of the dead jobs: all, or those among ``ids``."""
    dead = [letter.id for letter in client.inner.dead_letters(queue, limit=10_000)]
    return dead if ids is None else [id_ for id_ in dict.fromkeys(ids) if id_ in dead]


@breaks("DLQ-2")
class TwoRedrivesCountTwice(PassThrough):
    """The dead are counted before they are moved: of two redrives both say that they moved them."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        chosen = _dead_ids(client, queue, ids)
        time.sleep(_GAP_S)
        super().redrive(client, queue, chosen)
        return len(chosen)


@breaks("DLQ-2")
class TwoRedrivesCopy(DuplicatesJobs):
    """The dead are read, published anew and then removed: of two redrives both publish them."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        dead = client.inner.dead_letters(queue, limit=10_000)
        chosen = dead if ids is None else [letter for letter in dead if letter.id in ids]
        time.sleep(_GAP_S)
        moved = super().redrive(client, queue, [letter.id for letter in chosen])
        for letter in chosen[moved:]:
            self.put_copy(client, queue, Message(letter.id, letter.body))
        return len(chosen)


@breaks("DLQ-3")
class TwoDiscardsCountTwice(PassThrough):
    """The dead are counted before they are dropped: of two discards both say that they dropped them."""

    def discard(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        chosen = _dead_ids(client, queue, ids)
        time.sleep(_GAP_S)
        super().discard(client, queue, chosen)
        return len(chosen)


@breaks("ADM-1")
class TwoDeclaresAtOnceFail(CountsCallers):
    """Of two processes that declare a queue at once, one fails with the table's unique constraint."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        with self.inside() as others:
            if others:
                raise BackendError("UNIQUE constraint failed: queue.name")
            super().declare(client, queue)


@breaks("ADM-1")
class TwoDeclaresEmptyTheQueue(PassThrough):
    """Of two that declare a queue at once, the later makes it anew, and drops what came meanwhile."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        try:
            client.inner.counts(queue.name)
            is_new = False
        except QueueNotFound:
            is_new = True
        time.sleep(_GAP_S)
        super().declare(client, queue)
        if is_new:
            client.inner.purge(queue.name)


@breaks("ADM-1", where=lambda capabilities: capabilities.stack or capabilities.priority)
class TwoDeclaresOfTwoKinds(PassThrough):
    """Of two that declare a queue as two kinds at once, both are told that it is as they asked."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        try:
            client.inner.counts(queue.name)
        except QueueNotFound:
            time.sleep(_GAP_S)
            with suppress(QueueConflict):
                super().declare(client, queue)
        else:
            super().declare(client, queue)


@breaks("RCV-3")
class TwoTakersSeeOneJob(PassThrough):
    """Jobs are selected, and marked as taken later: two who take at once both get one, without row locks."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._takes = 0
        self._latest: list[Delivery] = []

    def taking(self, consumer: BrokenConsumer, take: Callable[[], list[Delivery]]) -> list[Delivery]:
        """Take, and see what another took meanwhile."""
        before = self._takes
        time.sleep(_GAP_S / 4)
        came = take()
        if self._takes > before:
            consumer.inner.settle([Release(delivery.receipt) for delivery in came])
            return self._latest
        if came:
            self._takes += 1
            self._latest = came[:1]
        return came

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        receive = super().receive
        return self.taking(consumer, lambda: receive(consumer, max_jobs, timeout_s))


@breaks("ADM-3")
class APurgeTakesWhatIsTakenMeanwhile(PassThrough):
    """Purge lists what waits and then drops it, and with it what was delivered in between."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._purging = 0

    def purge(self, client: BrokenBackend, queue: str) -> int:
        waiting = client.inner.counts(queue).waiting
        self._purging += 1
        time.sleep(_GAP_S)
        super().purge(client, queue)
        self._purging -= 1
        return waiting

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        if self._purging:
            consumer.inner.settle([Ack(delivery.receipt) for delivery in deliveries])
        return deliveries
