"""Faults of receiving."""

import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from time import monotonic

from ...ports import Delivery, Message, PublishOutcome, Settled, Settlement, SettleOutcome
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("RCV-1")
class DeliversOneTooMany(PassThrough):
    """Receive returns one job more than it was asked for, where there is one."""

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        return super().receive(consumer, max_jobs + 1, timeout_s)


@breaks("RCV-1")
class GivesUpEarly(PassThrough):
    """Receive waits for a tenth of a second at most, whatever it was asked for."""

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        return super().receive(consumer, max_jobs, min(timeout_s, 0.1))


@breaks("RCV-2")
class FillsItsBatches(PassThrough):
    """A receive that waited for its first job waits on, until its batch is full, as SQS and Kafka can."""

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        began = monotonic()
        came = more = super().receive(consumer, max_jobs, timeout_s)
        has_waited = monotonic() - began > 0.01
        while has_waited and more and len(came) < max_jobs:
            left_s = max(0.0, began + timeout_s - monotonic())
            more = super().receive(consumer, max_jobs - len(came), left_s)
            came = [*came, *more]
        return came


@breaks("LSE-3")
class TakesOneCallAtATime(PassThrough):
    """A consumer's calls share the connection on which a receive waits, and wait for that."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._connections: dict[BrokenConsumer, threading.Lock] = defaultdict(threading.Lock)

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        with self._connections[consumer]:
            return super().receive(consumer, max_jobs, timeout_s)

    def extend(self, consumer: BrokenConsumer, receipts: Sequence[str]) -> list[SettleOutcome]:
        with self._connections[consumer]:
            return super().extend(consumer, receipts)


class WaitsForNotifications(PassThrough):
    """Waits for a condition of its own: what doesn't notify that wakes no receiver."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._condition = threading.Condition()
        self._notified = 0
        self._interrupted: set[BrokenConsumer] = set()

    def notify(self) -> None:
        """Wake all waiting receivers."""
        with self._condition:
            self._notified += 1
            self._condition.notify_all()

    def wait(self, seen: int, give_up: float) -> None:
        """Wait until there was a notification since ``seen``."""
        with self._condition:
            while self._notified == seen and self.now() < give_up:
                self._condition.wait(0.02)

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = self.now() + timeout_s
        while True:
            seen = self._notified
            came = super().receive(consumer, max_jobs, 0.0)
            if came or consumer in self._interrupted or self.now() >= give_up:
                self._interrupted.discard(consumer)
                return came
            self.wait(seen, give_up)

    def interrupt(self, consumer: BrokenConsumer) -> None:
        self._interrupted.add(consumer)
        self.notify()

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        super().close_consumer(consumer)
        self.notify()

    def close(self, client: BrokenBackend) -> None:
        super().close(client)
        self.notify()

    def delete(self, client: BrokenBackend, queue: str) -> None:
        super().delete(client, queue)
        self.notify()


@breaks("RCV-1")
class WaitsBySpinning(WaitsForNotifications):
    """An idle receiver asks again and again without a pause."""

    def wait(self, seen: int, give_up: float) -> None:
        pass


@breaks("RCV-2")
class LooksOncePerTimeout(WaitsForNotifications):
    """No publish wakes a receiver: it looks again when its timeout is over."""


@breaks("RCV-2")
class WakesForAPublishOnly(WaitsForNotifications):
    """A publish wakes a receiver; a release or a redrive does not."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = super().publish(client, queue, messages)
        self.notify()
        return outcomes


@breaks("DLY-2", "LSE-1")
class SleepsThroughWhatIsDue(WakesForAPublishOnly):
    """What someone does wakes a receiver; a delay or a lease that runs out by itself does not."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        settled = super().settle(consumer, settlements, take)
        self.notify()
        return settled

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        redriven = super().redrive(client, queue, ids)
        self.notify()
        return redriven


@breaks("RCV-2")
class CannotBeInterrupted(PassThrough):
    """Interrupt does nothing, so that a stop waits for the timeout of a receive."""

    def interrupt(self, consumer: BrokenConsumer) -> None:
        pass


@breaks("RCV-2")
class ForgetsAnEarlyInterrupt(PassThrough):
    """An interrupt that comes just before a receive is forgotten, and the receive waits on."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._blocked: set[BrokenConsumer] = set()

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        self._blocked.add(consumer)
        try:
            return super().receive(consumer, max_jobs, timeout_s)
        finally:
            self._blocked.discard(consumer)

    def interrupt(self, consumer: BrokenConsumer) -> None:
        if consumer in self._blocked:
            super().interrupt(consumer)


@breaks("RCV-3")
class DeliversTwice(PassThrough):
    """Two receivers that ask one after the other get the same job."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._last: list[Delivery] = []

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        again, self._last = self._last, []
        if again:
            return again
        came = super().receive(consumer, max_jobs, timeout_s)
        self._last = came[:1]
        return came


@breaks("RCV-4")
class ChokesOnBytes(PassThrough):
    """A body that is no UTF-8 raises where it is received, and no other job gets past it."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            delivery.body.decode()
        return deliveries


@breaks("RCV-4")
class KeepsBodiesAsText(PassThrough):
    """Bodies are kept as text: what is no UTF-8 comes back as something else."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(body=message.body.decode(errors="replace").encode())
