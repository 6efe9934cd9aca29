"""Faults of retries and delays."""

from collections.abc import Callable, Sequence
from math import ceil
from time import monotonic

from ...ports import Delivery, Message, PublishOutcome, Settled, Settlement
from .fault_bases import DuplicatesJobs
from .fault_registry import breaks
from .order import prioritizes
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough
from .publishing import accepted

_LOOK_S = 0.02


@breaks("RTY-3")
class CountsNoCrashes(PassThrough):
    """A job that kills its worker comes back for ever, as in dramatiq#383."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [delivery._replace(crashes=0) for delivery in deliveries]


@breaks("RTY-3")
class CountsARetryAsACrash(PassThrough):
    """Every delivery but the first spends crash budget, as the broker counts deliveries."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [delivery._replace(crashes=delivery.number - 1) for delivery in deliveries]


@breaks("RTY-3")
class CountsAWithdrawnRequestAsACrash(PassThrough):
    """What comes just as a consumer withdraws a request that wasn't met is counted as with one that died."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._withdrew: set[BrokenConsumer] = set()

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        answer = super().settle(consumer, settlements, take)
        if len(answer.deliveries) < take:
            self._withdrew.add(consumer)
        return answer

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        if consumer not in self._withdrew or not deliveries:
            return deliveries
        self._withdrew.remove(consumer)
        first, *others = deliveries
        return [first._replace(crashes=first.crashes + 1), *others]


@breaks("RTY-3")
class ACrashSpendsAnAttempt(PassThrough):
    """There is one budget: a crash counts as a failed attempt too."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [each._replace(attempt=each.attempt + each.crashes) for each in deliveries]


@breaks("RTY-3")
class ACrashResetsTheAttempts(PassThrough):
    """Attempts are kept in the consumer's memory: after a crash the first begins again."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        return [each._replace(attempt=1) if each.crashes else each for each in deliveries]


@breaks("DLY-1")
class IsEarly(PassThrough):
    """A delay is cut to whole seconds."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(delay_s=float(int(message.delay_s)))


@breaks("DLY-2")
class IsLate(PassThrough):
    """What is due is looked for every ten seconds."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(delay_s=ceil(message.delay_s / 10) * 10.0)


@breaks("DLY-3")
class DelaysAreAQueue(PassThrough):
    """A delayed job blocks those published after it that are due sooner."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._last_due = 0.0

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if not message.delay_s:
            return message
        self._last_due = max(self._last_due, self.now() + message.delay_s)
        return message._replace(delay_s=self._last_due - self.now())


@breaks("DLY-3")
class HoldsDelayedJobsInTheConsumer(PassThrough):
    """A delayed job is delivered at once, and waits in its consumer's memory, as in celery#6760."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._due: dict[str, float] = {}
        self._held: list[Delivery] = []

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        self._due[message.id] = self.now() + message.delay_s
        return message._replace(delay_s=0.0)

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        everything = self._held + deliveries
        due = [each for each in everything if self._due[each.id] <= self.now()]
        self._held = [each for each in everything if self._due[each.id] > self.now()]
        return due


@breaks("DLY-3")
class HoldsDelayedJobsInThePublisher(PassThrough):
    """A delayed job waits in its publisher's memory, and is sent with the first publish after it is due."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._held: list[tuple[float, Message]] = []

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        held = [(self.now() + each.delay_s, each._replace(delay_s=0.0)) for each in messages]
        everything = self._held + held
        due = [message for moment, message in everything if moment <= self.now()]
        self._held = [(moment, message) for moment, message in everything if moment > self.now()]
        super().publish(client, queue, due)
        return accepted(messages)


@breaks("DLY-3", where=prioritizes)
class AHighPriorityHoldsUpWhatIsDueSooner(PassThrough):
    """Delayed jobs wait in one queue. At its head is the highest priority, also if that is due later."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._delayed: dict[str, tuple[int, float]] = {}
        """By id: the priority, and when it is due."""
        self._held: list[Delivery] = []

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if message.delay_s:
            self._delayed[message.id] = message.priority, self.now() + message.delay_s
        return message

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        while True:
            left_s = max(0.0, give_up - monotonic())
            self._held += super().receive(consumer, max_jobs, min(_LOOK_S, left_s))
            free = [each for each in self._held if not self._is_held_up(each)]
            free.sort(key=lambda each: -self._delayed.get(each.id, (0, 0.0))[0])
            if free or not left_s:
                came = free[:max_jobs]
                self._held = [each for each in self._held if each not in came]
                return came

    def _is_held_up(self, delivery: Delivery) -> bool:
        priority, _ = self._delayed.get(delivery.id, (9, 0.0))
        return any(other > priority and due > self.now() for other, due in self._delayed.values())


@breaks("RCV-3")
class DelaysTwice(DuplicatesJobs):
    """Two workers move the same job when it is due, and it is delivered twice, as in dramatiq#431."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._delayed: set[str] = set()

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        if message.delay_s:
            self._delayed.add(message.id)
        return message

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        came = super().incoming(consumer, deliveries)
        for delivery in came:
            if delivery.id in self._delayed:
                self._delayed.remove(delivery.id)
                self.put_copy(consumer.client, consumer.queue, Message(delivery.id, delivery.body))
        return came
