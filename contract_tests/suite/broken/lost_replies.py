"""Faults of requests that the broker carried out, and whose answer was lost on the way back."""

from collections.abc import Callable, Sequence
from typing import TypeVar

from ...ports import (
    Ack,
    JobResult,
    Message,
    PublishOutcome,
    PublishStatus,
    ResultStatus,
    Settled,
    Settlement,
    SettleOutcome,
)
from .administration import keeps_results
from .fault_bases import DuplicatesJobs, RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough
from .publishing import dedupes

AnswerT = TypeVar("AnswerT")


class LosesReplies(PassThrough):
    """Its connection can lose a reply; what derives from it repeats the request blindly then."""

    _cut = False

    def cut_reply(self, client: BrokenBackend) -> bool:
        self._cut = True
        return True

    def repeated(self, call: Callable[[], AnswerT]) -> AnswerT:
        """Make a call; if its reply is lost, once more."""
        answer = call()
        if not self._cut:
            return answer
        self._cut = False
        return call()


@breaks("PUB-1", where=dedupes)
class RepeatsAPublish(LosesReplies):
    """A publish whose reply was lost is repeated, and its own job is answered as a duplicate."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        publish = super().publish
        return self.repeated(lambda: publish(client, queue, messages))


@breaks("CON-1")
class RejectsWhatItSent(LosesReplies):
    """A publish whose reply was lost is answered REJECTED, though the job is in the queue."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = super().publish(client, queue, messages)
        if self._cut:
            self._cut = False
            return [PublishOutcome(each.id, PublishStatus.REJECTED) for each in messages]
        return outcomes


@breaks("CON-1")
class LosesWhatALostReplyTook(LosesReplies):
    """Jobs that were leased with a settlement whose reply was lost stay leased for nobody."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        settle = super().settle
        first: list[Settled] = []

        def call() -> Settled:
            first.append(settle(consumer, settlements, take))
            return first[-1]

        answer = self.repeated(call)
        return Settled(first[0].outcomes, answer.deliveries)


@breaks("CON-1")
class ForgetsASettlementWithItsReply(LosesReplies):
    """A settlement whose reply was lost is repeated, and answered LOST, though it counted."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        was_cut, self._cut = self._cut and bool(settlements), False
        answer = super().settle(consumer, settlements, 0 if was_cut else take)
        return Settled([SettleOutcome.LOST] * len(settlements), []) if was_cut else answer


@breaks("DLQ-2")
class RepeatsARedrive(LosesReplies):
    """A redrive whose reply was lost is repeated, and says that it found none."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        redrive = super().redrive
        return self.repeated(lambda: redrive(client, queue, ids))


@breaks("ADM-2")
class RepeatsAPurge(LosesReplies):
    """A purge whose reply was lost is repeated, and says that nothing waited."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        purge = super().purge
        return self.repeated(lambda: purge(client, queue))


@breaks("ADM-3")
class RepeatsADelete(LosesReplies):
    """A delete whose reply was lost is repeated, and says that there is no such queue."""

    def delete(self, client: BrokenBackend, queue: str) -> None:
        delete = super().delete
        self.repeated(lambda: delete(client, queue))


@breaks("CON-1")
class RepeatsAPublishAsAnotherJob(LosesReplies, DuplicatesJobs):
    """A publish whose reply was lost is repeated by a broker's client that knows no ids: two jobs run."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = super().publish(client, queue, messages)
        if self._cut:
            self._cut = False
            for message in messages:
                self.put_copy(client, queue, message)
        return outcomes


@breaks("RES-2", where=keeps_results)
class StoresResultsOneStepLater(RecordsDeliveries):
    """A result is stored by the next call after the ack: who asks in between finds none."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._hidden: set[str] = set()

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        self._hidden.clear()
        answer = super().settle(consumer, settlements, take)
        acked = {each.receipt for each in settlements if isinstance(each, Ack)} & self.delivered.keys()
        self._hidden |= {self.delivered[receipt].id for receipt in acked}
        return answer

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        found = super().result(client, queue, job_id, timeout_s)
        return None if found and found.status is ResultStatus.DONE and job_id in self._hidden else found
