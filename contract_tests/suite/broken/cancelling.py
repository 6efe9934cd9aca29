"""Faults of cancelling jobs."""

from collections.abc import Callable, Sequence
from functools import partial

from ...ports import (
    Ack,
    Cancel,
    CancelOutcome,
    JobResult,
    JobStatus,
    Message,
    Release,
    ResultStatus,
    Settled,
    Settlement,
    SettleOutcome,
)
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough

breaks_cancel = partial(breaks, where=lambda capabilities: capabilities.cancel)


@breaks_cancel("CAN-1")
class SaysDoneOfWhatWasCancelled(PassThrough):
    """A cancelled job is taken out as if it were done, and its result says that it is."""

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        found = super().result(client, queue, job_id, timeout_s)
        is_cancelled = found is not None and found.status is ResultStatus.CANCELLED
        return JobResult(ResultStatus.DONE) if is_cancelled else found


@breaks_cancel("CAN-1")
class ForgetsWhatWasCancelled(PassThrough):
    """A cancelled job is dropped like a purged one: nobody can tell what became of it."""

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        found = super().result(client, queue, job_id, min(timeout_s, 0.2))
        return None if found is not None and found.status is ResultStatus.CANCELLED else found

    def status(self, client: BrokenBackend, queue: str, job_id: str) -> JobStatus:
        found = super().status(client, queue, job_id)
        return JobStatus.UNKNOWN if found is JobStatus.CANCELLED else found


@breaks_cancel("CAN-1")
class CancelsNothingThatIsDelayed(PassThrough):
    """A cancel looks among the jobs that are ready; of another it says that it is cancelled, and it comes."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.delayed: set[str] = set()

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if message.delay_s > 0:
            self.delayed.add(message.id)
        return message

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        ready = [id_ for id_ in ids if id_ not in self.delayed]
        found = dict(zip(ready, super().cancel(client, queue, ready, result_ttl_s), strict=True))
        return [found.get(id_, CancelOutcome.CANCELLED) for id_ in ids]


@breaks_cancel("CAN-1")
class CancelsThoseBehindAsWell(PassThrough):
    """A cancel cuts the queue off at the job: what waits behind the first is dropped with it."""

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        outcomes = super().cancel(client, queue, ids, result_ttl_s)
        if CancelOutcome.CANCELLED in outcomes:
            client.inner.purge(queue)
        return outcomes


@breaks_cancel("CAN-1")
class RemembersACancelForTheId(PassThrough):
    """The mark of a cancel stays with the id: a new job of that id is said to be cancelled."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.marked: set[str] = set()

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        outcomes = super().cancel(client, queue, ids, result_ttl_s)
        ends = zip(ids, outcomes, strict=True)
        self.marked |= {id_ for id_, outcome in ends if outcome is CancelOutcome.CANCELLED}
        return outcomes

    def status(self, client: BrokenBackend, queue: str, job_id: str) -> JobStatus:
        return JobStatus.CANCELLED if job_id in self.marked else super().status(client, queue, job_id)


@breaks_cancel("CAN-2")
class TellsNoConsumer(PassThrough):
    """The request is kept, and no extension tells the consumer of it."""

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        told = {SettleOutcome.CANCELLED: SettleOutcome.OK}
        return [told.get(outcome, outcome) for outcome in super().extend(consumer, receipts)]


@breaks_cancel("CAN-2")
class TellsOfAllItHolds(PassThrough):
    """That one job is to be cancelled is told of every job of the consumer."""

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        outcomes = super().extend(consumer, receipts)
        told = SettleOutcome.CANCELLED
        return outcomes if told not in outcomes else [told] * len(outcomes)


@breaks_cancel("CAN-2")
class TellsOnlyOnce(PassThrough):
    """A consumer is told once; if the answer is lost, or comes too early, it never learns of it."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.told: set[str] = set()

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        outcomes = []
        for receipt, outcome in zip(receipts, super().extend(consumer, receipts), strict=True):
            is_known = outcome is SettleOutcome.CANCELLED and receipt in self.told
            if outcome is SettleOutcome.CANCELLED:
                self.told.add(receipt)
            outcomes.append(SettleOutcome.OK if is_known else outcome)
        return outcomes


class Asks(RecordsDeliveries):
    """Records which jobs in flight are asked to be cancelled, and keeps that from the adapter inside."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.asked: set[str] = set()

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        outcomes = []
        for id_ in ids:
            if client.inner.status(queue, id_) is JobStatus.RUNNING:
                self.asked.add(id_)
                outcomes.append(CancelOutcome.REQUESTED)
            else:
                outcomes += super().cancel(client, queue, [id_], result_ttl_s)
        return outcomes

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        return [
            SettleOutcome.CANCELLED if outcome is SettleOutcome.OK and self.is_asked(receipt) else outcome
            for receipt, outcome in zip(receipts, super().extend(consumer, receipts), strict=True)
        ]

    def is_asked(self, receipt: str) -> bool:
        """Whether the job of a receipt is asked to be cancelled."""
        delivery = self.delivered.get(receipt)
        return delivery is not None and delivery.id in self.asked

    def overruled(self, settlement: Settlement) -> bool:
        """Whether a settlement of a job that is asked to be cancelled ends it as cancelled."""
        return not isinstance(settlement, Ack | Cancel) and self.is_asked(settlement.receipt)

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        overruled = [self.overruled(settlement) for settlement in settlements]
        sent = [
            Cancel(settlement.receipt) if is_overruled else settlement
            for settlement, is_overruled in zip(settlements, overruled, strict=True)
        ]
        outcomes, taken = super().settle(consumer, sent, take)
        for settlement in settlements:
            if (delivery := self.delivered.get(settlement.receipt)) is not None:
                self.asked.discard(delivery.id)
        return Settled(
            [
                SettleOutcome.CANCELLED if is_overruled and outcome is SettleOutcome.OK else outcome
                for outcome, is_overruled in zip(outcomes, overruled, strict=True)
            ],
            taken,
        )


@breaks_cancel("CAN-3")
class RetriesWhatWasCancelled(Asks):
    """Only the consumer obeys a cancel: what it settles otherwise, not knowing of it, is retried or dead."""

    def overruled(self, settlement: Settlement) -> bool:
        return False


@breaks_cancel("CAN-3")
class ReleasesWhatWasCancelled(Asks):
    """A retry and a death end such a job as cancelled, and a release gives it back."""

    def overruled(self, settlement: Settlement) -> bool:
        return not isinstance(settlement, Release) and super().overruled(settlement)


@breaks_cancel("CAN-3")
class CancelsWhatIsDone(Asks):
    """An ack of a job that was asked to be cancelled is dropped, with what it gave back."""

    def overruled(self, settlement: Settlement) -> bool:
        is_ack = isinstance(settlement, Ack) and self.is_asked(settlement.receipt)
        return is_ack or super().overruled(settlement)


@breaks_cancel("CAN-3")
class DeliversAgainWhatDied(Asks):
    """The request ends with the lease: the job of a consumer that died is delivered once more."""


@breaks_cancel("CAN-4")
class SaysCancelledOfWhatRuns(PassThrough):
    """Who cancels a running job is told that it is cancelled, while it runs on."""

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        said = {CancelOutcome.REQUESTED: CancelOutcome.CANCELLED}
        return [said.get(each, each) for each in super().cancel(client, queue, ids, result_ttl_s)]


@breaks_cancel("CAN-4")
class ASecondCancelIsTooLate(PassThrough):
    """A cancel that is repeated, as its answer was lost, is told that it came too late."""

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        before = client.inner.results(queue, ids)
        outcomes = super().cancel(client, queue, ids, result_ttl_s)
        return [
            CancelOutcome.TOO_LATE if id_ in before else outcome
            for id_, outcome in zip(ids, outcomes, strict=True)
        ]


@breaks_cancel("CAN-4")
class CancelsInPagesOfAThousand(PassThrough):
    """Of a large batch, the first thousand jobs are cancelled, and of the others it is only said."""

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        outcomes = super().cancel(client, queue, ids[:1000], result_ttl_s)
        return outcomes + [CancelOutcome.CANCELLED] * (len(ids) - 1000)
