"""Faults of settling."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...ports import (
    Ack,
    Dead,
    DeadLetter,
    Delivery,
    Message,
    Release,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("SET-1")
class AckedJobsComeBack(PassThrough):
    """An ack is answered well and has no effect: the job is delivered again."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return Release(settlement.receipt) if isinstance(settlement, Ack) else settlement


@breaks("SET-1")
class ASecondAckIsOk(PassThrough):
    """Settling again is answered as if it had taken effect."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = super().settle(consumer, settlements, take)
        ok = {SettleOutcome.ALREADY: SettleOutcome.OK}
        return Settled([ok.get(outcome, outcome) for outcome in outcomes], taken)


@breaks("SET-1")
class AStaleReceiptEndsTheBatch(PassThrough):
    """Of a batch of settlements, those behind one that isn't OK are not looked at."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes: list[SettleOutcome] = []
        for settlement in settlements:
            outcomes += super().settle(consumer, [settlement], 0).outcomes
            if outcomes[-1] is not SettleOutcome.OK:
                break
        rest = [SettleOutcome.LOST] * (len(settlements) - len(outcomes))
        return Settled(outcomes + rest, super().settle(consumer, [], take).deliveries)


@breaks("SET-1")
class SettlingNothingTakesNothing(PassThrough):
    """Without settlements, a call that settles and takes returns at once."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        return super().settle(consumer, settlements, take) if settlements else Settled([], [])


@breaks("SET-1")
class SettlesByKind(PassThrough):
    """A batch of settlements is sorted by what they do, and so are its answers."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        return super().settle(consumer, sorted(settlements, key=lambda each: type(each).__name__), take)


@breaks("SET-2", "RTY-2")
class RetriesAtOnce(PassThrough):
    """The delay of a retry is ignored."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return settlement._replace(delay_s=0.0) if isinstance(settlement, Retry) else settlement


@breaks("SET-2", "RTY-1", "I6")
class CountsNoAttempts(PassThrough):
    """A retry puts the job back as it was published: every attempt is the first."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [delivery._replace(attempt=1) for delivery in deliveries]


class Listing(PassThrough):
    """Lists dead letters otherwise than they are."""

    def show(self, letter: DeadLetter) -> DeadLetter:
        """What becomes of a letter."""
        return letter

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        return [self.show(letter) for letter in super().dead_letters(client, queue, limit, offset)]


@breaks("SET-3")
class DropsTheReason(Listing):
    """A dead letter doesn't say why the job was given up."""

    def show(self, letter: DeadLetter) -> DeadLetter:
        return replace(letter, reason="")


@breaks("SET-3")
class DropsTheBody(Listing):
    """A dead letter has no body."""

    def show(self, letter: DeadLetter) -> DeadLetter:
        return replace(letter, body=b"")


@breaks("SET-3")
class DropsTheHistory(Listing):
    """A dead letter knows its last error only."""

    def show(self, letter: DeadLetter) -> DeadLetter:
        return replace(letter, history=())


@breaks("SET-3")
class CutsLongErrors(Listing):
    """Errors are kept in a column of 2,048 characters, and of a longer one the beginning is lost."""

    def show(self, letter: DeadLetter) -> DeadLetter:
        return replace(letter, error=letter.error[-2048:])


@breaks("SET-3")
class TheDeadVanish(PassThrough):
    """A job that is given up is dropped: there are no dead letters."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return Ack(settlement.receipt) if isinstance(settlement, Dead) else settlement


@breaks("SET-4")
class AReleaseSpendsAnAttempt(PassThrough):
    """A release is a retry without delay."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return Retry(settlement.receipt, 0.0, "released") if isinstance(settlement, Release) else settlement


@breaks("SET-4")
class AReleaseCountsAsACrash(RecordsDeliveries):
    """Whatever is given back counts against the crash budget, as the broker counts deliveries."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._released: list[str] = []

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        came = super().incoming(consumer, deliveries)
        return [each._replace(crashes=each.crashes + self._released.count(each.id)) for each in came]

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Release) and settlement.receipt in self.delivered:
            self._released.append(self.delivered[settlement.receipt].id)
        return settlement


@breaks("SET-4")
class IgnoresTheDelayOfARelease(PassThrough):
    """A release is at once, whatever delay it has."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        return settlement._replace(delay_s=0.0) if isinstance(settlement, Release) else settlement


@breaks("SET-4")
class ALaterReleaseSpendsAnAttempt(PassThrough):
    """A release with a delay is a retry, as only that knows how to come later."""

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        if isinstance(settlement, Release) and settlement.delay_s:
            return Retry(settlement.receipt, settlement.delay_s, "released")
        return settlement


@breaks("SET-4")
class ALaterReleaseForgetsWhatWasSpent(RecordsDeliveries):
    """A later release acks the job and publishes it anew: its attempts and its history are forgotten."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        for settlement, outcome in zip(settlements, answer.outcomes, strict=True):
            if isinstance(settlement, Release) and settlement.delay_s and outcome is SettleOutcome.OK:
                job = self.delivered[settlement.receipt]
                again = Message(job.id, job.body, 0, settlement.delay_s)
                consumer.client.inner.publish(consumer.queue, [again])
        return answer

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        is_later = isinstance(settlement, Release) and settlement.delay_s
        return Ack(settlement.receipt) if is_later else settlement


@breaks("SET-4")
class TheWorkerKeepsWhatIsForLater(PassThrough):
    """A later release is a timer of the worker's: until then the job is in flight, and lost with it."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        later = {each.receipt for each in settlements if isinstance(each, Release) and each.delay_s}
        sent = [each for each in settlements if each.receipt not in later]
        outcomes, taken = super().settle(consumer, sent, take)
        answers = iter(outcomes)
        ok = SettleOutcome.OK
        return Settled([ok if each.receipt in later else next(answers) for each in settlements], taken)


@breaks("SET-4")
class ALaterReleaseIsSettledTwice(RecordsDeliveries):
    """What was released for later may be settled again by its receipt, and is answered OK."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._released: set[str] = set()

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        ok, again = SettleOutcome.OK, self._released & {each.receipt for each in settlements}
        self._released |= {each.receipt for each in settlements if isinstance(each, Release) and each.delay_s}
        pairs = zip(settlements, answer.outcomes, strict=True)
        return Settled([ok if each.receipt in again else told for each, told in pairs], answer.deliveries)


@breaks("SET-4")
class ABatchOfReleasesHasOneDelay(PassThrough):
    """All releases of a batch get the delay of the first."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        first = next((each.delay_s for each in settlements if isinstance(each, Release)), 0.0)
        sent = [each._replace(delay_s=first) if isinstance(each, Release) else each for each in settlements]
        return super().settle(consumer, sent, take)


@breaks("SET-4")
class HasADeliveryLimit(PassThrough):
    """The broker drops a job at its twentieth redelivery, whatever ended those before."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        consumer.inner.settle([Ack(each.receipt) for each in deliveries if each.number > 20])
        return [each for each in deliveries if each.number <= 20]


@breaks("SET-4", "I9")
class CloseKeepsTheJobs(PassThrough):
    """A consumer that closes gives nothing back."""

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        pass


@breaks("SET-4")
class TellsOfJobsThatAreSettled(RecordsDeliveries):
    """What was given out is told for ever, so that jobs that have ended are released."""

    def given_out(self, consumer: BrokenConsumer) -> Sequence[str]:
        return list(self.delivered)
