"""Faults of the counters of a delivery, and of jobs that were sent ahead."""

from collections.abc import Callable, Sequence

from ...ports import Delivery, Release, Retry, Settled, Settlement
from .fault_registry import breaks
from .pass_through import BrokenConsumer, PassThrough


@breaks("RTY-3")
class ACrashIsNoDelivery(PassThrough):
    """A delivery after a crash has the number of the one before: the number counts what was settled."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [each._replace(number=each.number - each.crashes) for each in deliveries]


class SendsAhead(PassThrough):
    """Takes as many jobs as it may ahead of its caller, and keeps what that didn't ask for yet."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._limit: dict[BrokenConsumer, int] = {}
        self._ahead: dict[BrokenConsumer, list[Delivery]] = {}

    def allow_ahead(self, consumer: BrokenConsumer, limit: int) -> None:
        self._limit[consumer] = limit

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        """What came with a call; more is taken behind its back."""
        if consumer in self._limit and deliveries:
            more = consumer.inner.receive(self._limit[consumer], 0.0)
            self._ahead.setdefault(consumer, []).extend(more)
        return deliveries

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        ahead = self._ahead.get(consumer, [])
        came, ahead[:] = ahead[:take], ahead[take:]
        answer = consumer.inner.settle(settlements, take=take - len(came))
        return Settled(answer.outcomes, [*came, *answer.deliveries])

    def give_back(self, consumer: BrokenConsumer) -> None:
        """Release what the caller wasn't given."""
        consumer.inner.settle([Release(each.receipt) for each in self._ahead.pop(consumer, [])])

    def release_ahead(self, consumer: BrokenConsumer) -> None:
        self.give_back(consumer)


@breaks("RTY-3")
class ChargesWhatWasSentAhead(SendsAhead):
    """A close retries what was on its way, so that jobs spend attempts that nobody was given."""

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        ahead = self._ahead.pop(consumer, [])
        consumer.inner.settle([Retry(each.receipt, 0.0, "closed") for each in ahead])
        super().close_consumer(consumer)


@breaks("SET-4")
class KeepsWhatWasSentAhead(SendsAhead):
    """A consumer that is to release what was sent ahead keeps it, behind a job that takes hours."""

    def release_ahead(self, consumer: BrokenConsumer) -> None:
        pass
