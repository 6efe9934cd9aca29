"""Faults of receiving."""

import threading
from collections.abc import Callable, Sequence

from ...ports import Delivery, Message, PublishOutcome, Settled, Settlement
from .catalogue import breaks
from .sound import BrokenBackend, BrokenConsumer, Sound


@breaks("RCV-1")
class DeliversOneTooMany(Sound):
    """Receive returns one job more than it was asked for, where there is one."""

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        return super().receive(consumer, max_jobs + 1, timeout_s)


@breaks("RCV-1")
class GivesUpEarly(Sound):
    """Receive waits for a tenth of a second at most, whatever it was asked for."""

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        return super().receive(consumer, max_jobs, min(timeout_s, 0.1))


class Waiting(Sound):
    """Waits for a bell of its own: what doesn't ring it wakes nobody."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._bell = threading.Condition()
        self._rung = 0
        self._interrupted: set[BrokenConsumer] = set()

    def ring(self) -> None:
        """Wake all who wait."""
        with self._bell:
            self._rung += 1
            self._bell.notify_all()

    def wait(self, heard: int, give_up: float) -> None:
        """Wait until the bell is rung once more than was heard."""
        with self._bell:
            while self._rung == heard and self.now() < give_up:
                self._bell.wait(0.02)

    def receive(self, consumer: BrokenConsumer, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = self.now() + timeout_s
        while True:
            heard = self._rung
            came = super().receive(consumer, max_jobs, 0.0)
            if came or consumer in self._interrupted or self.now() >= give_up:
                self._interrupted.discard(consumer)
                return came
            self.wait(heard, give_up)

    def interrupt(self, consumer: BrokenConsumer) -> None:
        self._interrupted.add(consumer)
        self.ring()

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        super().close_consumer(consumer)
        self.ring()

    def close(self, client: BrokenBackend) -> None:
        super().close(client)
        self.ring()

    def delete(self, client: BrokenBackend, queue: str) -> None:
        super().delete(client, queue)
        self.ring()


@breaks("RCV-1")
class WaitsBySpinning(Waiting):
    """An idle receiver asks again and again without a pause."""

    def wait(self, heard: int, give_up: float) -> None:
        pass


@breaks("RCV-2")
class LooksOncePerTimeout(Waiting):
    """No publish wakes a receiver: it looks again when its timeout is over."""


@breaks("RCV-2")
class WakesForAPublishOnly(Waiting):
    """A publish wakes a receiver; a release or a redrive does not."""

    def publish(self, client: BrokenBackend, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = super().publish(client, queue, messages)
        self.ring()
        return outcomes


@breaks("DLY-2", "LSE-1")
class SleepsThroughWhatIsDue(WakesForAPublishOnly):
    """What someone does wakes a receiver; a delay or a lease that runs out by itself does not."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        settled = super().settle(consumer, settlements, take)
        self.ring()
        return settled

    def redrive(self, client: BrokenBackend, queue: str, ids: Sequence[str] | None) -> int:
        redriven = super().redrive(client, queue, ids)
        self.ring()
        return redriven


@breaks("RCV-2")
class CannotBeInterrupted(Sound):
    """Interrupt does nothing, so that a stop waits for the timeout of a receive."""

    def interrupt(self, consumer: BrokenConsumer) -> None:
        pass


@breaks("RCV-2")
class ForgetsAnEarlyInterrupt(Sound):
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
class DeliversTwice(Sound):
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
class ChokesOnBytes(Sound):
    """A body that is no UTF-8 raises where it is received, and no other job gets past it."""

    def incoming(self, consumer: BrokenConsumer, deliveries: list[Delivery]) -> list[Delivery]:
        for delivery in deliveries:
            delivery.body.decode()
        return deliveries


@breaks("RCV-4")
class KeepsBodiesAsText(Sound):
    """Bodies are kept as text: what is no UTF-8 comes back as something else."""

    def outgoing(self, client: BrokenBackend, message: Message) -> Message:
        return message._replace(body=message.body.decode(errors="replace").encode())
