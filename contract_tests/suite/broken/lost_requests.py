"""Faults of requests that never reached the broker, or that it refused: the answer says otherwise."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

from ...domain.errors import BackendUnavailable
from ...ports import (
    Ack,
    Capabilities,
    Dead,
    JobResult,
    Message,
    PublishOutcome,
    PublishStatus,
    ResultStatus,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from .administration import keeps_results
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer


def publishes_next_jobs(capabilities: Capabilities) -> bool:
    """Whether an ack may name next jobs."""
    return capabilities.then


class LosesRequests(RecordsDeliveries):
    """Its connection can lose a request. What derives from it deals wrongly with that, in one call."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._cut = False

    def cut_request(self, client: BrokenBackend) -> bool:
        self._cut = True
        return True

    def is_lost(self) -> bool:
        """Whether the request that is about to be made is lost; the next isn't."""
        was_cut, self._cut = self._cut, False
        return was_cut


class Refuses(RecordsDeliveries):
    """Its broker can refuse to write. What derives from it deals wrongly with that, in one call."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.refuses = False

    def refuse(self, client: BrokenBackend) -> AbstractContextManager[None]:
        return self._refusing()

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        self.refuses = True
        try:
            yield
        finally:
            self.refuses = False


def _each(messages: Sequence[Message], status: PublishStatus) -> list[PublishOutcome]:
    return [PublishOutcome(message.id, status) for message in messages]


@breaks("PUB-1")
class AcceptsWhatNeverArrived(LosesRequests):
    """The connection breaks under a publish, and the messages count as kept, as in dramatiq#545."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if self.is_lost():
            return _each(messages, PublishStatus.ACCEPTED)
        return super().publish(client, queue, messages)


@breaks("PUB-4")
class RejectsWithoutAReason(LosesRequests):
    """A publish that never arrived is rejected, and nobody learns why."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if self.is_lost():
            return _each(messages, PublishStatus.REJECTED)
        return super().publish(client, queue, messages)


@breaks("PUB-1")
class TakesARefusalForAConfirm(Refuses):
    """The broker says that it can't keep a message, and any word of the broker's counts as a confirm."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if self.refuses:
            return _each(messages, PublishStatus.ACCEPTED)
        return super().publish(client, queue, messages)


@breaks("CON-1")
class SendsLaterWhatItGaveUp(LosesRequests):
    """A publish gives up while the broker is away and raises, but its buffer goes out once that is back."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        lost = self.is_lost()
        outcomes = super().publish(client, queue, messages)
        if lost:
            raise BackendUnavailable("the broker is away: nothing was sent")
        return outcomes


@breaks("RES-2", where=keeps_results)
class KeepsTheResultOfALostAck(LosesRequests):
    """An ack is lost and answered so, but its result was stored before: a run that doesn't count has it."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._results: dict[tuple[str, str], bytes] = {}

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        if not settlements or not self.is_lost():
            return super().settle(consumer, settlements, take)
        for each in settlements:
            if isinstance(each, Ack) and each.result is not None:
                self._results[consumer.queue, self.delivered[each.receipt].id] = each.result
        return Settled([SettleOutcome.LOST] * len(settlements), [])

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        if (queue, job_id) in self._results:
            return JobResult(ResultStatus.DONE, self._results[queue, job_id])
        return super().result(client, queue, job_id, timeout_s)


class _LosesASettlement(LosesRequests):
    """Of a settlement that was lost, it sends another in its place, and says that all is well."""

    loses: type[Settlement]

    def instead(self, settlement: Settlement) -> list[Settlement]:
        """What the broker hears in place of the lost settlement."""
        return []

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        if not any(isinstance(each, self.loses) for each in settlements) or not self.is_lost():
            return super().settle(consumer, settlements, take)
        sent = [other for each in settlements for other in self.instead(each)]
        answer = super().settle(consumer, sent, take)
        return Settled([SettleOutcome.OK] * len(settlements), answer.deliveries)


@breaks("LSE-4")
class SaysThatALostAckCounts(_LosesASettlement):
    """An ack is written into a connection that is gone, and is answered OK: the job runs once more."""

    loses = Ack


@breaks("CON-1")
class AcksThoughItsRetryNeverArrived(_LosesASettlement):
    """A retry is published and lost on the way, and the job is acknowledged all the same: it is gone."""

    loses = Retry

    def instead(self, settlement: Settlement) -> list[Settlement]:
        return [Ack(settlement.receipt)]


@breaks("THEN-1", where=publishes_next_jobs)
class AcksThoughItsNextJobNeverArrived(_LosesASettlement):
    """A next job is lost on the way, and the job before it is acknowledged all the same: the chain ends."""

    loses = Ack

    def instead(self, settlement: Settlement) -> list[Settlement]:
        return [Ack(settlement.receipt)]


@breaks("THEN-4", where=publishes_next_jobs)
class DiesThoughItsNextJobNeverArrived(_LosesASettlement):
    """A next job of a death is lost on the way, and the job is dead all the same: nobody is told."""

    loses = Dead

    def instead(self, settlement: Settlement) -> list[Settlement]:
        return [settlement._replace(then=())] if isinstance(settlement, Dead) else []


@breaks("LSE-3")
class AnExtensionThatIsLostEndsTheLease(LosesRequests):
    """An extension that never arrived is answered LOST, and the consumer forgets the job that it holds."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._forgotten: set[str] = set()

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        if self.is_lost():
            self._forgotten.update(receipts)
        outcomes = super().extend(consumer, receipts)
        return [
            SettleOutcome.LOST if receipt in self._forgotten else outcome
            for receipt, outcome in zip(receipts, outcomes, strict=True)
        ]


@breaks("CON-1")
class ARefusedRedriveLosesTheDead(Refuses):
    """A redrive removes the dead letters first. The broker then refuses to take them, and they are gone."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        if not self.refuses:
            return super().redrive(client, queue, ids)
        super().discard(client, queue, ids)
        raise BackendUnavailable("the broker is full")


@breaks("DLQ-2")
class CountsARedriveThatNeverArrived(LosesRequests):
    """A redrive that never arrived says that it redrove all, by what was listed before."""

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        if self.is_lost():
            return self.counts(client, queue).dead
        return super().redrive(client, queue, ids)


@breaks("DLQ-3")
class CountsADiscardThatNeverArrived(LosesRequests):
    """A discard that never arrived says that it removed all, by what was listed before."""

    def discard(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        if self.is_lost():
            return self.counts(client, queue).dead
        return super().discard(client, queue, ids)


@breaks("ADM-2")
class CountsAPurgeThatNeverArrived(LosesRequests):
    """A purge that never arrived says that it dropped all, by what was counted before."""

    def purge(self, client: BrokenBackend, queue: str) -> int:
        if self.is_lost():
            return self.counts(client, queue).waiting
        return super().purge(client, queue)


@breaks("ADM-3")
class ForgetsADeleteThatNeverArrived(LosesRequests):
    """A delete that never arrived returns as if the queue were gone."""

    def delete(self, client: BrokenBackend, queue: str) -> None:
        if not self.is_lost():
            super().delete(client, queue)
