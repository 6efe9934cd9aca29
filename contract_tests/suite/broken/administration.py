"""Faults of counting, declaring, purging and deleting."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from ...domain import Queue
from ...domain.errors import QueueConflict, QueueNotFound
from ...ports import (
    Ack,
    Capabilities,
    Finding,
    JobResult,
    Message,
    PublishOutcome,
    QueueCounts,
    Release,
    ResultStatus,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


def counts_in_flight(capabilities: Capabilities) -> bool:
    """Only what is known can be wrong."""
    return capabilities.counts_in_flight


def keeps_results(capabilities: Capabilities) -> bool:
    """Only an adapter that keeps results can keep them too long."""
    return capabilities.results


@breaks("CNT-1", where=counts_in_flight)
class CountsNoneInFlight(PassThrough):
    """What was delivered isn't counted any more."""

    def counts(self, client: BrokenBackend, queue: str) -> QueueCounts:
        return replace(super().counts(client, queue), in_flight=0)


@breaks("CNT-1", "I9")
class CountsNoneDelayed(PassThrough):
    """Delayed jobs aren't counted."""

    def counts(self, client: BrokenBackend, queue: str) -> QueueCounts:
        return replace(super().counts(client, queue), delayed=0)


@breaks("CNT-1", where=counts_in_flight)
class CountsWhatIsInFlightAsReady(PassThrough):
    """What was delivered and isn't settled counts as waiting."""

    def counts(self, client: BrokenBackend, queue: str) -> QueueCounts:
        counts = super().counts(client, queue)
        return replace(counts, ready=counts.ready + (counts.in_flight or 0))


@breaks("ADM-1", where=lambda capabilities: capabilities.stack or capabilities.priority)
class TakesAnyKind(PassThrough):
    """Declaring a queue again as another kind is passed over in silence."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        with suppress(QueueConflict):
            super().declare(client, queue)


@breaks("ADM-1", where=lambda capabilities: capabilities.stack or capabilities.priority)
class HidesTheKindItHas(PassThrough):
    """A conflict doesn't say of which kind the queue is, so that nobody can go on with that."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        try:
            super().declare(client, queue)
        except QueueConflict as error:
            raise QueueConflict(str(error)) from error


@breaks("ADM-1")
class DeclaringEmpties(PassThrough):
    """Declaring a queue makes it anew, and what was in it is gone."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        client.inner.purge(queue.name)


@breaks("ADM-1")
class MixesUpNames(PassThrough):
    """Publish replaces a character that the broker doesn't like, and reaches another queue."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        return super().publish(client, queue.replace(".", "-"), messages)


@breaks("ADM-1")
class ADiagnosisDeclaresAQueue(PassThrough):
    """To see that it can, a diagnosis declares a queue, and leaves it there."""

    def diagnose(self, client: BrokenBackend) -> list[Finding]:
        client.inner.declare(Queue("diagnosis"))
        return super().diagnose(client)


@breaks("PUB-3")
class NoIdsNeedNoQueue(PassThrough):
    """Redriving or discarding no job is answered without asking whether the queue is there."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        return 0 if ids is not None and not ids else super().redrive(client, queue, ids)

    def discard(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        return 0 if ids is not None and not ids else super().discard(client, queue, ids)


@breaks("ADM-2")
class PurgeLeavesTheDelayed(PassThrough):
    """Purge says how many waited, and leaves those that are delayed."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        waiting = client.inner.counts(queue).waiting
        with client.inner.open_consumer(queue) as consumer:
            while ready := consumer.receive(100, 0.0):
                consumer.settle([Ack(delivery.receipt) for delivery in ready])
        return waiting


@breaks("ADM-2")
class PurgeTakesTheDead(PassThrough):
    """Purge drops dead letters as well."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        client.inner.discard(queue)
        return super().purge(client, queue)


@breaks("ADM-2")
class PurgeReportsTheReady(PassThrough):
    """Purge says how many were ready, and doesn't mention the delayed that it dropped."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        ready = client.inner.counts(queue).ready
        super().purge(client, queue)
        return ready


@breaks("ADM-3")
class PurgeCountsFirst(PassThrough):
    """Purge counts, then drops: what is received in between is reported as purged."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        waiting = client.inner.counts(queue).waiting
        time.sleep(0.01)
        super().purge(client, queue)
        return waiting


@breaks("ADM-3")
class DeleteLeavesTheDelayed(PassThrough):
    """Delayed jobs are kept elsewhere, forgotten by a delete, and join the next queue of the name."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._delayed: list[Message] = []
        self._left: dict[str, list[Message]] = {}

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if message.delay_s:
            self._delayed.append(message)
        return message

    def delete(self, client: BrokenBackend, queue: str) -> None:
        super().delete(client, queue)
        self._left[queue], self._delayed = self._delayed, []

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        client.inner.publish(queue.name, self._left.pop(queue.name, []))


@breaks("ADM-3")
class DeleteLeavesWhatIsInFlight(RecordsDeliveries):
    """What is in flight while its queue is deleted joins the next queue of the name when its lease ends."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._left: dict[str, list[Message]] = {}

    def delete(self, client: BrokenBackend, queue: str) -> None:
        super().delete(client, queue)
        held = self.delivered.values()
        self._left[queue] = [Message(each.id, each.body, delay_s=each.deadline_s or 0.1) for each in held]

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        client.inner.publish(queue.name, self._left.pop(queue.name, []))


@breaks("ADM-3", where=keeps_results)
class DeleteLeavesResults(RecordsDeliveries):
    """The results of a deleted queue can still be read, by whoever has the next queue of the name."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._results: dict[str, JobResult] = {}
        self._left: dict[str, JobResult] = {}

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Ack) and settlement.receipt in self.delivered:
            id_ = self.delivered[settlement.receipt].id
            self._results[id_] = JobResult(ResultStatus.DONE, settlement.result)
        return settlement

    def delete(self, client: BrokenBackend, queue: str) -> None:
        super().delete(client, queue)
        self._left, self._results = self._results, {}

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        return super().result(client, queue, job_id, timeout_s) or self._left.get(job_id)


@breaks("ADM-3")
class ALateRetryResurrects(RecordsDeliveries):
    """A retry or a release publishes the job anew before it looks at the receipt."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        for settlement, outcome in zip(settlements, answer.outcomes, strict=True):
            delivery = self.delivered.get(settlement.receipt)
            if isinstance(settlement, Release | Retry) and outcome is SettleOutcome.LOST and delivery:
                with suppress(QueueNotFound):
                    consumer.client.inner.publish(consumer.queue, [Message(delivery.id, delivery.body)])
        return answer
